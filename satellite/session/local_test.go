package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
)

// TestMain is also the client that another user runs.
func TestMain(m *testing.M) {
	if socket := os.Getenv("SESSION_TEST_SOCKET"); socket != "" {
		fmt.Println(openAs(context.Background(), socket, os.Getenv("SESSION_TEST_USER")))
		return
	}
	os.Exit(m.Run())
}

// openAs logs in over a local socket and returns the kind and text of the error.
func openAs(ctx context.Context, socket, user string) string {
	cc, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(ClientCredentials()))
	if err != nil {
		return err.Error()
	}
	defer cc.Close()
	stream, err := pb.NewLoginClient(cc).Open(ctx, &pb.OpenRequest{User: user})
	if err == nil {
		_, err = stream.Recv()
	}
	if err == nil {
		return "opened"
	}
	err = wire.FromStatus(err)
	return fmt.Sprintf("%s: %v", wire.KindOf(err), err)
}

type accountsFake map[string]uint32

func (a accountsFake) ByName(_ context.Context, name string) (desktop.User, error) {
	if uid, ok := a[name]; ok {
		return desktop.User{Name: name, UID: uid, GID: uid, Home: "/nonexistent"}, nil
	}
	return desktop.User{}, errors.New("unknown user")
}

func (a accountsFake) ByUID(ctx context.Context, uid uint32) (desktop.User, error) {
	for name, n := range a {
		if n == uid {
			return a.ByName(ctx, name)
		}
	}
	return desktop.User{}, errors.New("unknown user")
}

// V-90: who logs in is told by the kernel. Only the satellite's own user may
// name somebody else.
func TestPeerCredentials(t *testing.T) {
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o666 {
		t.Fatalf("socket: %v, %v", st.Mode(), err)
	}
	m, err := New(testConfig(filepath.Join(dir, "state"), fake.NewHost(nil)))
	if err != nil {
		t.Fatal(err)
	}
	local := &Local{Manager: m, Accounts: accountsFake{"alice": 4711, "bob": 4712, "own": uint32(os.Geteuid())}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- local.Serve(ctx, l, func(wire.Report) {}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	// Every allowed login ends at the desktop that the user has not.
	const allowed = "not-found: %s has no desktop that could be started"
	tests := map[string]struct {
		uid  int
		user string
		want string
	}{
		"the satellite's user as itself":    {os.Geteuid(), "", fmt.Sprintf(allowed, "own")},
		"the satellite's user for another":  {os.Geteuid(), "alice", fmt.Sprintf(allowed, "alice")},
		"the satellite's user for nobody":   {os.Geteuid(), "zoe", "not-found: no account"},
		"a user as itself":                  {4711, "", fmt.Sprintf(allowed, "alice")},
		"a user by the own name":            {4711, "alice", fmt.Sprintf(allowed, "alice")},
		"a user for another":                {4711, "bob", "bad-request: UID 4711 may not log in as \"bob\""},
		"a user for root's account":         {4711, "own", "bad-request: UID 4711 may not log in as \"own\""},
		"a user for a name that is unknown": {4711, "zoe", "bad-request: UID 4711 may not log in as \"zoe\""},
		"a user without account":            {4999, "", "not-found: UID 4999 has no account"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := ""
			if tt.uid == os.Geteuid() {
				got = openAs(t.Context(), socket, tt.user)
			} else {
				if os.Geteuid() != 0 {
					t.Skip("needs root")
				}
				got = childAs(t, dir, socket, tt.uid, tt.user)
			}
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// childAs runs openAs as another user.
func childAs(t *testing.T, dir, socket string, uid int, user string) string {
	t.Helper()
	self := filepath.Join(dir, "client")
	if _, err := os.Stat(self); err != nil { // the test's own directory is closed to others
		data, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(self, data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), self)
	c.Dir = "/"
	c.Env = []string{"SESSION_TEST_SOCKET=" + socket, "SESSION_TEST_USER=" + user}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("client: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// A path that does not fit, and a left-over socket.
func TestListen(t *testing.T) {
	if _, err := Listen("/tmp/" + strings.Repeat("x", 110)); err == nil || !strings.Contains(err.Error(), "WIN4_VERDE_SAT_SOCKET") {
		t.Errorf("long path: got %v", err)
	}
	path := filepath.Join(t.TempDir(), "s")
	for range 2 {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		l.(*userListener).Listener.(*net.UnixListener).SetUnlinkOnClose(false) // as a program that was killed
		l.Close()
	}
}

// S21: a user who opens connections without end takes none from the others.
func TestLimitUsers(t *testing.T) {
	l := &userListener{perUser: 2, total: 3, users: map[uint32]int{}}
	steps := []struct {
		name string
		uid  uint32
		want bool
	}{
		{"first", 4711, true}, {"second", 4711, true}, {"too many of one user", 4711, false},
		{"another user", 4712, true}, {"too many of all", 4713, false}, {"the satellite's own", uint32(os.Geteuid()), true},
	}
	for _, x := range steps {
		if got := l.take(x.uid); got != x.want {
			t.Errorf("%s: got %v, want %v", x.name, got, x.want)
		}
	}
	l.give(4711)
	if !l.take(4713) {
		t.Error("a place that was given back is not free")
	}
	l.give(4711)
	l.give(4712)
	l.give(4713)
	if l.open != 0 || len(l.users) != 0 {
		t.Errorf("all closed: got %d open, %v", l.open, l.users)
	}
}

package host

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings/address"
)

// peerRig is a satellite with its port for others, and its trust.
type peerRig struct {
	*trusted
	trust *Trust
	peer  *Peer
	homes string
}

func newPeerRig(t *testing.T) *peerRig {
	t.Helper()
	r := &peerRig{trusted: newTrusted(t), homes: t.TempDir()}
	r.trust = r.start()
	reached := make(chan struct{})
	r.peer = NewPeer(PeerConfig{Credentials: r.trust.cfg.Credentials, Version: "1.0", Trust: r.trust.Version,
		Locks: &LockTrial{roots: func() []string { return []string{r.homes} }, free: make(chan struct{}, locksAtOnce)},
		Listen: func(context.Context) (address.Peers, error) { // another port where somebody else was faster
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return address.Peers{}, err
			}
			defer l.Close()
			at := l.Addr().String()
			return address.Peers{Ports: []address.Port{{Listen: at}}, Peer: at}, nil
		},
		May: func(who wire.Identity) (bool, string) { return who.Name == "sat2", "it is " + who.Name },
		Log: zerolog.Nop()})
	r.peer.Connect(func() { close(reached) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.peer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-reached
	return r
}

// dial connects as another satellite.
func (r *peerRig) dial(c *wire.Credentials) pb.PeerClient {
	r.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.peer.Address(), wire.PeerDialOptions(c, r.id.ID)...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cc.Close() })
	return pb.NewPeerClient(cc)
}

func (r *peerRig) credentials(role wire.Role, name string) *wire.Credentials {
	r.t.Helper()
	c, err := r.a.Credentials(role, name, time.Now(), time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func ping(c pb.PeerClient) (*pb.PeerPong, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := c.Ping(ctx, &pb.PeerPing{})
	return p, wire.FromStatus(err)
}

// Issue 5, item 3: satellites talk to each other by their identities. A revoked
// one is refused by the very next call on a connection that is open, and by each
// new one, in words; a master, a stranger and another cluster get nowhere.
func TestPeer(t *testing.T) {
	r := newPeerRig(t)
	two, three := r.credentials(wire.Satellite, "sat2"), r.credentials(wire.Satellite, "sat3")
	open := r.dial(two)
	if p, err := ping(open); err != nil || p.Name != "sat1" || p.Version != "1.0" || p.TrustVersion != 0 {
		t.Fatalf("got %v, %v", p, err)
	}
	if m, err := open.MayMigrate(t.Context(), &pb.MayMigrateRequest{}); err != nil || !m.Allowed || m.Why != "it is sat2" {
		t.Errorf("may migrate: %v, %v", m, err)
	}
	b := r.bundle(4, r.a)
	b.Revoked = []*pb.Revoked{{Id: two.Identity.ID, Why: "superseded: another machine has its place"}}
	if ack := r.send(r.trust, b, r.a); ack.Error != "" {
		t.Fatal(ack)
	}
	for what, c := range map[string]pb.PeerClient{"open": open, "new": r.dial(two)} {
		if _, err := ping(c); wire.KindOf(err) != wire.Revoked || !strings.Contains(err.Error(), "another machine has its place") {
			t.Errorf("%s connection: got %v, want the refusal", what, err)
		}
	}
	if p, err := ping(r.dial(three)); err != nil || p.TrustVersion != 4 {
		t.Errorf("who is not revoked: %v, %v", p, err)
	}
	for what, c := range map[string]*wire.Credentials{"a master": r.credentials(wire.Master, "master"), "another cluster": newPeerRigCredentials(t)} {
		if _, err := ping(r.dial(c)); wire.KindOf(err) != wire.Unreachable {
			t.Errorf("%s: got %v, want no connection", what, err)
		}
	}
}

func newPeerRigCredentials(t *testing.T) *wire.Credentials {
	t.Helper()
	x := newTrusted(t)
	c, err := wire.Load(x.dir, wire.Satellite)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Who calls knows whom it wants: another satellite's certificate is not enough.
func TestPeerIsSomebodyElse(t *testing.T) {
	r := newPeerRig(t)
	cc, err := grpc.NewClient("passthrough:///"+r.peer.Address(), wire.PeerDialOptions(r.credentials(wire.Satellite, "sat2"), wire.NewUUID())...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := ping(pb.NewPeerClient(cc)); err == nil || !strings.Contains(err.Error(), "answers where") {
		t.Errorf("got %v", err)
	}
}

// A lock that is held elsewhere is refused, as it must be; nothing but such a
// file is ever opened.
func TestPeerTryLock(t *testing.T) {
	r := newPeerRig(t)
	c := r.dial(r.credentials(wire.Satellite, "sat2"))
	name := lockPrefix + "sat2-ABCDEFGHIJ"
	writeTest(t, filepath.Join(r.homes, name), "content", 0o644)
	held, err := os.OpenFile(filepath.Join(r.homes, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	try := func(file, content string) (*pb.TryLockReply, error) {
		out, err := c.TryLock(t.Context(), &pb.TryLockRequest{File: file, Content: content})
		return out, wire.FromStatus(err)
	}
	if got, err := try(name, "content"); err != nil || !got.Found || got.Locked || got.Error != "" {
		t.Errorf("not locked: %v, %v", got, err)
	}
	if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}); err != nil {
		t.Fatal(err)
	}
	if got, err := try(name, "content"); err != nil || !got.Found || !got.Locked || got.Error != "" {
		t.Errorf("locked: %v, %v", got, err)
	}
	if got, err := try(name, "other"); err != nil || got.Found {
		t.Errorf("another content: %v, %v", got, err)
	}
	if got, err := try(lockPrefix+"sat2-0123456789", "content"); err != nil || got.Found {
		t.Errorf("no such file: %v, %v", got, err)
	}
	link := lockPrefix + "sat2-link567890"
	if err := os.Symlink(filepath.Join(r.homes, name), filepath.Join(r.homes, link)); err != nil {
		t.Fatal(err)
	}
	if got, err := try(link, "content"); err != nil || got.Locked || got.Error == "" {
		t.Errorf("a symbolic link: %v, %v", got, err)
	}
	writeTest(t, filepath.Join(r.homes, "secret"), "content", 0o644)
	for _, bad := range []string{"secret", "", lockPrefix, lockPrefix + "/../../etc/passwd", lockPrefix + "sat2-..", "../" + name, name + "\x00", lockPrefix + strings.Repeat("x", 200)} {
		if got, err := try(bad, "content"); err == nil && (got.Found || got.Locked) {
			t.Errorf("%q: got %v; want a refusal", bad, got)
		}
	}
}

// A port that is taken, or a network that is not up yet, keeps nobody from
// anything: it is tried again.
func TestPeerListensLater(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	ports := address.Peers{Ports: []address.Port{{Listen: "127.0.0.1:0"}, {Listen: taken.Addr().String()}}, Peer: taken.Addr().String()}
	for name, at := range map[string]func() (address.Peers, error){
		"a port that is taken": func() (address.Peers, error) { return ports, nil },
		"no network":           func() (address.Peers, error) { return address.Peers{}, address.ErrNotYet },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which a port that cannot be listened on does not hold up
				x := newTrusted(t)
				tr := x.start()
				tried := 0
				var log bytes.Buffer
				p := NewPeer(PeerConfig{Credentials: tr.cfg.Credentials, Trust: tr.Version, Log: zerolog.New(&log),
					Listen: func(context.Context) (address.Peers, error) { tried++; return at() }})
				p.Connect(func() { t.Error("others are told of it") })
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				began := time.Now()
				go func() { done <- p.Run(ctx) }()
				<-p.Tried() // the link does not wait for what may never be
				if d := time.Since(began); d > 0 {
					t.Errorf("it took %v to know that it does not listen", d)
				}
				time.Sleep(4*listenAgain - 1)
				synctest.Wait()
				if tried != 4 || len(done) > 0 || p.Address() != "" || strings.Count(log.String(), "do not reach this one") != 1 {
					t.Errorf("tried %d times in the time of 4, ended %v, told %q; log, wanted once:\n%s", tried, len(done) > 0, p.Address(), log.String())
				}
				cancel()
				if err := <-done; err != nil {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

package host

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// manager is a master that registers hosts and does nothing else.
type manager struct {
	pb.UnimplementedEnrolmentServer
	t       *testing.T
	a       *wire.Authority
	creds   *wire.Credentials
	address string
	pin     [32]byte

	mu       sync.Mutex // guards what follows
	password string
	life     time.Duration                  // of certificates
	now      func() time.Time               // when they are made
	hold     chan struct{}                  // nothing is answered before it is closed; nil: at once
	lose     int                            // so many answers are lost
	refuse   error                          // of every call
	ids      map[string]string              // by key: identity that was made
	used     map[uint64]string              // tokens, by ID: the key that got them
	joined   []*pb.JoinRequest              // all that came
	renewed  map[string]int                 // Renew and Rejoin: how often they came
	spoil    func(r *pb.JoinReply)          // makes answers wrong
	issuer   *wire.Authority                // of new certificates; nil: a
	gone     func(id string) (string, bool) // who is revoked
}

func newManager(t *testing.T) *manager {
	t.Helper()
	a, err := wire.NewAuthority(time.Now().Add(-900 * 24 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	creds, err := a.Credentials(wire.Master, "cm.example.com", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, a: a, creds: creds, address: l.Addr().String(), pin: a.Fingerprint(), password: "a good password", life: 30 * 24 * time.Hour, now: time.Now,
		ids: map[string]string{}, used: map[uint64]string{}, renewed: map[string]int{}}
	creds.SetRevoked(func(id, _ string) (string, bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.gone == nil {
			return "", false
		}
		return m.gone(id)
	})
	s := grpc.NewServer(wire.ServerOptions(creds, nil)...)
	pb.RegisterEnrolmentServer(s, m)
	done := make(chan error, 1)
	go func() { done <- s.Serve(wire.Limit(l, wire.Bounds{Total: 100, PerAddress: 100})) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return m
}

// change changes the master while it runs.
func (m *manager) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// token is a new token in a file that only its owner can read.
func (m *manager) token(id uint64) (file, text string) {
	m.t.Helper()
	text = wire.NewToken(m.a.Cluster, m.pin, id).String()
	return m.file(text + "\n"), text
}

func (m *manager) file(text string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// Join implements pb.EnrolmentServer.
func (m *manager) Join(ctx context.Context, q *pb.JoinRequest) (*pb.JoinReply, error) {
	reply, err := m.join(q)
	m.mu.Lock()
	hold := m.hold
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	return reply, err
}

func (m *manager) join(q *pb.JoinRequest) (*pb.JoinReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = append(m.joined, q)
	if m.refuse != nil {
		return nil, m.refuse
	}
	key, err := wire.ParseRequest(q.Csr)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	print := string(der)
	if q.GetToken() != "" {
		token, err := wire.ParseToken(q.GetToken())
		if err != nil {
			return nil, wire.Errorf(wire.Denied, "%v", err)
		}
		if by := m.used[token.ID]; by != "" && by != print {
			return nil, wire.Errorf(wire.Denied, "token %d was used already: make another one with \"createtoken\"", token.ID)
		}
		m.used[token.ID] = print
	} else if q.GetPassword() != m.password {
		return nil, wire.Errorf(wire.Denied, "the manager's password is not right")
	}
	if m.ids[print] == "" {
		m.ids[print] = wire.NewUUID()
	}
	return m.answer(m.ids[print], q.Name, q.Csr)
}

// Renew implements pb.EnrolmentServer.
func (m *manager) Renew(ctx context.Context, q *pb.RenewRequest) (*pb.JoinReply, error) {
	return m.again(ctx, "renew", q)
}

// Rejoin implements pb.EnrolmentServer.
func (m *manager) Rejoin(ctx context.Context, q *pb.RenewRequest) (*pb.JoinReply, error) {
	return m.again(ctx, "rejoin", q)
}

func (m *manager) again(ctx context.Context, call string, q *pb.RenewRequest) (*pb.JoinReply, error) {
	id, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renewed[call]++
	if m.refuse != nil {
		return nil, m.refuse
	}
	return m.answer(id.ID, id.Name, q.Csr)
}

// answer makes a certificate. m.mu must be held.
func (m *manager) answer(id, name string, csr []byte) (*pb.JoinReply, error) {
	key, err := wire.ParseRequest(csr)
	if err != nil {
		return nil, err
	}
	by := m.a
	if m.issuer != nil {
		by = m.issuer
	}
	cert, err := by.Sign(wire.Identity{Role: wire.Satellite, ID: id, Name: name}, key, []string{name}, nil, m.now(), m.life)
	if err != nil {
		return nil, err
	}
	r := &pb.JoinReply{Certificate: cert.PEM, Roots: by.CertPEM, Cluster: m.a.Cluster, Id: id, ServerId: uint64(len(m.ids)), Name: name, NowUnixMs: m.now().UnixMilli()}
	if m.spoil != nil {
		m.spoil(r)
	}
	if m.lose > 0 {
		m.lose--
		return nil, errors.New("the answer is lost") // of a kind that says nothing
	}
	return r, nil
}

func (m *manager) joins() []*pb.JoinRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

func (m *manager) renewals(call string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.renewed[call]
}

// newcomer is a host that is to be registered.
type newcomer struct {
	t        *testing.T
	dir      string
	settings string
	found    []Finding // by the checks
	checked  atomic.Int32
}

// examiner finds what the test wants to be found.
func (h *newcomer) examiner() examiner {
	return examiner{"1.0.0", func(*settings.Values) func(context.Context) Probe { return nil }, func(_ context.Context, c DoctorConfig) (Result, error) {
		h.checked.Add(1)
		if c.Settings == nil || c.Version != "1.0.0" || !c.HandIn || len(c.Holder) == 0 {
			h.t.Errorf("checked with %+v", c)
		}
		return Result{Findings: append([]Finding{{Check: "version", Level: Pass}}, h.found...)}, nil
	}}
}

func newNewcomer(t *testing.T, lines ...string) *newcomer {
	t.Helper()
	dir := t.TempDir()
	h := &newcomer{t: t, dir: dir, settings: filepath.Join(dir, "settings.global")}
	text := fmt.Sprintf("# of this host\nWIN4_STATE_DIR=%s/state\n", dir) + strings.Join(lines, "\n")
	if err := os.WriteFile(h.settings, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *newcomer) pki() string { return filepath.Join(h.dir, "state", "pki") }

// do runs a command and returns what it said.
func (h *newcomer) do(in string, args ...string) (string, error) {
	h.t.Helper()
	var out bytes.Buffer
	err := h.start(h.t.Context(), strings.NewReader(in), &out, args...)
	if err == nil {
		released(h.t, filepath.Join(h.dir, "state", "satellite"))
	}
	return out.String(), err
}

// released waits until nobody holds a satellite's directory that was let go: a
// process that another test is just starting has all our files for a moment.
func released(t *testing.T, stateDir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(stateDir, holdFile))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	eventually(t, "the directory", func() bool {
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			return false
		}
		return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) == nil // whoever else has it by now
	})
}

// eventually waits for something that is about to happen.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

func (h *newcomer) start(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	e := h.examiner()
	for _, c := range []*cobra.Command{registerCommand(e), configCommand(e)} {
		if c.Name() == args[0] {
			c.SetIn(in)
			c.SetOut(out)
			c.SetErr(out)
			c.SilenceErrors, c.SilenceUsage = true, true
			c.SetArgs(append(args[1:], "--settings", h.settings))
			return c.ExecuteContext(ctx)
		}
	}
	h.t.Fatalf("no command %s", args[0])
	return nil
}

// listing is the names in a directory, hidden ones too.
func listing(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.Name())
	}
	return strings.Join(names, " ")
}

// identity is what is registered there now.
func (h *newcomer) identity() *wire.Credentials {
	h.t.Helper()
	c, err := wire.Load(h.pki(), wire.Satellite)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *newcomer) text() string {
	h.t.Helper()
	b, err := os.ReadFile(h.settings)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// chair is a pseudo-terminal, and who sits before it.
type chair struct {
	t    *testing.T
	side *os.File // of whoever sits there
	tty  *os.File // of the program

	mu   sync.Mutex // guards what follows
	cond *sync.Cond
	seen string // that was not waited for yet
	all  string
}

func newChair(t *testing.T) *chair {
	t.Helper()
	side, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(side.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(side.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := &chair{t: t, side: side, tty: tty}
	c.cond = sync.NewCond(&c.mu)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := side.Read(buf)
			c.mu.Lock()
			c.seen += string(buf[:n])
			c.all += string(buf[:n])
			c.cond.Broadcast()
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		tty.Close()
		side.WriteString("\n") // who still reads there gets an end
		side.Close()
		<-done
	})
	return c
}

// until waits for a text on the screen.
func (c *chair) until(text string) {
	c.t.Helper()
	end := time.Now().Add(time.Minute)
	late := time.AfterFunc(time.Minute, c.cond.Broadcast)
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if i := strings.Index(c.seen, text); i >= 0 {
			c.seen = c.seen[i+len(text):]
			return
		}
		if !time.Now().Before(end) {
			c.t.Fatalf("%q did not come; on the screen:\n%s", text, c.all)
		}
		c.cond.Wait()
	}
}

func (c *chair) types(keys string) {
	c.t.Helper()
	if _, err := c.side.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chair) screen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

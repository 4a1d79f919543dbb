package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"verdecmd/master"
	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
	"verdecmd/satellite/session"
)

// simWorld is a cluster of real masters and satellites inside one bubble:
// real gRPC and TLS over a network that can fail, desktops that behave.
type simWorld struct {
	t         testing.TB
	dir       string // made before the bubble
	start     time.Time
	net       *simNet
	authority *wire.Authority
	limits    cluster.Limits
	leaseSelf time.Duration
	quiet     bool                     // no events are noted
	jitter    func(int) func() float64 // of the n-th satellite

	masters map[string]*simMaster
	sats    map[string]*simSat
	steps   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	guests map[string]fake.Behaviour
	lines  []simLine
	procs  map[string]proc   // by session
	users  map[string]string // by session, known before its process exists
	lie    bool              // an administrator has affirmed what is not so: S1 does not hold
}

type simLine struct {
	at    time.Time
	event bool
	text  string
}

// proc is what the witness has seen of a session's process.
type proc struct {
	sat string
	pid int
}

type simMaster struct {
	name   string
	store  *store.Mem
	admin  *bufconn.Listener
	cancel context.CancelFunc // nil: does not run
	done   chan error
	self   *master.Master
	life   int // guarded by simWorld.mu: grows when it dies
}

type simSat struct {
	w      *simWorld
	name   string
	number int
	facts  *pb.HostFacts
	creds  *wire.Credentials
	host   *fake.Host
	state  string // directory
	starts int
	up     time.Time // of the computer
	cancel context.CancelFunc
	done   chan error
	self   *satellite.Satellite
}

// newSimWorld returns an empty world. dir is for the satellites' journals and
// the users' home, which they share.
func newSimWorld(t testing.TB, dir string) *simWorld {
	w := &simWorld{t: t, dir: dir, start: time.Now(), net: newSimNet(), masters: map[string]*simMaster{}, sats: map[string]*simSat{},
		guests: map[string]fake.Behaviour{}, procs: map[string]proc{}, users: map[string]string{},
		limits: cluster.Limits{Interval: 3 * time.Second, ReservationTimeout: time.Minute, Resync: 15 * time.Second}}
	w.jitter = func(n int) func() float64 { return func() float64 { return float64(n%10) / 10 } }
	var err error
	if w.authority, err = wire.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

// simDir makes a directory with a home that all users share. Call it outside
// the bubble.
func simDir(t testing.TB) string {
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && len(d) > 4; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "home", "win4")
	if err := os.MkdirAll(image, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"desktop.conf": "WIN4_DISK=\nWIN4_KERNEL=kernel\nWIN4_MEMORY=1024\n", "kernel": "kernel"} {
		if err := os.WriteFile(filepath.Join(image, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (w *simWorld) note(event bool, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.quiet {
		w.lines = append(w.lines, simLine{time.Now(), event, fmt.Sprintf(format, args...)})
	}
}

var timeOfDay = regexp.MustCompile(`\b(at|since) \d\d:\d\d:\d\d\b`)

// take returns what has come since the last call. What happens at one instant
// comes in any order, but for what is about one user: so events are sorted by
// user, and other things follow, sorted.
func (w *simWorld) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.lines, func(a, b simLine) int {
		byKind := strings.Compare(a.text, b.text)
		if a.event || b.event {
			byKind = cmp.Or(boolCompare(b.event, a.event), strings.Compare(a.subject(), b.subject()))
		}
		return cmp.Or(a.at.Compare(b.at), byKind)
	})
	var out strings.Builder
	for i, l := range w.lines {
		if i+1 < len(w.lines) && l.overtaken(w.lines[i+1]) {
			continue
		}
		fmt.Fprintf(&out, "%7.1fs %s\n", l.at.Sub(w.start).Seconds(), w.mask(l.text))
	}
	w.lines = nil
	return out.String()
}

var aUser = regexp.MustCompile(`\b(alice|bob|carol|dave)\b`)

// subject is the user whom an event is about, or empty. The ends of jobs are
// each about themselves.
func (l simLine) subject() string {
	user := aUser.FindString(l.text)
	if strings.HasPrefix(l.text, "Job ") && strings.Contains(l.text, " has finished: ") {
		return user + " " + l.text
	}
	return user
}

// overtaken tells that a session's state was replaced by the next one at the
// same instant: whether the one between is told depends on who is faster.
func (l simLine) overtaken(next simLine) bool {
	return l.event && l.at.Equal(next.at) && l.subject() == next.subject() &&
		strings.HasSuffix(l.text, " is ending.") && strings.Contains(next.text, " has ended: ")
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// mask takes out what differs from run to run.
func (w *simWorld) mask(text string) string {
	return strings.ReplaceAll(timeOfDay.ReplaceAllString(text, "$1 TIME"), w.dir, "DIR")
}

// startMaster starts a master called name, on the store of the one before.
func (w *simWorld) startMaster(name string) *simMaster {
	m := w.masters[name]
	if m == nil {
		m = &simMaster{name: name, store: store.NewMem()}
		w.masters[name] = m
	}
	creds, err := w.authority.Credentials(wire.Master, name, time.Now(), 24*time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	w.net.alive(name)
	m.admin = bufconn.Listen(1 << 16)
	log := zerolog.Nop()
	ctx, cancel := context.WithCancel(context.Background())
	m.self, err = master.New(ctx, master.Config{
		Monitor: m.admin, Link: w.net.listen(name), GRPC: wire.ServerOptions(creds, func(r wire.Report) { w.note(true, "%s: %v", r.What, r.Err) }),
		Store: m.store, Epoch: m.store.Epoch(), Accounts: simAccounts{}, Limits: w.limits, LeaseSelf: w.leaseSelf,
		Admin: monitor.Config{Peer: func(net.Conn) (monitor.Caller, error) { return monitor.Caller{Name: "root"}, nil },
			Human: monitor.Human{Location: time.UTC}, Log: log},
		ShutdownWait: 2 * time.Minute, LogoffWait: 2 * time.Minute, Version: "1.0", Host: name, Log: log,
	})
	if err != nil {
		cancel()
		w.t.Fatalf("master: %v", err)
	}
	m.cancel, m.done = cancel, make(chan error, 1)
	go func() { m.done <- m.self.Run(ctx) }()
	w.watch(m)
	synctest.Wait()
	return m
}

// kill ends a master at once: nothing that it does from now on is seen.
func (m *simMaster) kill(w *simWorld) {
	w.mu.Lock()
	m.life++ // nobody hears its last words
	w.mu.Unlock()
	m.store.Restart()
	w.net.kill(m.name)
	m.cancel()
	if err := <-m.done; err != nil {
		w.t.Errorf("master %s: %v", m.name, err)
	}
	m.cancel = nil
	synctest.Wait()
}

// watch notes the events of a master while it runs.
func (w *simWorld) watch(m *simMaster) {
	if w.quiet {
		return
	}
	nc, err := m.admin.DialContext(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(nc, "format text\nevents on since=0\n")
	life := m.life
	go func() {
		defer nc.Close()
		in := bufio.NewScanner(nc)
		for in.Scan() {
			if text, ok := strings.CutPrefix(in.Text(), "650 "); ok {
				w.mu.Lock()
				dead := m.life != life
				w.mu.Unlock()
				if !dead {
					w.note(true, "%s", text[len("00:00:00 "):])
				}
			}
		}
	}()
}

// ask sends one command to a master and returns the reply.
func (m *simMaster) ask(line string) []string { return ask(m.admin, line) }

func ask(on *bufconn.Listener, line string) []string {
	nc, err := on.DialContext(context.Background())
	if err != nil {
		return []string{err.Error()}
	}
	defer nc.Close()
	fmt.Fprintf(nc, "format text\n%s\nquit\n", line)
	var out []string
	in := bufio.NewScanner(nc)
	for in.Scan() {
		out = append(out, strings.TrimRight(in.Text(), " "))
	}
	if len(out) < 2 {
		return append(out, "the master has closed the connection")
	}
	return out[1 : len(out)-1]
}

// addSatellite makes a computer for a satellite and starts it.
func (w *simWorld) addSatellite(name string, memory uint64) *simSat {
	s := &simSat{w: w, name: name, number: len(w.sats) + 1, up: time.Now(),
		facts: &pb.HostFacts{Hostname: name, Arch: "x86_64", CpuVendor: "GenuineIntel", Cpus: 16, MemoryBytes: memory, Accelerator: "kvm", Qemu: "10.0", SnapDir: "/snap", SnapKind: "local", AsRoot: true}}
	s.host = fake.NewHost(func(spec desktop.Spec) fake.Behaviour {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.users[spec.Session] = spec.User.Name
		if b, ok := w.guests[spec.User.Name]; ok {
			return b
		}
		return fake.Behaviour{Boot: 2 * time.Second, Shutdown: time.Second}
	})
	var err error
	if s.creds, err = w.authority.Credentials(wire.Satellite, name, time.Now(), 24*time.Hour); err != nil {
		w.t.Fatal(err)
	}
	w.sats[name] = s
	s.state = filepath.Join(w.dir, name)
	s.begin()
	return s
}

// begin starts the satellite's program.
func (s *simSat) begin() {
	w := s.w
	s.starts++
	w.net.alive(s.name)
	masters := []string{"master"}
	for name := range w.masters {
		if name != "master" {
			masters = append(masters, name)
		}
	}
	dial := append(wire.DialOptions(s.creds), grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return w.net.dial(ctx, s.name, to) }))
	var err error
	s.self, err = satellite.New(satellite.Config{
		Local: bufconn.Listen(1), Accounts: simAccounts{home: filepath.Join(w.dir, "home")}, Masters: masters, Dial: dial,
		Facts: s.facts, Address: s.name, Version: "1.0", Instance: fmt.Sprintf("%s-%d", s.name, s.starts), Jitter: w.jitter(s.number),
		Session: session.Config{
			Driver: witness{s.host.Driver(), s}, StateDir: s.state, SnapDir: filepath.Join(s.state, "snap"), DesktopName: "win4",
			Cluster: s.creds.Identity.Cluster, Masters: strings.Join(masters, ", "), MasterLost: 15 * time.Second, PingEvery: 5 * time.Second,
			Sample:   func() *pb.Load { return s.load() },
			BootTime: func() time.Duration { return time.Since(s.up) },
		},
		Log: zerolog.Nop(),
	})
	if err != nil {
		w.t.Fatalf("satellite %s: %v", s.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan error, 1)
	go func() { s.done <- s.self.Run(ctx) }()
	synctest.Wait()
}

// load is what a computer with so many desktops has free.
func (s *simSat) load() *pb.Load {
	used := uint64(len(s.host.Running())) << 30
	return &pb.Load{MemoryTotal: s.facts.MemoryBytes, MemoryFree: s.facts.MemoryBytes - used, SnapFree: 1 << 40, HomeFree: 1 << 40}
}

// kill ends the satellite's program as SIGKILL does: its disk stays as it is
// at this instant, and so do the desktops.
func (s *simSat) kill() {
	s.w.net.kill(s.name)
	next := fmt.Sprintf("%s.%d", filepath.Join(s.w.dir, s.name), s.starts)
	if err := os.CopyFS(next, os.DirFS(s.state)); err != nil {
		s.w.t.Fatal(err)
	}
	s.stop()
	s.state = next
}

// stop ends the program and waits for it.
func (s *simSat) stop() {
	s.cancel()
	if err := <-s.done; err != nil {
		s.w.t.Errorf("satellite %s: %v", s.name, err)
	}
	s.cancel = nil
	synctest.Wait()
}

// powerOff ends the whole computer; nobody is told.
func (s *simSat) powerOff() {
	for name := range s.w.masters {
		s.w.net.change(s.name, name, func(p *simPath) { p.hole = true })
	}
	next := fmt.Sprintf("%s.%d", filepath.Join(s.w.dir, s.name), s.starts)
	if err := os.CopyFS(next, os.DirFS(s.state)); err != nil {
		s.w.t.Fatal(err)
	}
	s.stop()
	s.host.Reboot()
	s.state, s.up = next, time.Now()
}

// login logs a user in and describes what came of it.
func (s *simSat) login(ctx context.Context, self *satellite.Satellite, user string) string {
	o, err := self.Open(ctx, simUser(user, filepath.Join(s.w.dir, "home")), "local", func(string) {})
	switch {
	case err != nil:
		var e *wire.Error
		if errors.As(err, &e) {
			return fmt.Sprintf("%s at %s: refused, %s: %s", user, s.name, e.Kind, e.Text)
		}
		return fmt.Sprintf("%s at %s: %v", user, s.name, err)
	case o.Referred != nil && o.Referred.Existing:
		return fmt.Sprintf("%s at %s: the desktop is on %s", user, s.name, o.Referred.Name)
	case o.Referred != nil:
		return fmt.Sprintf("%s at %s: go to %s within %d s", user, s.name, o.Referred.Name, o.Referred.RemainingS)
	case o.Existing:
		return fmt.Sprintf("%s at %s: desktop %s, process %d, was there already, %s", user, s.name, o.Session.Id, o.Session.Pid, o.Session.State)
	}
	return fmt.Sprintf("%s at %s: new desktop %s, process %d", user, s.name, o.Session.Id, o.Session.Pid)
}

// desktops lists the processes that exist, which nobody can lie about.
func (w *simWorld) desktops() []string {
	var out []string
	w.mu.Lock()
	defer w.mu.Unlock()
	byUser := map[string]string{}
	for _, s := range slices.SortedFunc(maps.Values(w.sats), func(a, b *simSat) int { return cmp.Compare(a.name, b.name) }) {
		for _, id := range s.host.Running() {
			user := w.users[id]
			out = append(out, fmt.Sprintf("%s: %s of %s, process %d", s.name, id, user, w.procs[id].pid))
			if other := byUser[user]; other != "" && !w.lie {
				w.t.Errorf("S1: %s has a desktop on %s and on %s", user, other, s.name)
			}
			byUser[user] = s.name
		}
	}
	return out
}

// witness sees each process begin and holds S1 and "never twice" against it.
type witness struct {
	desktop.Driver
	sat *simSat
}

func (x witness) Start(ctx context.Context, spec desktop.Spec) (desktop.Desktop, error) {
	d, err := x.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	w := x.sat.w
	w.mu.Lock()
	before, twice := w.procs[spec.Session]
	w.procs[spec.Session] = proc{x.sat.name, d.Process().PID}
	w.mu.Unlock()
	if twice {
		w.t.Errorf("session %s was started on %s and again on %s", spec.Session, before.sat, x.sat.name)
	}
	w.desktops()
	return d, nil
}

// end stops everything and waits for it.
func (w *simWorld) end() {
	w.steps.Wait()
	w.desktops()
	for _, s := range w.sats {
		if s.cancel != nil {
			s.stop()
		}
		s.host.Reboot()
	}
	for _, m := range w.masters {
		if m.cancel != nil {
			m.kill(w)
		}
	}
}

// simUser is the account of any login name; the number follows from it.
func simUser(name, home string) desktop.User {
	if i := slices.Index([]string{"alice", "bob", "carol", "dave"}, name); i >= 0 {
		return desktop.User{Name: name, UID: uint32(1001 + i), GID: uint32(1001 + i), Home: home}
	}
	h := uint32(2166136261)
	for _, b := range []byte(name) {
		h = (h ^ uint32(b)) * 16777619
	}
	uid := 2000 + h%1_000_000_000
	return desktop.User{Name: name, UID: uid, GID: uid, Home: home}
}

// simAccounts knows every login name of small letters and digits but nobody.
type simAccounts struct{ home string }

func (simAccounts) Find(_ context.Context, name string, byUID bool) (string, uint32, bool) {
	return name, simUser(name, "").UID, !byUID && name != "nobody"
}

func (simAccounts) Names(string, int) []string { return nil }

func (a simAccounts) ByName(_ context.Context, name string) (desktop.User, error) {
	return simUser(name, a.home), nil
}

func (a simAccounts) ByUID(context.Context, uint32) (desktop.User, error) {
	return desktop.User{}, errors.New("no such account")
}

package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/job"
	"verdecmd/master/pki"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// rig is a master with its bundle, in a bubble, and satellites that do what
// satellites do with it.
type rig struct {
	t     *testing.T
	store *tapped
	dir   string
	epoch int

	mu      sync.Mutex // guards what follows
	members []Member
	revoked []Revocation
	pushes  []uint64 // versions
	events  []string
	cut     []string
	sats    []*sat

	m    *Manager
	jobs *job.Manager
	end  func()
}

// tapped is a store whose commits somebody looks at, once they are made.
type tapped struct {
	*store.Mem
	tap func(store.Change) // nil: nobody
}

func (s *tapped) Commit(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change) error {
	err := s.Mem.Commit(ctx, e, guards, changes)
	if s.tap != nil && err == nil {
		for _, c := range changes {
			s.tap(c)
		}
	}
	return err
}

// sat is a satellite. It is as patient as it wants: nothing happens to it but
// by its methods.
type sat struct {
	r          *rig
	id         uint64
	uuid       string
	attachment uint64
	up, stuck  bool // stuck: it takes nothing in
	version    uint64
	roots      [][]byte
	cert       string // the authority that has issued its certificate
	refused    string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: &tapped{Mem: store.NewMem()}, dir: filepath.Join(t.TempDir(), "pki")}
	a, err := wire.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	own, err := pki.Own(a, wire.Identity{ID: wire.NewUUID(), Name: "master"}, time.Now())
	if err := errors.Join(err, os.Mkdir(r.dir, 0o700), os.WriteFile(filepath.Join(r.dir, pki.KeyFile), key, 0o600),
		os.WriteFile(filepath.Join(r.dir, wire.CAFile), a.CertPEM, 0o644), os.WriteFile(filepath.Join(r.dir, wire.IdentityFile), own, 0o600)); err != nil {
		t.Fatal(err)
	}
	return r
}

type rootKey struct{}

// start is a start of the master.
func (r *rig) start() {
	r.t.Helper()
	creds, err := wire.Load(r.dir, wire.Master)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.jobs, err = job.New(r.t.Context(), job.Config{Store: r.store, Epoch: r.store.Epoch(), Log: zerolog.Nop()}); err != nil {
		r.t.Fatal(err)
	}
	locked := func(f func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		f()
	}
	r.m = New(Config{Store: r.store, Epoch: r.store.Epoch(), Jobs: r.jobs, Dir: r.dir, Credentials: creds, Log: zerolog.Nop(),
		Masters: []Address{{"master", "192.0.2.1:8442"}},
		Event: func(typ, text string, _ ...monitor.Pair) {
			locked(func() { r.events = append(r.events, typ+": "+text) })
		},
		Members:     func() (out []Member) { locked(func() { out = slices.Clone(r.members) }); return out },
		Revocations: func() (out []Revocation) { locked(func() { out = slices.Clone(r.revoked) }); return out },
		Push:        r.push,
		Cut:         func(uuid string) { locked(func() { r.cut = append(r.cut, uuid) }) },
		Root:        func(ctx context.Context) string { return ctx.Value(rootKey{}).(string) }})
	r.m.RegisterJobs()
	if err := r.m.Restore(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	m, jobs := r.m, r.jobs
	go func() { done <- m.Run(ctx) }()
	go func() { done <- jobs.Run(ctx) }()
	r.end = func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			r.t.Error(err)
		}
	}
}

// again ends the master and starts it anew. Satellites come back.
func (r *rig) again() {
	r.t.Helper()
	r.end()
	r.store.Restart()
	r.start()
	for _, s := range r.sats {
		if s.up {
			s.open()
		}
	}
}

// restore ends the master, and starts one on what is a copy of its database.
func (r *rig) restore() {
	r.t.Helper()
	r.end()
	r.store.Restart()
	var changes []store.Change
	err := r.store.View(r.t.Context(), func(s store.Snapshot) (err error) { changes, err = FromCopy(s); return err })
	if err := errors.Join(err, r.store.Commit(r.t.Context(), r.store.Epoch(), nil, changes)); err != nil {
		r.t.Fatal(err)
	}
	r.start()
}

// push notes a bundle on its way to the satellites; pass carries it there.
func (r *rig) push(parts []*pb.TrustPart) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushes = append(r.pushes, parts[0].Version)
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	for step := 100 * time.Millisecond; d > 0; d -= step {
		time.Sleep(min(d, step))
		synctest.Wait()
		for _, s := range r.sats {
			if s.up && !s.stuck && s.version < r.m.Of(0).Current {
				s.take()
			}
		}
		synctest.Wait()
	}
}

// join adds a satellite that is connected.
func (r *rig) join() *sat {
	r.t.Helper()
	root := r.m.Authority()
	s := &sat{r: r, uuid: wire.NewUUID(), up: true, cert: wire.RootName(root.DER()), roots: r.m.cfg.Credentials.Roots()}
	r.mu.Lock()
	s.id = uint64(len(r.members) + 1)
	r.members = append(r.members, Member{ID: s.id, UUID: s.uuid, Name: fmt.Sprintf("sat%d", s.id), Address: "192.0.2.9"})
	r.sats = append(r.sats, s)
	r.mu.Unlock()
	r.m.Changed()
	s.open()
	return s
}

func (s *sat) open() {
	s.attachment++
	if s.r.m.cfg.Credentials.Check() != nil || !slices.ContainsFunc(s.roots, func(der []byte) bool { return wire.RootName(der) == s.r.m.cfg.Credentials.OwnRoot() }) {
		s.r.t.Errorf("sat%d does not believe the master any more", s.id)
	}
	if !slices.ContainsFunc(s.r.m.cfg.Credentials.Roots(), func(der []byte) bool { return wire.RootName(der) == s.cert }) {
		s.r.t.Errorf("the master does not believe sat%d any more", s.id)
	}
	version := s.version
	ctx := context.WithValue(context.Background(), rootKey{}, s.cert)
	if s.r.m.Opened(ctx, s.id, s.attachment, s.uuid, &pb.Hello{TrustVersion: &version, PeerAddress: fmt.Sprintf("192.0.2.%d:8444", s.id)}) && !s.stuck {
		s.take()
	}
}

// take takes the newest bundle, and asks for a certificate of the authority that
// issues.
func (s *sat) take() {
	b, err := wire.OpenTrust(s.r.m.Current(), s.roots)
	if err != nil {
		s.refused = err.Error()
	} else if b.Version > s.version {
		s.version, s.roots, s.refused = b.Version, b.Roots, ""
	}
	s.r.m.Acked(s.id, s.attachment, s.version, s.refused)
}

// renew gets a certificate of the authority that issues now.
func (s *sat) renew() {
	s.cert = wire.RootName(s.r.m.Authority().DER())
	s.open()
}

func (r *rig) version() uint64 {
	b, err := wire.OpenTrust(r.m.Current(), r.m.cfg.Credentials.Roots())
	if err != nil {
		r.t.Fatal(err)
	}
	return b.Version
}

func (r *rig) bundle() *pb.Trust {
	b, err := wire.OpenTrust(r.m.Current(), r.m.cfg.Credentials.Roots())
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rig) takePushes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.pushes)
	r.pushes = nil
	return n
}

func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		synctest.Wait()
		f(t, r)
		r.end()
	})
}

// A version names one content: it is the same after a restart where nothing has
// changed, grows with each change, and with a leap where the database is an old
// copy; what satellites hold of another life of the master is below the next
// one.
func TestVersions(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		first := r.version()
		s := r.join()
		r.pass(2 * time.Second)
		joined := r.version()
		if joined <= first || s.version != joined {
			t.Errorf("version %d after %d, the satellite has %d", joined, first, s.version)
		}
		r.again()
		r.pass(2 * time.Second)
		if got := r.version(); got != joined {
			t.Errorf("version %d after a restart, was %d", got, joined)
		}
		r.m.Changed()
		r.pass(time.Minute)
		if got := r.version(); got != joined {
			t.Errorf("version %d, and nothing has changed since %d", got, joined)
		}
		r.restore()
		if got := r.version(); got <= joined+leap-1 {
			t.Errorf("version %d after a restore, was %d", got, joined)
		}
		s.version = r.version() + 1000 // of a database that was lost
		s.open()
		r.pass(time.Second)
		if got := r.version(); got != s.version || got <= joined+leap+1000 {
			t.Errorf("version %d, the satellite has %d", got, s.version)
		}
		s.stuck, s.version = true, 1<<63+5 // nobody drives them to their end
		s.open()
		r.pass(time.Second)
		if got := r.version(); got > joined+2*leap {
			t.Errorf("version %d", got)
		}
		s.version = 0
	})
}

// A satellite that claims what cannot be moves nothing, and the word of the others
// counts wherever the versions are (RELIABILITY 1.1 D).
func TestClaims(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		liar, s := r.join(), r.join()
		for _, at := range []uint64{0, mostVersion - 1, mostVersion + 7} {
			if at > 0 {
				r.end()
				r.store.Restart()
				row, err := json.Marshal(bundleRow{Version: at})
				if err := errors.Join(err, r.store.Commit(t.Context(), r.store.Epoch(), nil, []store.Change{{Key: bundleKey, Value: row}})); err != nil {
					t.Fatal(err)
				}
				r.start()
				s.open()
			}
			r.pass(2 * time.Second)
			before := r.version()
			for _, claim := range []uint64{before + mostAhead + 1, mostVersion - 1, mostVersion, math.MaxUint64} {
				liar.stuck, liar.version = true, claim
				liar.open()
				r.pass(2 * time.Second)
			}
			r.join()
			r.pass(2 * time.Second)
			v := r.m.Of(s.id)
			// One version for the server, and perhaps one for what it tells of itself.
			if v.Current-before-1 > 1 || v.Version != v.Current || v.Behind != 0 || s.refused != "" {
				t.Errorf("version %d after %d, the other satellite stands at %+v, %q", v.Current, before, v, s.refused)
			}
		}
		liar.version = 0
	})
}

// A change that is noted while a bundle with an earlier content is being written
// is told by the next one.
func TestChangedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.join()
		r.pass(2 * time.Second)
		add := func(id uint64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.members = append(r.members, Member{ID: id, UUID: wire.NewUUID(), Name: "new"})
		}
		add(2)
		r.m.Changed()
		r.pass(gatherLeast / 2) // pushed: the next one waits for more
		add(3)
		r.store.tap = func(c store.Change) {
			if c.Key == bundleKey {
				r.store.tap = nil
				add(4)
				r.m.Changed()
				synctest.Wait() // it is noted
			}
		}
		if err := r.m.move(t.Context(), func(now Rotation, _ uint64) (Rotation, error) { return now, nil }); err != nil {
			t.Fatal(err)
		}
		r.pass(5 * time.Second)
		if r.store.tap != nil || len(r.bundle().Members) != 4 {
			t.Errorf("the bundle names %d servers, want 4", len(r.bundle().Members))
		}
	})
}

// S16: who is revoked is pushed at once; servers that register are gathered.
func TestPushes(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		one := r.join()
		r.pass(time.Minute)
		r.takePushes()
		for range 40 {
			r.join()
			r.pass(50 * time.Millisecond)
		}
		synctest.Wait()
		if n := r.takePushes(); n < 1 || n > 4 {
			t.Errorf("%d pushes while 40 servers registered in 2 s", n)
		}
		r.pass(2 * time.Second)
		if n := r.takePushes(); n > 1 || len(r.bundle().Members) != 41 {
			t.Errorf("then %d pushes, %d servers in the bundle", n, len(r.bundle().Members))
		}
		r.join() // and right after its push
		r.pass(time.Second)
		r.mu.Lock()
		r.revoked = append(r.revoked, Revocation{ID: one.uuid, Why: "superseded: gone", Until: time.Now().Add(time.Hour)}, Revocation{ID: "old", Until: time.Now().Add(-time.Hour)})
		r.mu.Unlock()
		r.takePushes()
		r.m.Changed()
		synctest.Wait()
		if n := r.takePushes(); n != 1 {
			t.Errorf("%d pushes at once after a revocation, want 1", n)
		}
		r.pass(time.Millisecond)
		b := r.bundle()
		if len(b.Revoked) != 1 || b.Revoked[0].Id != one.uuid || b.Revoked[0].Why != "superseded: gone" {
			t.Errorf("revoked: %v", b.Revoked)
		}
		for _, s := range r.sats {
			if s.version != b.Version {
				t.Errorf("sat%d has %d of %d", s.id, s.version, b.Version)
			}
		}
	})
}

// What satellites tell of themselves stays over a restart, while they are away;
// what is no address and no key is nobody's business; of servers that are gone
// nothing is kept.
func TestTold(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		s, gone := r.join(), r.join()
		r.pass(2 * time.Second)
		r.end()
		r.store.Restart()
		r.start() // nobody has come back
		if b := r.bundle(); len(b.Members) != 2 || b.Members[0].Peer != "192.0.2.1:8444" || r.m.Peer(s.uuid) != "192.0.2.1:8444" {
			t.Errorf("members %v", b.Members)
		}
		r.mu.Lock()
		r.members = r.members[:1]
		r.mu.Unlock()
		r.m.Changed()
		r.pass(2 * time.Second)
		r.end()
		n := 0
		err := r.store.View(t.Context(), func(s store.Snapshot) error {
			for range s.All(toldBucket) {
				n++
			}
			return nil
		})
		if err != nil || n != 1 {
			t.Errorf("%d records, %v; of %s none should be left", n, err, gone.uuid)
		}
		r.store.Restart()
		r.start()
	})
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJCoymmavpI4z6ZsHSXk/hplZs8W/PE0Gisy0LBPbEoY"
	for name, test := range map[string]struct{ in, want Told }{
		"as it is":    {Told{"[2001:db8::1]:8444", []string{key}, key}, Told{"[2001:db8::1]:8444", []string{key}, key}},
		"keys twice":  {Told{HostKeys: []string{key + " a", key + " b"}, UserKey: `command="x" ` + key}, Told{HostKeys: []string{key}, UserKey: key}},
		"no keys":     {Told{HostKeys: []string{"x", ""}, UserKey: "ssh-rsa AAAA"}, Told{}},
		"no port":     {Told{Peer: "192.0.2.1"}, Told{}},
		"port 0":      {Told{Peer: "192.0.2.1:0"}, Told{}},
		"large port":  {Told{Peer: "192.0.2.1:99999"}, Told{}},
		"no host":     {Told{Peer: ":8444"}, Told{}},
		"line end":    {Told{Peer: "a\nb:8444"}, Told{}},
		"a long name": {Told{Peer: strings.Repeat("a", 9999) + ":1"}, Told{}},
		"many keys":   {Told{HostKeys: slices.Repeat([]string{"x"}, 100000)}, Told{}},
	} {
		if got := test.in.checked(); !got.same(test.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// A satellite that is connected and does not take the bundle is told of after
// 30 s, and once it has caught up; one that is away lags behind nothing.
func TestLag(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		s, away := r.join(), r.join()
		r.pass(2 * time.Second)
		before := r.version()
		s.stuck, away.up = true, false
		r.m.Closed(away.id, away.attachment)
		r.join()
		r.pass(20 * time.Second)
		if v := r.m.Of(s.id); !v.Takes || v.Version != before || v.Current <= before || v.Behind < 15*time.Second || v.Behind > 21*time.Second {
			t.Errorf("after 20 s: %+v", v)
		}
		if v := r.m.Of(away.id); v.Behind != 0 || v.Version != before {
			t.Errorf("who is away: %+v", v)
		}
		if len(r.events) > 0 {
			t.Errorf("events %q", r.events)
		}
		r.m.Acked(s.id, s.attachment, before, "no space left")
		r.pass(20 * time.Second)
		if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "trust.lag: Server 1 (sat1) has had trust bundle") || !strings.HasSuffix(r.events[0], "It says: no space left") {
			t.Errorf("events %q", r.events)
		}
		s.stuck = false
		s.take()
		r.pass(time.Minute)
		if len(r.events) != 2 || !strings.HasPrefix(r.events[1], "trust.current: Server 1 (sat1)") {
			t.Errorf("events %q", r.events)
		}
		if v := r.m.Of(s.id); v.Behind != 0 || v.Error != "" || v.Version != v.Current {
			t.Errorf("caught up: %+v", v)
		}
		r.m.Acked(s.id, s.attachment-1, 1, "") // of a link before
		if v := r.m.Of(s.id); v.Version != v.Current {
			t.Errorf("an old link counts: %+v", v)
		}
	})
}

// S20: while the disk is full no version is told that is not on it.
func TestFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.join()
		r.pass(2 * time.Second)
		before := r.version()
		r.store.Fail(store.ErrNoSpace)
		r.join()
		r.pass(5 * time.Second)
		if got := r.version(); got != before {
			t.Errorf("version %d with a full disk, was %d", got, before)
		}
		r.store.Fail(nil)
		r.pass(3 * time.Second)
		if got := r.version(); got != before+1 || len(r.bundle().Members) != 2 {
			t.Errorf("with space again: version %d, was %d", got, before)
		}
	})
}

// A record that cannot be read stops the master: a bundle with a lower version
// would be refused everywhere.
func TestRestoreDamaged(t *testing.T) {
	for _, k := range []store.Key{bundleKey, rotationKey, {Bucket: toldBucket, ID: "u"}} {
		s := store.NewMem()
		if err := s.Commit(t.Context(), 1, nil, []store.Change{{Key: k, Value: []byte("{")}}); err != nil {
			t.Fatal(err)
		}
		m := New(Config{Store: s, Epoch: 1, Credentials: &wire.Credentials{}})
		if err := m.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), k.String()) {
			t.Errorf("%v: got %v", k, err)
		}
	}
}

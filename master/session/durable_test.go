package session

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/job"
	"verdecmd/master/placement"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// sick is a store that fails as it is told.
type sick struct {
	*store.Mem
	mu   sync.Mutex
	fail func(changes []store.Change) (err error, done bool) // done: the change is made all the same
}

func (s *sick) Commit(ctx context.Context, e store.Epoch, g []store.Guard, c []store.Change) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err, done := fail(c); err != nil {
			if done {
				if cerr := s.Mem.Commit(ctx, e, g, c); cerr != nil {
					return cerr
				}
			}
			return err
		}
	}
	return s.Mem.Commit(ctx, e, g, c)
}

func (s *sick) become(f func([]store.Change) (error, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

func full([]store.Change) (error, bool) { return store.ErrNoSpace, false }

// fullFor fails where one of the buckets is written.
func fullFor(bucket string) func([]store.Change) (error, bool) {
	return func(all []store.Change) (error, bool) {
		for _, c := range all {
			if c.Key.Bucket == bucket {
				return store.ErrNoSpace, false
			}
		}
		return nil, false
	}
}

// desk is a Manager with a cluster of one server, in a bubble.
type desk struct {
	t      *testing.T
	m      *Manager
	store  *sick
	mu     sync.Mutex
	c      *cluster.Cluster
	at     uint64 // attachment
	told   sync.Mutex
	events []string // guarded by told
	orders []string
	cancel context.CancelFunc
	done   []chan error
}

type orders struct{ d *desk }

func (o orders) Order(_ context.Context, _ uint64, x Order) error {
	o.d.mu.Lock()
	defer o.d.mu.Unlock()
	o.d.orders = append(o.d.orders, string(x.How)+" "+x.Session)
	return nil
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, store: &sick{Mem: store.NewMem()}}
	d.c = cluster.New(cluster.Limits{Interval: 3 * time.Second, ReservationTimeout: time.Minute, Resync: 15 * time.Second}, time.Now())
	d.c.Restored(1, 0, 0)
	d.c.Registered(time.Now(), cluster.ServerRecord{ID: 1, UUID: "u", Name: "sat1", State: cluster.Online})
	jobs, err := job.New(t.Context(), job.Config{Store: d.store, Epoch: 1, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	d.m = New(Config{State: d.state, Store: d.store, Epoch: 1, Orders: orders{d}, Jobs: jobs, Log: zerolog.Nop(),
		Event: func(typ, _ string, _ ...monitor.Pair) {
			d.told.Lock()
			defer d.told.Unlock()
			d.events = append(d.events, typ)
		}, ShutdownWait: time.Minute, LogoffWait: time.Minute})
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	for _, run := range []func(context.Context) error{d.m.Run, jobs.Run} {
		done := make(chan error, 1)
		d.done = append(d.done, done)
		go func() { done <- run(ctx) }()
	}
	d.attach()
	return d
}

func (d *desk) state(f func(*cluster.Cluster)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.c)
}

func (d *desk) attach(sessions ...cluster.Reported) {
	var e cluster.Effects
	d.state(func(c *cluster.Cluster) {
		var err error
		d.at, e, err = c.Attach(time.Now(), cluster.Hello{UUID: "u", Instance: "i", Address: "sat1", Facts: cluster.Facts{CPUs: 8, Memory: 64 << 30},
			Load: cluster.Load{MemoryTotal: 64 << 30, MemoryFree: 64 << 30, SnapFree: 1 << 40}, Sessions: sessions})
		if err != nil {
			d.t.Fatal(err)
		}
	})
	d.m.Settle(1, e)
}

func (d *desk) detach() {
	d.state(func(c *cluster.Cluster) { c.Detach(time.Now(), 1, d.at) })
}

// ended lets the server report the end of a session.
func (d *desk) ended(id string) {
	var e cluster.Effects
	d.state(func(c *cluster.Cluster) {
		var err error
		e, err = c.Report(time.Now(), 1, d.at, cluster.Load{MemoryTotal: 64 << 30, MemoryFree: 64 << 30, SnapFree: 1 << 40}, []cluster.Reported{}, []cluster.Ended{{ID: id, How: "guest"}})
		if err != nil {
			d.t.Fatal(err)
		}
	})
	d.m.Settle(1, e)
}

// list lets the server report all its sessions.
func (d *desk) list(sessions ...cluster.Reported) {
	var e cluster.Effects
	d.state(func(c *cluster.Cluster) {
		var err error
		load := cluster.Load{MemoryTotal: 64 << 30, MemoryFree: 64 << 30, SnapFree: 1 << 40}
		if e, err = c.Report(time.Now(), 1, d.at, load, append([]cluster.Reported{}, sessions...), nil); err != nil {
			d.t.Fatal(err)
		}
	})
	d.m.Settle(1, e)
}

// login reserves and claims.
func (d *desk) login(user string, uid uint32) (session string, err error) {
	if _, err := d.m.Refer(d.t.Context(), 1, cluster.Login{User: user, UID: uid, Need: placement.Need{Memory: 1 << 30}}); err != nil {
		return "", err
	}
	reply, err := d.m.Claim(d.t.Context(), 1, d.at, user, uid)
	return reply.GetSession(), err
}

// stored is the sessions bucket: what a restart would know.
func (d *desk) stored() string {
	var out []string
	if err := d.store.View(context.Background(), func(s store.Snapshot) error {
		for user, b := range s.All(Sessions) {
			_, id, _ := strings.Cut(string(b), `"id":"`)
			id, _, _ = strings.Cut(id, `"`)
			out = append(out, user+" "+id)
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
	return strings.Join(out, ", ")
}

// known is what the cluster has in memory.
func (d *desk) known() string {
	var out []string
	d.state(func(c *cluster.Cluster) {
		for _, x := range c.Sessions() {
			out = append(out, x.User+" "+x.ID)
		}
		if _, r := c.Total(); r != 0 {
			out = append(out, "and reservations")
		}
	})
	return strings.Join(out, ", ")
}

func (d *desk) want(when, stored, known string) {
	d.t.Helper()
	synctest.Wait()
	if s, k := d.stored(), d.known(); s != stored || k != known {
		d.t.Errorf("%s: stored %q and known %q, want %q and %q", when, s, k, stored, known)
	}
}

func bubble(t *testing.T, f func(*testing.T, *desk)) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		f(t, d)
		d.cancel()
		for _, done := range d.done {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// S5: a claim that comes when Run waits for the end of what was begun, or has
// ended, begins nothing: Run would not wait for it.
func TestClaimWhileEnding(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		slow := make(chan struct{})
		d.store.become(func([]store.Change) (error, bool) { <-slow; return nil, false })
		first := make(chan error, 1)
		go func() { _, err := d.login("alice", 1001); first <- err }()
		synctest.Wait()
		d.cancel()
		synctest.Wait()
		_, err := d.login("bob", 1002)
		if wire.KindOf(err) != wire.Unreachable || !strings.Contains(err.Error(), "ending") {
			t.Errorf("while the first waits for its disk: %s: %v", wire.KindOf(err), err)
		}
		close(slow)
		if err := <-first; err != nil {
			t.Errorf("begun before: %v", err)
		}
		synctest.Wait()
		if _, err := d.login("carol", 1003); wire.KindOf(err) != wire.Unreachable {
			t.Errorf("after the end: %s: %v", wire.KindOf(err), err)
		}
		d.want("ended", "alice s1", "alice s1")
	})
}

// S20, S5: a claim on a full disk is refused and leaves nothing, and the link
// need not be ended for it: the outcome is known.
func TestClaimOnFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		d.store.become(full)
		_, err := d.login("alice", 1001)
		if wire.KindOf(err) != wire.NoCapacity || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("got %s: %v", wire.KindOf(err), err)
		}
		d.want("refused", "", "")
		d.store.become(nil)
		if s, err := d.login("alice", 1001); err != nil || s != "s2" {
			t.Errorf("with space again: got %q, %v", s, err)
		}
		d.want("with space again", "alice s2", "alice s2")
	})
}

// A claim whose outcome is not known never leaves a record that nobody removes,
// and never a user who cannot log in.
func TestClaimOfUnknownOutcome(t *testing.T) {
	for name, made := range map[string]bool{"made": true, "not made": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, d *desk) {
				d.store.become(func([]store.Change) (error, bool) { return store.ErrUnknown, made })
				if _, err := d.login("alice", 1001); wire.KindOf(err) != wire.Internal {
					t.Errorf("got %s: %v", wire.KindOf(err), err)
				}
				d.store.become(nil)
				time.Sleep(2 * time.Second) // the retry
				d.want("settled", "", "")
				if _, err := d.login("alice", 1001); err != nil {
					t.Error(err)
				}
				d.want("again", "alice s2", "alice s2")
			})
		})
	}
}

// S20: the end of a session on a full disk is kept and made durable later.
func TestEndOnFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		id, err := d.login("alice", 1001)
		if err != nil {
			t.Fatal(err)
		}
		d.store.become(full)
		d.ended(id)
		time.Sleep(5 * time.Second)
		d.want("full", "alice s1", "alice s1")
		if _, err := d.login("alice", 1001); wire.KindOf(err) != wire.NotReady {
			t.Errorf("a login meanwhile: got %s: %v", wire.KindOf(err), err)
		}
		d.store.become(nil)
		time.Sleep(5 * time.Second) // S20: within 5 s
		d.want("with space again", "", "")
	})
}

// S5: force and fence promise nothing that is not on the disk.
func TestForceAndFenceOnFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		for i, user := range []string{"alice", "bob"} {
			if _, err := d.login(user, uint32(1001+i)); err != nil {
				t.Fatal(err)
			}
		}
		d.detach()
		d.store.become(fullFor(Sessions)) // jobs can be stored
		j, _, err := d.m.End(t.Context(), "alice", monitor.Abort, 0, true, "root")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := jobCode(d, j.ID); got != 452 {
			t.Errorf("force: got %d, want 452", got)
		}
		n, err := d.m.Fence(t.Context(), 1)
		var e *monitor.Error
		if n != 0 || !errors.As(err, &e) || e.Code != 452 {
			t.Errorf("fence: got %d, %v", n, err)
		}
		d.want("full", "alice s1, bob s2", "alice s1, bob s2")
		d.store.become(nil)
		time.Sleep(2 * time.Second)
		d.want("with space again", "", "")
		// They show up again: they are ended.
		d.attach(cluster.Reported{ID: "s1", User: "alice", UID: 1001}, cluster.Reported{ID: "s2", User: "bob", UID: 1002})
		synctest.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		if got := strings.Join(d.orders, ", "); !strings.Contains(got, "abort s1") || !strings.Contains(got, "abort s2") {
			t.Errorf("orders: %q", got)
		}
	})
}

func jobCode(d *desk, id uint64) int {
	for _, j := range d.m.cfg.Jobs.List(true) {
		if j.ID == id {
			return j.Code
		}
	}
	return 0
}

// S20: what a satellite runs and nobody knew is adopted durably, later if the
// disk is full now.
func TestAdoptOnFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		d.detach()
		d.store.become(full)
		d.attach(cluster.Reported{ID: "s7", User: "carol", UID: 1003, Seen: cluster.Seen{State: cluster.Running}})
		d.want("full", "", "carol s7")
		d.store.become(nil)
		time.Sleep(2 * time.Second)
		d.want("with space again", "carol s7", "carol s7")
	})
}

// S1, S3: under lease, the release of a session that could not be stored is
// given up when its server is back, and what that one tells then decides:
// nothing stays over for ever.
func TestLeaseReleaseGivenUp(t *testing.T) {
	tests := map[string]struct {
		runs  bool
		known string // in the end
	}{
		"its desktop runs":  {true, "alice s1"},
		"its desktop ended": {false, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, d *desk) {
				d.state(func(c *cluster.Cluster) {
					l := c.Limits()
					l.Lost, l.LeaseReplace = cluster.Lease, 90*time.Second
					*c = *cluster.New(l, time.Now())
					c.Restored(1, 0, 0)
					c.Registered(time.Now(), cluster.ServerRecord{ID: 1, UUID: "u", Name: "sat1", State: cluster.Online})
				})
				d.attach()
				if _, err := d.login("alice", 1001); err != nil {
					t.Fatal(err)
				}
				d.detach()
				d.store.become(full)
				time.Sleep(100 * time.Second) // the lease is over, and the disk is full
				d.want("not stored", "alice s1", "alice s1")
				var there []cluster.Reported
				if tt.runs {
					there = []cluster.Reported{{ID: "s1", User: "alice", UID: 1001, Memory: 1 << 30, Seen: cluster.Seen{State: cluster.Running}}}
				}
				d.attach(there...)
				time.Sleep(2 * time.Second)
				d.store.become(nil)
				time.Sleep(2 * time.Second)
				d.list(there...)
				time.Sleep(2 * time.Second)
				d.want("after its list", tt.known, tt.known)
				_, err := d.m.Refer(d.t.Context(), 1, cluster.Login{User: "alice", UID: 1001, Need: placement.Need{Memory: 1 << 30}})
				if err != nil {
					t.Errorf("the next login: %v", err)
				}
			})
		})
	}
}

// S3, LV1: a store that does not answer holds up neither the time-outs of
// reservations nor, for long, the messages of a satellite.
func TestSlowStore(t *testing.T) {
	bubble(t, func(t *testing.T, d *desk) {
		if _, err := d.login("alice", 1001); err != nil {
			t.Fatal(err)
		}
		if _, err := d.m.Refer(t.Context(), 1, cluster.Login{User: "bob", UID: 1002, Need: placement.Need{Memory: 1 << 30}}); err != nil {
			t.Fatal(err)
		}
		answers := make(chan struct{})
		d.store.become(func([]store.Change) (error, bool) { <-answers; return nil, false })
		at := time.Now()
		d.ended("s1")
		if took := time.Since(at); took > patience {
			t.Errorf("the report took %v, want at most %v", took, patience)
		}
		time.Sleep(time.Minute + time.Second - time.Since(at))
		d.want("reservations have ended", "alice s1", "alice s1")
		close(answers)
		d.want("and when it answers again", "", "")
	})
}

// S3, S5: a claim whose commit takes too long is refused before the satellite
// gives up, and leaves nothing when the store answers at last.
func TestClaimOnSlowStore(t *testing.T) {
	for name, outcome := range map[string]error{"made": nil, "not known": store.ErrUnknown, "refused": store.ErrNoSpace} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, d *desk) {
				answers := make(chan struct{})
				d.store.become(func([]store.Change) (error, bool) { <-answers; return outcome, false })
				began := time.Now()
				if _, err := d.login("alice", 1001); wire.KindOf(err) != wire.NotReady {
					t.Errorf("got %s: %v", wire.KindOf(err), err)
				}
				if took := time.Since(began); took != claimPatience {
					t.Errorf("refused after %v, want %v", took, claimPatience)
				}
				if _, err := d.login("alice", 1001); wire.KindOf(err) != wire.InUse {
					t.Errorf("while the first is open: got %s: %v", wire.KindOf(err), err)
				}
				synctest.Wait()
				d.store.become(nil)
				close(answers)
				time.Sleep(2 * time.Second)
				d.want("when it has answered", "", "")
				if s, err := d.login("alice", 1001); err != nil || s != "s2" {
					t.Errorf("again: got %q, %v", s, err)
				}
				d.want("again", "alice s2", "alice s2")
			})
		})
	}
}

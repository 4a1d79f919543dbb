package drain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/job"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// world is a manager with a real job manager on a store, and a cluster whose
// sessions end some time after they were told to.
type world struct {
	t     *testing.T
	store *store.Mem
	jobs  *job.Manager
	m     *Manager
	stop  func()

	mu      sync.Mutex // guards what follows
	c       *cluster.Cluster
	takes   map[string]time.Duration // by user: how long a log off takes; 0: for ever
	told    []string
	refuses error // of the register
	events  []string
}

const server = 1

func newWorld(t *testing.T, users ...string) *world {
	w := &world{t: t, store: store.NewMem(), c: cluster.New(cluster.Limits{Interval: 3 * time.Second, Resync: 15 * time.Second}, time.Now()), takes: map[string]time.Duration{}}
	w.c.Registered(time.Now(), cluster.ServerRecord{ID: server, UUID: "u", Name: "sat1", State: cluster.Online, Reason: "fast"})
	h := cluster.Hello{UUID: "u", Instance: "i"}
	for i, u := range users {
		x := cluster.Session{ID: fmt.Sprint("s", i+1), User: u, UID: uint32(1001 + i), Server: server}
		w.c.Owned(time.Now(), x)
		h.Sessions = append(h.Sessions, cluster.Reported{ID: x.ID, User: u, UID: x.UID, Seen: cluster.Seen{State: cluster.Running}})
		w.takes[u] = 10 * time.Second
	}
	if _, _, err := w.c.Attach(time.Now(), h); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start starts a master on the store.
func (w *world) start() {
	jobs, err := job.New(w.t.Context(), job.Config{Store: w.store, Epoch: w.store.Epoch()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.jobs, w.m = jobs, New(Config{State: w.state, Servers: w, Sessions: w, Jobs: jobs, Log: zerolog.Nop()})
	w.m.RegisterJobs()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { jobs.Run(ctx) })
	running.Go(func() { w.m.Run(ctx) })
	w.stop = func() { cancel(); running.Wait() }
	synctest.Wait()
}

// restart is kill -9 of the master and its next start.
func (w *world) restart() {
	w.store.Restart()
	w.stop()
	w.start()
}

func (w *world) state(f func(*cluster.Cluster)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.c)
}

func (w *world) SetState(_ context.Context, id uint64, state cluster.State, reason string) (bool, int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses != nil {
		return false, 0, w.refuses
	}
	r := w.c.Server(id).Record()
	r.State, r.Reason = state, reason
	w.c.StateSet(time.Now(), r)
	w.events = append(w.events, string(state))
	return true, 0, nil
}

func (w *world) Drained(ctx context.Context, id uint64) error {
	var r cluster.ServerRecord
	w.state(func(c *cluster.Cluster) {
		if s := c.Server(id); s != nil {
			r = s.Record()
		}
	})
	if r.State != cluster.Draining {
		return nil
	}
	_, _, err := w.SetState(ctx, id, cluster.Offline, r.Reason)
	return err
}

func (w *world) LogoffWait() time.Duration { return 2 * time.Minute }

func (w *world) LogoffSession(_ context.Context, id string, limit time.Duration, by string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.c.SessionByID(id)
	if x == nil {
		return nil
	}
	w.told = append(w.told, fmt.Sprintf("%s %v %s", x.User, limit, by))
	if d := w.takes[x.User]; d > 0 {
		time.AfterFunc(min(d, limit+time.Second), func() { w.leave(id) })
	}
	return nil
}

func (w *world) leave(id string) {
	w.state(func(c *cluster.Cluster) {
		if x := c.SessionByID(id); x != nil {
			c.Released(cluster.Release{Session: *x})
		}
	})
}

// drain starts the job; the reply comes when it has ended.
func (w *world) drain(method Method, limit time.Duration) monitor.Job {
	w.t.Helper()
	j, _, err := w.m.Drain(w.t.Context(), server, method, limit, "root")
	if err != nil {
		w.t.Fatal(err)
	}
	if s := w.now(); s != cluster.Draining {
		w.t.Errorf("answered while the server is %s, want it draining", s)
	}
	return j
}

func (w *world) now() (s cluster.State) {
	w.state(func(c *cluster.Cluster) { s = c.Server(server).State })
	return s
}

// end waits for a job and says how it ended.
func (w *world) end(id uint64) string {
	w.t.Helper()
	j, err := w.jobs.Wait(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	text := fmt.Sprint(j.Code)
	for _, p := range j.Pairs {
		if p.Key != "server" && p.Key != "msg" {
			text += fmt.Sprintf(" %s=%v", p.Key, p.Value)
		}
	}
	return fmt.Sprintf("%s after %v, server %s", text, j.Elapsed.Truncate(time.Second), w.now())
}

func (w *world) wantEnd(id uint64, want string) {
	w.t.Helper()
	if got := w.end(id); got != want {
		w.t.Errorf("got  %s\nwant %s", got, want)
	}
}

// F-29: the ways in which the emptying of a server ends.
func TestDrain(t *testing.T) {
	tests := map[string]struct {
		method Method
		limit  time.Duration
		stays  string       // a user whose desktop does not end
		during func(*world) // after 5 s
		told   string
		want   string
	}{
		"wait, and they leave": {method: Wait, during: func(w *world) { w.leave("s1"); w.leave("s2") },
			want: "200 moved=0 ended=2 left=0 after 5s, server offline"},
		"wait in vain": {method: Wait, limit: time.Minute, during: func(w *world) { w.leave("s1") },
			want: "443 moved=0 ended=1 left=1 state=offline after 1m0s, server offline"},
		"logoff": {method: Logoff, during: func(*world) {}, told: "[alice 2m0s root bob 2m0s root]",
			want: "200 moved=0 ended=2 left=0 after 10s, server offline"},
		"logoff by force at the end": {method: Logoff, limit: 8 * time.Second, during: func(*world) {}, told: "[alice 8s root bob 8s root]",
			want: "200 moved=0 ended=2 left=0 after 9s, server offline"},
		"one that does not end": {method: Logoff, limit: 30 * time.Second, stays: "bob", during: func(*world) {}, told: "[alice 30s root bob 30s root]",
			want: "443 moved=0 ended=1 left=1 state=offline after 50s, server offline"},
		"put online": {method: Logoff, during: func(w *world) { w.SetState(w.t.Context(), server, cluster.Online, "") }, told: "[alice 2m0s root bob 2m0s root]",
			want: "444 moved=0 ended=0 left=2 state=online after 5s, server online"},
		"put offline": {method: Wait, during: func(w *world) { w.SetState(w.t.Context(), server, cluster.Offline, "") },
			want: "444 moved=0 ended=0 left=2 state=offline after 5s, server offline"},
		"cancelled": {method: Wait, during: func(w *world) { w.jobs.Cancel(w.t.Context(), 1) },
			want: "444 moved=0 ended=0 left=2 state=offline after 5s, server offline"},
		"cancelled, and a new master": {method: Wait, during: func(w *world) { w.jobs.Cancel(w.t.Context(), 1); w.restart() },
			want: "444 moved=0 ended=0 left=2 state=offline after 5s, server offline"},
		"a new master": {method: Logoff, during: func(w *world) { w.restart() }, told: "[alice 2m0s root bob 2m0s root alice 2m0s root bob 2m0s root]",
			want: "200 moved=0 ended=2 left=0 after 10s, server offline"},
		"put online, and a new master": {method: Wait, during: func(w *world) { w.SetState(w.t.Context(), server, cluster.Online, ""); w.restart() },
			want: "444 moved=0 ended=0 left=2 state=online after 5s, server online"},
		"one left, and a new master": {method: Wait, limit: time.Minute, during: func(w *world) { w.leave("s1"); w.restart() },
			want: "443 moved=0 ended=1 left=1 state=offline after 1m0s, server offline"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "alice", "bob")
				w.takes[tt.stays] = 0
				j := w.drain(tt.method, tt.limit)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				tt.during(w)
				got := w.end(j.ID)
				if got != tt.want {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
				if told := fmt.Sprint(w.told); told != tt.told && tt.told+told != "[]" {
					t.Errorf("told %s, want %s", told, tt.told)
				}
				w.state(func(c *cluster.Cluster) {
					if s := c.Server(server); s.State == cluster.Offline && s.Reason != "fast" && !strings.Contains(name, "put") {
						t.Errorf("the reason is %q, want the one from before", s.Reason)
					}
				})
			})
		})
	}
}

// The same again joins; another way is refused and told which is under way; an
// empty server that is offline needs no job, one that is online is taken out.
func TestDrainTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "alice")
		w.drain(Wait, time.Minute)
		if j, joined, err := w.m.Drain(t.Context(), server, Wait, time.Minute, "bob"); err != nil || !joined || j.ID != 1 {
			t.Errorf("the same again: got job %d, %v, %v", j.ID, joined, err)
		}
		for _, other := range []struct {
			method Method
			limit  time.Duration
		}{{Logoff, time.Minute}, {Wait, 0}, {Wait, time.Second}} {
			var told *monitor.Error
			_, _, err := w.m.Drain(t.Context(), server, other.method, other.limit, "bob")
			if !errors.As(err, &told) || told.Code != 440 || !strings.Contains(told.Text, "Job 1 empties server 1 already, with method=wait timeout=60;") {
				t.Errorf("%v: got %v", other, err)
			}
		}
		w.leave("s1")
		w.wantEnd(1, "200 moved=0 ended=1 left=0 after 0s, server offline")
		if j, joined, err := w.m.Drain(t.Context(), server, Logoff, 0, "bob"); err != nil || joined || j.ID != 0 {
			t.Errorf("empty and offline: got job %d, %v, %v", j.ID, joined, err)
		}
		w.SetState(t.Context(), server, cluster.Online, "")
		j, _, err := w.m.Drain(t.Context(), server, Logoff, 0, "bob")
		if err != nil || j.ID != 2 {
			t.Errorf("empty and online: got job %d, %v", j.ID, err)
		}
		w.wantEnd(2, "200 moved=0 ended=0 left=0 after 0s, server offline")
		var told *monitor.Error
		if _, _, err := w.m.Drain(t.Context(), 9, Wait, 0, "bob"); !errors.As(err, &told) || told.Code != 550 {
			t.Errorf("unknown server: got %v", err)
		}
	})
}

// The link is down: nobody is told until it is back (within the limit), and the
// administrator reads which command helps.
func TestDrainLinkDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "alice")
		w.state(func(c *cluster.Cluster) { c.Detach(time.Now(), server, c.Server(server).Attachment) })
		j := w.drain(Logoff, time.Minute)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got, _ := w.jobs.Get(j.ID); len(w.told) > 0 || !strings.Contains(got.Message, `alice (lost); server 1 (sat1) has had no link for 30 s: "fenceserver 1"`) {
			t.Errorf("told %v; %s", w.told, got.Message)
		}
		w.state(func(c *cluster.Cluster) {
			c.Attach(time.Now(), cluster.Hello{UUID: "u", Instance: "i", Sessions: []cluster.Reported{{ID: "s1", User: "alice", UID: 1001}}})
		})
		w.wantEnd(j.ID, "200 moved=0 ended=1 left=0 after 40s, server offline")
		if got := fmt.Sprint(w.told); got != "[alice 30s root]" {
			t.Errorf("told %s", got)
		}
	})
}

// A disk that is full: what was not begun is not done; what could not be ended
// is put right later, also by another master.
func TestDrainFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "alice")
		w.store.Fail(store.ErrNoSpace)
		if _, _, err := w.m.Drain(t.Context(), server, Logoff, 0, "root"); !errors.Is(err, store.ErrNoSpace) || w.now() != cluster.Online {
			t.Errorf("no place for the job: %v, server %s", err, w.now())
		}
		w.store.Fail(nil)
		w.refuse(store.ErrNoSpace)
		j, _, err := w.m.Drain(t.Context(), server, Logoff, 0, "root")
		if err != nil {
			t.Fatal(err)
		}
		w.wantEnd(j.ID, "452 after 0s, server online")
		if len(w.told) > 0 {
			t.Errorf("told %v", w.told)
		}
		w.refuse(nil)
		j = w.drain(Logoff, 0)
		w.refuse(store.ErrNoSpace)
		w.wantEnd(j.ID, "452 after 10s, server draining")
		time.Sleep(time.Minute)
		if s := w.now(); s != cluster.Draining {
			t.Errorf("the server is %s", s)
		}
		w.refuse(nil)
		time.Sleep(tidy)
		synctest.Wait()
		if s := w.now(); s != cluster.Offline {
			t.Errorf("after there is space: the server is %s", s)
		}
		w.SetState(t.Context(), server, cluster.Draining, "") // what a database from a copy may say
		w.restart()
		if s := w.now(); s != cluster.Offline {
			t.Errorf("draining without a job: the server is %s", s)
		}
	})
}

// Another error than a full disk has its own code; a server that is forgotten in
// this moment is no error of the disk.
func TestDrainNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "alice")
		for _, test := range []struct {
			err  error
			want string
		}{
			{fmt.Errorf("storing: %w", store.ErrStopped), "555 after 0s, server online"},
			{monitor.Errorf(554, nil, "not now"), "554 after 0s, server online"},
		} {
			w.refuse(test.err)
			j, _, err := w.m.Drain(t.Context(), server, Wait, 0, "root")
			if err != nil {
				t.Fatal(err)
			}
			w.wantEnd(j.ID, test.want)
		}
		w.refuse(nil)
		j := w.drain(Wait, 0)
		w.refuse(store.ErrStopped)
		w.leave("s1")
		w.wantEnd(j.ID, "555 after 0s, server draining")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.m.cfg.Servers = forgets{w}
		j, _, err := w.m.Drain(t.Context(), server, Wait, 0, "root")
		if err != nil {
			t.Fatal(err)
		}
		if j, err = w.jobs.Wait(t.Context(), j.ID); err != nil || j.Code != 444 || !strings.Contains(j.Text, "was forgotten meanwhile") {
			t.Errorf("forgotten before its end: %d %s, %v", j.Code, j.Text, err)
		}
	})
}

// forgets is a register from which the server is gone when it is to be put offline.
type forgets struct{ *world }

func (f forgets) Drained(_ context.Context, id uint64) error {
	f.state(func(c *cluster.Cluster) {
		c.Detach(time.Now(), id, c.Server(id).Attachment)
		if _, err := c.Forget(time.Now().Add(time.Hour), id); err != nil {
			f.t.Error(err)
		}
	})
	return monitor.Errorf(550, nil, "no server has the ID %d", id)
}

func (w *world) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuses = err
}

// A record that cannot be read does not keep a master from starting: its job is
// closed, the server is offline.
func TestDrainUnreadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "alice")
		w.SetState(t.Context(), server, cluster.Draining, "")
		if _, _, err := w.jobs.Start(t.Context(), job.Spec{Action: Action, Object: "1", Data: []byte(`{"method":"magic"}`)},
			func(ctx context.Context, _ *job.Progress) job.Outcome { <-ctx.Done(); return job.Outcome{} }); err != nil {
			t.Fatal(err)
		}
		w.restart()
		if got := w.end(1); !strings.HasPrefix(got, "555 ") {
			t.Errorf("got %s, want 555", got)
		}
		time.Sleep(tidy)
		synctest.Wait()
		if s := w.now(); s != cluster.Offline {
			t.Errorf("the server is %s", s)
		}
	})
}

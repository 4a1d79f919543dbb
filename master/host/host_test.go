package host

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// register is a Manager with a cluster, as a master that has just started.
type register struct {
	*Manager
	mu     sync.Mutex
	c      *cluster.Cluster
	told   sync.Mutex // guards events while several machines come at once
	events []string
}

func start(t *testing.T, s *store.Mem) *register {
	t.Helper()
	r := &register{c: cluster.New(cluster.Limits{Interval: time.Second, ReservationTimeout: time.Minute}, time.Now())}
	r.Manager = New(Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop(), Cancelled: func([]cluster.Reservation) {},
		Event: func(typ, _ string, _ ...monitor.Pair) {
			r.told.Lock()
			defer r.told.Unlock()
			r.events = append(r.events, typ)
		},
		State: func(f func(*cluster.Cluster)) {
			r.mu.Lock()
			defer r.mu.Unlock()
			f(r.c)
		}})
	last, err := r.Restore(t.Context(), time.Now(), r.c)
	if err != nil {
		t.Fatal(err)
	}
	r.c.Restored(uint64(s.Epoch()), 0, last)
	return r
}

func (r *register) ids() (out []uint64) {
	for _, s := range r.c.Servers() {
		out = append(out, s.ID)
	}
	return out
}

// A server keeps its number over restarts, and no number is given twice.
func TestEnsure(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	for _, x := range []struct{ uuid, name string }{{"u1", "sat1"}, {"u2", "sat2"}, {"u1", "sat1"}} {
		if err := r.Ensure(t.Context(), helloOf(x.uuid, "j"+x.uuid), x.name); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(r.events, " "); got != "server.registered server.registered" {
		t.Errorf("events: %s", got)
	}
	if err := r.Ensure(t.Context(), helloOf("u3", "j"), "sat2"); wire.KindOf(err) != wire.InUse {
		t.Errorf("a taken name: got %v", err)
	}
	s.Restart()
	r = start(t, s)
	if err := r.Ensure(t.Context(), helloOf("u4", "j"), "sat4"); err != nil {
		t.Fatal(err)
	}
	if got := r.ids(); len(got) != 3 || r.c.ServerByUUID("u1").ID != 1 || r.c.ServerByUUID("u4").ID != 3 {
		t.Errorf("after a restart: %v", got)
	}
}

// S1: a machine that shows a server's certificate but has another journal of
// sessions says nothing about that server's desktops: it is refused, also after
// a restart of the master. A server that was known before journals had names
// gets its name with the first one.
func TestJournal(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	for _, journal := range []string{"", "one", "one"} {
		if err := r.Ensure(t.Context(), helloOf("u1", journal), "sat1"); err != nil {
			t.Fatalf("journal %q: %v", journal, err)
		}
	}
	if _, _, err := r.SetState(t.Context(), 1, cluster.Offline, "a reason"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, journal := range []string{"two", ""} {
			err := r.Ensure(t.Context(), helloOf("u1", journal), "sat1")
			if wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), `"forgetserver 1"`) {
				t.Errorf("journal %q: got %v, want a refusal that names the command", journal, err)
			}
		}
		s.Restart()
		r = start(t, s)
	}
	if err := r.Ensure(t.Context(), helloOf("u1", "one"), "sat1"); err != nil || r.c.Server(1).State != cluster.Offline {
		t.Errorf("the right journal: got %v, %+v", err, r.c.Server(1))
	}
}

// S20: a registration that cannot be stored is none, and takes no number away.
func TestEnsureOnFullDisk(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	s.Fail(store.ErrNoSpace)
	if err := r.Ensure(t.Context(), helloOf("u1", "j"), "sat1"); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	if len(r.ids()) != 0 || len(r.events) != 0 {
		t.Errorf("servers %v, events %v", r.ids(), r.events)
	}
	s.Fail(nil)
	if err := r.Ensure(t.Context(), helloOf("u1", "j"), "sat1"); err != nil || r.c.ServerByUUID("u1").ID != 1 {
		t.Errorf("with space again: %v, %v", err, r.ids())
	}
}

// V-78, S5, S6: what was acknowledged is so after a restart, and what was not
// is as before.
func TestSetState(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	for _, n := range []string{"1", "2"} {
		if err := r.Ensure(t.Context(), helloOf("u"+n, "j"), "sat"+n); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name    string
		full    bool
		id      uint64
		state   cluster.State
		reason  string
		changed bool
		left    int
		code    int // of the error; 1: any
	}{
		{name: "offline", id: 1, state: cluster.Offline, reason: "disks", changed: true, left: 1},
		{name: "offline again", id: 1, state: cluster.Offline, left: 1},
		{name: "another reason", id: 1, state: cluster.Offline, reason: "memory", changed: true, left: 1},
		{name: "the last one", id: 2, state: cluster.Offline, changed: true, left: 0},
		{name: "full", full: true, id: 2, state: cluster.Online, code: 1},
		{name: "unknown", id: 9, state: cluster.Online, code: 550},
	}
	for _, x := range steps {
		if x.full {
			s.Fail(store.ErrNoSpace)
		}
		changed, left, err := r.SetState(t.Context(), x.id, x.state, x.reason)
		s.Fail(nil)
		var e *monitor.Error
		switch {
		case x.code == 1 && !errors.Is(err, store.ErrNoSpace), x.code > 1 && (!errors.As(err, &e) || e.Code != x.code), x.code == 0 && err != nil:
			t.Errorf("%s: got %v", x.name, err)
		case changed != x.changed || err == nil && left != x.left:
			t.Errorf("%s: got %v, %d left", x.name, changed, left)
		}
	}
	s.Restart()
	r = start(t, s)
	if one, two := r.c.Server(1).Record(), r.c.Server(2).Record(); one.State != cluster.Offline || one.Reason != "memory" || two.State != cluster.Offline {
		t.Errorf("after a restart: %+v, %+v", one, two)
	}
	if changed, left, err := r.SetState(t.Context(), 1, cluster.Online, ""); err != nil || !changed || left != 1 {
		t.Errorf("online: %v, %d, %v", changed, left, err)
	}
	if r.c.Server(1).Reason != "" {
		t.Errorf("online because of %q", r.c.Server(1).Reason)
	}
}

// S9: a master that has been replaced writes nothing any more.
func TestOldEpochWritesNothing(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	if err := r.Ensure(t.Context(), helloOf("u1", "j"), "sat1"); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	if _, _, err := r.SetState(t.Context(), 1, cluster.Offline, ""); !errors.Is(err, store.ErrFenced) {
		t.Errorf("got %v", err)
	}
	if next := start(t, s); next.c.Server(1).State != cluster.Online {
		t.Error("the old master has changed something")
	}
}

// A record that cannot be read stops the master: better none than one that has
// forgotten a server.
func TestRestoreDamaged(t *testing.T) {
	s := store.NewMem()
	if err := s.Commit(t.Context(), 1, nil, []store.Change{{Key: store.Key{Bucket: servers, ID: "7"}, Value: []byte("{")}}); err != nil {
		t.Fatal(err)
	}
	m := New(Config{Store: s, Epoch: 1})
	if _, err := m.Restore(t.Context(), time.Now(), cluster.New(cluster.Limits{}, time.Now())); err == nil || !strings.Contains(err.Error(), "server 7") {
		t.Errorf("got %v", err)
	}
}

func recordOf(uuid string) cluster.ServerRecord {
	return cluster.ServerRecord{ID: 1, UUID: uuid, Name: "sat1", State: cluster.Online}
}

func helloOf(uuid, journal string) cluster.Hello {
	return cluster.Hello{UUID: uuid, Journal: journal, Instance: "i", Address: "192.0.2.1"}
}

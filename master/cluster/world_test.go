package cluster

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"verdecmd/master/placement"
)

const (
	gib      = 1 << 30
	interval = 3 * time.Second
	timeout  = time.Minute
	resync   = 15 * time.Second
	replace  = 90 * time.Second
)

var limits = Limits{Interval: interval, ReservationTimeout: timeout, Resync: resync, LeaseReplace: replace}

var uids = map[string]uint32{"alice": 1001, "bob": 1002, "carol": 1003, "dave": 1004}

// world drives a cluster by hand. Every step checks the books.
type world struct {
	t    testing.TB
	c    *Cluster
	now  time.Time
	uids map[string]uint32
}

// newWorld returns a cluster of n servers with 8 GiB each, all connected.
func newWorld(t testing.TB, n int, change ...func(*Limits)) *world {
	t.Helper()
	l := limits
	for _, f := range change {
		f(&l)
	}
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), uids: maps.Clone(uids)}
	w.c = New(l, w.now)
	w.c.Restored(1, 0, 0)
	for i := 1; i <= n; i++ {
		w.register(uint64(i))
		w.attach(uint64(i))
	}
	return w
}

func lease(l *Limits) { l.Lost = Lease }

func (w *world) register(id uint64) {
	w.t.Helper()
	r := w.c.Enrol(uuid(id), fmt.Sprintf("sat%d", id))
	if r.ID != id {
		w.t.Fatalf("enrolled as %d, want %d", r.ID, id)
	}
	w.c.Registered(w.now, r)
	w.check()
}

func uuid(id uint64) string { return fmt.Sprintf("uuid%d", id) }

func hello(id uint64, sessions ...Reported) Hello {
	return Hello{UUID: uuid(id), Instance: "first", Address: fmt.Sprintf("192.0.2.%d", id), Facts: facts(), Load: idle(), Sessions: sessions}
}

func facts() Facts { return Facts{CPUs: 4, SnapDir: "/snap", SnapReserve: gib} }

func idle() Load { return Load{MemoryTotal: 8 * gib, MemoryFree: 8 * gib, SnapFree: 100 * gib} }

func (w *world) check() {
	w.t.Helper()
	if err := w.c.Check(); err != nil {
		w.t.Fatalf("the books are wrong: %v", err)
	}
}

func (w *world) wait(d time.Duration) { w.now = w.now.Add(d) }

// attach opens a link and makes durable whatever follows.
func (w *world) attach(id uint64, sessions ...Reported) Effects {
	w.t.Helper()
	return w.hello(hello(id, sessions...))
}

func (w *world) hello(h Hello) Effects {
	w.t.Helper()
	_, e, err := w.c.Attach(w.now, h)
	if err != nil {
		w.t.Fatalf("attach %s: %v", h.UUID, err)
	}
	return w.settle(e)
}

// report sends a report on the live link; nil sessions: as before.
func (w *world) report(id uint64, sessions []Reported, ended ...Ended) Effects {
	w.t.Helper()
	e, err := w.c.Report(w.now, id, w.c.Server(id).Attachment, idle(), sessions, ended)
	if err != nil {
		w.t.Fatalf("report of %d: %v", id, err)
	}
	return w.settle(e)
}

func (w *world) reportAll() {
	w.t.Helper()
	for _, s := range w.c.Servers() {
		if s.Attachment != 0 {
			w.report(s.ID, nil)
		}
	}
}

func (w *world) detach(id uint64) (lost []Session, cancelled []Reservation) {
	w.t.Helper()
	lost, cancelled, closed := w.c.Detach(w.now, id, w.c.Server(id).Attachment)
	if !closed {
		w.t.Fatalf("the link of %d was not closed", id)
	}
	w.check()
	return lost, cancelled
}

func (w *world) settle(e Effects) Effects {
	w.t.Helper()
	w.check()
	for _, r := range e.Release {
		w.c.Released(r)
	}
	for _, x := range e.Adopt {
		w.c.Adopted(x)
	}
	for _, id := range e.Pardon {
		w.c.Pardoned(id)
	}
	w.check()
	return e
}

func (w *world) refer(user string) (Referral, error) {
	w.t.Helper()
	defer w.check()
	return w.c.Refer(w.now, Login{User: user, UID: w.uids[user], Need: placement.Need{Memory: gib}, Client: "local"})
}

// begin starts a claim at the live link of a server.
func (w *world) begin(user string, server uint64) (*Claim, error) {
	w.t.Helper()
	defer w.check()
	return w.c.BeginClaim(w.now, server, w.c.Server(server).Attachment, user, w.uids[user])
}

func (w *world) claim(user string, server uint64) error {
	w.t.Helper()
	claim, err := w.begin(user, server)
	if err == nil && !w.c.Claimed(w.now, claim) {
		w.t.Fatalf("the claim of %s was void", user)
	}
	w.check()
	return err
}

// login gives a user a session and returns it as its server would report it.
func (w *world) login(user string) Reported {
	w.t.Helper()
	ref, err := w.refer(user)
	if err != nil || ref.Reservation == nil {
		w.t.Fatalf("refer %s: %+v, %v", user, ref, err)
	}
	if err := w.claim(user, ref.Server.ID); err != nil {
		w.t.Fatalf("claim of %s: %v", user, err)
	}
	x := w.c.Session(user)
	return running(x.ID, user)
}

func running(id, user string) Reported {
	return Reported{ID: id, User: user, UID: uids[user], Memory: gib, Seen: Seen{State: Running}}
}

// restart builds a new master of the next epoch from the durable records.
func (w *world) restart() {
	w.t.Helper()
	old := w.c
	w.c = New(old.limits, w.now)
	w.c.Restored(old.epoch+1, old.highWater, old.nextServer-1)
	for _, s := range old.Servers() {
		w.c.Registered(w.now, s.Record())
	}
	for _, x := range old.Sessions() {
		w.c.Owned(w.now, Session{ID: x.ID, User: x.User, UID: x.UID, Server: x.Server, Memory: x.Memory, Epoch: x.Epoch})
	}
	for id, server := range old.Condemned() {
		w.c.CondemnedRestored(id, server)
	}
	w.check()
}

func (w *world) offline(id uint64) []Reservation {
	r := w.c.Server(id).Record()
	r.State, r.Reason = Offline, "memory exchange"
	defer w.check()
	return w.c.StateSet(w.now, r)
}

func ids(all []Session) (out []string) {
	for _, x := range all {
		out = append(out, x.ID)
	}
	return out
}

package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/host"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// rig is a hub with the capabilities behind it, a clock, and what it tells.
type rig struct {
	*Hub
	t    *testing.T
	c    *cluster.Cluster
	host *host.Manager
	now  time.Time
	told []string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	r.c = cluster.New(cluster.Limits{Interval: 3 * time.Second, ReservationTimeout: time.Minute}, r.now)
	state := func(f func(*cluster.Cluster)) { f(r.c) }
	note := func(again string) func(typ, text string, pairs ...monitor.Pair) {
		return func(typ, _ string, pairs ...monitor.Pair) {
			if strings.HasPrefix(typ, "server.") && typ != "server.registered" {
				r.told = append(r.told, fmt.Sprintf("%s%s %v", again, typ, pairs[0].Value))
			}
		}
	}
	db := store.NewMem()
	s := session.New(session.Config{State: state, Store: db, Epoch: 1, Event: note(""), Log: zerolog.Nop()})
	r.host = host.New(host.Config{State: state, Store: db, Epoch: 1, Event: note(""), Cancelled: s.Cancelled, Log: zerolog.Nop()})
	r.Hub = New(Config{State: state, Host: r.host, Session: s, Event: note(""), Again: note("again "), Now: func() time.Time { return r.now }, Log: zerolog.Nop()})
	return r
}

func (r *rig) want(what, want string) {
	r.t.Helper()
	if got := strings.Join(r.told, ", "); got != want {
		r.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
	r.told = nil
}

func (r *rig) attach(name, instance string, sessions ...cluster.Reported) (link.Attached, error) {
	return r.Attach(r.t.Context(), cluster.Hello{UUID: "id-" + name, Instance: instance, Journal: name, Load: load(), Sessions: sessions}, name)
}

func (r *rig) must(at link.Attached, err error) link.Attached {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return at
}

// pass lets time pass with a look each second.
func (r *rig) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		r.now = r.now.Add(time.Second)
		r.Watch()
	}
}

func load() cluster.Load {
	return cluster.Load{MemoryTotal: 1 << 40, MemoryFree: 1 << 40, SnapFree: 1 << 40}
}

// A server is lost when it has been away for a while and somebody misses it; that
// is told once, and so is its end.
func TestLost(t *testing.T) {
	r := newRig(t)
	a := r.must(r.attach("sat1", "i1"))
	b := r.must(r.attach("sat2", "i2", cluster.Reported{ID: "s1", User: "alice", UID: 1001, Seen: cluster.Seen{State: cluster.Running}}))
	for _, id := range []uint64{a.Server, b.Server} {
		if _, _, err := r.host.SetState(t.Context(), id, cluster.Offline, ""); err != nil {
			t.Fatal(err)
		}
	}
	r.pass(time.Minute)
	r.want("connected", "server.up 1, server.up 2, server.offline 1, server.offline 2")
	r.Detach(t.Context(), a.Server, a.Attachment)
	r.Detach(t.Context(), b.Server, b.Attachment)
	r.pass(LostAfter - time.Second)
	r.want("shortly away", "server.down 1, server.down 2")
	r.pass(time.Second)
	r.want("too long, with a session there", "again server.away 1, server.lost 2")
	r.pass(tellAgain)
	r.want("a minute later", "again server.away 1")
	r.pass(time.Hour)
	r.told = nil // that nobody misses the first one, each minute
	if _, _, err := r.host.SetState(t.Context(), a.Server, cluster.Online, ""); err != nil {
		t.Fatal(err)
	}
	r.pass(time.Second)
	r.want("online again", "server.online 1, server.lost 1")
	if _, _, err := r.host.SetState(t.Context(), a.Server, cluster.Offline, ""); err != nil {
		t.Fatal(err)
	}
	r.pass(time.Second)
	r.want("out of service", "server.offline 1, server.away 1")

	b = r.must(r.attach("sat2", "i2", cluster.Reported{ID: "s1", User: "alice", UID: 1001, Seen: cluster.Seen{State: cluster.Running}}))
	r.Detach(t.Context(), b.Server, b.Attachment) // and away again before anybody looks
	r.pass(LostAfter - time.Second)
	r.want("away anew", "server.up 2, server.down 2")
	r.pass(time.Second)
	r.want("lost anew", "server.lost 2")
	if err := r.host.Forget(t.Context(), a.Server); err != nil {
		t.Fatal(err)
	}
	r.Forget(a.Server)
	r.pass(time.Minute)
	r.want("forgotten", "server.forgotten 1")
	if len(r.watched.away) != 1 {
		t.Errorf("%d servers are watched, want 1", len(r.watched.away))
	}
}

// After a start of the master servers have time to come back; that nobody misses
// one is told to those who may have heard otherwise from the master before.
func TestLostAfterStart(t *testing.T) {
	r := newRig(t)
	for i, state := range []cluster.State{cluster.Online, cluster.Online, cluster.Draining, cluster.Offline, cluster.Online} {
		r.c.Registered(r.now, cluster.ServerRecord{ID: uint64(i + 1), UUID: fmt.Sprintf("id-sat%d", i+1), Name: fmt.Sprintf("sat%d", i+1), State: state, Journal: fmt.Sprintf("sat%d", i+1)})
	}
	r.pass(LostAfter - time.Second)
	r.must(r.attach("sat2", "i"))
	r.want("before", "server.up 2")
	r.pass(time.Second)
	r.want("who has not come", "server.lost 1, again server.away 3, again server.away 4, server.lost 5")
}

// Pitfall 9: the same identity twice: it is told once, and that it goes on to
// those who count.
func TestDuplicate(t *testing.T) {
	r := newRig(t)
	a := r.must(r.attach("sat1", "one"))
	for range 3 {
		if _, err := r.attach("sat1", "two"); err == nil || !strings.Contains(err.Error(), cluster.ErrDuplicate.Error()) {
			t.Errorf("a second machine: %v", err)
		}
	}
	r.want("twice", "server.up 1, server.duplicate 1, again server.duplicate 1, again server.duplicate 1")
	h := cluster.Hello{UUID: "id-sat1", Instance: "one", Journal: "another", Load: load()}
	for range 2 {
		if _, err := r.Attach(t.Context(), h, "sat1"); err == nil {
			t.Error("another journal is taken")
		}
	}
	r.want("another journal", "server.refused sat1, again server.refused sat1")
	r.Detach(t.Context(), a.Server, a.Attachment)
	r.must(r.attach("sat1", "two"))
	r.want("the other one", "server.down 1, server.up 1")
}

// RELIABILITY 4.2: a clock that is wrong is told after three reports, and when it
// is right again; reports that were held up say nothing about the clock.
func TestClock(t *testing.T) {
	r := newRig(t)
	at := r.must(r.attach("sat1", "i"))
	r.told = nil
	report := func(off time.Duration, times int) {
		t.Helper()
		for range times {
			r.now = r.now.Add(3 * time.Second)
			if err := r.Report(t.Context(), at.Server, at.Attachment, link.Report{Load: load(), Clock: r.now.Add(off)}); err != nil {
				t.Fatal(err)
			}
		}
		r.told = slices.DeleteFunc(r.told, func(s string) bool { return strings.HasPrefix(s, "again") })
	}
	report(4*time.Second, 10)
	report(-wire.MaxSkew, 10)
	report(time.Hour, 2)
	report(0, 1)
	report(-time.Hour, 2)
	r.want("right, or wrong for a moment", "")
	report(-time.Hour, 1)
	r.want("wrong three times", "server.skew 1")
	report(-time.Hour, 20)
	report(0, 2)
	report(time.Hour, 1)
	r.want("still", "")
	report(time.Second, 3)
	r.want("right three times", "server.clock 1")

	sent := r.now
	r.now = r.now.Add(time.Minute)
	for i := range 20 { // all at once
		if err := r.Report(t.Context(), at.Server, at.Attachment, link.Report{Load: load(), Clock: sent.Add(time.Duration(i) * 3 * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	report(0, 3)
	for range 2 { // a satellite that does not tell
		r.now = r.now.Add(3 * time.Second)
		if err := r.Report(t.Context(), at.Server, at.Attachment, link.Report{Load: load()}); err != nil {
			t.Fatal(err)
		}
	}
	r.want("held up, and not told", "")
}

// V-38: space is told when it becomes scarce and when it is there again, also
// where the master that has told the first is not the one that tells the second.
func TestSpaceOverARestart(t *testing.T) {
	r := newRig(t)
	at := r.must(r.attach("sat1", "i"))
	report := func(free uint64, clock time.Time) {
		t.Helper()
		l := load()
		l.SnapFree = free
		r.now = r.now.Add(3 * time.Second)
		if err := r.Report(t.Context(), at.Server, at.Attachment, link.Report{Load: l, Clock: clock}); err != nil {
			t.Fatal(err)
		}
	}
	report(1<<30, time.Time{})
	report(0, time.Time{})
	report(0, time.Time{})
	report(1<<30, time.Time{})
	r.want("space", "server.up 1, again server.space 1, server.nospace 1, server.space 1")

	r = newRig(t) // another start of the master
	at = r.must(r.attach("sat1", "i"))
	for range 3 {
		report(1<<30, r.now.Add(3*time.Second))
	}
	r.want("what another master has told is over", "server.up 1, again server.space 1, again server.clock 1")
	for range int(tellAgain / (3 * time.Second)) {
		report(1<<30, time.Time{})
	}
	r.want("a minute later", "again server.space 1")
}

// A hub's Run watches until its context ends.
func TestRun(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := r.Report(t.Context(), 9, 9, link.Report{}); err == nil || errors.Is(err, cluster.ErrUnknownServer) {
		t.Errorf("a report of nobody: %v", err)
	}
}

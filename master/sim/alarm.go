package sim

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/alarm"
	"verdecmd/master/cluster"
	"verdecmd/master/hub"
	"verdecmd/master/store"
)

// what an alarm is about.
type what struct{ kind, object string }

// sighting is an alarm that a master has announced, or that the next one has read.
type sighting struct {
	what
	acked, cleared bool
	byHand         time.Duration // when an administrator cleared it; 0: nobody did
}

// newAlarms is what master.New does for the alarms.
func (m *master) newAlarms(s store.Store, e store.Epoch) (err error) {
	m.recording.m = m
	m.alarm, err = alarm.New(context.Background(), alarm.Config{Store: s, Epoch: e, Event: m.event, Log: zerolog.Nop(), Now: m.now, Turn: &m.recording, Wake: m.record})
	return err
}

// settleAlarms is what master.New does when it has read its books.
func (m *master) settleAlarms() {
	m.alarm.Settle(func(of, object string) bool {
		if of == "user" {
			return m.cluster.Session(object) != nil
		}
		id, err := strconv.ParseUint(object, 10, 64)
		return err != nil || m.cluster.Server(id) != nil
	})
}

// watch is the ticker of a second of the hub and of the alarms.
func (m *master) watch() {
	m.hub.Watch()
	m.alarm.Tick()
	m.storing = false
	m.record()
}

// record is what alarm.Run does when it is woken; after a failure it waits for
// the next tick.
func (m *master) record() {
	if m.storing {
		return
	}
	m.storing = true
	m.w.after(&m.actor, 0, func() {
		m.begin(func() {
			if m.alarm.Work(context.Background()) == nil {
				m.storing = false
			}
		})
	})
}

// announced looks at what a master says about an alarm (S11): the disk has it as
// it is said, each thing is said once and in its order, and there are no two
// alarms of the same.
func (w *world) announced(m *master, typ string, id uint64) {
	var r alarm.Record
	var ok bool
	err := w.store.View(context.Background(), func(s store.Snapshot) (err error) {
		r, ok, err = alarm.Stored(s, id)
		return err
	})
	x := w.alarms[id]
	switch {
	case err != nil || !ok:
		w.fail("S11", "master %d says %s of alarm %d, which is not on the disk: %v", m.id, typ, id, err)
	case typ == alarm.Raised && x != nil:
		w.fail("S11", "alarm %d (%s %s) is raised twice", id, r.Kind, r.Object)
	case typ == alarm.Raised:
		w.sight(r)
		w.count("alarm")
		delete(m.audit.odd, what{r.Kind, r.Object})
		if w.time < active {
			w.reactTo(id)
		}
	case x == nil:
		w.fail("S11", "master %d says %s of alarm %d, which was not raised", m.id, typ, id)
	case typ == alarm.Acked && (x.acked || r.Acked.IsZero()):
		w.fail("S11", "alarm %d is acknowledged: before %v, on the disk %v", id, x.acked, !r.Acked.IsZero())
	case typ == alarm.Acked:
		x.acked = true
	case x.cleared || r.Cleared.IsZero():
		w.fail("S11", "alarm %d is over: before %v, on the disk %v", id, x.cleared, !r.Cleared.IsZero())
	default:
		x.cleared = true
	}
}

// sight notes an alarm that is shown from now on.
func (w *world) sight(r alarm.Record) {
	for _, id := range sortedKeys(w.alarms) {
		x := w.alarms[id]
		if !x.cleared && x.what == (what{r.Kind, r.Object}) {
			w.fail("S11", "alarm %d is raised, and alarm %d is of the same: %s %s", r.ID, id, r.Kind, r.Object)
		}
	}
	w.alarms[r.ID] = &sighting{what: what{r.Kind, r.Object}}
}

// reread looks at the alarms that a master has read from its store: all that were
// shown, as they were shown. What was stored and not announced any more is there,
// too.
func (w *world) reread(m *master) {
	here := map[uint64]bool{}
	list := m.alarm.List(true)
	for i := range list {
		a := &list[i]
		here[a.ID] = true
		x := w.alarms[a.ID]
		if x == nil {
			if a.Active() {
				w.sight(alarm.Record{ID: a.ID, Kind: a.Kind, Object: a.Object})
			} else {
				w.alarms[a.ID] = &sighting{what: what{a.Kind, a.Object}}
			}
			x = w.alarms[a.ID]
		}
		if x.acked && a.Acked.IsZero() || x.cleared && a.Active() {
			w.fail("S11", "alarm %d was acknowledged (%v) and over (%v), and master %d has %+v", a.ID, x.acked, x.cleared, m.id, *a)
		}
		x.acked, x.cleared = !a.Acked.IsZero(), !a.Active()
		if a.ClearedBy != "" {
			x.byHand = w.time
		}
	}
	for _, id := range sortedKeys(w.alarms) {
		if !here[id] {
			w.fail("S11", "alarm %d was shown, and master %d does not know it", id, m.id)
		}
	}
}

// reactTo lets an administrator acknowledge or clear some alarms.
func (w *world) reactTo(id uint64) {
	d := w.dice.of("alarm", id)
	if !d.chance(40) {
		return
	}
	clears := d.chance(40)
	w.queue.push(min(w.time+d.between(time.Second, 40*time.Second), active), func() {
		m := w.master()
		if m == nil {
			return
		}
		m.begin(func() {
			if !clears {
				n, err := m.alarm.Ack(context.Background(), id, "admin", "seen")
				w.note("admin", m.id, "ackalarm", id, n, err)
				return
			}
			x := w.alarms[id]
			was := x.byHand
			x.byHand = w.time // from now on it may be so
			ok, err := m.alarm.Clear(context.Background(), id, "admin")
			w.note("admin", m.id, "clearalarm", id, ok, err)
			if err == nil && !ok {
				x.byHand = was
			}
		})
	})
}

const (
	// noticed is how long a cause may be without its alarm, and an alarm without
	// its cause, while the disk takes what comes.
	noticed = 12 * time.Second
	// byHand is the same after an administrator has cleared one.
	byHand = 75 * time.Second
)

// alarmed looks whether what is wrong by the master's books has an alarm, and
// what is right has none (S11). It is called every three seconds.
func (a *audit) alarmed() {
	m, w := a.m, a.m.w
	if m.pending > 0 || w.disk.full > 0 || w.disk.slow > 0 || w.disk.unknown > 0 || m.broken || m.id != w.newest || m.frozen > 0 {
		clear(a.odd)
		a.calm = w.time
		return
	}
	active := map[what]bool{}
	list := m.alarm.List(false)
	for i := range list {
		active[what{list[i].Kind, list[i].Object}] = true
	}
	seen := map[what]bool{}
	note := func(kind, object string, wrong bool) {
		x := what{kind, object}
		if active[x] == wrong {
			return
		}
		seen[x] = true
		since, ok := a.odd[x]
		if !ok {
			a.odd[x] = w.time
			return
		}
		if limit := noticed + w.patience(x); w.time-max(since, a.calm) > limit {
			w.fail("S11", "%s %s: by the books of master %d it is wrong: %v, and there is an alarm: %v, for %v", kind, object, m.id, wrong, active[x], w.time-since)
		}
	}
	now := m.now()
	for _, s := range m.cluster.Servers() {
		sessions, _ := m.cluster.Counts(s.ID)
		away := s.Attachment == 0 && now.Sub(s.Since) > hub.LostAfter
		if s.Attachment != 0 || away {
			note("server-lost", fmt.Sprint(s.ID), away && (sessions > 0 || s.State == cluster.Online))
		}
		if s.Attachment != 0 && s.Reported.After(s.Since) {
			note("server-space", fmt.Sprint(s.ID), s.Load.SnapFree <= s.Facts.SnapReserve)
		}
	}
	for _, u := range w.users {
		x := m.cluster.Session(u.name) // one that is lost or ending may be anything
		if x == nil || !m.cluster.Ending(x.ID) && slices.Contains([]string{cluster.Running, cluster.Hung, cluster.Failed}, x.State()) {
			note("desktop-hung", u.name, x != nil && x.State() == cluster.Hung)
			note("desktop-failed", u.name, x != nil && x.State() == cluster.Failed)
		}
	}
	for x := range a.odd {
		if !seen[x] {
			delete(a.odd, x)
		}
	}
}

// patience is how much longer a cause may be without an alarm that somebody has
// cleared.
func (w *world) patience(of what) time.Duration {
	for _, x := range w.alarms {
		if x.byHand > 0 && x.what == of && w.time-x.byHand < byHand+noticed {
			return byHand
		}
	}
	return 0
}

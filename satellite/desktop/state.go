package desktop

import (
	"time"

	"verdecmd/proto/planted"
)

// State is what a restarted satellite must know to go on with a session. Times
// are wall-clock milliseconds since 1970, 0 is none.
type State struct {
	Phase    Phase  `json:"phase"`
	Order    Order  `json:"order,omitempty"`
	Ready    bool   `json:"ready,omitempty"`
	Stopping bool   `json:"stopping,omitempty"`
	Why      string `json:"why,omitempty"`
	How      How    `json:"how,omitempty"`

	SinceMS    int64 `json:"since_ms"`
	StartByMS  int64 `json:"start_by_ms,omitempty"`
	LogoffByMS int64 `json:"logoff_by_ms,omitempty"`
	KillAtMS   int64 `json:"kill_at_ms,omitempty"`
	LogoffMS   int64 `json:"logoff_ms,omitempty"` // the limit, bounds what a clock step can add
}

// State is m in the form for the journal. now is the time on m's clock, and
// wall what the calendar shows then; a time.Now() is both.
func (m *Machine) State(now, wall time.Time) State {
	ms := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return wall.Add(t.Sub(now)).UnixMilli()
	}
	return State{
		Phase: m.phase, Order: m.order, Ready: m.ready, Stopping: m.stopping, Why: m.why, How: m.how,
		SinceMS: ms(m.since), StartByMS: ms(m.startBy),
		KillAtMS: ms(m.killAt), LogoffByMS: ms(m.logoffBy), LogoffMS: m.logoffWait.Milliseconds(),
	}
}

// Restore continues a session after a restart of the satellite. Its process is
// not known yet: Started or Vanished must follow. now and wall are as in State.
//
// A clock that was set back meanwhile makes no deadline longer than it was at
// first; one that was set forward makes it due at once.
func Restore(l Limits, s State, now, wall time.Time) *Machine {
	l = l.withDefaults()
	// within is the moment ms on the clock of now, but not later than longest from
	// now.
	within := func(ms int64, longest time.Duration) time.Time {
		if ms == 0 {
			return time.Time{}
		}
		return now.Add(max(0, min(time.UnixMilli(ms).Sub(wall), longest)))
	}
	m := &Machine{
		limits: l, phase: s.Phase, order: s.Order, ready: s.Ready, stopping: s.Stopping, why: s.Why, how: s.How,
		since:      now.Add(time.UnixMilli(s.SinceMS).Sub(wall)),
		startBy:    within(s.StartByMS, l.StartTimeout),
		logoffWait: time.Duration(s.LogoffMS) * time.Millisecond,
	}
	m.logoffBy = within(s.LogoffByMS, m.logoffWait)
	m.killAt = within(s.KillAtMS, killEvery)
	if planted.Bug("order-forgotten") {
		m.order, m.logoffBy, m.killAt = NoOrder, time.Time{}, time.Time{}
	}
	return m
}

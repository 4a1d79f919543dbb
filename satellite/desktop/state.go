package desktop

import "time"

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

// State is m in the form for the journal.
func (m *Machine) State() State {
	return State{
		Phase: m.phase, Order: m.order, Ready: m.ready, Stopping: m.stopping, Why: m.why, How: m.how,
		SinceMS: unixMS(m.since), StartByMS: unixMS(m.startBy),
		KillAtMS: unixMS(m.killAt), LogoffByMS: unixMS(m.logoffBy), LogoffMS: m.logoffWait.Milliseconds(),
	}
}

// Restore continues a session after a restart of the satellite. Its process is
// not known yet: Started or Vanished must follow.
//
// A clock that was set back meanwhile makes no deadline longer than it was at
// first; one that was set forward makes it due at once.
func Restore(l Limits, s State, now time.Time) *Machine {
	l = l.withDefaults()
	m := &Machine{
		limits: l, phase: s.Phase, order: s.Order, ready: s.Ready, stopping: s.Stopping, why: s.Why, how: s.How,
		since:      fromMS(s.SinceMS),
		startBy:    within(s.StartByMS, now, l.StartTimeout),
		logoffWait: time.Duration(s.LogoffMS) * time.Millisecond,
	}
	m.logoffBy = within(s.LogoffByMS, now, m.logoffWait)
	m.killAt = within(s.KillAtMS, now, killEvery)
	return m
}

func unixMS(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMS(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// within is the moment ms relative to now, so that it carries on with now's
// monotonic clock, but not later than longest from now.
func within(ms int64, now time.Time, longest time.Duration) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	left := fromMS(ms).Sub(now)
	return now.Add(max(0, min(left, longest)))
}

package desktop

import (
	"fmt"
	"time"

	"verdecmd/proto/planted"
)

// Phase is where a session is in its life; the words are those of the protocol.
type Phase string

const (
	PhaseStarting Phase = "starting" // ordered, the guest has not answered yet
	PhaseRunning  Phase = "running"
	PhaseHung     Phase = "hung"     // ran, but the hypervisor does not answer
	PhaseStopping Phase = "stopping" // the guest was asked, or has begun by itself
	PhaseAborting Phase = "aborting" // ended by force
	PhaseFailed   Phase = "failed"   // not ready in time; the process is left for inspection
	PhaseEnded    Phase = "ended"    // no process; the last phase
)

// How tells how a session ended.
type How string

const (
	HowShutdown How = "shutdown" // the guest shut down because it was asked
	HowAbort    How = "abort"    // by force
	HowGuest    How = "guest"    // the guest powered itself off, unasked
	HowFailed   How = "failed"   // never became ready
	HowCrashed  How = "crashed"  // the process ended and nobody asked for it
	HowVanished How = "vanished" // the process was gone when the satellite came back
)

// Order is the strongest order that a session has been given.
type Order string

const (
	NoOrder       Order = ""
	OrderShutdown Order = "shutdown" // ask, never force
	OrderLogoff   Order = "logoff"   // ask, force at the limit
	OrderAbort    Order = "abort"    // force
)

// Action is what the caller has to do, in the order given, without waiting
// inside for what comes of it.
type Action int

const (
	// Report: phase, order or reason changed. Write State to the journal,
	// then tell the master.
	Report Action = iota + 1
	// AskPowerDown: call Desktop.PowerDown.
	AskPowerDown
	// Quit: call Desktop.Quit; while Driver.Start still runs, cancel it.
	Quit
	// Kill: call Desktop.Kill; while Driver.Start still runs, cancel it.
	Kill
	// Clean: the process is gone, remove what the session has on disk. It
	// comes once in the life of a Machine.
	Clean
)

func (a Action) String() string {
	names := [...]string{"none", "report", "ask", "quit", "kill", "clean"}
	if a < 0 || int(a) >= len(names) {
		return fmt.Sprintf("action(%d)", int(a))
	}
	return names[a]
}

// Times of the ladder. A guest that boots may miss a request, and a user may
// have said no to one in a dialog: so a request is repeated, but not for ever.
const (
	askEvery   = 10 * time.Second // between two requests of one order
	askTimes   = 3                // requests of one order
	abortKill  = time.Second      // from Quit to Kill after an abort (V-80)
	logoffKill = 2 * time.Second  // from Quit to Kill after a log-off's limit
	killEvery  = 2 * time.Second  // a Kill that brought no end is repeated
	hungMisses = 2                // unanswered pings in a row
)

// Limits are the settings of a session's life.
type Limits struct {
	StartTimeout time.Duration // WIN4_VERDE_START_TIMEOUT; 0: 180 s
	HungAfter    time.Duration // WIN4_VERDE_HUNG_AFTER; 0: 15 s
}

// Machine is the life of one session as a plain value: it is told what
// happened and when, and answers with what is to be done. It is not safe for
// several goroutines.
//
// Every method may be called in every phase; what makes no sense there changes
// nothing and returns nothing. Times come from one clock and do not go back.
type Machine struct {
	limits Limits

	phase Phase
	order Order
	how   How
	why   string

	exists   bool // the process exists and was handed to the caller
	ready    bool // the guest has been ready once
	stopping bool // the guest has begun to shut down

	since      time.Time     // start ordered
	startBy    time.Time     // failed after this; zero once ready or failed
	asks       int           // requests made of this order
	askAt      time.Time     // next request; zero: none
	logoffBy   time.Time     // force after this; zero: no log-off
	logoffWait time.Duration // the limit that logoffBy came from
	killAt     time.Time     // next Kill; zero: none
	answered   time.Time     // last sign of life of the hypervisor
	misses     int           // unanswered pings since then
}

// NewMachine is a session whose start has just been ordered.
func NewMachine(l Limits, now time.Time) *Machine {
	l = l.withDefaults()
	return &Machine{limits: l, phase: PhaseStarting, since: now, startBy: now.Add(l.StartTimeout)}
}

func (l Limits) withDefaults() Limits {
	if l.StartTimeout <= 0 {
		l.StartTimeout = 180 * time.Second
	}
	if l.HungAfter <= 0 {
		l.HungAfter = 15 * time.Second
	}
	return l
}

// Phase is where the session is.
func (m *Machine) Phase() Phase { return m.phase }

// Order is the strongest order given so far.
func (m *Machine) Order() Order { return m.order }

// How tells how the session ended; empty before that.
func (m *Machine) How() How { return m.how }

// Why says in words what happened to a hung, failed or ended session.
func (m *Machine) Why() string { return m.why }

// Started: the process exists and answers, by Driver.Start or Driver.Adopt.
// What was ordered before or, by a machine that Restore made, was under way
// is asked for now.
func (m *Machine) Started(now time.Time) []Action {
	if m.phase == PhaseEnded || m.exists {
		return nil
	}
	m.exists, m.answered, m.misses = true, now, 0
	switch {
	case m.phase == PhaseAborting:
		return []Action{Quit} // the time until Kill goes on
	case m.order != NoOrder && !m.stopping:
		return append(m.ask(now), m.Tick(now)...)
	case m.phase == PhaseHung: // Adopt talked to it
		return m.become(PhaseRunning, "")
	}
	return nil
}

// StartFailed: Driver.Start returned an error and left nothing behind.
func (m *Machine) StartFailed(now time.Time, why string) []Action {
	if m.order == OrderAbort || m.phase == PhaseAborting {
		return m.end(HowAbort, "")
	}
	return m.end(HowFailed, why)
}

// Vanished: after a restart of the satellite Driver.Adopt returned ErrGone.
func (m *Machine) Vanished(now time.Time) []Action {
	if m.order == OrderAbort || m.phase == PhaseAborting {
		return m.end(HowAbort, "")
	}
	return m.end(HowVanished, "its process was gone when the satellite looked for it")
}

// Ready: the event of the same name. It also helps a session that was too
// late: a slow desktop is worth more than none.
func (m *Machine) Ready(now time.Time) []Action {
	if m.phase == PhaseEnded || m.phase == PhaseAborting || m.ready {
		return nil
	}
	m.ready, m.startBy = true, time.Time{}
	if m.order != NoOrder && !m.stopping {
		// While it booted nobody in there heard the request.
		m.asks = 0
		return m.ask(now)
	}
	if m.phase == PhaseStarting || m.phase == PhaseFailed {
		return m.become(PhaseRunning, "")
	}
	return nil
}

// Stopping: the event of the same name.
func (m *Machine) Stopping(now time.Time) []Action {
	if m.phase == PhaseEnded || m.phase == PhaseAborting || m.stopping {
		return nil
	}
	m.stopping, m.askAt, m.startBy = true, time.Time{}, time.Time{}
	return m.become(PhaseStopping, "")
}

// Exited: the event of the same name. detail is for people.
func (m *Machine) Exited(now time.Time, r Reason, detail string) []Action {
	switch {
	case m.order == OrderAbort:
		return m.end(HowAbort, "")
	case r == GuestShutdown && m.order != NoOrder:
		return m.end(HowShutdown, "")
	case m.phase == PhaseAborting:
		return m.end(HowAbort, "the guest did not shut down in time")
	case r == GuestShutdown:
		return m.end(HowGuest, "")
	case !m.ready:
		return m.end(HowFailed, "its process ended before the guest was ready: "+words(r, detail))
	}
	return m.end(HowCrashed, words(r, detail))
}

func words(r Reason, detail string) string {
	switch {
	case detail != "":
		return detail
	case r == HostQuit:
		return "somebody else ended it, by SIGTERM or over QMP"
	}
	return "nothing is known about the cause"
}

// Answered: the hypervisor answered a ping, and the guest runs.
func (m *Machine) Answered(now time.Time) []Action {
	m.answered, m.misses = now, 0
	switch {
	case m.phase == PhaseHung:
		return m.become(PhaseRunning, "")
	case m.phase == PhaseStarting && m.why != "": // it was halted
		return m.become(PhaseStarting, "")
	}
	return nil
}

// Missed: a ping got no answer. One alone proves nothing, it may be the
// satellite that was stopped for a while.
func (m *Machine) Missed(now time.Time) []Action {
	m.misses++
	silent := now.Sub(m.answered)
	if m.phase != PhaseRunning || m.misses < hungMisses || silent < m.limits.HungAfter {
		return nil
	}
	return m.become(PhaseHung, fmt.Sprintf("QEMU has not answered for %d s", int(silent.Seconds())))
}

// Halted: the hypervisor answered, but has halted the guest, for the reason
// why. A desktop that has not started yet has until its time for that to end.
func (m *Machine) Halted(now time.Time, why string) []Action {
	m.answered, m.misses = now, 0
	switch {
	case m.phase == PhaseStarting && m.why != why:
		return m.become(PhaseStarting, why)
	case m.phase == PhaseRunning, m.phase == PhaseHung && m.why != why:
		return m.become(PhaseHung, why)
	}
	return nil
}

// Shutdown orders to ask the guest. It never leads to force.
func (m *Machine) Shutdown(now time.Time) []Action {
	if m.phase == PhaseEnded || m.phase == PhaseAborting {
		return nil
	}
	if m.order == NoOrder {
		m.order = OrderShutdown
	}
	return m.askAgain(now)
}

// Logoff orders to ask the guest and to use force after limit. The clock of a
// log-off that is under way goes on; a limit that is not positive is none.
func (m *Machine) Logoff(now time.Time, limit time.Duration) []Action {
	if m.phase == PhaseEnded || m.phase == PhaseAborting {
		return nil
	}
	if m.order != OrderLogoff || planted.Bug("logoff-starts-over") {
		limit = max(limit, 0)
		m.order, m.logoffWait, m.logoffBy = OrderLogoff, limit, now.Add(limit)
	}
	return append(m.askAgain(now), m.Tick(now)...)
}

// Abort orders the end by force. It overrides everything else.
func (m *Machine) Abort(now time.Time) []Action {
	if m.phase == PhaseEnded || m.order == OrderAbort {
		return nil
	}
	m.order = OrderAbort
	if m.phase == PhaseAborting { // by a log-off's limit
		if by := now.Add(abortKill); by.Before(m.killAt) {
			m.killAt = by
		}
		return []Action{Report}
	}
	return m.force(now, abortKill)
}

// Tick does what is due. It may be called at any time; Next tells when it
// must be.
func (m *Machine) Tick(now time.Time) []Action {
	switch {
	case m.phase == PhaseEnded:
		return nil
	case m.phase == PhaseAborting:
		if !due(m.killAt, now) {
			return nil
		}
		m.killAt = now.Add(killEvery)
		return []Action{Kill}
	case due(m.logoffBy, now) && !planted.Bug("logoff-never-forces"):
		return m.force(now, logoffKill)
	}
	var out []Action
	if due(m.askAt, now) {
		out = m.ask(now)
	}
	if due(m.startBy, now) {
		m.startBy = time.Time{}
		if m.phase == PhaseStarting {
			why := fmt.Sprintf("the guest was not ready within %d s", int(m.limits.StartTimeout.Seconds()))
			if m.why != "" {
				why += ": " + m.why
			}
			out = append(out, m.become(PhaseFailed, why)...)
		}
	}
	return out
}

// Next is the earliest moment at which Tick has something to do; ok is false
// where there is none.
func (m *Machine) Next() (at time.Time, ok bool) {
	if m.phase == PhaseEnded {
		return time.Time{}, false
	}
	candidates := []time.Time{m.startBy, m.askAt, m.logoffBy}
	if m.phase == PhaseAborting {
		candidates = []time.Time{m.killAt}
	}
	for _, t := range candidates {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at, !at.IsZero()
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// askAgain is what an order does, the first time and when it is repeated.
func (m *Machine) askAgain(now time.Time) []Action {
	if m.stopping {
		return []Action{Report}
	}
	m.asks = 0
	return m.ask(now)
}

func (m *Machine) ask(now time.Time) []Action {
	m.startBy = time.Time{} // whether it starts is not the question any more
	out := m.become(PhaseStopping, "")
	if !m.exists {
		return out // Started asks
	}
	m.asks++
	m.askAt = time.Time{}
	if m.asks < askTimes {
		m.askAt = now.Add(askEvery)
	}
	if m.asks > 1 {
		out = nil // nothing new to report
	}
	return append(out, AskPowerDown)
}

func (m *Machine) force(now time.Time, kill time.Duration) []Action {
	m.startBy, m.askAt, m.logoffBy = time.Time{}, time.Time{}, time.Time{}
	m.killAt = now.Add(kill)
	if planted.Bug("abort-asks") {
		m.killAt = time.Time{}
		return append(m.become(PhaseAborting, ""), AskPowerDown)
	}
	return append(m.become(PhaseAborting, ""), Quit)
}

// become reports even where the phase stays: the order may have changed.
func (m *Machine) become(p Phase, why string) []Action {
	m.phase, m.why = p, why
	return []Action{Report}
}

func (m *Machine) end(how How, why string) []Action {
	if m.phase == PhaseEnded {
		return nil
	}
	m.startBy, m.askAt, m.logoffBy, m.killAt = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	m.how, m.exists = how, false
	return append([]Action{Clean}, m.become(PhaseEnded, why)...)
}

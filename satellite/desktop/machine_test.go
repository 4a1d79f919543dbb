package desktop

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// play runs a story against a machine: "12s ready" feeds Ready 12 s after the
// start. Between two steps the timer is served as a session manager does. It
// returns what came of it as "12s report ask".
func play(t *testing.T, m *Machine, story ...string) []string {
	t.Helper()
	var log []string
	note := func(now time.Time, acts []Action) {
		if len(acts) == 0 {
			return
		}
		line := now.Sub(t0).String()
		for _, a := range acts {
			line += " " + a.String()
		}
		log = append(log, line)
	}
	for _, step := range story {
		f := strings.Fields(step)
		d, err := time.ParseDuration(f[0])
		if err != nil {
			t.Fatal(err)
		}
		until := t0.Add(d)
		for {
			at, ok := m.Next()
			if !ok || at.After(until) {
				break
			}
			note(at, m.Tick(at))
		}
		note(until, feed(t, m, until, f[1:]))
	}
	return log
}

func feed(t interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}, m *Machine, now time.Time, f []string) []Action {
	t.Helper()
	arg := ""
	if len(f) > 1 {
		arg = f[1]
	}
	switch f[0] {
	case "started":
		return m.Started(now)
	case "startfailed":
		return m.StartFailed(now, "no space left")
	case "vanished":
		return m.Vanished(now)
	case "ready":
		return m.Ready(now)
	case "stopping":
		return m.Stopping(now)
	case "exited":
		return m.Exited(now, Reason(arg), "")
	case "answered":
		return m.Answered(now)
	case "missed":
		return m.Missed(now)
	case "halted":
		return m.Halted(now, "no space left in /snap")
	case "shutdown":
		return m.Shutdown(now)
	case "abort":
		return m.Abort(now)
	case "logoff":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		return m.Logoff(now, d)
	case "tick":
		return m.Tick(now)
	}
	t.Fatalf("unknown step %q", f[0])
	return nil
}

func TestMachine(t *testing.T) {
	tests := map[string]struct {
		story []string
		want  []string
		phase Phase
		how   How
		why   string // part of it
	}{
		"starts, runs and the user shuts down inside": {
			story: []string{"0s started", "8s ready", "60s stopping", "61s exited guest"},
			want:  []string{"8s report", "1m0s report", "1m1s clean report"},
			phase: PhaseEnded, how: HowGuest,
		},
		"start fails": {
			story: []string{"1s startfailed"},
			want:  []string{"1s clean report"},
			phase: PhaseEnded, how: HowFailed, why: "no space left",
		},
		"not ready in time: failed, the process is left": {
			story: []string{"0s started", "400s tick"},
			want:  []string{"3m0s report"},
			phase: PhaseFailed, why: "not ready within 180 s",
		},
		"ready after the time is still welcome": {
			story: []string{"0s started", "200s ready"},
			want:  []string{"3m0s report", "3m20s report"},
			phase: PhaseRunning,
		},
		"failed is logged off": {
			story: []string{"0s started", "200s logoff 5s", "206s exited quit"},
			want:  []string{"3m0s report", "3m20s report ask", "3m25s report quit", "3m26s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"failed is aborted": {
			story: []string{"0s started", "200s abort", "200.2s exited quit"},
			want:  []string{"3m0s report", "3m20s report quit", "3m20.2s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"crash while booting is a failed start": {
			story: []string{"0s started", "2s exited crashed"},
			want:  []string{"2s clean report"},
			phase: PhaseEnded, how: HowFailed, why: "before the guest was ready",
		},
		"crash later": {
			story: []string{"0s started", "2s ready", "9s exited crashed"},
			want:  []string{"2s report", "9s clean report"},
			phase: PhaseEnded, how: HowCrashed, why: "nothing is known",
		},
		"SIGTERM from outside is told": {
			story: []string{"0s started", "2s ready", "9s exited quit"},
			want:  []string{"2s report", "9s clean report"},
			phase: PhaseEnded, how: HowCrashed, why: "somebody else",
		},
		"V-81 shutdown asks": {
			story: []string{"0s started", "2s ready", "10s shutdown", "12s stopping", "13s exited guest"},
			want:  []string{"2s report", "10s report ask", "12s report", "13s clean report"},
			phase: PhaseEnded, how: HowShutdown,
		},
		"V-81 shutdown never kills and stops asking": {
			story: []string{"0s started", "2s ready", "10s shutdown", "100h tick"},
			want:  []string{"2s report", "10s report ask", "20s ask", "30s ask"},
			phase: PhaseStopping,
		},
		"a repeated shutdown asks again": {
			story: []string{"0s started", "2s ready", "10s shutdown", "100s shutdown", "101s tick"},
			want:  []string{"2s report", "10s report ask", "20s ask", "30s ask", "1m40s report ask"},
			phase: PhaseStopping,
		},
		"a guest that has begun to stop is not asked again": {
			story: []string{"0s started", "2s ready", "10s shutdown", "12s stopping", "60s shutdown"},
			want:  []string{"2s report", "10s report ask", "12s report", "1m0s report"},
			phase: PhaseStopping,
		},
		"asked while it boots: asked again when ready": {
			story: []string{"0s started", "1s shutdown", "8s ready", "9s exited guest"},
			want:  []string{"1s report ask", "8s report ask", "9s clean report"},
			phase: PhaseEnded, how: HowShutdown,
		},
		"asked before the process exists": {
			story: []string{"0s shutdown", "1s started", "9s exited guest"},
			want:  []string{"0s report", "1s report ask", "9s clean report"},
			phase: PhaseEnded, how: HowShutdown,
		},
		"V-82 log off, guest obeys": {
			story: []string{"0s started", "2s ready", "10s logoff 60s", "14s exited guest"},
			want:  []string{"2s report", "10s report ask", "14s clean report"},
			phase: PhaseEnded, how: HowShutdown,
		},
		"V-82 log off, guest does not": {
			story: []string{"0s started", "2s ready", "10s logoff 15s", "26s exited quit"},
			want:  []string{"2s report", "10s report ask", "20s ask", "25s report quit", "26s clean report"},
			phase: PhaseEnded, how: HowAbort, why: "in time",
		},
		"V-82 log off, guest stops but too slowly": {
			story: []string{"0s started", "2s ready", "10s logoff 15s", "11s stopping", "26s exited quit"},
			want:  []string{"2s report", "10s report ask", "11s report", "25s report quit", "26s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"V-82 log off, QEMU does not quit either": {
			story: []string{"0s started", "2s ready", "10s logoff 5s", "19.1s exited crashed"},
			want:  []string{"2s report", "10s report ask", "15s report quit", "17s kill", "19s kill", "19.1s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"V-82 a second log-off does not restart the clock": {
			story: []string{"0s started", "2s ready", "10s logoff 60s", "40s logoff 60s", "70.5s exited quit"},
			want: []string{"2s report", "10s report ask", "20s ask", "30s ask", "40s report ask", "50s ask", "1m0s ask",
				"1m10s report quit", "1m10.5s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"log off after shutdown starts the clock": {
			story: []string{"0s started", "2s ready", "10s shutdown", "40s logoff 5s", "45.5s exited quit"},
			want:  []string{"2s report", "10s report ask", "20s ask", "30s ask", "40s report ask", "45s report quit", "45.5s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"shutdown does not weaken a log-off": {
			story: []string{"0s started", "2s ready", "10s logoff 5s", "11s shutdown", "15.5s exited quit"},
			want:  []string{"2s report", "10s report ask", "11s report ask", "15s report quit", "15.5s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"the guest was faster than the quit": {
			story: []string{"0s started", "2s ready", "10s logoff 5s", "15.1s exited guest"},
			want:  []string{"2s report", "10s report ask", "15s report quit", "15.1s clean report"},
			phase: PhaseEnded, how: HowShutdown,
		},
		"log off without time is force at once": {
			story: []string{"0s started", "2s ready", "10s logoff -5s"},
			want:  []string{"2s report", "10s report ask report quit"},
			phase: PhaseAborting,
		},
		"V-80 abort": {
			story: []string{"0s started", "2s ready", "10s abort", "10.1s exited quit"},
			want:  []string{"2s report", "10s report quit", "10.1s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"V-80 abort, QEMU does not answer: killed after 1 s": {
			story: []string{"0s started", "2s ready", "10s abort", "11.1s exited crashed"},
			want:  []string{"2s report", "10s report quit", "11s kill", "11.1s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"abort overrides a log-off": {
			story: []string{"0s started", "2s ready", "10s logoff 60s", "12s abort", "12.1s exited guest"},
			want:  []string{"2s report", "10s report ask", "12s report quit", "12.1s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"abort shortens the force of a log-off": {
			story: []string{"0s started", "2s ready", "10s logoff 5s", "15.5s abort", "17s tick"},
			want:  []string{"2s report", "10s report ask", "15s report quit", "15.5s report", "16.5s kill"},
			phase: PhaseAborting,
		},
		"a second abort changes nothing": {
			story: []string{"0s started", "10s abort", "10.5s abort", "11.5s shutdown", "12s logoff 60s", "12.5s exited quit"},
			want:  []string{"10s report quit", "11s kill", "12.5s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"abort while starting cancels the start": {
			story: []string{"0.1s abort", "0.2s startfailed"},
			want:  []string{"100ms report quit", "200ms clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"abort while starting, but it started": {
			story: []string{"0.1s abort", "0.2s started", "0.3s exited quit"},
			want:  []string{"100ms report quit", "200ms quit", "300ms clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"hung after two pings and the time": {
			story: []string{"0s started", "2s ready", "4s answered", "9s missed", "14s missed", "19s missed", "24s missed"},
			want:  []string{"2s report", "19s report"},
			phase: PhaseHung, why: "not answered for 15 s",
		},
		"hung comes back": {
			story: []string{"0s started", "2s ready", "9s missed", "19s missed", "30s answered"},
			want:  []string{"2s report", "19s report", "30s report"},
			phase: PhaseRunning,
		},
		"one late ping proves nothing": { // the satellite was stopped, not QEMU
			story: []string{"0s started", "2s ready", "99s missed", "99s answered"},
			want:  []string{"2s report"},
			phase: PhaseRunning,
		},
		"a halted guest hangs at once, and comes back": {
			story: []string{"0s started", "2s ready", "7s halted", "12s halted", "17s answered", "22s answered"},
			want:  []string{"2s report", "7s report", "17s report"},
			phase: PhaseRunning,
		},
		"halted says why": {
			story: []string{"0s started", "2s ready", "7s halted"},
			want:  []string{"2s report", "7s report"},
			phase: PhaseHung, why: "no space left in /snap",
		},
		"halted while it starts: goes on": {
			story: []string{"0s started", "5s halted", "10s halted", "15s answered", "20s ready"},
			want:  []string{"5s report", "15s report", "20s report"},
			phase: PhaseRunning,
		},
		"halted while it starts, too long": {
			story: []string{"0s started", "5s halted", "185s halted"},
			want:  []string{"5s report", "3m0s report"},
			phase: PhaseFailed, why: "not ready within 180 s: no space left in /snap",
		},
		"halted while it stops: the limit counts": {
			story: []string{"0s started", "2s ready", "10s logoff 15s", "12s halted", "26s exited quit"},
			want:  []string{"2s report", "10s report ask", "20s ask", "25s report quit", "26s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"hung is aborted": {
			story: []string{"0s started", "2s ready", "9s missed", "19s missed", "20s abort", "21.1s exited crashed"},
			want:  []string{"2s report", "19s report", "20s report quit", "21s kill", "21.1s clean report"},
			phase: PhaseEnded, how: HowAbort,
		},
		"after the end nothing happens": {
			story: []string{"0s started", "1s exited guest", "2s abort", "3s logoff 1s", "4s shutdown", "5s exited quit",
				"6s ready", "7s missed", "8s vanished", "9s startfailed", "10s stopping", "11s started", "99h tick"},
			want:  []string{"1s clean report"},
			phase: PhaseEnded, how: HowGuest,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(Limits{}, t0)
			if got := play(t, m, tt.story...); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if m.Phase() != tt.phase || m.How() != tt.how || !strings.Contains(m.Why(), tt.why) {
				t.Errorf("got %q, %q, %q, want %q, %q, ...%q...", m.Phase(), m.How(), m.Why(), tt.phase, tt.how, tt.why)
			}
		})
	}
}

// A satellite that comes back goes on where it was (S7), a running log-off
// with its first deadline (V-82).
func TestRestore(t *testing.T) {
	calendar := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) // nothing to do with the machine's clock
	tests := map[string]struct {
		before []string
		skew   time.Duration // of the wall clock, at the restart
		after  []string      // times after the restart, which is at 30s
		want   []string
		phase  Phase
		how    How
	}{
		"a running one runs": {
			before: []string{"0s started", "2s ready"},
			after:  []string{"1s started", "60s tick"},
			phase:  PhaseRunning,
		},
		"gone meanwhile": {
			before: []string{"0s started", "2s ready"},
			after:  []string{"1s vanished"},
			want:   []string{"1s clean report"},
			phase:  PhaseEnded, how: HowVanished,
		},
		"a log-off keeps its deadline": {
			before: []string{"0s started", "2s ready", "10s logoff 60s"},
			after:  []string{"1s started", "41s exited quit"},
			want:   []string{"1s report ask", "11s ask", "21s ask", "40s report quit", "41s clean report"},
			phase:  PhaseEnded, how: HowAbort,
		},
		"a clock set back adds no more than the limit": {
			before: []string{"0s started", "2s ready", "10s logoff 60s"},
			skew:   -time.Hour,
			after:  []string{"1s started", "61s exited quit"},
			want:   []string{"1s report ask", "11s ask", "21s ask", "1m0s report quit", "1m1s clean report"},
			phase:  PhaseEnded, how: HowAbort,
		},
		"an overdue log-off is due at once": {
			before: []string{"0s started", "2s ready", "10s logoff 60s"},
			skew:   time.Hour,
			after:  []string{"0s started"},
			want:   []string{"0s report quit", "0s quit"}, // the second: now there is a process
			phase:  PhaseAborting,
		},
		"an abort goes on, its time is over": {
			before: []string{"0s started", "2s ready", "29s abort"},
			after:  []string{"0.1s started", "1.3s exited crashed"},
			want:   []string{"0s kill", "100ms quit", "1.3s clean report"},
			phase:  PhaseEnded, how: HowAbort,
		},
		"an abort succeeded meanwhile": {
			before: []string{"0s started", "2s ready", "29s abort"},
			after:  []string{"0.1s vanished"},
			want:   []string{"0s kill", "100ms clean report"},
			phase:  PhaseEnded, how: HowAbort,
		},
		"the start time-out goes on": {
			before: []string{"0s started"},
			after:  []string{"1s started", "151s tick"},
			want:   []string{"2m30s report"},
			phase:  PhaseFailed,
		},
		"hung is asked anew": {
			before: []string{"0s started", "1s ready", "9s missed", "20s missed"},
			after:  []string{"1s started"},
			want:   []string{"1s report"},
			phase:  PhaseRunning,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(Limits{}, t0)
			play(t, m, tt.before...)
			// The story after the restart is told from t0 on again: it is the
			// calendar that moves on.
			m = Restore(Limits{}, m.State(t0, calendar), t0, calendar.Add(30*time.Second+tt.skew))
			if got := play(t, m, tt.after...); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if m.Phase() != tt.phase || m.How() != tt.how {
				t.Errorf("got %q, %q, want %q, %q", m.Phase(), m.How(), tt.phase, tt.how)
			}
		})
	}
}

// LV3: whatever happens before and meanwhile, restarts of the satellite
// included, a log-off ends within its limit + 5 s and an abort within 3 s
// (V-80), provided that SIGKILL works; without either nothing is killed; and
// there is exactly one Clean.
func TestLadderEnds_LV3(t *testing.T) {
	steps := []string{"started", "ready", "stopping", "answered", "missed", "halted", "shutdown", "tick", "restart",
		"logoff 0s", "logoff 7s", "logoff 90s", "abort"}
	rapid.Check(t, func(t *rapid.T) {
		w := world{t: t, m: NewMachine(Limits{StartTimeout: 20 * time.Second}, t0), now: t0}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			w.step(rapid.SampledFrom(steps).Draw(t, "step"))
			w.advance(time.Duration(rapid.IntRange(0, 12000).Draw(t, "ms")) * time.Millisecond)
		}
		w.advance(200 * time.Second)
		if ended := w.m.Phase() == PhaseEnded; ended == w.by.IsZero() {
			t.Fatalf("got phase %q, log-off or abort ordered: %v; %q", w.m.Phase(), !w.by.IsZero(), w.told)
		}
		w.do(w.m.Exited(w.now, Crashed, ""))
		w.do(w.m.Vanished(w.now))
		if w.cleans != 1 {
			t.Fatalf("got %d times Clean, want 1: %q", w.cleans, w.told)
		}
	})
}

// world is a process that ignores everything but SIGKILL.
type world struct {
	t      *rapid.T
	m      *Machine
	now    time.Time
	exists bool
	exit   time.Time // when SIGKILL takes effect; zero: not sent
	by     time.Time // when the session must have ended; zero: it must not
	cleans int
	told   []string
}

func (w *world) do(acts []Action) {
	for _, a := range acts {
		switch {
		case a == Clean:
			w.cleans++
		case a == Kill && w.by.IsZero():
			w.t.Fatalf("killed without an order: %q", w.told)
		case a == Kill && w.exit.IsZero():
			w.exit = w.now.Add(500 * time.Millisecond)
		}
	}
}

func (w *world) step(s string) {
	if w.m.Phase() == PhaseEnded || s == "started" && w.exists {
		return
	}
	w.told = append(w.told, w.now.Sub(t0).String()+" "+s)
	var limit time.Duration
	switch s {
	case "restart":
		w.m = Restore(w.m.limits, w.m.State(w.now, w.now), w.now, w.now)
		if w.exists {
			w.do(w.m.Started(w.now))
		}
		return
	case "started":
		w.exists = true
	case "abort":
		limit = 3 * time.Second
	case "logoff 0s":
		limit = 5 * time.Second
	case "logoff 7s":
		limit = 12 * time.Second
	case "logoff 90s":
		limit = 95 * time.Second
	}
	first := w.by.IsZero() || s == "abort" && w.now.Add(limit).Before(w.by)
	if limit > 0 && first {
		w.by = w.now.Add(limit)
	}
	w.do(feed(w.t, w.m, w.now, strings.Fields(s)))
}

// advance lets time pass and checks that nothing is overdue.
func (w *world) advance(d time.Duration) {
	if w.m.Phase() == PhaseEnded {
		return
	}
	until := w.now.Add(d)
	for w.m.Phase() != PhaseEnded {
		at, ok := w.m.Next()
		if exit := w.exit; !exit.IsZero() && (!ok || exit.Before(at)) && !exit.After(until) {
			w.now = exit
			if w.exists {
				w.do(w.m.Exited(w.now, Crashed, ""))
			} else {
				w.do(w.m.StartFailed(w.now, "cancelled"))
			}
			break
		}
		if !ok || at.After(until) {
			break
		}
		w.now = at
		w.do(w.m.Tick(w.now))
	}
	if !w.by.IsZero() && w.m.Phase() == PhaseEnded && w.now.After(w.by) {
		w.t.Fatalf("ended at %s, had to by %s: %q", w.now.Sub(t0), w.by.Sub(t0), w.told)
	}
	w.now = until
	if !w.by.IsZero() && w.m.Phase() != PhaseEnded && w.now.After(w.by) {
		w.t.Fatalf("%s at %s, had to end by %s: %q", w.m.Phase(), w.now.Sub(t0), w.by.Sub(t0), w.told)
	}
}

func TestActionString(t *testing.T) {
	if got := fmt.Sprint(Report, AskPowerDown, Quit, Kill, Clean, Action(9)); got != "report ask quit kill clean action(9)" {
		t.Errorf("got %q", got)
	}
}

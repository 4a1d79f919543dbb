package trust

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

// Issue 5: revocations and authorities are pushed at once, servers are gathered.
func TestGather(t *testing.T) {
	tests := map[string]struct {
		servers int
		pushed  time.Duration // before now; 0: never
		changes []bool        // urgent or not
		wait    time.Duration
		due     bool
	}{
		"nothing has changed":                {servers: 3, pushed: time.Hour},
		"the first one":                      {servers: 3, changes: []bool{false}, due: true},
		"a server, long after the last push": {servers: 3, pushed: time.Minute, changes: []bool{false}, due: true},
		"a server, right after":              {servers: 3, pushed: 300 * time.Millisecond, changes: []bool{false}, wait: 700 * time.Millisecond, due: true},
		"many servers":                       {servers: 10000, pushed: 10 * time.Second, changes: []bool{false, false}, wait: 40 * time.Second, due: true},
		"a revocation":                       {servers: 10000, pushed: time.Millisecond, changes: []bool{true}, due: true},
		"a revocation, then a server":        {servers: 10000, pushed: time.Millisecond, changes: []bool{true, false}, due: true},
		"a server, then a revocation":        {servers: 10000, pushed: time.Millisecond, changes: []bool{false, true}, due: true},
		"the clock was set back":             {servers: 3, pushed: -time.Hour, changes: []bool{false}, wait: time.Second, due: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var g Gather
			if test.pushed != 0 {
				g.Pushed(epoch.Add(-test.pushed))
			}
			for _, urgent := range test.changes {
				g.Changed(urgent)
			}
			if wait, due := g.Wait(epoch, test.servers); wait != test.wait || due != test.due {
				t.Errorf("got %v, %v; want %v, %v", wait, due, test.wait, test.due)
			}
			g.Pushed(epoch)
			if _, due := g.Wait(epoch, test.servers); due {
				t.Error("due again right after the push")
			}
		})
	}
}

// 10,000 servers that register one after the other cost few pushes, and after
// the last one has come all of it is pushed.
func TestGatherManyRegistrations(t *testing.T) {
	var g Gather
	pushes, now, servers := 0, epoch, 0
	push := func() {
		pushes++
		g.Pushed(now)
	}
	for servers < 10000 {
		servers++
		now = now.Add(time.Duration(rand.IntN(20)) * time.Millisecond)
		g.Changed(false)
		if wait, due := g.Wait(now, servers); due && wait == 0 {
			push()
		}
	}
	wait, due := g.Wait(now, servers)
	if due {
		now = now.Add(wait)
		push()
	}
	if took := now.Sub(epoch); pushes > 30 || wait > 50*time.Second {
		t.Errorf("%d pushes in %v, and the last one %v after the last server", pushes, took, wait)
	}
}

// The way of one server: what is told of it and when.
func TestStanding(t *testing.T) {
	var s Standing
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	lag := func(now time.Duration, lags, caught bool) {
		t.Helper()
		if l, c := s.Lag(at(now)); l != lags || c != caught {
			t.Errorf("at %v: lags %v, caught up %v; want %v, %v", now, l, c, lags, caught)
		}
	}
	missing := func(version uint64, want string) {
		t.Helper()
		if got := s.missing(version); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("bundle %d: %q, want %q", version, got, want)
		}
	}
	missing(1, "is not connected")
	s.Open(at(0), true, 7, 7, "r")
	missing(7, "")
	s.Pushed(at(time.Minute), 8)
	missing(8, "has bundle 7, not yet 8")
	lag(time.Minute+30*time.Second, false, false)
	lag(time.Minute+31*time.Second, true, false)
	lag(time.Minute+32*time.Second, false, false)
	s.Pushed(at(2*time.Minute), 9) // it stays behind since the first one
	if s.Behind != at(time.Minute) {
		t.Errorf("behind since %v", s.Behind)
	}
	s.Acked(at(2*time.Minute), 8, "no disk", 9)
	missing(9, "refuses a newer one: no disk")
	lag(2*time.Minute, false, false)
	s.Acked(at(2*time.Minute), 9, "", 9)
	lag(2*time.Minute, false, true)
	missing(9, "")

	s.Pushed(at(3*time.Minute), 10)
	lag(4*time.Minute, true, false)
	s.Close() // a link that is down does not lag, and what was told is taken back when it is right again
	lag(5*time.Minute, false, false)
	missing(10, "is not connected")
	missing(9, "")
	s.Open(at(6*time.Minute), true, 9, 10, "r")
	lag(6*time.Minute+31*time.Second, false, false)
	s.Acked(at(7*time.Minute), 10, "", 10)
	lag(7*time.Minute, false, true)

	s.Open(at(8*time.Minute), false, 0, 10, "r")
	lag(time.Hour, false, false)
	missing(10, "knows of no trust bundles")
}

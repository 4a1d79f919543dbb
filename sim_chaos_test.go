package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/cluster"
)

// S1, S3, S4, S6 to S9, LV1, LV2: nobody plans it. Links break in one direction or
// both, are slow, repeat and come back; programs and computers die at any time, the
// master also in the middle of a commit, and come back; computers are suspended;
// users log in where they like. The witness looks at every step; at the end all is
// healed, and soon all is known and everybody can log in.
//
// VERDECMD_L2_HISTORIES is how many histories there are (100), VERDECMD_L2_STEPS
// how long each is (30 steps of 2 s on average), VERDECMD_L2_SEED plays one alone.
// The same seed is the same users and faults; who is first at one instant may
// differ.
func TestSimChaos(t *testing.T) {
	number := func(name string, def int) int {
		if s := os.Getenv(name); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return n
		}
		return def
	}
	steps := number("VERDECMD_L2_STEPS", 30)
	first, n := 0, number("VERDECMD_L2_HISTORIES", 100)
	if os.Getenv("VERDECMD_L2_SEED") != "" {
		first, n = number("VERDECMD_L2_SEED", 0), number("VERDECMD_L2_HISTORIES", 1)
	}
	var done [len(faults)]atomic.Int64
	var ran, started, logins atomic.Int64
	t.Run("seed", func(t *testing.T) {
		for seed := first; seed < first+n; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				dir := simDir(t)
				synctest.Test(t, func(t *testing.T) {
					h := newHistory(t, dir, uint64(seed))
					h.run(steps)
					for i, n := range h.done {
						done[i].Add(int64(n))
					}
					ran.Add(1)
					started.Add(int64(h.w.seen.started))
					logins.Add(h.logins.Load())
				})
				if t.Failed() {
					t.Logf("play it again with: VERDECMD_L2_SEED=%d go test . -run 'TestSimChaos' -race", seed)
				}
			})
		}
	})
	var counts []string
	for i := range faults {
		counts = append(counts, fmt.Sprintf("%s %d", faults[i], done[i].Load()))
		if done[i].Load() == 0 && ran.Load() >= 100 {
			t.Errorf("no history had the fault %q", faults[i])
		}
	}
	t.Logf("seeds %d to %d: %d logins, %d desktops started; %s", first, first+n-1, logins.Load(), started.Load(), strings.Join(counts, ", "))
	if started.Load() < 3*ran.Load() {
		t.Errorf("%d desktops in %d histories: too few to prove anything", started.Load(), ran.Load())
	}
}

// faults are what may happen beside logins, by number.
var faults = [...]string{"cut", "hole", "one-way up", "one-way down", "heal", "slow", "repeat", "late", "satellite killed", "computer off",
	"half-open", "master killed", "killed in commit", "logoff", "abort", "crash", "offline", "suspend", "resume"}

// history is one run of chaos.
type history struct {
	w      *simWorld
	t      testing.TB
	rnd    *rand.Rand
	m      *simMaster
	names  []string
	asleep map[string]bool
	off    map[string]bool
	dead   <-chan struct{} // the master has died in a commit; nil: it is not to
	done   [len(faults)]int
	logins atomic.Int64
}

func newHistory(t testing.TB, dir string, seed uint64) *history {
	h := &history{w: newSimWorld(t, dir), t: t, rnd: rand.New(rand.NewPCG(seed, 0)), asleep: map[string]bool{}, off: map[string]bool{}}
	h.w.quiet = true
	if seed%2 == 1 {
		h.w.limits.Lost, h.w.limits.LeaseReplace, h.w.leaseSelf = cluster.Lease, time.Minute, 30*time.Second
	}
	h.m = h.w.startMaster("master")
	for i := range 5 {
		h.names = append(h.names, fmt.Sprintf("sat%d", i+1))
		h.w.addSatellite(h.names[i], 8<<30)
	}
	return h
}

func (h *history) run(steps int) {
	ctx, cancel := context.WithCancel(context.Background())
	for range steps {
		if fault := h.rnd.IntN(len(faults) * 3 / 2); fault < len(faults) {
			h.fault(faults[fault], h.names[h.rnd.IntN(len(h.names))])
		} else { // so that not all is broken always
			h.fault("heal", h.names[h.rnd.IntN(len(h.names))])
		}
		for range h.rnd.IntN(4) {
			h.login(ctx)
		}
		time.Sleep(time.Duration(h.rnd.IntN(4000)) * time.Millisecond)
		select {
		case <-h.dead:
			h.restart()
		default:
		}
		h.w.desktops()
	}
	h.heal()
	h.alive()
	time.Sleep(75 * time.Second) // longer than a reservation, or what replaces a lease
	cancel()
	h.w.steps.Wait()
	synctest.Wait()
	users, desktops := h.m.ask("users"), h.w.desktops()
	if len(users) != max(1, len(desktops)+2) && len(users)+len(desktops) != 1 {
		h.t.Errorf("the master knows\n%s\nand there are\n%s", strings.Join(users, "\n"), strings.Join(desktops, "\n"))
	}
	if r := h.m.ask("reservations"); len(r) != 1 {
		h.t.Errorf("S3: reservations are left: %q", r)
	}
	h.w.end()
}

// login lets a user log in somewhere, and go on to where the place is.
func (h *history) login(ctx context.Context) {
	user, s := h.user(), h.w.sats[h.names[h.rnd.IntN(len(h.names))]]
	if h.asleep[s.name] || h.off[s.name] {
		return
	}
	h.logins.Add(1)
	self := s.self
	follow := h.rnd.IntN(3) > 0
	h.w.steps.Go(func() {
		text := s.login(ctx, self, user)
		if _, to, ok := strings.Cut(text, ": go to "); ok && follow {
			name, _, _ := strings.Cut(to, " ")
			next := h.w.sats[name]
			h.w.mu.Lock()
			self := next.self
			h.w.mu.Unlock()
			next.login(ctx, self, user)
		}
	})
}

func (h *history) user() string { return fmt.Sprintf("user%d", h.rnd.IntN(12)) }

func (h *history) restart() {
	h.dead = nil
	h.m.kill(h.w)
	h.w.startMaster("master")
}

// fault makes one happen, where it can. A computer that is off or asleep is
// first to be woken by somebody.
func (h *history) fault(what, name string) {
	w, s := h.w, h.w.sats[name]
	change := func(f func(*simPath)) { w.net.change(name, "master", f) }
	switch {
	case h.asleep[name]:
		what = "resume"
	case h.off[name]:
		what = "heal"
	case what == "resume", what == "killed in commit" && h.dead != nil:
		return
	}
	h.done[slices.Index(faults[:], what)]++
	switch what {
	case "cut":
		change(func(p *simPath) { p.cut = true })
	case "hole":
		change(func(p *simPath) { p.hole(true) })
	case "one-way up":
		change(func(p *simPath) { p.cut, p.up, p.down = false, true, false })
	case "one-way down":
		change(func(p *simPath) { p.cut, p.up, p.down = false, false, true })
	case "heal":
		if h.off[name] {
			delete(h.off, name)
			s.begin()
		}
		change(func(p *simPath) {
			p.cut = false
			p.hole(false)
		})
	case "slow":
		delay := time.Duration(h.rnd.IntN(2000)) * time.Millisecond
		change(func(p *simPath) { p.delay = delay })
	case "repeat":
		change(func(p *simPath) { p.repeat = !p.repeat })
	case "late":
		late := time.Duration(h.rnd.IntN(3000)) * time.Millisecond
		change(func(p *simPath) { p.late = late })
	case "satellite killed":
		s.kill()
		s.begin()
	case "computer off":
		s.powerOff()
		h.off[name] = true
	case "half-open": // the program dies unheard and is back before anybody notices
		w.net.vanish(name)
		s.kill()
		s.begin()
	case "master killed":
		h.restart()
	case "killed in commit":
		h.dead = h.m.dieInCommit(w, h.rnd.IntN(2) == 0, func() {}) // nobody listens to its events
	case "logoff", "abort":
		on, user := h.m.admin, h.user()
		line := "abortuser " + user
		if what == "logoff" {
			line = "logoffuser " + user + " timeout=5"
		}
		w.steps.Go(func() { ask(on, line) })
	case "crash":
		w.inside([]string{"crash", "guestoff"}[h.rnd.IntN(2)], h.user())
	case "offline":
		id := slices.Index(h.names, name) + 1
		if h.rnd.IntN(2) == 0 {
			w.told(name, h.m.ask(fmt.Sprintf("offlineserver %d", id))[0])
		} else {
			w.toOnline(name)
			h.m.ask(fmt.Sprintf("onlineserver %d", id))
		}
	case "suspend":
		s.suspend()
		h.asleep[name] = true
	case "resume":
		delete(h.asleep, name)
		s.resume()
	}
}

// heal ends all faults and starts what does not run.
func (h *history) heal() {
	for _, name := range h.names {
		if h.asleep[name] {
			h.w.sats[name].resume()
		}
		if h.off[name] {
			h.w.sats[name].begin()
		}
		h.w.net.change(name, "master", func(p *simPath) {
			p.cut, p.delay, p.repeat, p.late = false, 0, false, 0
			p.hole(false)
		})
	}
	h.restart() // also one that was about to die
	for i, name := range h.names {
		h.w.toOnline(name)
		h.m.ask(fmt.Sprintf("onlineserver %d", i+1))
	}
}

// alive is the phase of liveness: LV1, LV2.
func (h *history) alive() {
	time.Sleep(30 * time.Second)
	if up := h.m.ask("servers link=up"); len(up) != len(h.names)+2 {
		h.t.Errorf("LV1: 30 s after the last fault not all satellites are connected:\n%s", strings.Join(h.m.ask("servers"), "\n"))
	}
	users := strings.Join(h.m.ask("users"), "\n") + "\n"
	for _, d := range h.w.desktops() {
		_, rest, _ := strings.Cut(d, " of ")
		user, _, _ := strings.Cut(rest, ",")
		i := strings.Index(users, "210-"+user+" ")
		if row, _, _ := strings.Cut(users[max(i, 0):], "\n"); i < 0 || strings.Contains(row, " lost ") {
			h.t.Errorf("LV1: 30 s after the last fault the master does not know of %q:\n%s", d, users)
		}
	}
	began, at, text := time.Now(), h.names[0], ""
	for range 2 {
		s := h.w.sats[at]
		text = s.login(context.Background(), s.self, "newcomer")
		_, to, ok := strings.Cut(text, ": go to ")
		if !ok {
			break
		}
		at, _, _ = strings.Cut(to, " ")
	}
	if took := time.Since(began); !strings.Contains(text, "new desktop") || took > 5*time.Second {
		h.t.Errorf("LV2: 30 s after the last fault a new user gets %q after %v", text, took)
	}
}

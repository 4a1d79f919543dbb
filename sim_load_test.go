package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/cluster"
)

// V-92: a burst of 1,000 logins inside one report interval, through all the
// satellites at once, puts no server more than one desktop above its share.
func TestSimBurst(t *testing.T) {
	const sats, logins = 10, 1000
	dir := simDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, dir)
		w.quiet = true
		m := w.startMaster("master")
		var all []*simSat
		for i := range sats {
			all = append(all, w.addSatellite(fmt.Sprintf("sat%d", i+1), 256<<30))
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		got := map[string]int{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range logins {
			wg.Go(func() {
				s := all[i%sats]
				o, err := s.self.Open(context.Background(), simUser(fmt.Sprintf("user%d", i), dir+"/home"), "local", func(string) {})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if o.Referred != nil {
					got[o.Referred.Name]++
				} else {
					got[s.name]++
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > w.limits.Interval {
			t.Errorf("the burst took %v, more than one interval: it proves nothing", took)
		}
		if len(got) != sats {
			t.Errorf("%d of %d satellites were used: %v", len(got), sats, got)
		}
		for name, n := range got {
			if n > logins/sats+1 {
				t.Errorf("%s got %d of %d logins, fair are %d: %v", name, n, logins, logins/sats, got)
			}
		}
		// V-09, S3: what nobody claims is given back.
		time.Sleep(62 * time.Second)
		if r := m.ask("reservations"); r[len(r)-1] != "210 No place is held for a login." {
			t.Errorf("reservations after their time: %q", r)
		}
		if u := m.ask("users"); len(u) != 2+len(w.desktops()) {
			t.Errorf("%d rows of users for %d desktops", len(u)-2, len(w.desktops()))
		}
		w.end()
	})
}

// V-12, V-40: 200 satellites with desktops lose their master at one instant.
// They come back spread over time, with everything they run, and none lost.
func TestSimReconnect(t *testing.T) {
	const sats = 200
	dir := simDir(t)
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, dir)
		w.quiet = true
		w.jitter = func(int) func() float64 { return nil } // the real one
		m := w.startMaster("master")
		for i := range sats {
			w.addSatellite(fmt.Sprintf("sat%03d", i+1), 16<<30)
		}
		time.Sleep(5 * time.Second)
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				user := fmt.Sprintf("user%d", i)
				first := w.sats[fmt.Sprintf("sat%03d", i+1)]
				o, err := first.self.Open(context.Background(), simUser(user, dir+"/home"), "local", func(string) {})
				if err == nil && o.Referred != nil {
					_, err = w.sats[o.Referred.Name].self.Open(context.Background(), simUser(user, dir+"/home"), "local", func(string) {})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		before := w.desktops()
		if len(before) != 50 {
			t.Fatalf("%d desktops, want 50", len(before))
		}

		m.kill(w)
		died := time.Now()
		time.Sleep(45 * time.Second)
		w.net.mu.Lock()
		attempts := slices.DeleteFunc(slices.Clone(w.net.attempts), func(a attempt) bool { return a.at.Before(died) })
		w.net.mu.Unlock()
		bursts, perSat := map[time.Duration]int{}, map[string]int{}
		for _, a := range attempts {
			perSat[a.from]++
			bursts[a.at.Sub(died).Truncate(100*time.Millisecond)]++
		}
		if worst := slices.Max(slices.Collect(maps.Values(bursts))); worst > sats/4 {
			t.Errorf("%d of %d satellites tried within one tenth of a second: a stampede", worst, sats)
		}
		for name, n := range perSat {
			if n < 9 || n > 60 { // 45 s at 2.5 s on average, at most 5 s
				t.Errorf("%s tried %d times in 45 s", name, n)
			}
		}
		w.startMaster("master")
		time.Sleep(20 * time.Second)
		r := m.ask("users")
		running := 0
		for _, row := range r {
			if strings.Contains(row, " running ") {
				running++
			}
		}
		if running != 50 || len(r) != 52 {
			t.Errorf("20 s after the master is back %d of 50 sessions run: %q", running, r[len(r)-1])
		}
		if got := w.desktops(); !slices.Equal(got, before) {
			t.Errorf("desktops have changed")
		}
		w.end()
	})
}

// S1, S3, S4, S7, S8: nobody plans it. Links break and heal, programs die and
// come back, users log in where they like; at every instant each has at most
// one desktop (the witness looks), and at the end all agree.
func TestSimChaos(t *testing.T) {
	for seed := range 6 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := simDir(t)
			synctest.Test(t, func(t *testing.T) { chaos(t, dir, uint64(seed)) })
		})
	}
}

func chaos(t *testing.T, dir string, seed uint64) {
	w := newSimWorld(t, dir)
	w.quiet = true
	if seed%2 == 1 {
		w.limits.Lost, w.limits.LeaseReplace, w.leaseSelf = cluster.Lease, time.Minute, 30*time.Second
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	m := w.startMaster("master")
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprintf("sat%d", i+1))
		w.addSatellite(names[i], 16<<30)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for range 300 {
		s := w.sats[names[rnd.IntN(len(names))]]
		user := fmt.Sprintf("user%d", rnd.IntN(6))
		switch rnd.IntN(12) {
		case 0:
			w.net.change(s.name, "master", func(p *simPath) { p.cut, p.hole = true, false })
		case 1:
			w.net.change(s.name, "master", func(p *simPath) { p.cut, p.hole = false, true })
		case 2, 3:
			w.net.change(s.name, "master", func(p *simPath) { p.cut, p.hole = false, false })
		case 4:
			w.net.change(s.name, "master", func(p *simPath) { p.delay = time.Duration(rnd.IntN(400)) * time.Millisecond })
		case 5:
			s.kill()
			s.begin()
		case 6:
			if rnd.IntN(3) == 0 {
				m.kill(w)
				w.startMaster("master")
			}
		case 7:
			on := m.admin
			w.steps.Go(func() { ask(on, "logoffuser "+user+" timeout=5") })
		case 8:
			on := m.admin
			w.steps.Go(func() { ask(on, "abortuser "+user) })
		case 9:
			w.inside([]string{"crash", "guestoff"}[rnd.IntN(2)], user)
		default:
			self := s.self
			w.steps.Go(func() { s.login(ctx, self, user) })
		}
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
		w.desktops()
	}
	for _, name := range names {
		w.net.change(name, "master", func(p *simPath) { p.cut, p.hole, p.delay = false, false, 0 })
	}
	time.Sleep(3 * time.Minute)
	cancel()
	w.steps.Wait()
	synctest.Wait()
	users := m.ask("users")
	desktops := w.desktops()
	if len(users) != max(1, len(desktops)+2) && len(users)+len(desktops) != 1 {
		t.Errorf("seed %d: the master knows\n%s\nand there are\n%s", seed, strings.Join(users, "\n"), strings.Join(desktops, "\n"))
	}
	if r := m.ask("reservations"); len(r) != 1 {
		t.Errorf("seed %d: reservations are left: %q", seed, r)
	}
	w.end()
}

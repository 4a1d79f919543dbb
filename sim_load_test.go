package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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

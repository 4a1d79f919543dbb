package host

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var guardStart = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

// guess is one try that ends at once; ok is false where it was not let.
func guess(g *guard, now time.Time, from string, right bool) (locked []lockout, l lockout, ok bool) {
	if l, ok = g.begin(now, from); !ok {
		return nil, l, false
	}
	if right {
		g.spare(from)
		return nil, l, true
	}
	_, locked = g.count(now, from)
	return locked, l, true
}

// F-09, RELIABILITY 4.1: five wrong passwords within a minute lock a source out
// for 15 minutes; right ones do not count; others go on.
func TestGuessesOfOneSource(t *testing.T) {
	g := guesses
	now := guardStart
	for i := range 30 { // right ones, also at once with wrong ones
		if _, _, ok := guess(&g, now, "a", true); !ok {
			t.Fatalf("right password %d is refused", i)
		}
	}
	for i := range 4 {
		if locked, _, ok := guess(&g, now, "a", false); !ok || locked != nil {
			t.Fatalf("wrong password %d: %v %v", i+1, ok, locked)
		}
	}
	now = now.Add(time.Minute) // they are forgotten
	for i := range 5 {
		locked, _, ok := guess(&g, now, "a", false)
		if !ok || (locked != nil) != (i == 4) {
			t.Fatalf("wrong password %d: %v %v", i+1, ok, locked)
		}
		now = now.Add(time.Second)
	}
	end := now.Add(15*time.Minute - time.Second)
	for _, at := range []time.Time{now, now.Add(10 * time.Minute), end.Add(-1)} {
		if _, l, ok := guess(&g, at, "a", true); ok || l.From != "a" || !l.Until.Equal(end) {
			t.Errorf("at %v: %v %v, want a lock-out until %v", at, l, ok, end)
		}
		if _, _, ok := guess(&g, at, "b", true); !ok {
			t.Errorf("at %v another source is locked out too", at)
		}
	}
	if _, _, ok := guess(&g, end, "a", true); !ok {
		t.Error("the lock-out does not end")
	}
	if len(g.source) != 0 {
		t.Errorf("remembered: %v", g.source)
	}
}

// Many addresses together do not guess faster than a few.
func TestGuessesOfMany(t *testing.T) {
	g := guesses
	now := guardStart
	n := 0
	for i := range 1000 {
		locked, l, ok := guess(&g, now, fmt.Sprint("host", i), false)
		if ok {
			n++
		}
		if n == 20 && ok && (len(locked) != 1 || locked[0].From != everybody) || !ok && l.From != everybody {
			t.Fatalf("try %d: %v %v %v", i, locked, l, ok)
		}
		now = now.Add(time.Second)
	}
	// 1000 s: 20 in the first 20 s, and after 15 minutes the next ones.
	if n != 40 {
		t.Errorf("%d guesses in 1000 s, want 40", n)
	}
	g.pardon()
	if _, _, ok := guess(&g, now, "host1", true); !ok || g.all.pending != 0 {
		t.Errorf("after a pardon: %v %+v", ok, g)
	}
}

// Tries that are under way count as wrong: a thousand at once are no way around
// the bound, and a lock-out comes from wrong ones alone.
func TestGuessesAtOnce(t *testing.T) {
	g := guesses
	n := 0
	for range 1000 {
		if l, ok := g.begin(guardStart, "a"); ok {
			n++
		} else if !l.Until.IsZero() {
			t.Fatalf("locked out by nothing: %v", l)
		}
	}
	if n != 5 {
		t.Errorf("%d tries at once, want 5", n)
	}
	for range n {
		g.spare("a")
	}
	if _, _, ok := guess(&g, guardStart, "a", true); !ok || len(g.source) != 0 {
		t.Errorf("afterwards: %v, remembered %v", ok, g.source)
	}
}

// In any history no source has more wrong guesses within a minute than five and
// all together no more than twenty within a quarter of an hour; nobody is let in
// a lock-out; a source that was never wrong is refused only with all others or
// while its own tries are under way.
func TestGuardHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := guesses
		now := guardStart
		type wrong struct {
			at   time.Time
			from string
		}
		var all []wrong
		var locks []lockout
		pending := map[string]int{}
		sources := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"})
		count := func(from string, within time.Duration) (n int) {
			for _, w := range all {
				if (from == everybody || w.from == from) && now.Sub(w.at) < within {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 5, 20, 59, 60, 300, 900}).Draw(t, "seconds")) * time.Second)
			},
			"begin": func(t *rapid.T) {
				from := sources.Draw(t, "from")
				l, ok := g.begin(now, from)
				for _, x := range locks {
					if ok && now.Before(x.Until) && (x.From == from || x.From == everybody) {
						t.Fatalf("%s tries at %v in the lock-out %v", from, now, x)
					}
				}
				if ok {
					pending[from]++
				} else if l.From == from && count(from, 16*time.Minute) == 0 && pending[from] < 5 {
					t.Fatalf("%s is refused (%v) and was never wrong", from, l)
				}
			},
			"end": func(t *rapid.T) {
				from := sources.Draw(t, "from")
				if pending[from] == 0 {
					return
				}
				pending[from]--
				if rapid.Bool().Draw(t, "right") {
					g.spare(from)
					return
				}
				_, locked := g.count(now, from)
				locks = append(locks, locked...)
				all = append(all, wrong{now, from})
			},
			"": func(t *rapid.T) {
				if n := count(everybody, 15*time.Minute); n > 20 {
					t.Fatalf("%d wrong guesses within 15 minutes", n)
				}
				for _, from := range []string{"a", "b", "c", "d", "e", "f"} {
					if n := count(from, time.Minute); n > 5 {
						t.Fatalf("%d wrong guesses of %s within a minute", n, from)
					}
				}
				if len(g.source) > 6 {
					t.Fatalf("remembered: %d sources", len(g.source))
				}
			},
		})
	})
}

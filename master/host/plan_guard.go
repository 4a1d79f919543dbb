package host

import (
	"math"
	"slices"
	"time"
)

// bound is how many tries count within a time, and for how long nobody may try
// after that.
type bound struct {
	tries        int
	within, lock time.Duration
}

// guard counts what a stranger must not do often, by source and of all together.
// A try is begun and then counted or not. As long as nobody knows it counts, so
// that many at once are no way around the bounds.
type guard struct {
	each, total bound

	all    tries
	source map[string]*tries // only of whom something is known
}

// Guards of a Manager.
var (
	// Guesses at the manager's password; right ones do not count. Many sources
	// together may guess no faster than four.
	guesses = guard{each: bound{5, time.Minute, 15 * time.Minute}, total: bound{20, 15 * time.Minute, 15 * time.Minute}}
	// Refusals that are logged and announced, so that no stranger fills the log.
	complaints = guard{each: bound{5, time.Minute, time.Minute}, total: bound{20, time.Minute, time.Minute}}
	// Certificates that are made anew, by server.
	renewals = guard{each: bound{5, time.Minute, time.Minute}, total: bound{math.MaxInt, time.Minute, time.Minute}}
)

// tries are those of one source.
type tries struct {
	counted []time.Time // within the bound's time, oldest first
	pending int
	until   time.Time // nobody may try before; zero: not locked
}

// everybody is the source of a lock-out that concerns all.
const everybody = "all"

// lockout keeps a source, or everybody, from trying.
type lockout struct {
	From  string
	Until time.Time
}

// begin lets a source try, or tells which lock-out is against it. One without
// an end is over as soon as tries that are under way are. A lock-out is not made
// longer by tries.
func (g *guard) begin(now time.Time, from string) (lockout, bool) {
	g.forget(now)
	t := g.source[from]
	if t == nil {
		t = &tries{}
	}
	for _, x := range []struct {
		t    *tries
		b    bound
		from string
	}{{t, g.each, from}, {&g.all, g.total, everybody}} {
		if now.Before(x.t.until) || len(x.t.counted)+x.t.pending >= x.b.tries {
			return lockout{x.from, x.t.until}, false
		}
	}
	if g.source == nil {
		g.source = map[string]*tries{}
	}
	g.source[from] = t
	t.pending++
	g.all.pending++
	return lockout{}, true
}

// spare ends a try that does not count.
func (g *guard) spare(from string) {
	t := g.source[from]
	t.pending--
	g.all.pending--
	if t.idle() {
		delete(g.source, from)
	}
}

// count ends a try that counts: the how manieth of that source it is, and which
// lock-outs begin with it.
func (g *guard) count(now time.Time, from string) (n int, locked []lockout) {
	t := g.source[from]
	n = len(t.counted) + 1
	for _, x := range []struct {
		t    *tries
		b    bound
		from string
	}{{t, g.each, from}, {&g.all, g.total, everybody}} {
		x.t.pending--
		x.t.counted = append(x.t.counted, now)
		if len(x.t.counted) >= x.b.tries {
			x.t.until, x.t.counted = now.Add(x.b.lock), nil
			locked = append(locked, lockout{x.from, x.t.until})
		}
	}
	return n, locked
}

// forget drops what no longer counts.
func (g *guard) forget(now time.Time) {
	g.all.forget(now, g.total)
	for from, t := range g.source {
		if t.forget(now, g.each); t.idle() {
			delete(g.source, from)
		}
	}
}

func (t *tries) forget(now time.Time, b bound) {
	t.counted = slices.DeleteFunc(t.counted, func(at time.Time) bool { return now.Sub(at) >= b.within })
	if !now.Before(t.until) {
		t.until = time.Time{}
	}
}

// pardon ends all lock-outs and forgets what has counted.
func (g *guard) pardon() {
	g.all.counted, g.all.until = nil, time.Time{}
	for from, t := range g.source {
		t.counted, t.until = nil, time.Time{}
		if t.idle() {
			delete(g.source, from)
		}
	}
}

// idle tells that nothing is known of a source.
func (t *tries) idle() bool { return t.pending == 0 && len(t.counted) == 0 && t.until.IsZero() }

func ceilSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

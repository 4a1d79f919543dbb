package link

import (
	"testing"
	"time"
)

// V-12: what the machine of the master cannot do is asked for less often, and
// as often as wished again when it can.
func TestPacing(t *testing.T) {
	const s = time.Second
	window := func(busy float64, late uint64) Window {
		return Window{Took: 10 * s, Reports: 1000, Late: late, CPU: time.Duration(busy * float64(20*s)), Processors: 2}
	}
	calm, busy, late := window(0.1, 0), window(0.85, 0), window(0.3, 200)
	row := func(w Window, n int) (out []Window) {
		for range n {
			out = append(out, w)
		}
		return out
	}
	join := func(all ...[]Window) (out []Window) {
		for _, w := range all {
			out = append(out, w...)
		}
		return out
	}
	few := window(0.1, 0)
	few.Reports, few.Late = 10, 10
	tests := map[string]struct {
		wish, lease time.Duration
		windows     []Window
		want        time.Duration
		changes     int
	}{
		"as wished":                        {wish: 3 * s, windows: row(calm, 20), want: 3 * s},
		"one bad window is an accident":    {wish: 3 * s, windows: join(row(busy, 2), row(calm, 1), row(busy, 2)), want: 3 * s},
		"busy processors":                  {wish: 3 * s, windows: row(busy, 3), want: 4500 * time.Millisecond, changes: 1},
		"late reports":                     {wish: 3 * s, windows: row(late, 3), want: 4500 * time.Millisecond, changes: 1},
		"few reports say nothing":          {wish: 3 * s, windows: row(few, 20), want: 3 * s},
		"two steps where one is too few":   {wish: 3 * s, windows: row(window(0.95, 0), 3), want: 6 * s, changes: 1},
		"further":                          {wish: 3 * s, windows: row(busy, 6), want: 9 * s, changes: 2},
		"not beyond the bound":             {wish: 3 * s, windows: row(busy, 60), want: 15 * s, changes: 3},
		"not beyond what a lease outlives": {wish: 3 * s, lease: 20 * s, windows: row(busy, 60), want: 5 * s, changes: 2},
		"a slow wish stands":               {wish: 30 * s, windows: row(busy, 60), want: 30 * s},
		"nothing to take back":             {wish: 30 * s, windows: join(row(busy, 60), row(calm, 60)), want: 30 * s},
		"back by a step":                   {wish: 3 * s, windows: join(row(late, 6), row(calm, 6)), want: 4500 * time.Millisecond, changes: 3},
		"back to the wish":                 {wish: 3 * s, windows: join(row(busy, 60), row(calm, 60)), want: 3 * s, changes: 8},
		"not back into what was too much":  {wish: 3 * s, windows: join(row(busy, 3), row(window(0.5, 0), 60)), want: 4500 * time.Millisecond, changes: 1},
		"not back while some are late":     {wish: 3 * s, windows: join(row(late, 3), row(window(0.1, 50), 60)), want: 4500 * time.Millisecond, changes: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPacing(test.wish, test.lease)
			changes := 0
			for _, w := range test.windows {
				before := p.Interval()
				why := p.Judge(w)
				if (why != "") != (p.Interval() != before) {
					t.Errorf("from %v to %v with the reason %q", before, p.Interval(), why)
				}
				if why != "" {
					changes++
				}
			}
			if p.Interval() != test.want || changes != test.changes {
				t.Errorf("got %v after %d changes, want %v after %d", p.Interval(), changes, test.want, test.changes)
			}
		})
	}
	p := NewPacing(3*s, 0)
	for range 3 {
		p.Judge(busy)
	}
	p.Wish(5 * s)
	if p.Interval() != 5*s {
		t.Errorf("a new wish: got %v, want %v", p.Interval(), 5*s)
	}
}

// Lateness needs no common clock: what counts is when the reports before came.
func TestDue(t *testing.T) {
	const s = time.Second
	const ms = time.Millisecond
	tests := map[string]struct {
		at   []time.Duration
		want time.Duration // of the last
	}{
		"the first":              {at: []time.Duration{0}},
		"in time":                {at: []time.Duration{0, 3 * s, 6 * s}},
		"late":                   {at: []time.Duration{0, 3*s + 800*ms}, want: 800 * ms},
		"late again":             {at: []time.Duration{0, 3*s + 800*ms, 6*s + 800*ms}, want: 700 * ms},
		"in time after late":     {at: []time.Duration{0, 3*s + 800*ms, 6 * s}},
		"news between":           {at: []time.Duration{0, 1 * s, 3 * s}},
		"late after news":        {at: []time.Duration{0, 1 * s, 3 * s, 6*s + 400*ms}, want: 400 * ms},
		"back after a long time": {at: []time.Duration{0, 60 * s, 63 * s}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var d Due
			var got time.Duration
			for _, at := range test.at {
				got = d.Arrived(time.Unix(1000, 0).Add(at), 3*s)
			}
			if got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	var d Due
	d.Arrived(time.Unix(1000, 0), 3*s)
	if got := d.Arrived(time.Unix(1010, 0), 15*s); got != 0 {
		t.Errorf("the first report of another interval: got %v late, want 0", got)
	}
	// A clock that runs 100 ppm slow is no lateness that grows.
	d = Due{}
	at, worst := time.Unix(1000, 0), time.Duration(0)
	for range 10_000 {
		worst = max(worst, d.Arrived(at, 3*s))
		at = at.Add(3*s + 300*time.Microsecond)
	}
	if worst > 5*ms {
		t.Errorf("after %v of a slow clock: got %v late, want at most 5ms", at.Sub(time.Unix(1000, 0)), worst)
	}
	var l Lateness
	for _, late := range []time.Duration{0, 400 * ms, 600 * ms, 7 * s} {
		l.Add(late)
	}
	if now := l.Now(); now.Count() != 4 || now.Over(LateAfter) != 2 || now.Worst != 7*s || now.Sum != 8*s {
		t.Errorf("got %+v, want 4 reports, 2 over, 7s the worst, 8s in all", now)
	}
}

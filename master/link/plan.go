package link

import (
	"fmt"
	"time"
)

// MostInterval is how far the master stretches the time between two reports by
// itself. A wish beyond it stands as it is.
const MostInterval = 15 * time.Second

// Bounds of what a master can keep up with.
const (
	// LateAfter is when a report counts as late; one of LateBounds.
	LateAfter = 500 * time.Millisecond
	mostLate  = 0.10 // share of reports that may be late
	calmLate  = 0.02 // and above which there is no going back
	mostBusy  = 0.75 // share of the processors that this program may use
	aimBusy   = 0.60 // what it would use after a stretch
	calmBusy  = 0.50 // and after going back
	fewest    = 20   // reports that say something

	badWindows  = 3 // in a row before the interval is stretched
	calmWindows = 6 // in a row before it goes back by a step
)

// steps are the multiples of the wish that may be in force.
var steps = [...]float64{1, 1.5, 2, 3, 4, 5}

// Window is what was measured in some time.
type Window struct {
	Took       time.Duration
	Reports    uint64 // taken in
	Late       uint64 // of them: more than LateAfter late
	CPU        time.Duration
	Processors int // that this program may use
}

// Pacing decides how often satellites report: as often as is wished, and less
// often while the master cannot keep up. Three windows in a row must be bad
// before anything changes and six calm before it is taken back by a step, where
// calm is judged by what the shorter interval would cost: so it does not swing.
type Pacing struct {
	wish, most time.Duration
	step       int // index of steps
	bad, calm  int // windows in a row
}

// NewPacing begins with the wish. leaseSelf, where leases are in use, bounds the
// stretch: a lease is renewed by reports and must outlive three that are lost.
func NewPacing(wish, leaseSelf time.Duration) Pacing {
	p := Pacing{most: MostInterval}
	if leaseSelf > 0 {
		p.most = min(p.most, leaseSelf/4)
	}
	p.Wish(wish)
	return p
}

// Wish takes over a changed setting. The stretch begins anew.
func (p *Pacing) Wish(wish time.Duration) {
	if wish != p.wish {
		p.wish, p.step, p.bad, p.calm = wish, 0, 0, 0
	}
}

// Interval is what is in force.
func (p *Pacing) Interval() time.Duration { return p.at(p.step) }

func (p *Pacing) at(step int) time.Duration {
	d := time.Duration(float64(p.wish) * steps[step]).Round(100 * time.Millisecond)
	return max(p.wish, min(d, p.most))
}

// Judge takes a window in. why is not empty where the interval has changed, and
// says what led to it.
func (p *Pacing) Judge(w Window) (why string) {
	busy := w.CPU.Seconds() / (w.Took.Seconds() * float64(max(w.Processors, 1)))
	late := 0.0
	if w.Reports >= fewest {
		late = float64(w.Late) / float64(w.Reports)
	}
	now := p.Interval()
	switch {
	case busy > mostBusy || late > mostLate:
		p.bad, p.calm = p.bad+1, 0
		if p.bad < badWindows {
			return ""
		}
		p.bad = 0
		before := p.step
		for p.step+1 < len(steps) && p.at(p.step) == now { // the next that differs
			p.step++
		}
		for p.step+1 < len(steps) && busy*now.Seconds()/p.at(p.step).Seconds() > aimBusy {
			p.step++
		}
		if p.Interval() == now { // the bound: there is nothing to take back later
			p.step = before
			return ""
		}
		return tooMuch(busy, late)
	case p.step > 0 && late <= calmLate && busy*now.Seconds()/p.at(p.below()).Seconds() <= calmBusy:
		p.bad, p.calm = 0, p.calm+1
		if p.calm < calmWindows {
			return ""
		}
		p.step, p.calm = p.below(), 0
		return fmt.Sprintf("there is room again: its processors are %.0f %% busy with it and %.0f %% of the load reports are late", 100*busy, 100*late)
	}
	p.bad, p.calm = 0, 0
	return ""
}

// below is the next step down whose interval differs.
func (p *Pacing) below() int {
	below := p.step
	for below > 0 && p.at(below) == p.Interval() {
		below--
	}
	return below
}

func tooMuch(busy, late float64) string {
	if late > mostLate {
		return fmt.Sprintf("%.0f %% of the load reports came more than %v late", 100*late, LateAfter)
	}
	return fmt.Sprintf("the master alone keeps its processors %.0f %% busy", 100*busy)
}

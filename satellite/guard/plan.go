package guard

import (
	"errors"
	"fmt"
	"time"

	"verdecmd/proto/planted"
	"verdecmd/satellite/desktop"
)

// Times of guardian and keeper. All count suspended time.
const (
	// Every is how often the guardian looks at the lease and shows that it does.
	Every = time.Second
	// After is how long after the end of the lease the guardian acts: the
	// satellite's program, if it lives, has ended its desktops by then.
	After = 8 * time.Second
	// awakeFor is how old the last sign of life may be for a new desktop.
	awakeFor = 4 * time.Second
	// frozenFor is how old it may be before another guardian takes the place.
	frozenFor = 10 * time.Second
	// idleFor is how long a guardian without a satellite stays when all desktops
	// are gone: one whose start was under way might still appear.
	idleFor = time.Minute
)

// Over tells whether the desktops must end now. end is when the lease is over,
// 0 for none.
func Over(end, now time.Duration) bool {
	after := After
	if planted.Bug("guardian-early") {
		after = -After
	}
	return end > 0 && now-end > after && !planted.Bug("guardian-asleep")
}

// Awake is nil if the guardian has shown itself at beat; 0: never yet.
func Awake(beat, now time.Duration) error {
	switch silent := now - beat; {
	case beat == 0:
		return errors.New("the guardian of the desktops is just starting")
	case silent > awakeFor:
		return fmt.Errorf("the guardian of the desktops has not stirred for %d s", int(silent.Seconds()))
	}
	return nil
}

// Deed is what a keeper does.
type Deed int

const (
	Nothing Deed = iota
	Start        // a guardian
	Replace      // the present one: end it and start another
	Dismiss      // the guardians of earlier programs
	Remove       // all guardians
)

// Next is what a keeper does now. end is when the lease is over, 0 for none;
// runs: there is a guardian of its own, which was started at began and has shown
// itself last at beat, 0 for never.
func Next(end time.Duration, runs bool, began, beat, now time.Duration) Deed {
	switch {
	case end == 0:
		return Remove
	case !runs:
		return Start
	case Frozen(began, beat, now):
		return Replace
	case beat > 0: // there is no moment without one
		return Dismiss
	}
	return Nothing
}

// Frozen tells whether a guardian that was started at began, and has shown
// itself last at beat, is to be replaced.
func Frozen(began, beat, now time.Duration) bool { return now-max(began, beat) > frozenFor }

// Desktop is a desktop in the journal.
type Desktop struct {
	Session string
	User    desktop.User
	Process desktop.Process // PID 0: it was not noted, the UUID tells
}

// Merge is the list of a guardian when the journal names now and named old
// before. An entry goes when its process has gone: whatever else takes it away, a
// disk that fails or somebody's hand, takes nothing off the list.
func Merge(old, now []Desktop, gone func(Desktop) bool) []Desktop {
	has := map[string]bool{}
	for _, d := range now {
		has[d.Session] = true
	}
	for _, d := range old {
		if !has[d.Session] && !gone(d) {
			now = append(now, d)
		}
	}
	return now
}

// Post is what a guardian remembers between two looks.
type Post struct{ idle time.Duration } // since when there is nothing to guard; 0: there is

// Look is what a guardian does at its post, again and again: it ends the
// desktops whose lease is over, and tells how many there may still be and
// whether it leaves. kill tells whether a desktop is proven to be gone; alone is
// as in Leaves.
func (p *Post) Look(end, now time.Duration, alone bool, desktops []Desktop, kill func(Desktop) (gone bool)) (left int, leave bool) {
	left = len(desktops)
	if Over(end, now) {
		for _, d := range desktops {
			if kill(d) {
				left--
			}
		}
	}
	return left, p.Leaves(end, now, alone, left)
}

// Leaves tells whether a guardian has nothing to do any more. alone: the
// program that started it is gone; left: desktops that may be there.
func (p *Post) Leaves(end, now time.Duration, alone bool, left int) bool {
	if !alone || left > 0 || end > 0 && !Over(end, now) {
		p.idle = 0
		return false
	}
	if end == 0 {
		return true
	}
	if p.idle == 0 {
		p.idle = now
	}
	return now-p.idle >= idleFor
}

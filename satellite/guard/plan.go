package guard

import (
	"errors"
	"fmt"
	"time"
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
func Over(end, now time.Duration) bool { return end > 0 && now-end > After }

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

// Frozen tells whether a guardian that was started at began, and has shown
// itself last at beat, is to be replaced.
func Frozen(began, beat, now time.Duration) bool { return now-max(began, beat) > frozenFor }

// Post is what a guardian remembers between two looks.
type Post struct{ idle time.Duration } // since when there is nothing to guard; 0: there is

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

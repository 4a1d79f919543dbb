package sim

import (
	"fmt"
	"io"
	"slices"
)

// shrinkPlays is how many histories a shrinking may cost.
const shrinkPlays = 400

// shrink takes steps out of a plan as long as fails tells that what is left
// still fails in the same way: delta debugging. It asks at most plays times.
func shrink(steps []step, plays int, fails func([]step) bool) []step {
	for size := (len(steps) + 1) / 2; size > 0; {
		removed := false
		for i := 0; i < len(steps); {
			if plays--; plays < 0 {
				return steps
			}
			rest := slices.Delete(slices.Clone(steps), i, min(i+size, len(steps)))
			if fails(rest) {
				steps, removed = rest, true
			} else {
				i += size
			}
		}
		if size == 1 && !removed {
			break
		}
		size = min(max(1, size/2), max(1, len(steps)))
	}
	return steps
}

// Shrunk is a history with as few steps as are needed for its violation.
type Shrunk struct {
	History
	All int // steps before
}

// Shrink looks for the steps that a violation needs.
func Shrink(cfg Config, h History) Shrunk {
	cfg.Trace = false
	same := func(steps []step) bool {
		p := h.plan
		p.steps = steps
		v := play(cfg, p).Violation
		return v != nil && v.Check == h.Violation.Check
	}
	steps := slices.DeleteFunc(slices.Clone(h.plan.steps), func(s step) bool { return s.at > h.Violation.At })
	out := Shrunk{All: len(h.plan.steps)}
	p := h.plan
	p.steps = shrink(steps, shrinkPlays, same)
	cfg.Trace = true
	out.History = play(cfg, p)
	return out
}

// traceEnd is how many lines before a violation are printed.
const traceEnd = 60

// Print writes the violation, the steps that are left and what happened last.
func (s Shrunk) Print(w io.Writer) {
	fmt.Fprintf(w, "seed %d with %d of %d steps: %v\n\n%v\n", s.Seed, len(s.plan.steps), s.All, s.Violation, s.plan)
	for _, step := range s.plan.steps {
		fmt.Fprintf(w, "  %v\n", step)
	}
	fmt.Fprintf(w, "\nwhat happened last:\n")
	for _, line := range s.Lines[max(0, len(s.Lines)-traceEnd):] {
		fmt.Fprintf(w, "  %.200s\n", line)
	}
}

func (p plan) String() string {
	policy := "hold"
	if p.lease {
		policy = fmt.Sprintf("lease of %v, given away after %v", p.self, p.replace)
	}
	return fmt.Sprintf("%d satellites, %d users, %s, reports every %v, reservations of %v:", p.satellites, p.users, policy, p.interval, p.reservation)
}

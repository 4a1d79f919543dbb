package sim

import (
	"time"
)

// stats is what a history was worth.
type stats struct {
	events    int
	effective map[string]int // what has changed something, by kind
	faults    map[string]int
	refusals  map[string]int // by text with N for numbers
	logins    []time.Duration
}

func newStats() stats {
	return stats{effective: map[string]int{}, faults: map[string]int{}, refusals: map[string]int{}}
}

// count notes an effective operation: a login that gave a place or a session,
// an end, an order that was carried out, an administrator's change.
func (w *world) count(kind string) { w.stats.effective[kind]++ }

// operations is the sum of all.
func (s *stats) operations() (n int) {
	for _, x := range s.effective {
		n += x
	}
	return n
}

// faultHit notes that a fault has had its effect.
func (w *world) faultHit(kind string) { w.stats.faults[kind]++ }

// refusal notes a refusal.
func (w *world) refusal(err error) {
	if err != nil {
		w.stats.refusals[generic(err.Error())]++
	}
}

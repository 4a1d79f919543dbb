package sim

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Options say which histories are to happen.
type Options struct {
	Config
	Seed      uint64 // of the first; each next one has a seed that is one higher
	Histories int
	Workers   int  // at least 1
	All       bool // go on after a violation
	// Progress is told from time to time how far it is; it may be nil.
	Progress func(done, bad int)
}

// History is what came of one.
type History struct {
	Seed      uint64
	Hash      uint64 // of the trace
	Violation *Violation
	Lines     []string // of the trace, with Config.Trace

	plan  plan
	stats stats
	width [4]int // satellites, users, seconds, faults
}

// play lets one history happen.
func play(cfg Config, p plan) History {
	w := newWorld(cfg, p)
	w.run()
	return History{Seed: p.seed, Hash: w.trace.hash, Violation: w.bad, Lines: w.trace.lines, plan: p, stats: w.stats,
		width: [4]int{len(w.computers), len(w.users), int(w.time / time.Second), w.injected}}
}

// Play lets the history of a seed happen.
func Play(cfg Config, seed uint64) History { return play(cfg, newPlan(seed)) }

// Run lets histories happen, several at the same time, until all are over, ctx
// ends or a promise is broken. What it returns does not depend on how many
// workers there are.
func Run(ctx context.Context, o Options) *Summary {
	sum := &Summary{Seed: o.Seed, started: time.Now()}
	var mu sync.Mutex // guards what follows, and sum
	next, last := 0, o.Histories
	var wg sync.WaitGroup
	for range max(1, o.Workers) {
		wg.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				stop := i >= last
				mu.Unlock()
				if stop {
					return
				}
				h := Play(o.Config, o.Seed+uint64(i))
				mu.Lock()
				sum.add(h)
				if h.Violation != nil && !o.All {
					last = min(last, i)
				}
				done, bad := sum.Histories, len(sum.Bad)
				mu.Unlock()
				if o.Progress != nil {
					o.Progress(done, bad)
				}
			}
		})
	}
	wg.Wait()
	sum.finish()
	return sum
}

func (h History) String() string {
	return fmt.Sprintf("seed %d: trace %016x, %d operations", h.Seed, h.Hash, h.stats.operations())
}

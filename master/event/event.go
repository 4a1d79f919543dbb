// Package event numbers what happens in the cluster and keeps the newest of
// it for those who watch.
//
// Numbers never fall, also over restarts of the master. To publish without
// waiting for the disk, numbers are reserved in steps ahead of their use; a
// restart goes on behind the reserved step, so numbers may jump.
package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// step is how many numbers are reserved with one commit; the next commit is
// made when half of them are used.
const step = 10_000

var reservedKey = store.Key{Bucket: "event", ID: "reserved"}

// Config is what a Ring needs.
type Config struct {
	Store store.Store // required
	Epoch store.Epoch
	Keep  int // events kept for Since; default 4096
	Log   zerolog.Logger
}

// Ring is the events of a master. All methods may be called by many
// goroutines.
type Ring struct {
	cfg   Config
	first uint64        // number of the first event of this start of the master
	low   chan struct{} // wakes Run when the reserved numbers run low

	mu       sync.Mutex // guards all below
	events   []monitor.Event
	seq      uint64 // of the newest event
	reserved uint64 // numbers up to it are on the disk as used
	newer    chan struct{}
}

// New reads the last reserved number and reserves the first step.
func New(ctx context.Context, cfg Config) (*Ring, error) {
	if cfg.Store == nil {
		return nil, errors.New("event: no store")
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 4096
	}
	cfg.Log = cfg.Log.With().Str("part", "event").Logger()
	r := &Ring{cfg: cfg, low: make(chan struct{}, 1), newer: make(chan struct{})}
	err := cfg.Store.View(ctx, func(s store.Snapshot) error {
		v, ok, err := s.Get(reservedKey)
		if err != nil || !ok {
			return err
		}
		if err := json.Unmarshal(v, &r.reserved); err != nil {
			return err
		}
		if r.reserved > math.MaxUint64/2 { // numbers would begin anew
			return fmt.Errorf("%d cannot be one", r.reserved)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("event: reading the last number: %w", err)
	}
	r.seq = r.reserved
	r.first = r.seq + 1
	if err := r.reserve(ctx); err != nil {
		return nil, fmt.Errorf("event: reserving numbers: %w", err)
	}
	return r, nil
}

// Run reserves numbers ahead of their use until ctx ends.
func (r *Ring) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.low:
		}
		for {
			err := r.reserve(ctx)
			if err == nil || ctx.Err() != nil {
				break
			}
			// Publish goes on without: numbers could only fall if the master
			// were restarted before the storage takes writes again.
			r.cfg.Log.Error().Err(err).Msg("event numbers cannot be reserved")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(5 * time.Second):
			}
		}
	}
}

// reserve puts the reserved number one step ahead of the newest event.
func (r *Ring) reserve(ctx context.Context) error {
	r.mu.Lock()
	want := r.seq + step
	r.mu.Unlock()
	v, err := json.Marshal(want)
	if err != nil {
		return err
	}
	if err := r.cfg.Store.Commit(ctx, r.cfg.Epoch, nil, []store.Change{{Key: reservedKey, Value: v}}); err != nil {
		return err
	}
	r.mu.Lock()
	r.reserved = max(r.reserved, want)
	r.mu.Unlock()
	return nil
}

// Publish numbers an event and wakes all who wait. It never waits for the
// disk. now is the time shown; it may go backwards, numbers do not.
func (r *Ring) Publish(now time.Time, typ, text string, pairs ...monitor.Pair) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	if r.seq+step/2 > r.reserved {
		select {
		case r.low <- struct{}{}:
		default: // Run has been told already
		}
	}
	e := monitor.Event{Seq: r.seq, Time: now, Type: typ, Pairs: pairs, Text: text}
	if len(r.events) < r.cfg.Keep {
		r.events = append(r.events, e)
	} else {
		r.events[(r.seq-r.first)%uint64(r.cfg.Keep)] = e
	}
	close(r.newer)
	r.newer = make(chan struct{})
	return r.seq
}

// Seq is the number of the newest event, or the last one that a master before
// may have used.
func (r *Ring) Seq() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq
}

// Since implements monitor.EventSource. A seq beyond the newest event gives
// nothing.
func (r *Ring) Since(seq uint64) (events []monitor.Event, lostTo uint64, wait <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq >= r.seq {
		return nil, 0, r.newer
	}
	if before := r.seq - uint64(len(r.events)); seq < before { // the newest that is not kept
		lostTo, seq = before, before
	}
	for i := seq + 1; i <= r.seq; i++ {
		events = append(events, r.events[(i-r.first)%uint64(r.cfg.Keep)])
	}
	return events, lostTo, r.newer
}

var _ interface {
	Seq() uint64
	monitor.EventSource
} = (*Ring)(nil)

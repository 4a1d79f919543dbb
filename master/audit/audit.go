// Package audit remembers which administrator has commanded what, over restarts
// of the master, as long as there is room for it.
//
// A command is on the disk before its reply goes out. A disk that refuses it, or
// takes too long, holds no administrator up: the log has the command at any
// rate, somebody is told, and it is written when the disk takes it. The newest
// commands are kept; what was denied has a smaller share of its own, so that who
// may only look cannot push out what others have done.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

const (
	patience   = 5 * time.Second // how long a reply waits for the disk
	impatience = 200 * time.Millisecond
	mostWait   = 1000 // commands that wait for the disk; beyond it the oldest are only in the log
	batchSize  = store.MaxChanges / 2
)

// Config is what a Keeper needs.
type Config struct {
	Store store.Store // required
	Epoch store.Epoch
	// Event announces that commands cannot be kept, and that they can again; it
	// must neither block nor call the Keeper: the order in which it is called is
	// the order in which it was so. Required.
	Event func(typ, text string, pairs ...monitor.Pair)
	Log   zerolog.Logger
	// Keep and KeepDenied are how many commands are kept; the defaults are those
	// of this package.
	Keep, KeepDenied int
}

// Keeper keeps commands. All methods may be called by many goroutines.
type Keeper struct {
	cfg  Config
	work sync.WaitGroup // write, while it runs

	mu      sync.Mutex // guards all below
	next    uint64
	waiting []*entry // not on the disk yet, by number
	writing bool     // write runs
	busy    int      // how many of waiting it is about to store
	failed  bool     // that has been told
	kept    kept
}

// entry is a command on its way to the disk.
type entry struct {
	Record
	done chan struct{} // closed when the disk has taken or refused it
	once sync.Once
}

// New reads what earlier masters kept.
func New(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Store == nil || cfg.Event == nil {
		return nil, errors.New("audit: Config needs Store and Event")
	}
	cfg.Log = cfg.Log.With().Str("part", "audit").Logger()
	k := &Keeper{cfg: cfg, next: 1, kept: newKept(cfg.Keep, cfg.KeepDenied)}
	err := k.each(ctx, func(r Record) {
		k.kept.add([]Record{r}, nil)
		k.next = r.ID + 1 // they come by number
	})
	if err != nil {
		return nil, fmt.Errorf("audit: reading the commands: %w", err)
	}
	return k, nil
}

// Run tries again what the disk has refused, until ctx ends. Add works before
// and after.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(patience + 700*time.Millisecond) // not with the other parts
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tick.Reset(patience)
			k.mu.Lock()
			k.begin()
			k.mu.Unlock()
		}
	}
}

// Wait returns when nothing is being written.
func (k *Keeper) Wait() { k.work.Wait() }

// Add keeps a command and returns when it is on the disk, or when the disk has
// refused it or takes too long.
func (k *Keeper) Add(a monitor.Audited) {
	e := &entry{Record: record(a), done: make(chan struct{})}
	k.mu.Lock()
	e.ID = k.next
	k.next++
	k.waiting = append(k.waiting, e)
	if n := len(k.waiting) - mostWait; n > 0 {
		tell(k.waiting[k.busy : k.busy+n])
		k.waiting = slices.Concat(k.waiting[:k.busy], k.waiting[k.busy+n:])
	}
	wait := patience
	if k.failed { // everybody has waited once
		wait = impatience
	}
	k.begin()
	k.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-e.done:
	case <-timer.C:
		err := fmt.Errorf("the disk takes longer than %v", wait)
		k.mu.Lock()
		select {
		case <-e.done: // in this moment
			err = nil
		default:
			k.outcome(err)
		}
		k.mu.Unlock()
		k.log(err)
	}
}

// tell lets those go on who wait for commands; k.mu must be held.
func tell(some []*entry) {
	for _, e := range some {
		e.once.Do(func() { close(e.done) })
	}
}

// begin lets write run if there is something for it; k.mu must be held.
func (k *Keeper) begin() {
	if !k.writing && len(k.waiting) > 0 {
		k.writing = true
		k.work.Go(k.write)
	}
}

// write stores what waits, until there is nothing more or the disk refuses it.
// Commands that come together are one commit.
func (k *Keeper) write() {
	for {
		batch, old := k.take()
		if len(batch) == 0 {
			return
		}
		changes := make([]store.Change, 0, len(batch)+len(old))
		for _, r := range batch {
			changes = append(changes, store.Change{Key: key(r.ID), Value: r.encode()})
		}
		for _, id := range old {
			changes = append(changes, store.Change{Key: key(id)})
		}
		err := k.cfg.Store.Commit(context.Background(), k.cfg.Epoch, nil, changes)
		k.settle(batch, old, err)
		k.log(err)
		if err != nil {
			return
		}
	}
}

// take is what the next commit is to store and to drop. Without anything, write
// has ended.
func (k *Keeper) take() (batch []Record, old []uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.waiting[:min(len(k.waiting), batchSize)] {
		batch = append(batch, e.Record)
	}
	k.busy, k.writing = len(batch), len(batch) > 0
	return batch, k.kept.pushed(batch)
}

// settle takes in what has become of a commit. After a failure write has ended.
func (k *Keeper) settle(batch []Record, old []uint64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.outcome(err)
	told := k.waiting[:k.busy]
	if err == nil {
		k.kept.add(batch, old)
		k.waiting = slices.Clone(k.waiting[k.busy:])
	} else {
		told = k.waiting // what came meanwhile is not tried now either
		k.writing = false
	}
	k.busy = 0
	tell(told)
}

// outcome tells when commands cannot be kept, and when they can again; k.mu must
// be held.
func (k *Keeper) outcome(err error) {
	was := k.failed
	k.failed = err != nil
	switch {
	case err != nil && !was:
		k.cfg.Event("audit.failed", fmt.Sprintf("Commands of administrators cannot be kept: %v. They are in the log of the master.", err))
	case err == nil && was:
		k.cfg.Event("audit.kept", "Commands of administrators are kept again.")
	}
}

func (k *Keeper) log(err error) {
	if err != nil {
		k.cfg.Log.Error().Err(err).Msg("commands of administrators are not kept now, they are in this log only; trying again")
	}
}

// List returns the commands that are kept and wanted, the newest last.
func (k *Keeper) List(ctx context.Context, f monitor.AuditFilter) ([]monitor.Audited, error) {
	now := time.Now()
	var out []monitor.Audited
	err := k.each(ctx, func(r Record) {
		if a := r.audited(); f.Matches(&a, now) {
			out = append(out, a)
			if f.Count > 0 && len(out) >= 2*f.Count { // no more is held than twice what is wanted
				out = append(out[:0], out[len(out)-f.Count:]...)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the commands: %w", err)
	}
	if f.Count > 0 && len(out) > f.Count {
		out = out[len(out)-f.Count:]
	}
	return out, nil
}

// each calls f with every command on the disk, by number.
func (k *Keeper) each(ctx context.Context, f func(Record)) error {
	return k.cfg.Store.View(ctx, func(s store.Snapshot) error {
		for id, v := range s.All(bucket) {
			r, err := decode(v)
			if err != nil {
				return fmt.Errorf("command %s: %w", id, err)
			}
			if key(r.ID).ID != id {
				return fmt.Errorf("the record of command %s describes command %d", id, r.ID)
			}
			f(r)
		}
		return nil
	})
}

const bucket = "audit"

func key(id uint64) store.Key { return store.Numbered(bucket, id) }

func (r Record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, numbers and a time
	}
	return b
}

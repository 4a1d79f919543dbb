package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
)

// Mem is a Store in memory, for simulations and tests. It keeps the same
// promises but durability. The zero value is not ready; use NewMem.
type Mem struct {
	mu      sync.RWMutex // guards all below
	epoch   Epoch
	buckets map[string]map[string][]byte
	fail    error
}

// NewMem returns an empty store with epoch 1.
func NewMem() *Mem {
	return &Mem{epoch: 1, buckets: map[string]map[string][]byte{}}
}

// Epoch is the newest epoch, the only one that may commit.
func (m *Mem) Epoch() Epoch {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.epoch
}

// Restart raises the epoch by one, as Open does for a file: commits of the
// master before are refused from now on.
func (m *Mem) Restart() Epoch {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	return m.epoch
}

// Fail makes every commit fail with err until it is called with nil: a full
// disk, for example.
func (m *Mem) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// View implements Store.
func (m *Mem) View(ctx context.Context, fn func(Snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := &memSnapshot{buckets: m.buckets}
	err := fn(s)
	if s.err != nil {
		return s.err
	}
	return err
}

// Commit implements Store.
func (m *Mem) Commit(ctx context.Context, e Epoch, guards []Guard, changes []Change) error {
	if err := check(guards, changes); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e != m.epoch {
		return fmt.Errorf("commit with epoch %d, the store has %d: %w", e, m.epoch, ErrFenced)
	}
	if m.fail != nil {
		return m.fail
	}
	for _, g := range guards {
		if have, ok := m.buckets[g.Key.Bucket][g.Key.ID]; !g.holds(have, ok) {
			return &ConflictError{g.Key}
		}
	}
	for _, c := range changes {
		b := m.buckets[c.Key.Bucket]
		if c.Value == nil {
			delete(b, c.Key.ID)
			continue
		}
		if b == nil {
			b = map[string][]byte{}
			m.buckets[c.Key.Bucket] = b
		}
		b[c.Key.ID] = append([]byte{}, c.Value...)
	}
	return nil
}

// Backup is not offered by a store in memory.
func (m *Mem) Backup(context.Context, string) error {
	return fmt.Errorf("backup of a store in memory: %w", errors.ErrUnsupported)
}

type memSnapshot struct {
	buckets map[string]map[string][]byte
	err     error
}

func (s *memSnapshot) Get(k Key) ([]byte, bool, error) {
	if err := k.check(); err != nil {
		return nil, false, err
	}
	v, ok := s.buckets[k.Bucket][k.ID]
	if !ok {
		return nil, false, nil
	}
	return append([]byte{}, v...), true, nil
}

func (s *memSnapshot) All(bucket string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if err := (Key{bucket, "x"}).check(); err != nil {
			s.err = err
			return
		}
		b := s.buckets[bucket]
		for _, id := range slices.Sorted(maps.Keys(b)) {
			if !yield(id, append([]byte{}, b[id]...)) {
				return
			}
		}
	}
}

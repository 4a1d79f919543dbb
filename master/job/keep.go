package job

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"verdecmd/master/store"
)

// The buckets of the store that belong to this package.
const (
	bucket     = "job"
	metaBucket = "job-meta"
)

var nextKey = store.Key{Bucket: metaBucket, ID: "next"}

func key(id uint64) store.Key { return store.Numbered(bucket, id) }

// load reads all jobs and the next free number.
func (m *Manager) load(ctx context.Context) error {
	return m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		v, ok, err := s.Get(nextKey)
		if err != nil {
			return err
		}
		if ok {
			if err := json.Unmarshal(v, &m.next); err != nil {
				return fmt.Errorf("next number: %w", err)
			}
		}
		for id, v := range s.All(bucket) {
			r, err := decodeRecord(v)
			if err != nil {
				return fmt.Errorf("job %s: %w", id, err)
			}
			e := m.add(r)
			e.running, e.known = false, true
			close(e.stored)
			if r.Outcome != nil {
				close(e.done)
				e.cancel(nil)
			}
			m.next = max(m.next, r.ID+1)
		}
		return nil
	})
}

// takeOver resumes the jobs of an earlier master, or closes them.
func (m *Manager) takeOver() {
	type left struct {
		e   *entry
		run Func
	}
	var todo []left
	m.mu.Lock()
	for _, e := range m.jobs {
		if e.rec.Outcome != nil || e.running {
			continue
		}
		l := left{e: e}
		if resume := m.resume[e.rec.Action]; resume != nil {
			l.run = resume(e.rec)
		}
		e.running = l.run != nil
		todo = append(todo, l)
		m.wg.Add(1)
	}
	m.mu.Unlock()
	slices.SortFunc(todo, func(a, b left) int { return cmp.Compare(a.e.rec.ID, b.e.rec.ID) })
	for _, l := range todo {
		if l.run == nil {
			m.finish(l.e, failed(555, "master restarted"))
			m.wg.Done()
			continue
		}
		if l.e.rec.Cancelled {
			l.e.cancel(ErrCancelled)
		}
		m.cfg.Log.Info().Uint64("job", l.e.rec.ID).Str("action", l.e.rec.Action).Str("object", l.e.rec.Object).Msg("job resumed")
		go m.work(l.e, l.run)
	}
}

// save stores a job as it is in memory, if the disk has it otherwise.
func (m *Manager) save(ctx context.Context, e *entry) error {
	e.disk.Lock()
	defer e.disk.Unlock()
	m.mu.Lock()
	rec, unsaved := e.rec, e.unsaved
	e.unsaved = false
	m.mu.Unlock()
	if !unsaved {
		return nil
	}
	err := m.write(ctx, rec)
	if err != nil {
		m.mu.Lock()
		e.unsaved = true
		m.mu.Unlock()
	}
	return err
}

// write stores a job, and the next number with it, so that no number is used
// twice even when the job has been forgotten.
func (m *Manager) write(ctx context.Context, rec Record) error {
	v, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	next, err := m.nextChange()
	if err != nil {
		return err
	}
	return m.cfg.Store.Commit(ctx, m.cfg.Epoch, nil, []store.Change{{Key: key(rec.ID), Value: v}, next})
}

func (m *Manager) nextChange() (store.Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, err := json.Marshal(m.next)
	return store.Change{Key: nextKey, Value: v}, err
}

// tidy stores what could not be stored before and forgets old jobs. What
// fails is tried again at the next tick.
func (m *Manager) tidy(now time.Time) {
	m.mu.Lock()
	var unsaved []*entry
	for _, e := range m.jobs {
		if e.unsaved {
			unsaved = append(unsaved, e)
		}
	}
	old := expired(m.records(), now)
	m.mu.Unlock()

	for _, e := range unsaved {
		if err := m.save(context.Background(), e); err != nil {
			m.cfg.Log.Warn().Err(err).Msg("job not stored")
			return
		}
	}
	for part := range slices.Chunk(old, store.MaxChanges-1) {
		next, err := m.nextChange()
		if err != nil {
			return
		}
		changes := []store.Change{next}
		for _, id := range part {
			changes = append(changes, store.Change{Key: key(id)})
		}
		if err := m.cfg.Store.Commit(context.Background(), m.cfg.Epoch, nil, changes); err != nil {
			m.cfg.Log.Warn().Err(err).Msg("old jobs not forgotten")
			return
		}
		m.mu.Lock()
		for _, id := range part {
			delete(m.jobs, id)
		}
		m.mu.Unlock()
	}
}

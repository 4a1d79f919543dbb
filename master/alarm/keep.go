package alarm

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// The buckets of the store that belong to this package.
const (
	bucket     = "alarm"
	metaBucket = "alarm-meta"
)

var nextKey = store.Key{Bucket: metaBucket, ID: "next"}

// leap is more than the alarms that are raised between two copies of the
// database.
const leap = 1 << 20

func key(id uint64) store.Key { return store.Numbered(bucket, id) }

// load reads all alarms and the next free number.
func (m *Manager) load(ctx context.Context) error {
	return m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		next, err := nextNumber(s)
		if err != nil {
			return err
		}
		m.book = NewBook(next)
		for id, v := range s.All(bucket) {
			r, err := decode(v)
			if err != nil {
				return fmt.Errorf("alarm %s: %w", id, err)
			}
			if key(r.ID).ID != id {
				return fmt.Errorf("the record of alarm %s describes alarm %d", id, r.ID)
			}
			if r.active() && m.book.active[r.identity()] != nil {
				return fmt.Errorf("alarms %d and %d are both about %s %s", m.book.active[r.identity()].ID, r.ID, r.Kind, r.Object)
			}
			m.book.Restored(r)
			m.shown[r.ID] = r
		}
		return nil
	})
}

func nextNumber(s store.Snapshot) (next uint64, err error) {
	v, ok, err := s.Get(nextKey)
	if err != nil || !ok {
		return 1, err
	}
	if err := json.Unmarshal(v, &next); err != nil {
		return 0, fmt.Errorf("next number: %w", err)
	}
	if next == 0 || next > 2*store.MaxNumber {
		return 0, fmt.Errorf("next number: %d cannot be one", next)
	}
	return next, nil
}

// decode reads a record and refuses one that no alarm can have.
func decode(v []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(v, &r); err != nil {
		return r, err
	}
	switch {
	case r.ID == 0 || r.ID > store.MaxNumber:
		return r, fmt.Errorf("%d cannot be its number", r.ID)
	case r.Kind == "" || r.Since.IsZero() || r.Count == 0:
		return r, fmt.Errorf("kind %q, since %v, count %d", r.Kind, r.Since, r.Count)
	case !slices.Contains(monitor.Severities, r.Severity):
		return r, fmt.Errorf("severity %q", r.Severity)
	}
	return r, nil
}

// FromCopy returns what is to be changed in a copy of the database that takes
// its place: numbers that were given out later are not given again. Alarms that
// are active in the copy are so until those who know say otherwise.
func FromCopy(s store.Snapshot) ([]store.Change, error) {
	next, err := nextNumber(s)
	if err != nil {
		return nil, fmt.Errorf("alarm: %w", err)
	}
	v, err := json.Marshal(next + leap)
	return []store.Change{{Key: nextKey, Value: v}}, err
}

// Stored is an alarm as the disk has it; ok is false where there is none.
func Stored(s store.Snapshot, id uint64) (r Record, ok bool, err error) {
	v, ok, err := s.Get(key(id))
	if err != nil || !ok {
		return r, false, err
	}
	r, err = decode(v)
	return r, err == nil, err
}

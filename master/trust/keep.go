package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"verdecmd/master/store"
)

// Records of the store that belong to this package.
const (
	trustBucket = "trust"
	toldBucket  = "trust-told" // by UUID
)

var (
	bundleKey   = store.Key{Bucket: trustBucket, ID: "bundle"}
	rotationKey = store.Key{Bucket: trustBucket, ID: "rotation"}
)

// bundleRow is the durable form of a bundle: its content is made of other
// records.
type bundleRow struct {
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

func (m *Manager) saveBundle(ctx context.Context, b bundle) error {
	row, err := json.Marshal(bundleRow{b.version, b.digest})
	if err != nil {
		return err
	}
	return m.cfg.Store.Commit(context.WithoutCancel(ctx), m.cfg.Epoch, nil, []store.Change{{Key: bundleKey, Value: row}})
}

// saveTold makes durable what satellites have told, and forgets what servers
// have told that are gone.
func (m *Manager) saveTold(ctx context.Context) error {
	known := map[string]bool{}
	for _, x := range m.cfg.Members() {
		known[x.UUID] = true
	}
	var changes []store.Change
	m.mu.Lock()
	for uuid := range m.told {
		if !known[uuid] {
			delete(m.told, uuid)
			m.unsaved[uuid] = true
		}
	}
	for uuid := range m.unsaved {
		change := store.Change{Key: store.Key{Bucket: toldBucket, ID: uuid}}
		if t, ok := m.told[uuid]; ok {
			row, err := json.Marshal(t)
			if err != nil {
				m.mu.Unlock()
				return err
			}
			change.Value = row
		}
		changes = append(changes, change)
	}
	m.unsaved = map[string]bool{}
	m.mu.Unlock()
	for len(changes) > 0 {
		part := changes[:min(len(changes), store.MaxChanges)]
		if err := m.cfg.Store.Commit(context.WithoutCancel(ctx), m.cfg.Epoch, nil, part); err != nil {
			m.mu.Lock()
			for _, c := range changes {
				m.unsaved[c.Key.ID] = true
			}
			m.mu.Unlock()
			return fmt.Errorf("what satellites tell: %w", err)
		}
		changes = changes[len(part):]
	}
	return nil
}

// Restore reads what an earlier master left, finishes the step that it was in
// the middle of, and makes the bundle. Members must be known by now.
func (m *Manager) Restore(ctx context.Context) error {
	err := m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		var row bundleRow
		for _, x := range []struct {
			key  store.Key
			into any
		}{{bundleKey, &row}, {rotationKey, &m.rotation}} {
			b, ok, err := s.Get(x.key)
			if err == nil && ok {
				err = json.Unmarshal(b, x.into)
			}
			if err != nil {
				return fmt.Errorf("record %s: %w", x.key, err)
			}
		}
		m.bundle = bundle{version: row.Version, digest: row.Digest}
		for uuid, b := range s.All(toldBucket) {
			var t Told
			if err := json.Unmarshal(b, &t); err != nil {
				return fmt.Errorf("record %s/%s: %w", toldBucket, uuid, err)
			}
			m.told[uuid] = t
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r := m.rotation; !slices.Contains([]Stage{Settled, Adding, Issuing, Removing}, r.Stage) {
		return fmt.Errorf("record %s names the stage %.40q, which does not exist", rotationKey, r.Stage)
	}
	if err := m.takeOver(ctx); err != nil || m.Authority() == nil {
		return err
	}
	return m.publish(ctx)
}

// FromCopy returns what is to be changed in a copy of the database that takes
// its place. Satellites may hold any bundle that was made after the copy. And
// nothing is known of an authority that takes the place of another: which files
// of the two there are counts, see Agree.
func FromCopy(s store.Snapshot) ([]store.Change, error) {
	var row bundleRow
	b, ok, err := s.Get(bundleKey)
	if err == nil && ok {
		err = json.Unmarshal(b, &row)
	}
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", bundleKey, err)
	}
	out, err := json.Marshal(bundleRow{Version: row.Version + leap})
	return []store.Change{{Key: bundleKey, Value: out}, {Key: rotationKey}}, err
}

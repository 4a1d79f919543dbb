package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/planted"
)

// record is the durable form of a session.
type record struct {
	ID     string `json:"id"`
	User   string `json:"user"`
	UID    uint32 `json:"uid"`
	Server uint64 `json:"server"`
	Memory uint64 `json:"memory"`
	Epoch  uint64 `json:"epoch"`
}

func sealed(x cluster.Session) []byte {
	b, err := json.Marshal(record{x.ID, x.User, x.UID, x.Server, x.Memory, x.Epoch})
	if err != nil {
		panic(err) // strings and numbers only
	}
	return b
}

func key(user string) store.Key { return store.Key{Bucket: Sessions, ID: user} }

// Restore fills the cluster with what the store holds. Servers must be there
// already.
func (m *Manager) Restore(ctx context.Context, now time.Time, c *cluster.Cluster, lastServer uint64) error {
	return m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		var high uint64
		if b, ok, err := s.Get(store.Key{Bucket: meta, ID: highWater}); err != nil {
			return err
		} else if ok {
			if err := json.Unmarshal(b, &high); err != nil {
				return fmt.Errorf("record %s/%s: %w", meta, highWater, err)
			}
		}
		c.Restored(uint64(m.cfg.Epoch), high, lastServer)
		for user, b := range s.All(Sessions) {
			var r record
			if err := json.Unmarshal(b, &r); err != nil {
				return fmt.Errorf("session of %q: %w", user, err)
			}
			if r.User != user || r.ID == "" {
				return fmt.Errorf("the record of %q describes session %q of %q", user, r.ID, r.User)
			}
			if c.Server(r.Server) == nil {
				return fmt.Errorf("session %s of %q is on server %d, which is not in the database", r.ID, user, r.Server)
			}
			c.Owned(now, cluster.Session{ID: r.ID, User: r.User, UID: r.UID, Server: r.Server, Memory: r.Memory, Epoch: r.Epoch})
		}
		for id, b := range s.All(Condemned) {
			var server uint64
			if err := json.Unmarshal(b, &server); err != nil {
				return fmt.Errorf("condemned session %s: %w", id, err)
			}
			c.CondemnedRestored(id, server)
		}
		return nil
	})
}

// Settle carries out what a message of a satellite has led to: durably first,
// then in memory, then it is announced. server is where the message came from.
// It does not wait long for a slow store, for the next messages of that
// satellite wait meanwhile, and its lease is one of them; only where far too
// much is waiting already it does.
func (m *Manager) Settle(server uint64, e cluster.Effects) {
	m.Cancelled(e.Cancelled)
	if durable(e) { // nearly no report leads to anything
		if settled := m.settle(e); settled != nil {
			m.cfg.Wait(settled, patience)
		} else {
			m.store(e)
		}
	}
	for _, x := range e.Changes {
		m.announce(x)
	}
	for _, id := range e.Abort {
		m.cfg.Log.Warn().Str("session", id).Uint64("server", server).Msg("a session that must not run any more is aborted")
		m.abort(server, id)
	}
}

// durable tells whether there is anything for the store.
func durable(e cluster.Effects) bool { return len(e.Release)+len(e.Adopt)+len(e.Pardon) > 0 }

// settle starts to make durable what e wants, and returns what is closed when
// that is done, or nil where there are too many of its kind. What a master that
// ends leaves undone, the next one learns again from the satellites.
func (m *Manager) settle(e cluster.Effects) <-chan struct{} {
	done := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.base.Err() != nil || !durable(e) {
		close(done)
		return done
	}
	select {
	case m.stores <- struct{}{}:
	default:
		return nil
	}
	m.goes(func() {
		defer close(done)
		defer func() { <-m.stores }()
		m.store(e)
	})
	return done
}

// store makes durable what e wants, and applies it.
func (m *Manager) store(e cluster.Effects) {
	ctx := context.Background() // the end of a link does not undo what its satellite has told
	m.release(ctx, e.Release)
	for _, x := range e.Adopt {
		if err := m.own(ctx, x); err != nil {
			m.again(cluster.Effects{Adopt: []cluster.Session{x}}, err)
			continue
		}
		stays := false
		m.cfg.State(func(c *cluster.Cluster) { stays = c.Adopted(x) })
		if !stays {
			m.release(ctx, []cluster.Release{{Session: x, How: "vanished"}})
			continue
		}
		m.cfg.Log.Warn().Str("user", x.User).Str("session", x.ID).Uint64("server", x.Server).Msg("a session that was not recorded is adopted")
	}
	for _, id := range e.Pardon {
		err := m.cfg.Store.Commit(ctx, m.cfg.Epoch, nil, []store.Change{{Key: store.Key{Bucket: Condemned, ID: id}}})
		if err != nil {
			m.again(cluster.Effects{Pardon: []string{id}}, err)
			continue
		}
		m.cfg.State(func(c *cluster.Cluster) { c.Pardoned(id) })
	}
}

// own makes the ownership of a session durable: nobody else may own one for
// this user.
func (m *Manager) own(ctx context.Context, x cluster.Session, more ...store.Change) error {
	return m.cfg.Store.Commit(ctx, m.cfg.Epoch,
		[]store.Guard{{Key: key(x.User)}},
		append([]store.Change{{Key: key(x.User), Value: sealed(x)}}, more...))
}

// release removes the records of sessions that have ended.
func (m *Manager) release(ctx context.Context, releases []cluster.Release) {
	for _, r := range releases {
		if r.Condemn && m.connected(r.Session.Server) { // what was affirmed is not so
			m.cfg.Log.Warn().Str("user", r.Session.User).Str("session", r.Session.ID).Uint64("server", r.Session.Server).Str("how", r.How).
				Msg("the server is back: its session is not released")
			m.cfg.State(func(c *cluster.Cluster) { c.Kept(r) })
			continue
		}
		changes := []store.Change{{Key: key(r.Session.User)}}
		if r.Condemn {
			b, err := json.Marshal(r.Session.Server)
			if err != nil {
				panic(err) // a number
			}
			changes = append(changes, store.Change{Key: store.Key{Bucket: Condemned, ID: r.Session.ID}, Value: b})
		}
		guard := store.Guard{Key: key(r.Session.User), Want: sealed(r.Session)}
		err := m.cfg.Store.Commit(ctx, m.cfg.Epoch, []store.Guard{guard}, changes)
		if err != nil && !errors.Is(err, store.ErrConflict) { // conflict: it is another session's record by now
			m.again(cluster.Effects{Release: []cluster.Release{r}}, err)
			continue
		}
		m.released(r)
	}
}

func (m *Manager) connected(server uint64) (up bool) {
	m.cfg.State(func(c *cluster.Cluster) {
		s := c.Server(server)
		up = s != nil && s.Attachment != 0
	})
	return up
}

func (m *Manager) released(r cluster.Release) {
	abort, known := false, false
	m.cfg.State(func(c *cluster.Cluster) {
		known = c.SessionByID(r.Session.ID) != nil
		abort = c.Released(r)
	})
	if abort {
		m.abort(r.Session.Server, r.Session.ID)
	}
	if !known {
		return
	}
	x := r.Session
	m.remember(x.User, fmt.Sprintf("session %s on server %d ended at %s: %s", x.ID, x.Server, clock(m.cfg.Now()), howText(r.How, r.Why)))
	m.cfg.Log.Info().Str("user", x.User).Str("session", x.ID).Uint64("server", x.Server).Str("how", r.How).Str("why", r.Why).Msg("session ended")
	typ := "session.ended"
	if r.How == "failed" || r.How == "crashed" {
		typ = "session.failed"
	}
	m.cfg.Event(typ, fmt.Sprintf("The session of %s on server %d has ended: %s.", x.User, x.Server, howText(r.How, r.Why)),
		append(sessionPairs(x), monitor.Pair{Key: "how", Value: r.How})...)

	m.mu.Lock()
	waiting := m.waiting[x.ID]
	delete(m.waiting, x.ID)
	m.mu.Unlock()
	for _, ch := range waiting {
		ch <- Ended{Session: x.ID, How: r.How, Why: r.Why}
	}
}

// again keeps what could not be made durable for the next try.
func (m *Manager) again(e cluster.Effects, err error) {
	if planted.Bug("release-forgotten") {
		return
	}
	m.cfg.Log.Error().Err(err).Msg("a change could not be stored and will be tried again")
	m.mu.Lock()
	m.undone = append(m.undone, e)
	m.mu.Unlock()
}

// Retry tries again what could not be made durable. Run does it each second.
func (m *Manager) Retry() {
	m.mu.Lock()
	undone := m.undone
	m.undone = nil
	m.mu.Unlock()
	for i, e := range undone {
		m.store(e)
		m.mu.Lock()
		if len(m.undone) > 0 { // one try a second is enough while the disk refuses; another one is the next
			m.undone = append(undone[i+1:], m.undone...)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
	}
}

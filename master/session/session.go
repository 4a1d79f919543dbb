// Package session is what the master does about logins and sessions: it refers
// users to servers, makes ownership durable when a reservation is claimed,
// removes it when the end of a session is proven, and carries out what
// administrators order.
//
// The rules are in master/cluster. This package makes durable what they decide
// and applies it afterwards; what cannot be made durable now (a full disk) is
// kept and tried again, so that no session stays owned by accident.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
)

// Buckets of the store that belong to this package.
const (
	Sessions  = "sessions"  // by user: who owns what, where
	Condemned = "condemned" // by session ID: to be ended when it shows up
	meta      = "meta"
	highWater = "session-high-water"
)

// Orders carries orders to satellites.
type Orders interface {
	// Order returns when the satellite has confirmed. An error that is not the
	// satellite's own means that nothing is known.
	Order(ctx context.Context, server uint64, o Order) error
}

// Order is something that a satellite is to do with a session.
type Order struct {
	Session string
	How     monitor.How
	Limit   time.Duration // Logoff: abort after this
}

// Config is everything a Manager needs.
type Config struct {
	// State runs f with the cluster under its lock. f must not block.
	State  func(f func(*cluster.Cluster))
	Store  store.Store
	Epoch  store.Epoch
	Orders Orders
	Jobs   Jobs
	// Event announces what has happened; it must not block.
	Event func(typ, text string, pairs ...monitor.Pair)
	Log   zerolog.Logger

	ShutdownWait, LogoffWait time.Duration // defaults of the commands; see SetWaits

	// The time and what goes on beside. A simulation hands in its own; the
	// defaults are the real ones.

	Now func() time.Time
	// Go runs f beside its caller, who may hold a lock.
	Go func(f func())
	// Wait returns when done is closed or d is over.
	Wait func(done <-chan struct{}, d time.Duration)
	// Timeout is context.WithTimeout.
	Timeout func(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
}

// wait is the default of Config.Wait.
func wait(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// Manager is the master's part in sessions.
type Manager struct {
	cfg Config

	base   context.Context // of what goes on without a caller; ends with Run
	stop   context.CancelFunc
	work   sync.WaitGroup // what goes on without a caller
	stores chan struct{}  // one place for each goroutine of settle

	mu      sync.Mutex // guards what follows
	undone  []cluster.Effects
	waiting map[string][]chan Ended
	last    map[string]string         // by user: what became of the last session or login, in words
	needs   map[string]placement.Need // by user: of the last login
	need    placement.Need            // of the newest login of all
}

// Ended tells how a session ended.
type Ended struct {
	Session string
	How     string
	Why     string
}

const (
	maxLast   = 4096        // users whose last session is remembered
	maxStores = 256         // goroutines that wait for the store
	patience  = time.Second // how long a satellite's messages wait for the store
	// abortTries is how long the end of a session that must not be is ordered.
	abortTries = 10 * time.Second
)

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Go == nil {
		cfg.Go = func(f func()) { go f() }
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	if cfg.Timeout == nil {
		cfg.Timeout = context.WithTimeout
	}
	m := &Manager{cfg: cfg, waiting: map[string][]chan Ended{}, last: map[string]string{}, needs: map[string]placement.Need{},
		stores: make(chan struct{}, maxStores)}
	m.base, m.stop = context.WithCancel(context.Background())
	return m
}

// SetWaits takes over changed defaults of shutdownuser and logoffuser. Jobs that
// run keep their limits.
func (m *Manager) SetWaits(shutdown, logoff time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.ShutdownWait, m.cfg.LogoffWait = shutdown, logoff
}

func (m *Manager) waits() (shutdown, logoff time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cfg.ShutdownWait, m.cfg.LogoffWait
}

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

// Run ends what has lasted too long and tries again what could not be made
// durable; a slow store does not hold the former up. It returns when ctx and all
// that was started have ended.
func (m *Manager) Run(ctx context.Context) error {
	m.work.Go(func() { m.retry(ctx) })
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.mu.Lock()
			m.stop()
			m.mu.Unlock()
			m.work.Wait()
			return nil
		case <-tick.C:
			m.Expire()
		}
	}
}

func (m *Manager) retry(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.Retry()
		}
	}
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

// goes runs f beside the caller and lets Run wait for its end.
func (m *Manager) goes(f func()) {
	m.work.Add(1)
	m.cfg.Go(func() {
		defer m.work.Done()
		f()
	})
}

// Expire ends reservations and, under leases, sessions of silent servers. Run
// does it four times a second.
func (m *Manager) Expire() {
	now := m.cfg.Now()
	var gone []cluster.Reservation
	var e cluster.Effects
	m.cfg.State(func(c *cluster.Cluster) { gone, e = c.Expire(now) })
	for _, r := range gone {
		m.cfg.Log.Info().Str("user", r.User).Uint64("server", r.Server).Str("reservation", r.ID).Msg("reservation expired")
		m.remember(r.User, fmt.Sprintf("the place reserved on server %d at %s was not claimed in time", r.Server, clock(r.Made)))
		m.cfg.Event("reservation.expired", fmt.Sprintf("The reservation of %s on server %d has expired.", r.User, r.Server), reservationPairs(r)...)
	}
	if m.settle(e) == nil {
		m.mu.Lock()
		m.undone = append(m.undone, e)
		m.mu.Unlock()
	}
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

// abort orders the end of a session that must not be, a few times: the link may
// just be opening. If all orders are lost, the session shows up again at the
// next link and so does this. It does not wait.
func (m *Manager) abort(server uint64, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.base.Err() == nil {
		m.goes(func() { m.orderAbort(server, id) })
	}
}

func (m *Manager) orderAbort(server uint64, id string) {
	until := m.cfg.Now().Add(abortTries)
	ctx, cancel := m.cfg.Timeout(m.base, abortTries)
	defer cancel()
	for {
		err := m.cfg.Orders.Order(ctx, server, Order{Session: id, How: monitor.Abort})
		if err == nil || wire.KindOf(err) == wire.NotFound {
			return
		}
		if m.cfg.Wait(ctx.Done(), retryOrders); ctx.Err() != nil || !m.cfg.Now().Before(until) {
			m.cfg.Log.Warn().Err(err).Str("session", id).Uint64("server", server).Msg("abort order was not confirmed")
			return
		}
	}
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

// own makes the ownership of a session durable: nobody else may own one for
// this user.
func (m *Manager) own(ctx context.Context, x cluster.Session, more ...store.Change) error {
	return m.cfg.Store.Commit(ctx, m.cfg.Epoch,
		[]store.Guard{{Key: key(x.User)}},
		append([]store.Change{{Key: key(x.User), Value: sealed(x)}}, more...))
}

// announce tells about a session's new state.
func (m *Manager) announce(ch cluster.Change) {
	x := ch.Session
	var typ, text string
	switch x.State() {
	case cluster.Running:
		typ, text = "session.started", fmt.Sprintf("The desktop of %s runs on server %d.", x.User, x.Server)
		if ch.From == cluster.Lost || ch.From == cluster.Hung {
			text = fmt.Sprintf("The desktop of %s on server %d, %s before, runs.", x.User, x.Server, ch.From)
		}
	case cluster.Stopping, cluster.Aborting:
		typ, text = "session.stopping", fmt.Sprintf("The session of %s on server %d is ending.", x.User, x.Server)
	case cluster.Hung:
		typ, text = "session.hung", fmt.Sprintf("The desktop of %s on server %d hangs: %s.", x.User, x.Server, x.Seen.Why)
	case cluster.Failed:
		typ, text = "session.failed", fmt.Sprintf("The desktop of %s on server %d has failed: %s.", x.User, x.Server, x.Seen.Why)
	default:
		return
	}
	m.cfg.Log.Info().Str("user", x.User).Str("session", x.ID).Uint64("server", x.Server).Str("from", ch.From).Str("state", x.State()).Msg("session's state changed")
	m.cfg.Event(typ, text, append(sessionPairs(x), monitor.Pair{Key: "state", Value: x.State()})...)
}

// remember notes in words what became of a user's last login or session.
func (m *Manager) remember(user, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bounded(m.last, user, text)
}

// Refused notes that a satellite has refused a login.
func (m *Manager) Refused(server uint64, user, text string) {
	m.cfg.Log.Info().Str("user", user).Uint64("server", server).Str("text", text).Msg("a satellite refused a login")
	m.remember(user, fmt.Sprintf("login at server %d refused at %s: %s", server, clock(m.cfg.Now()), text))
}

// Last returns what remember noted; empty for nothing.
func (m *Manager) Last(user string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last[user]
}

func sessionPairs(x cluster.Session) []monitor.Pair {
	return []monitor.Pair{{Key: "user", Value: x.User}, {Key: "uid", Value: uint64(x.UID)}, {Key: "server", Value: x.Server}, {Key: "session", Value: x.ID}}
}

func reservationPairs(r cluster.Reservation) []monitor.Pair {
	return []monitor.Pair{{Key: "user", Value: r.User}, {Key: "uid", Value: uint64(r.UID)}, {Key: "server", Value: r.Server}, {Key: "reservation", Value: r.ID}}
}

func clock(t time.Time) string { return t.Local().Format("15:04:05") }

// howText is the end of a session in words.
func howText(how, why string) string {
	words := map[string]string{
		"shutdown": "the guest shut down", "abort": "it was aborted", "guest": "the guest powered itself off",
		"failed": "the desktop failed", "crashed": "the desktop's process died", "vanished": "the server no longer has it",
		"forced": "an administrator dropped its record", "fenced": "its server is powered off, an administrator said",
		"lease": "its server was silent for too long",
	}
	text, ok := words[how]
	if !ok {
		text = how
	}
	if why != "" && how != "vanished" && how != "forced" && how != "fenced" {
		text += " (" + why + ")"
	}
	return text
}

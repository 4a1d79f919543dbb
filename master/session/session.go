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
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	"verdecmd/master/store"
	"verdecmd/monitor"
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
	// Event announces what has happened; it must not block, and may be called
	// within State.
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

// goes runs f beside the caller and lets Run wait for its end. It returns false
// where Run is ending: nothing may begin then. m.mu must be held.
func (m *Manager) goes(f func()) bool {
	if m.base.Err() != nil {
		return false
	}
	m.work.Add(1)
	m.cfg.Go(func() {
		defer m.work.Done()
		f()
	})
	return true
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

// abort orders the end of a session that must not be, a few times: the link may
// just be opening. If all orders are lost, the session shows up again at the
// next link and so does this. It does not wait.
func (m *Manager) abort(server uint64, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.goes(func() { m.orderAbort(server, id) })
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
	// Under the lock: that the session is gone is told afterwards, never before.
	m.cfg.State(func(c *cluster.Cluster) {
		if c.SessionByID(x.ID) != nil {
			m.cfg.Event(typ, text, append(sessionPairs(x), monitor.Pair{Key: "state", Value: x.State()})...)
		}
	})
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

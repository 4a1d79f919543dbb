// Package host is the master's register of satellites: who may join, what an
// administrator wants of each, and the certificates that prove who they are.
//
// A server's number, its identity and its state are on the disk before anybody
// is told of them. Numbers are never given twice.
package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
)

// Buckets of the store that belong to this package.
const (
	servers    = "servers" // by ID
	meta       = "meta"
	lastServer = "last-server"
)

// Config is everything a Manager needs.
type Config struct {
	// State runs f with the cluster under its lock. f must not block.
	State func(f func(*cluster.Cluster))
	Store store.Store
	Epoch store.Epoch
	// Event announces what has happened; it must not block.
	Event func(typ, text string, pairs ...monitor.Pair)
	// Cancelled is told which reservations a server has lost.
	Cancelled func([]cluster.Reservation)
	// Changed is called after each durable change of the servers or of who is
	// revoked. It must neither block nor call back. Default: nothing.
	Changed func()
	// Cut ends whatever is open of a revoked identity. It must not block.
	// Default: nothing.
	Cut func(uuid string)
	// Dir is the PKI directory with what "enrol" remembers; empty: none.
	Dir string
	// Authority makes the certificates. It returns nil where its key is kept
	// elsewhere: then nobody can join. Default: that.
	Authority func() *wire.Authority
	// Rejoin is how long after the end of its certificate a server may ask for
	// a new one without an administrator; 0: never.
	Rejoin time.Duration
	Log    zerolog.Logger

	// Now is the time, and Turn lets one change of the register pass at a time,
	// so that numbers and records agree. A simulation hands in its own; the
	// defaults are the real ones.
	Now  func() time.Time
	Turn sync.Locker
}

// Manager is the master's part in servers.
type Manager struct {
	cfg Config

	hashing chan struct{} // has a place for each password that is hashed

	// mu guards what follows, and is never held across I/O. What is durable of
	// it is changed in one's turn only, so who has the turn may read it.
	mu        sync.Mutex
	proofs    map[uint64]proof      // by server; durable
	revoked   map[string]Revocation // by the ID of the record; durable
	unknown   *blindness            // nil: all revocations are known; durable
	tokens    map[uint64]*token     // durable
	lastToken uint64                // durable
	password  *phc                  // nil: there is none; durable
	guesses   guard
	complains guard
	renewals  guard
	skewed    map[uint64]bool   // servers whose clocks were wrong when they joined, until their first link
	shown     map[string]bool   // revoked identities that were shown since the start
	expiring  map[uint64]string // serials of certificates that were told to end soon, by server
}

// proof is what is known of a server's certificates.
type proof struct {
	Address string    // where clients reach it, as it was last told or registered
	Joined  bool      // all certificates of the identity were made over the network
	Vacant  bool      // the identity was revoked, and no machine has taken the place yet
	Serial  string    // of the newest that was made over the network; empty: none was
	From    time.Time // when it begins
	Until   time.Time // when it ends
}

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Turn == nil {
		cfg.Turn = &sync.Mutex{}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.Cut == nil {
		cfg.Cut = func(string) {}
	}
	if cfg.Authority == nil {
		cfg.Authority = func() *wire.Authority { return nil }
	}
	return &Manager{cfg: cfg, hashing: make(chan struct{}, hashers), proofs: map[uint64]proof{}, revoked: map[string]Revocation{}, tokens: map[uint64]*token{},
		skewed: map[uint64]bool{}, shown: map[string]bool{}, expiring: map[uint64]string{}, guesses: guesses, complains: complaints, renewals: renewals}
}

// record is the durable form of a server.
type record struct {
	ID     uint64        `json:"id"`
	UUID   string        `json:"uuid"`
	Name   string        `json:"name"`
	State  cluster.State `json:"state"`
	Reason string        `json:"reason,omitempty"`
	// Journal names the satellite's journal of its sessions.
	Journal string `json:"journal,omitempty"`

	Address string    `json:"address,omitempty"`
	Joined  bool      `json:"joined,omitempty"`
	Vacant  bool      `json:"vacant,omitempty"`
	Serial  string    `json:"serial,omitempty"`
	From    time.Time `json:"from,omitzero"`
	Until   time.Time `json:"until,omitzero"`
}

// Restore fills the cluster with the servers that the store holds and returns
// the highest number ever given.
func (m *Manager) Restore(ctx context.Context, now time.Time, c *cluster.Cluster) (last uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		if b, ok, err := s.Get(store.Key{Bucket: meta, ID: lastServer}); err != nil {
			return err
		} else if ok {
			if err := json.Unmarshal(b, &last); err != nil {
				return fmt.Errorf("record %s/%s: %w", meta, lastServer, err)
			}
		}
		for id, b := range s.All(servers) {
			var r record
			if err := json.Unmarshal(b, &r); err != nil {
				return fmt.Errorf("server %s: %w", id, err)
			}
			if strconv.FormatUint(r.ID, 10) != id || r.ID == 0 || r.UUID == "" || !slices.Contains([]cluster.State{cluster.Online, cluster.Offline, cluster.Draining}, r.State) {
				return fmt.Errorf("the record of server %s describes server %d, identity %q, state %q", id, r.ID, r.UUID, r.State)
			}
			c.Registered(now, cluster.ServerRecord{ID: r.ID, UUID: r.UUID, Name: r.Name, State: r.State, Reason: r.Reason, Journal: r.Journal})
			m.proofs[r.ID] = proof{Address: r.Address, Joined: r.Joined, Vacant: r.Vacant, Serial: r.Serial, From: r.From, Until: r.Until}
			last = max(last, r.ID)
		}
		return m.restore(s)
	})
	return last, err
}

// restore reads what is not of the cluster's state.
func (m *Manager) restore(s store.Snapshot) (err error) {
	if m.revoked, m.unknown, err = restoreRevoked(s); err != nil {
		return err
	}
	if m.tokens, m.lastToken, err = restoreTokens(s); err != nil {
		return err
	}
	m.password, err = restorePassword(s)
	return err
}

// Ensure registers a satellite that connects for the first time. Its identity
// and its name come from its certificate.
//
// A machine that comes with another journal of sessions than the server had is
// refused: it is another machine with a copy of the certificate, or one whose
// state was lost, and its list of sessions says nothing about the desktops that
// the server started (S1).
func (m *Manager) Ensure(ctx context.Context, h cluster.Hello, name string) error {
	if why, gone := m.Revoked(h.UUID, h.Certificate.Serial); gone {
		return wire.Errorf(wire.Revoked, "%s", why)
	}
	same := false // the usual case needs no turn and no disk
	m.cfg.State(func(c *cluster.Cluster) {
		s := c.ServerByUUID(h.UUID)
		same = s != nil && s.Journal != "" && (s.Journal == h.Journal || planted.Bug("journal-not-compared")) && m.proof(s.ID).Address == h.Address
	})
	if same {
		return nil
	}
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	if why, gone := m.Revoked(h.UUID, h.Certificate.Serial); gone { // while it waited
		return wire.Errorf(wire.Revoked, "%s", why)
	}
	var r cluster.ServerRecord
	var known, taken bool
	var o *owner
	m.cfg.State(func(c *cluster.Cluster) {
		if s := c.ServerByUUID(h.UUID); s != nil {
			r, known, o = s.Record(), true, ownerOf(c, s)
			return
		}
		for _, s := range c.Servers() {
			if s.Name == name {
				r, taken = s.Record(), true
				return
			}
		}
		r = c.Enrol(h.UUID, name)
	})
	switch {
	case known:
		return m.recognise(ctx, h, r, o)
	case taken:
		return wire.Errorf(wire.InUse, "the name %[1]s belongs to server %[2]d, which has another identity: give this machine another name or, where the old one is gone for good, \"forgetserver %[2]d\" first", name, r.ID)
	}
	r.Journal = h.Journal
	if err := m.save(ctx, r, proof{Address: h.Address}, store.Change{Key: store.Key{Bucket: meta, ID: lastServer}, Value: strconv.AppendUint(nil, r.ID, 10)}); err != nil {
		return fmt.Errorf("registering %s: %w", name, err)
	}
	m.cfg.State(func(c *cluster.Cluster) { c.Registered(m.cfg.Now(), r) })
	m.cfg.Log.Info().Uint64("server", r.ID).Str("satellite", name).Msg("satellite registered")
	m.cfg.Changed()
	m.cfg.Event("server.registered", fmt.Sprintf("Server %d (%s) is registered.", r.ID, r.Name), pairs(r)...)
	return nil
}

// recognise is Ensure for an identity that a server has: o is that server. The
// caller holds the turn.
func (m *Manager) recognise(ctx context.Context, h cluster.Hello, r cluster.ServerRecord, o *owner) error {
	p := m.proof(r.ID)
	first := r.Journal == ""
	switch {
	case p.Vacant: // it was enrolled to take the place
		if err := unfenced(o); err != nil {
			return err
		}
	case !first && r.Journal != h.Journal:
		return wire.Errorf(wire.InUse, "this certificate belongs to server %d (%s), whose journal of sessions is another one: this is another machine, or WIN4_STATE_DIR was changed or emptied. "+
			"Where the old one is gone for good and none of its desktops runs: \"fenceserver %d\", \"forgetserver %d\", and register this machine anew", r.ID, r.Name, r.ID, r.ID)
	}
	replaced := p.Vacant
	journal := h.Journal != "" && first
	if !replaced && !journal && p.Address == h.Address {
		return nil
	}
	if journal {
		r.Journal = h.Journal
	}
	p.Vacant, p.Address = false, h.Address
	if err := m.save(ctx, r, p); err != nil {
		err = fmt.Errorf("noting the journal and the address of %s: %w", r.Name, err)
		if replaced || journal {
			return err
		}
		m.cfg.Log.Warn().Err(err).Msg("a changed address is not stored")
		return nil
	}
	m.cfg.State(func(c *cluster.Cluster) { c.Registered(m.cfg.Now(), r) })
	m.clockMeasured(r.ID, r.Name)
	m.cfg.Changed()
	if replaced {
		m.cfg.Log.Info().Uint64("server", r.ID).Str("satellite", r.Name).Msg("an enrolled satellite has taken a server's place")
		m.cfg.Event("server.replaced", fmt.Sprintf("Server %d (%s) is a new machine, which was enrolled.", r.ID, r.Name), pairs(r)...)
	}
	return nil
}

// SetState puts a server online or offline for new logins, durably. changed is
// false where it was so; left is how many servers are online afterwards.
func (m *Manager) SetState(ctx context.Context, id uint64, state cluster.State, reason string) (changed bool, left int, err error) {
	return m.setState(ctx, id, func(r *cluster.ServerRecord) {
		if r.State != state || reason != "" {
			r.State, r.Reason = state, reason
		}
	})
}

// Drained puts a server offline, durably, if it is draining.
func (m *Manager) Drained(ctx context.Context, id uint64) error {
	_, _, err := m.setState(ctx, id, func(r *cluster.ServerRecord) {
		if r.State == cluster.Draining {
			r.State = cluster.Offline
		}
	})
	return err
}

func (m *Manager) setState(ctx context.Context, id uint64, set func(*cluster.ServerRecord)) (changed bool, left int, err error) {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	var r cluster.ServerRecord
	known := false
	m.cfg.State(func(c *cluster.Cluster) {
		if s := c.Server(id); s != nil {
			r, known = s.Record(), true
		}
	})
	if !known {
		return false, 0, unknown(id)
	}
	before := r
	set(&r)
	changed = r.State != before.State || r.Reason != before.Reason
	if changed {
		if err := m.save(ctx, r, m.proof(id)); err != nil {
			return false, 0, fmt.Errorf("server %d: %w", id, err)
		}
	}
	var cancelled []cluster.Reservation
	m.cfg.State(func(c *cluster.Cluster) {
		if changed {
			cancelled = c.StateSet(m.cfg.Now(), r)
		}
		for _, s := range c.Servers() {
			if s.State == cluster.Online {
				left++
			}
		}
	})
	m.cfg.Cancelled(cancelled)
	if changed {
		m.cfg.Log.Info().Uint64("server", id).Str("state", string(r.State)).Str("reason", r.Reason).Msg("server's state changed")
		m.cfg.Event("server."+string(r.State), fmt.Sprintf("Server %d (%s) is %s.", r.ID, r.Name, r.State), pairs(r)...)
	}
	return changed, left, nil
}

// Forget removes a server that is gone, and revokes its identity. It leaves
// memory first, so that no link of it can open while the disk forgets it, and
// comes back if that fails.
func (m *Manager) Forget(ctx context.Context, id uint64) error {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	var r cluster.ServerRecord
	var left int
	var wait time.Duration
	var err error
	m.cfg.State(func(c *cluster.Cluster) {
		now := m.cfg.Now()
		left, wait = held(c, id), c.Awaited(now, id)
		r, err = c.Forget(now, id)
	})
	server := monitor.Pair{Key: "server", Value: id}
	switch {
	case errors.Is(err, cluster.ErrUnknownServer):
		return unknown(id)
	case errors.Is(err, cluster.ErrLinkUp):
		return monitor.Errorf(552, []monitor.Pair{server, {Key: "by", Value: "link"}}, "server %d is connected: it is not gone. Stop its satellite first", id)
	case errors.Is(err, cluster.ErrOccupied):
		return monitor.Errorf(552, []monitor.Pair{server, {Key: "by", Value: left}}, "server %[2]d holds %[1]d sessions or places; \"users server=%[2]d\" shows them. If that host is powered off, \"fenceserver %[2]d\" releases them", left, id)
	case errors.Is(err, cluster.ErrResync):
		return NotReady(id, wait)
	case err != nil:
		return err
	}
	p := m.proof(id)
	out := revocation(m.cfg.Now(), r, p, Forgotten)
	gone, err := out.change()
	changes := []store.Change{{Key: serverKey(id)}, {Key: checksKey(id)}, gone}
	var tokens []uint64
	for _, t := range m.tokens {
		if t.Server == id && t.Used == nil {
			tokens, changes = append(tokens, t.ID), append(changes, store.Change{Key: tokenKey(t.ID)})
		}
	}
	if err == nil {
		err = m.commit(ctx, changes...)
	}
	if err != nil {
		m.cfg.State(func(c *cluster.Cluster) { c.Registered(m.cfg.Now(), r) })
		if errors.Is(err, store.ErrUnknown) { // what is in memory must be on the disk
			err = errors.Join(err, m.save(ctx, r, p, store.Change{Key: out.key()}))
		}
		return fmt.Errorf("server %d: %w", id, err)
	}
	m.revoke(out)
	m.mu.Lock()
	delete(m.proofs, id)
	delete(m.expiring, id)
	delete(m.skewed, id)
	m.mu.Unlock()
	m.made(nil, tokens...)
	m.reenrol(r.Name, r.UUID, "")
	m.cfg.Changed()
	m.cfg.Log.Info().Uint64("server", id).Str("satellite", r.Name).Msg("server forgotten")
	m.cfg.Event("server.forgotten", fmt.Sprintf("Server %d (%s) is forgotten.", id, r.Name), pairs(r)...)
	return nil
}

func held(c *cluster.Cluster, id uint64) int {
	sessions, reserved := c.Counts(id)
	return sessions + reserved
}

// NotReady refuses what can be decided only when a server that the master knew
// before its start has had time to come back.
func NotReady(id uint64, wait time.Duration) error {
	seconds := int64((wait + time.Second - 1) / time.Second)
	return monitor.Errorf(430, []monitor.Pair{{Key: "server", Value: id}, {Key: "retry", Value: seconds}},
		"the master has just started and server %d has not come back yet; try again in %d s", id, seconds)
}

// save makes a server's record durable, with more that belongs to it, and takes
// over what is known of its certificates.
func (m *Manager) save(ctx context.Context, r cluster.ServerRecord, p proof, more ...store.Change) error {
	b, err := json.Marshal(record{r.ID, r.UUID, r.Name, r.State, r.Reason, r.Journal, p.Address, p.Joined, p.Vacant, p.Serial, p.From, p.Until})
	if err != nil || planted.Bug("offline-not-stored") && r.State == cluster.Offline {
		return err
	}
	if err := m.commit(ctx, append(more, store.Change{Key: serverKey(r.ID), Value: b})...); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.proofs[r.ID] = p
	return nil
}

// commit makes changes durable, also where nobody waits for it any more.
func (m *Manager) commit(ctx context.Context, changes ...store.Change) error {
	return m.cfg.Store.Commit(context.WithoutCancel(ctx), m.cfg.Epoch, nil, changes)
}

func (m *Manager) proof(id uint64) proof {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proofs[id]
}

func serverKey(id uint64) store.Key {
	return store.Key{Bucket: servers, ID: strconv.FormatUint(id, 10)}
}

func unknown(id uint64) error {
	return monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "server"}, {Key: "id", Value: id}}, "no server has the ID %d", id)
}

func pairs(r cluster.ServerRecord) []monitor.Pair {
	return []monitor.Pair{{Key: "server", Value: r.ID}, {Key: "name", Value: r.Name}}
}

// Package session is what a satellite does about logins and desktops: it starts
// them when the master has given the place, keeps them to their rules, finds
// them again after a restart of this program, and tells what runs.
//
// The satellite is the truth for what runs. A session is in the journal before
// its process is started and until its process is gone; every answer to the
// master comes from there. An answer of the master counts only on the link on
// which it was asked, so that both sides always agree after a Hello.
package session

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/link"
)

// Master is what the manager needs of the link.
type Master interface {
	Status() (up bool, down time.Time, why string, changed <-chan struct{})
	Refer(ctx context.Context, r *pb.ReferRequest) (link.Referral, error)
	Claim(ctx context.Context, user string, uid uint32) (*pb.ClaimReply, uint64, error)
	Break()
}

// Config is everything a Manager needs.
type Config struct {
	Driver   desktop.Driver
	StateDir string // the satellite's own directory: journal, epoch
	// SnapDir is where sessions live; empty: in the users' homes.
	SnapDir     string
	DesktopName string // of the configuration in a home, "win4"
	Cluster     string // the cluster's ID: part of network addresses
	Masters     string // for messages
	MemoryMax   int    // MiB of one desktop; 0: no limit
	CPUsMax     int
	Limits      desktop.Limits
	MasterLost  time.Duration
	Standalone  bool
	PingEvery   time.Duration // how often a hypervisor is asked for a sign of life
	Sample      func() *pb.Load
	Log         zerolog.Logger
	// BootTime is the time since the computer started, suspended time
	// included: a lease must not outlive a suspend. The default asks the kernel.
	BootTime func() time.Duration
}

// Manager has the sessions of a satellite. Use New, Adopt, then Run.
type Manager struct {
	cfg     Config
	master  Master
	journal journal
	name    string         // of the journal
	wg      sync.WaitGroup // one for each session's goroutine
	ctx     context.Context
	stop    context.CancelFunc

	mu       sync.Mutex // guards what follows, never held across I/O
	sessions map[string]*session
	logins   map[string]chan struct{} // by user: one login at a time
	ended    recent[*pb.Ended]
	refused  recent[*pb.Refused]
	version  uint64
	changed  chan struct{}
	link     uint64 // the link on which answers count
	epoch    uint64
	leaseAt  time.Duration // boot time from which the lease counts
	self     time.Duration // 0: no lease
}

// recent is the newest news of one kind, each with the version that brought it.
type recent[T any] struct {
	at    []uint64
	items []T
}

const keepRecent = 256

// maxText bounds each text of a message to the master, in bytes. Users and
// guests have a hand in some: a file name that is no UTF-8 or a console line
// without end must not break the link that all sessions share.
const maxText = 512

func (r *recent[T]) add(version uint64, x T) {
	r.at, r.items = append(r.at, version), append(r.items, x)
	if n := len(r.at) - keepRecent; n > 0 {
		r.at, r.items = slices.Delete(r.at, 0, n), slices.Delete(r.items, 0, n)
	}
}

func (r *recent[T]) since(version uint64) []T {
	i := sort.Search(len(r.at), func(i int) bool { return r.at[i] > version })
	return slices.Clone(r.items[i:])
}

// Connect hands in the link, which in turn needs the manager. Call it once,
// before Run.
func (m *Manager) Connect(master Master) { m.master = master }

// New reads what an earlier start left. It starts nothing.
func New(cfg Config) (*Manager, error) {
	if cfg.PingEvery <= 0 {
		cfg.PingEvery = max(time.Second, cfg.Limits.HungAfter/3)
	}
	if cfg.BootTime == nil {
		cfg.BootTime = bootTime
	}
	m := &Manager{cfg: cfg, journal: journal{dir: cfg.StateDir}, sessions: map[string]*session{}, logins: map[string]chan struct{}{}, changed: make(chan struct{}), version: 1}
	m.ctx, m.stop = context.WithCancel(context.Background())
	if err := m.journal.open(); err != nil {
		return nil, err
	}
	var err error
	if m.epoch, err = m.journal.epoch(); err != nil {
		return nil, err
	}
	if m.name, err = m.journal.identity(); err != nil {
		return nil, err
	}
	return m, nil
}

// Adopt finds the desktops of an earlier start of this program again. Each is
// in the inventory from now on, whatever state it is in.
func (m *Manager) Adopt(ctx context.Context) error {
	entries, err := m.journal.all()
	if err != nil {
		return err
	}
	for _, e := range entries {
		now := time.Now()
		s := m.newSession(e, desktop.Restore(m.cfg.Limits, e.State, now))
		m.mu.Lock()
		m.sessions[e.Spec.Session] = s
		m.mu.Unlock()
		s.adopt = true
		m.start(s)
	}
	if len(entries) > 0 {
		m.cfg.Log.Info().Int("sessions", len(entries)).Msg("looking for the desktops of an earlier start")
	}
	lease, err := m.journal.lease(m.cfg.BootTime())
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.leaseAt, m.self = lease.At, lease.Self
	m.mu.Unlock()
	return nil
}

// Run watches over the lease until ctx ends, and then lets go of all desktops:
// they run on.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.stop()
			m.wg.Wait()
			return nil
		case <-tick.C:
			m.checkLease()
		}
	}
}

// leaseKill is how long after the end of the lease a desktop that was to be
// aborted is killed, whatever its session waits for.
const leaseKill = 5 * time.Second

// checkLease ends all desktops when the lease is over: the master may give
// their users new ones soon. It does not wait, and is not content before they
// are gone.
func (m *Manager) checkLease() {
	m.mu.Lock()
	late := m.cfg.BootTime() - m.leaseAt - m.self
	over := m.self > 0 && late > 0
	var all []*session
	for _, s := range m.sessions {
		all = append(all, s)
	}
	m.mu.Unlock()
	if !over {
		return
	}
	for _, s := range all {
		if !s.leaseOver.Swap(true) {
			m.cfg.Log.Error().Str("user", s.spec.User.Name).Str("session", s.spec.Session).Msg("no lease from the master for too long, the desktop is ended")
		}
		select {
		case s.orders <- func(now time.Time) []desktop.Action { return s.machine.Abort(now) }:
		default: // busy: told again in a second
		}
		if desk := s.process.Load(); desk != nil && late > leaseKill {
			if err := (*desk).Kill(); err != nil {
				s.log.Error().Err(err).Msg("the desktop's process cannot be killed")
			}
		}
	}
}

// Uptime implements link.Host.
func (m *Manager) Uptime() time.Duration { return m.cfg.BootTime() }

// Lease implements link.Host.
func (m *Manager) Lease(from, self time.Duration) {
	m.mu.Lock()
	was := m.self
	m.leaseAt, m.self = from, self
	m.mu.Unlock()
	if self == 0 && was == 0 {
		return
	}
	if err := m.journal.setLease(leaseRecord{At: from, Self: self}); err != nil {
		m.cfg.Log.Error().Err(err).Msg("the lease was not noted")
	}
}

// Journal implements link.Host.
func (m *Manager) Journal() string { return m.name }

// Hello implements link.Host.
func (m *Manager) Hello(on uint64) link.News {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link = on
	return m.news(0)
}

// News implements link.Host.
func (m *Manager) News(since uint64) link.News {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news(since)
}

// news needs m.mu.
func (m *Manager) news(since uint64) link.News {
	return link.News{Version: m.version, Sessions: m.list(), Ended: m.ended.since(since), Refused: m.refused.since(since)}
}

// Changed implements link.Host.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Sample implements link.Host.
func (m *Manager) Sample() *pb.Load { return m.cfg.Sample() }

// list is all sessions, by ID. m.mu must be held.
func (m *Manager) list() *pb.Sessions {
	out := &pb.Sessions{}
	for _, s := range m.sessions {
		out.Sessions = append(out.Sessions, s.shown.Load())
	}
	slices.SortFunc(out.Sessions, func(a, b *pb.Session) int { return strings.Compare(a.Id, b.Id) })
	return out
}

// touch tells that something changed. m.mu must be held.
func (m *Manager) touch() {
	m.version++
	close(m.changed)
	m.changed = make(chan struct{})
}

// Order implements link.Host.
func (m *Manager) Order(o *pb.SessionOrder) error {
	m.mu.Lock()
	s := m.sessions[o.Session]
	m.mu.Unlock()
	if s == nil {
		return wire.Errorf(wire.NotFound, "no session %s here", o.Session)
	}
	m.cfg.Log.Info().Str("user", s.spec.User.Name).Str("session", o.Session).Str("order", strings.ToLower(o.Action.String())).Msg("order received")
	return s.order(o.Action, time.Duration(o.LimitS)*time.Second)
}

// Epoch implements link.Host.
func (m *Manager) Epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// Obey implements link.Host: the epoch is on the disk before it is obeyed.
func (m *Manager) Obey(epoch uint64) error {
	if epoch <= m.Epoch() {
		return nil
	}
	if err := m.journal.setEpoch(epoch); err != nil {
		return fmt.Errorf("epoch %d of the master cannot be noted: %w", epoch, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = max(m.epoch, epoch)
	return nil
}

// of returns the session of a user here, or nil.
func (m *Manager) of(user string, uid uint32) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if s.spec.User.Name == user && s.spec.User.UID == uid {
			return s
		}
	}
	return nil
}

// errOldLink tells that the master's answer came over a link that has ended.
var errOldLink = errors.New("the link to the master was replaced meanwhile")

// accept takes a new session into the inventory, if the link on which the
// master granted it is still the present one. link 0 is without a master.
func (m *Manager) accept(s *session, link uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if link != 0 && m.link != link {
		return errOldLink
	}
	m.sessions[s.spec.Session] = s
	m.touch()
	return nil
}

// gone takes a session out of the inventory: its process is gone.
func (m *Manager) gone(s *session, e *pb.Ended) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s.spec.Session)
	m.touch()
	m.ended.add(m.version, e)
}

// refuse notes a login that came to nothing, for the administrator.
func (m *Manager) refuse(user string, err error) {
	m.cfg.Log.Warn().Str("user", user).Err(err).Msg("login refused")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touch()
	m.refused.add(m.version, &pb.Refused{User: user, Text: wire.Clean(err.Error(), maxText)})
}

// dir is where a session lives.
func (m *Manager) dir(u desktop.User, id string) string {
	if m.cfg.SnapDir != "" {
		return filepath.Join(m.cfg.SnapDir, id)
	}
	return filepath.Join(desktop.HomeSnap(u.Home), id)
}

// bootTime is the default of Config.BootTime.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

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
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	pb "verdecmd/proto"
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

// Guard ends the desktops with their lease when this program cannot, because
// it was killed or stopped.
type Guard interface {
	// Lease tells the end of the lease by the time since the computer started; 0:
	// there is none, nothing needs to be guarded. It does not wait.
	Lease(end time.Duration)
	// Awake is nil when the guard has been seen at work a moment ago.
	Awake() error
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
	// Guard is asked before a desktop is started under a lease; nil: there is
	// none, and this program alone ends desktops.
	Guard Guard
	// BootTime is the time since the computer started, suspended time
	// included: a lease must not outlive a suspend. The default asks the kernel.
	BootTime func() time.Duration
}

// Manager has the sessions of a satellite. Use New, Adopt, then Run.
type Manager struct {
	cfg     Config
	rules   Rules // of logins
	master  Master
	journal journal
	name    string         // of the journal
	wg      sync.WaitGroup // one for each session's goroutine
	ctx     context.Context
	stop    context.CancelFunc

	mu       sync.Mutex // guards what follows, never held across I/O
	known    *Inventory
	sessions map[string]*session      // those in known
	logins   map[string]chan struct{} // by user: one login at a time
	changed  chan struct{}            // closed with the next change of known
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
	m := &Manager{cfg: cfg, journal: journal{dir: cfg.StateDir}, sessions: map[string]*session{}, logins: map[string]chan struct{}{}, changed: make(chan struct{})}
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.rules = Rules{MasterLost: cfg.MasterLost, Standalone: cfg.Standalone, Masters: cfg.Masters, Cluster: cfg.Cluster,
		DesktopName: cfg.DesktopName, MemoryMax: cfg.MemoryMax, CPUsMax: cfg.CPUsMax}
	if err := m.journal.open(); err != nil {
		return nil, err
	}
	epoch, err := m.journal.epoch()
	if err != nil {
		return nil, err
	}
	m.known = NewInventory(epoch)
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
		s := m.newSession(Restore(e, m.cfg.Limits, now, now))
		m.mu.Lock()
		m.known.Adopt(s.shown.Load())
		m.sessions[e.Spec.Session] = s
		m.mu.Unlock()
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
	m.known.Renew(lease)
	m.mu.Unlock()
	if lease.Self > 0 { // that there is none only the master tells
		m.guard(lease)
	}
	return nil
}

// Run watches over what must end until ctx ends, and then lets go of all desktops:
// they run on.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			m.mu.Lock()
			m.stop() // start looks
			m.mu.Unlock()
			m.wg.Wait()
			return nil
		case <-tick.C:
			m.enforce()
		}
	}
}

// Bar lets nothing begin here any more, for this reason, and ends all desktops.
// It may be called before Adopt.
func (m *Manager) Bar(why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.Bar(why, m.cfg.BootTime())
}

// barred is why nothing may begin here; nil: it may.
func (m *Manager) barred() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Barred()
}

// enforce ends all desktops when the lease is over, or when this computer is of
// its cluster no more: the master may give their users new ones soon. It does not
// wait, and is not content before they are gone.
func (m *Manager) enforce() {
	m.mu.Lock()
	because, kill := m.known.MustEnd(m.cfg.BootTime())
	var all []*session
	for _, s := range m.sessions {
		all = append(all, s)
	}
	m.mu.Unlock()
	if because == "" {
		return
	}
	for _, s := range all {
		if s.because.Swap(&because) == nil {
			text := "no lease from the master for too long, the desktop is ended"
			if because != LeaseOver {
				text = "this computer is of its cluster no more, the desktop is ended"
			}
			m.cfg.Log.Error().Str("user", s.spec.User.Name).Str("session", s.spec.Session).Msg(text)
		}
		select {
		case s.orders <- func(now time.Time) []desktop.Action { return s.life.Abort(now) }:
		default: // busy: told again in a second
		}
		if desk := s.process.Load(); desk != nil && kill {
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
	l := Lease{At: from, Self: self}
	m.mu.Lock()
	note := m.known.Renew(l)
	m.mu.Unlock()
	m.guard(l)
	if !note {
		return
	}
	if err := m.journal.setLease(l); err != nil {
		m.cfg.Log.Error().Err(err).Msg("the lease was not noted")
	}
}

// Leased tells whether the desktops here end with a lease.
func (m *Manager) Leased() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Lease().Self > 0
}

// guard hands a lease to the guard.
func (m *Manager) guard(l Lease) {
	if m.cfg.Guard != nil {
		m.cfg.Guard.Lease(l.End())
	}
}

// Journal implements link.Host.
func (m *Manager) Journal() string { return m.name }

// Hello implements link.Host.
func (m *Manager) Hello(on uint64) link.News {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Hello(on)
}

// News implements link.Host.
func (m *Manager) News(since uint64) link.News {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.News(since)
}

// Changed implements link.Host.
func (m *Manager) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// Sample implements link.Host.
func (m *Manager) Sample() *pb.Load { return m.cfg.Sample() }

// tell tells that something changed. m.mu must be held.
func (m *Manager) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Order implements link.Host.
func (m *Manager) Order(o *pb.SessionOrder) error {
	m.mu.Lock()
	s, err := m.sessions[o.Session], m.known.Find(o.Session)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.cfg.Log.Info().Str("user", s.spec.User.Name).Str("session", o.Session).Str("order", strings.ToLower(o.Action.String())).Msg("order received")
	return s.order(o.Action, time.Duration(o.LimitS)*time.Second)
}

// Epoch implements link.Host.
func (m *Manager) Epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known.Epoch()
}

// Obey implements link.Host: the epoch is on the disk before it is obeyed.
func (m *Manager) Obey(epoch uint64) error {
	m.mu.Lock()
	note := m.known.MustNote(epoch)
	m.mu.Unlock()
	if !note {
		return nil
	}
	if err := m.journal.setEpoch(epoch); err != nil {
		return fmt.Errorf("epoch %d of the master cannot be noted: %w", epoch, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.Obey(epoch)
	return nil
}

// of returns the session of a user here, or nil.
func (m *Manager) of(user string, uid uint32) *session {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := m.known.Of(user, uid)
	if row == nil {
		return nil
	}
	return m.sessions[row.Id]
}

// accept takes a new session into the inventory, if the link on which the
// master granted it is still the present one. link 0 is without a master.
func (m *Manager) accept(s *session, link uint64) error {
	booted := m.cfg.BootTime()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.known.Accept(s.shown.Load(), link, booted); err != nil {
		return err
	}
	m.sessions[s.spec.Session] = s
	m.tell()
	return nil
}

// gone takes a session out of the inventory: its process is gone.
func (m *Manager) gone(s *session, e *pb.Ended) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, s.spec.Session)
	m.known.Gone(e)
	m.tell()
}

// refuse notes a login that came to nothing, for the administrator.
func (m *Manager) refuse(user string, err error) {
	m.cfg.Log.Warn().Str("user", user).Err(err).Msg("login refused")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known.Refuse(user, err)
	m.tell()
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

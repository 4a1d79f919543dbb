// Package sim is the program of a satellite as the simulator wants it: a value
// that is told what happens and acts through the computer under it.
//
// It decides nothing. Every rule is that of the real satellite, in the plan
// files of satellite/session and satellite/link and in desktop.Machine; here is
// only what the daemon does with goroutines, locks and files: when a rule is
// asked, and that what it wants is done. It calls its Host in an order that
// follows from what it was told alone, and any of these calls may be its last.
package sim

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/session"
)

// Files of the journal, as the daemon names them below its directory.
const (
	idFile    = "id"
	epochFile = "epoch"
	leaseFile = "lease"
	entries   = "sessions/"
)

const (
	desktopName   = "win4"
	defaultPing   = 5 * time.Second
	welcomeWithin = 15 * time.Second
	version       = "simulated"
)

// satellite implements simulated.Satellite.
type satellite struct {
	cfg     simulated.Config
	host    simulated.Host
	limits  desktop.Limits
	rules   session.Rules
	now     simulated.Clock // at the event that is being handled
	journal string          // its name

	known  *session.Inventory
	lives  map[string]*life
	logins []*login // in the order in which they came
	paused map[string]time.Time

	conn *conn     // nil: no link
	down time.Time // since when none is welcomed
	why  string
	told uint64 // version of the news that were sent last

	keeper keeper
}

// New returns the program of a satellite. Begin must be called next.
func New(cfg simulated.Config) simulated.Satellite {
	if cfg.PingEvery <= 0 {
		cfg.PingEvery = defaultPing
	}
	return &satellite{cfg: cfg, host: cfg.Host, lives: map[string]*life{}, paused: map[string]time.Time{}, told: 1, why: "not connected yet", keeper: keeper{mem: &memory{}},
		limits: desktop.Limits{StartTimeout: cfg.StartTimeout, HungAfter: cfg.HungAfter},
		rules:  session.Rules{MasterLost: cfg.MasterLost, Masters: "master", Cluster: "simulated", DesktopName: desktopName}}
}

// Begin implements simulated.Satellite.
func (s *satellite) Begin() error {
	s.now = s.host.Clock()
	s.down = s.now.Mono
	epoch := uint64(0)
	if b, ok := s.host.Read(epochFile); ok {
		n, err := strconv.ParseUint(string(b), 10, 64)
		if err != nil {
			return fmt.Errorf("epoch of the master: %w", err)
		}
		epoch = n
	}
	s.known = session.NewInventory(epoch)
	b, ok := s.host.Read(idFile)
	if !ok {
		b = fmt.Appendf(nil, "%016x%016x", s.host.Random(), s.host.Random())
		if err := s.host.Write(idFile, b); err != nil {
			return fmt.Errorf("name of the journal: %w", err)
		}
	}
	s.journal = string(b)
	for _, file := range s.host.Files() {
		name, ok := strings.CutPrefix(file, entries)
		if !ok {
			continue
		}
		b, _ := s.host.Read(file)
		e, err := session.DecodeEntry(name, b)
		if err != nil {
			return fmt.Errorf("journal %s: %w", file, err)
		}
		l := &life{Life: session.Restore(e, s.limits, s.now.Mono, s.now.Wall), id: e.Spec.Session}
		s.lives[l.id] = l
		s.known.Adopt(l.Row(desktopName))
	}
	if b, ok := s.host.Read(leaseFile); ok {
		lease, err := session.DecodeLease(b, s.now.Boot)
		if err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		s.known.Renew(lease)
		if lease.Self > 0 { // that there is none only the master tells
			s.guard(lease)
		}
	}
	for _, l := range s.all() {
		s.begin(l)
	}
	s.settle()
	return nil
}

// Tick implements simulated.Satellite.
func (s *satellite) Tick() {
	s.now = s.host.Clock()
	s.checkLease()
	s.keep()
	for _, l := range s.all() {
		s.tick(l)
	}
	if c := s.conn; c != nil && c.end == nil && !s.now.Mono.Before(c.welcomeBy) {
		s.end("the master did not answer the hello in time")
	}
	s.expireCalls()
	s.settle()
}

// Wake implements simulated.Satellite.
func (s *satellite) Wake() (at time.Time) {
	soon := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, l := range s.all() {
		if t, ok := l.Next(); ok {
			soon(t)
		}
		soon(l.findAt)
	}
	for _, l := range s.logins {
		soon(l.until)
	}
	if s.conn != nil && s.conn.end == nil {
		soon(s.conn.welcomeBy)
	}
	return at
}

// Sessions implements simulated.Satellite.
func (s *satellite) Sessions() []string { return s.known.Sessions() }

// settle does what has become possible by an event: logins go on, and the
// master is told what is new.
func (s *satellite) settle() {
	for s.goOn() {
	}
	if c := s.conn; c != nil && c.end != nil {
		if r := c.end.Report(s.known.News(s.told), false, s.now.Boot); r != nil {
			s.told = c.end.Told()
			r.Load, r.NowUnixMs = s.host.Load(), s.now.Wall.UnixMilli()
			s.host.Send(c.link, &pb.Up{Kind: &pb.Up_Report{Report: r}})
		}
	}
}

// all is every session, by ID: map order must not leak into an effect.
func (s *satellite) all() []*life {
	out := make([]*life, 0, len(s.lives))
	for _, l := range s.lives {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *life) int { return strings.Compare(a.id, b.id) })
	return out
}

// lease takes a lease in, as session.Manager does.
func (s *satellite) lease(at, self time.Duration) {
	l := session.Lease{At: at, Self: self}
	note := s.known.Renew(l)
	s.guard(l)
	if !note {
		return
	}
	if b, err := json.Marshal(l); err == nil {
		_ = s.host.Write(leaseFile, b) // what is not noted is only logged
	}
}

// checkLease ends all desktops when the lease is over.
func (s *satellite) checkLease() {
	over, kill := s.known.Lease().Over(s.now.Boot)
	if !over {
		return
	}
	for _, l := range s.all() {
		l.leaseOver = true
		s.perform(l, l.Abort(s.now.Mono))
		if kill && l.Exists() {
			s.host.Kill(l.id)
		}
	}
}

// uuid is a random UUID.
func (s *satellite) uuid() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], s.host.Random())
	binary.LittleEndian.PutUint64(b[8:], s.host.Random())
	return session.UUID(b)
}

// granted is what a new session is made with.
func (s *satellite) granted() session.Granted {
	return session.Granted{Dir: func(id string) string { return "/snap/" + id }, UUID: s.uuid(), Limits: s.limits, Now: s.now.Mono, Wall: s.now.Wall}
}

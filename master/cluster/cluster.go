// Package cluster is the master's memory: which satellites there are, how
// loaded they are, who has a reservation and who has a session.
//
// It is a plain value with no goroutine, no lock, no clock and no I/O. The
// caller passes the time in and carries out what the methods return, so every
// rule about time-outs can be tested by calling a function. What must survive a
// restart is decided here, made durable by the caller, and applied here
// afterwards: methods that decide are verbs (BeginClaim, Report), methods that
// apply are past participles (Claimed, Released) and cannot fail.
package cluster

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"verdecmd/master/placement"
)

// LostPolicy says what becomes of the sessions of a silent satellite.
type LostPolicy int

const (
	// Hold keeps them until their end is proven: the satellite reports, or
	// an administrator affirms that the host is powered off.
	Hold LostPolicy = iota
	// Lease lets satellites stop their desktops after some time without a
	// master, and lets the master release them when that has surely happened.
	Lease
)

// Limits are the times that the rules use.
type Limits struct {
	Interval           time.Duration // between load reports; stale after three
	ReservationTimeout time.Duration
	Resync             time.Duration // after a start: how long unreported sessions are awaited before they count as lost

	// The rest is fixed while a master runs, SetLimits does not change it: both
	// ends of a link agree on it when the link opens.
	Lost         LostPolicy
	LeaseReplace time.Duration // Lease: silence after which sessions are released; 0: never
	// LeaseSince is the first of an unbroken row of epochs, up to this one, whose
	// masters all ran with Lease and with these times; 0: not known. Only then
	// is a server that has not come back since the start of this master known
	// to obey a lease. All others are held until they have opened a link.
	LeaseSince uint64
}

// State is what an administrator wants of a server.
type State string

const (
	Online   State = "online"
	Offline  State = "offline"
	Draining State = "draining"
)

// Server is one satellite. The first group is durable.
type Server struct {
	ID      uint64
	UUID    string // identity in its certificate
	Name    string
	State   State
	Reason  string // of State, an administrator's words
	Journal string // see ServerRecord

	Certificate Certificate // that it has shown last

	Address    string
	Instance   string // of the satellite program
	Attachment uint64 // of its live link; 0: down
	Since      time.Time
	Reported   time.Time // last report; zero: none since the master started
	Renewed    time.Time // Lease: when its lease was last renewed
	Version    string
	Mismatch   string    // not empty: its software does not fit ours, in words
	Suspect    string    // not empty: what it reports cannot be, in words; it gets no sessions
	Hard       []string  // checks of the host that keep desktops away, in words; see Checked
	Twin       time.Time // when another machine with its identity came last; zero: none, or long ago
	Facts      Facts
	Load       Load // of what was Suspect: 0

	slot     int // index in Cluster.slots
	sessions map[string]*Session
	leased   bool          // it has opened a link under Lease, with the times in force
	every    time.Duration // the interval in force at Reported
	usage    usage
}

// stranger is a session that a server reports and that is not its own by our
// books; see judge.
type stranger struct {
	Reported
	server uint64
	told   time.Time // when its end was last ordered
}

// at names a session on a server: what satellites say may be wrong, so an ID
// alone does not tell.
type at struct {
	server  uint64
	session string
}

// Facts are what a satellite tells about itself once per link.
type Facts struct {
	Hostname, Arch, Kernel, CPUVendor string
	CPUs                              int
	Memory                            uint64
	Accelerator, AcceleratorWhy, QEMU string
	SnapDir, SnapKind                 string
	SnapReserve                       uint64
	MaxSessions                       int
	Problems                          []string
	AsRoot                            bool
	Features                          []string // sorted
}

// Load is one sample of a satellite. Shares are 0 to 1.
type Load struct {
	CPUBusy, Load1                       float64
	MemoryTotal, MemoryFree              uint64
	SnapFree, HomeFree                   uint64
	HasPressure                          bool
	PressureCPU, PressureMem, PressureIO float64
}

// Session is a user's stay: who owns it is durable, how it is comes from its
// satellite.
type Session struct {
	ID     string
	User   string
	UID    uint32
	Server uint64
	Memory uint64 // bytes charged for the guest
	Epoch  uint64 // of the master that gave it out

	Reported  bool // by its satellite on its present link, or just claimed on it
	LostSince time.Time
	Seen      Seen

	// listed is the attachment on which its satellite last had it in its list; 0
	// for one that was just claimed, which an older list cannot contain.
	listed uint64
	need   need // what it takes of its server
}

// Seen is what the satellite last told about a session.
type Seen struct {
	Desktop, Image, State string
	Current               bool
	Started               time.Time
	Client, Display       string
	CPU                   float64
	PID                   int
	Why                   string
	Serial                []string
}

// States of a session, PROTOCOL 11.6.
const (
	Starting = "starting"
	Running  = "running"
	Hung     = "hung"
	Stopping = "stopping"
	Aborting = "aborting"
	Failed   = "failed"
	Lost     = "lost"
)

// State is the session's state as administrators see it.
func (s *Session) State() string {
	if !s.Reported {
		return Lost
	}
	return cmp.Or(s.Seen.State, Starting)
}

// Reservation is a place held for a user on a server until it is claimed or
// expires.
type Reservation struct {
	ID            string
	User          string
	UID           uint32
	Server        uint64
	Need          placement.Need
	Made, Expires time.Time
	Client        string
	From          uint64 // the server that asked for it; 0: none
	Connecting    bool   // a claim is being made durable
}

// Claim is a claim that is being made durable.
type Claim struct {
	Session    Session
	Attachment uint64
	// Number is the session's number; HighWater, if not 0, must be made
	// durable with it: no later master gives out a number up to it.
	Number, HighWater uint64

	reservation string
	void        bool // the claim must not become a session any more
}

// idBlock is how many session numbers are set aside at once. After a crash the
// rest of a block is never used.
const idBlock = 100

// Cluster is the state. Use New.
type Cluster struct {
	limits Limits
	start  time.Time

	servers map[uint64]*Server
	byUUID  map[string]*Server
	enrols  map[string]ServerRecord // by UUID: decided and not yet Registered
	slots   placement.Table         // one per server, in the order they were added

	sessions     map[string]*Session // by user
	byID         map[string]*Session
	byUID        map[uint32]string // user who holds a session or reservation with this uid
	reservations map[string]*Reservation
	claims       map[string]*Claim // by user
	condemned    map[string]uint64 // session ID -> server: to be ended when it shows up
	pardoning    map[string]bool   // of them: proven to be gone, and decided to be forgotten
	// over are the sessions, by ID, whose end is proven and whose records are
	// being removed. They still take their places.
	over      map[string]bool
	strangers map[at]*stranger
	asked     map[uint64]asked // by the server that asked

	epoch                              uint64
	nextServer, nextSession, highWater uint64
	nextAttachment, nextReservation    uint64
}

// New returns an empty cluster that starts at now.
func New(limits Limits, now time.Time) *Cluster {
	return &Cluster{
		limits: limits, start: now,
		servers: map[uint64]*Server{}, byUUID: map[string]*Server{},
		sessions: map[string]*Session{}, byID: map[string]*Session{}, byUID: map[uint32]string{},
		reservations: map[string]*Reservation{}, claims: map[string]*Claim{},
		condemned: map[string]uint64{}, pardoning: map[string]bool{}, over: map[string]bool{}, strangers: map[at]*stranger{}, asked: map[uint64]asked{}, enrols: map[string]ServerRecord{},
		nextServer: 1, nextSession: 1,
	}
}

// Restored tells the epoch of this master, the highest session number that was
// ever set aside, and the highest server ID that was ever given. Call it before
// the first Enrol, Owned and Attach.
func (c *Cluster) Restored(epoch, highWater, lastServer uint64) {
	c.epoch = epoch
	c.highWater, c.nextSession = highWater, highWater+1
	c.nextServer = max(c.nextServer, lastServer+1)
	// A link of an earlier master must never be taken for one of ours.
	c.nextAttachment = epoch << 32
}

// SetLimits takes over changed settings, but for the lease. Reservations that
// have been made keep their time.
func (c *Cluster) SetLimits(l Limits) {
	l.Lost, l.LeaseReplace, l.LeaseSince = c.limits.Lost, c.limits.LeaseReplace, c.limits.LeaseSince
	c.limits = l
	for _, s := range c.servers {
		c.refit(s)
	}
}

// Limits returns the limits in force.
func (c *Cluster) Limits() Limits { return c.limits }

// Servers returns all servers by ID. The pointers are the cluster's own: read
// them under the caller's lock, change nothing.
func (c *Cluster) Servers() []*Server {
	return sorted(c.servers, func(a, b *Server) int { return cmp.Compare(a.ID, b.ID) })
}

// Server returns one, or nil.
func (c *Cluster) Server(id uint64) *Server { return c.servers[id] }

// ServerByUUID returns the server with this identity, or nil.
func (c *Cluster) ServerByUUID(uuid string) *Server { return c.byUUID[uuid] }

// Sessions returns all sessions by user. See Servers about the pointers.
func (c *Cluster) Sessions() []*Session {
	return sorted(c.sessions, func(a, b *Session) int { return cmp.Compare(a.User, b.User) })
}

// EachSession calls f with every session, in no order: for counts and for lists
// that are sorted where nobody waits for the cluster. See Servers about the
// pointers.
func (c *Cluster) EachSession(f func(*Session)) {
	for _, x := range c.sessions {
		f(x)
	}
}

// SessionsOn returns the sessions of a server by user. See Servers about the
// pointers.
func (c *Cluster) SessionsOn(id uint64) []*Session {
	if s := c.servers[id]; s != nil {
		return s.byUser()
	}
	return nil
}

// Unowned are the users whose desktops run on a server and are not its own by
// our books, by session: they are adopted or ended.
func (c *Cluster) Unowned(id uint64) (users []string) {
	for _, x := range c.strangersOn(id) {
		users = append(users, x.User)
	}
	return users
}

// Session returns the session of a user, or nil.
func (c *Cluster) Session(user string) *Session { return c.sessions[user] }

// SessionByID returns a session, or nil.
func (c *Cluster) SessionByID(id string) *Session { return c.byID[id] }

// UserOf returns the login name that holds a session or reservation with uid.
func (c *Cluster) UserOf(uid uint32) string { return c.byUID[uid] }

// Counts returns how many sessions and reservations a server has.
func (c *Cluster) Counts(id uint64) (sessions, reserved int) {
	s := c.servers[id]
	if s == nil {
		return 0, 0
	}
	return s.usage.held - s.usage.reserved, s.usage.reserved
}

// Total returns the number of sessions and of reservations.
func (c *Cluster) Total() (sessions, reservations int) {
	return len(c.sessions), len(c.reservations)
}

// Reservations returns all reservations, oldest first.
func (c *Cluster) Reservations() []*Reservation {
	return sorted(c.reservations, func(a, b *Reservation) int {
		return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.ID, b.ID))
	})
}

// Reservation returns the reservation of a user, or nil.
func (c *Cluster) Reservation(user string) *Reservation { return c.reservations[user] }

// Condemned returns the sessions that are to be ended when they show up, and
// their servers.
func (c *Cluster) Condemned() map[string]uint64 { return maps.Clone(c.condemned) }

// Ending tells whether the end of a session is proven and its record is only
// waiting to be removed.
func (c *Cluster) Ending(id string) bool { return c.over[id] }

// Link tells how the master sees a server's link: up, stale or down.
func (c *Cluster) Link(s *Server, now time.Time) string {
	switch {
	case s.Attachment == 0:
		return "down"
	case now.Sub(s.Reported) > c.patience(s):
		return "stale"
	}
	return "up"
}

// patience is the age at which a server's report is too old. The interval may
// just have become shorter: what counts is the longer one of that in force and
// that under which the report was sent.
func (c *Cluster) patience(s *Server) time.Duration { return 3 * max(c.limits.Interval, s.every) }

// Placement explains where a session with this need would go.
func (c *Cluster) Placement(now time.Time, need placement.Need) []placement.Candidate {
	return c.slots.Explain(now.Sub(c.start), &need)
}

// Score returns the load score of a server for such a session and why it is
// not eligible.
func (c *Cluster) Score(s *Server, now time.Time, need placement.Need) (int64, placement.Reason) {
	return c.slots.Score(s.slot, &need), c.slots.Server(s.slot).Check(now.Sub(c.start), &need)
}

// sorted returns the values of a map in an order that is always the same: map
// order must never leak into a decision.
func sorted[K comparable, V any](m map[K]*V, less func(a, b *V) int) []*V {
	out := make([]*V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	slices.SortFunc(out, less)
	return out
}

// maxNumber bounds session numbers: what a satellite reports must not bring the
// count to its end.
const maxNumber = 1 << 53

func sessionID(n uint64) string { return "s" + strconv.FormatUint(n, 10) }

// standalone is the form of the IDs that satellites give to sessions which they
// start without a master, where their settings allow it.
var standalone = regexp.MustCompile(`^s0[0-9]{16}$`)

// sessionNumber is sessionID undone, and 0 for a standalone session; ok is false
// for what neither ever returned.
func sessionNumber(id string) (n uint64, ok bool) {
	if standalone.MatchString(id) {
		return 0, true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(id, "s"), 10, 64)
	return n, err == nil && n > 0 && n <= maxNumber && id == sessionID(n)
}

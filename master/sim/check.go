package sim

import (
	"fmt"
	"slices"
	"time"

	"verdecmd/master/alarm"
	"verdecmd/master/cluster"
	"verdecmd/monitor"
	pb "verdecmd/proto"
)

// witness is what has really happened, as the checkers need it.
type witness struct {
	grants  map[string]*grant        // by session: what masters gave
	hostOf  map[uint64]*computer     // by server number
	states  map[uint64]*wish         // by server number: what administrators want
	freed   map[string]bool          // sessions whose release was acknowledged
	wanted  map[string]monitor.How   // sessions that administrators end
	ladders map[string]*ladder       // by session
	alive   map[string][]*process    // by user
	logoffs map[string]bool          // sessions that were told to log off: the first limit counts
	highest uint64                   // server number
	lastEnd map[string]time.Duration // by user: when a desktop ended last
	alarms  map[uint64]*sighting
}

func (t *witness) start() {
	t.grants, t.hostOf, t.states = map[string]*grant{}, map[uint64]*computer{}, map[uint64]*wish{}
	t.freed, t.wanted, t.ladders = map[string]bool{}, map[string]monitor.How{}, map[string]*ladder{}
	t.alive, t.logoffs = map[string][]*process{}, map[string]bool{}
	t.lastEnd, t.alarms = map[string]time.Duration{}, map[uint64]*sighting{}
}

// grant is a claim that a master has answered with a session.
type grant struct {
	session, user string
	c             *computer
	epoch         uint64
	reservation   string // that was there when it was claimed; empty: none
	cable         uint64 // on which the answer came
	used          bool
}

// wish is what administrators want of a server: one of these, the first is
// acknowledged and the others perhaps.
type wish struct {
	of        []wanted
	forgotten bool
	maybe     bool // a forget was not answered
}

type wanted struct {
	state  cluster.State
	reason string
}

// ladder is an order that must end a desktop in time (LV3).
type ladder struct {
	c  *computer
	by time.Duration
}

// claiming notes what is there to be claimed, before a claim begins (S4).
func (a *audit) claiming(k *cable, r *pb.ClaimRequest) *grant {
	g := &grant{user: r.User, c: k.c}
	m := a.m
	res, s := m.cluster.Reservation(r.User), m.cluster.Server(k.server)
	if res != nil && s != nil && res.Server == k.server && res.UID == r.Uid && !res.Connecting && !m.now().After(res.Expires) {
		g.reservation = res.ID
	}
	return g
}

// granted looks at a claim that has succeeded, before the satellite knows.
func (w *world) granted(m *master, c *computer, g *grant, out *pb.ClaimReply) {
	id := out.Session
	s := m.cluster.ServerByUUID(c.uuid)
	switch {
	case g.reservation == "":
		w.fail("S4", "%s got session %s on %s without a live reservation", g.user, id, c.name)
	case w.grants[id] != nil:
		w.fail("S4", "session %s was given twice: to %s and to %s", id, w.grants[id].user, g.user)
	case m.cluster.Reservation(g.user) != nil:
		w.fail("S3", "%s has session %s, and the reservation %s is still there", g.user, id, m.cluster.Reservation(g.user).ID)
	case m.cluster.Session(g.user) == nil || m.cluster.Session(g.user).ID != id:
		w.fail("S3", "%s got session %s, and it is not in the books", g.user, id)
	case w.isOffline(s.ID):
		w.fail("S6", "%s got session %s on server %d, which was taken offline before", g.user, id, s.ID)
	}
	g.session, g.epoch = id, out.Epoch
	w.grants[id] = g
}

// isOffline tells whether it is acknowledged that a server takes no sessions,
// and no other wish is under way.
func (w *world) isOffline(id uint64) bool {
	x := w.states[id]
	return x != nil && len(x.of) == 1 && x.of[0].state != cluster.Online
}

// told notes that the answer to a claim has reached the program.
func (c *computer) told(p *program, k *cable, r *pb.ClaimReply) {
	if g := c.w.grants[r.Session]; g != nil {
		g.cable = k.id
		p.told[r.Session] = g
	}
}

// startsOne looks at the order to start a desktop (S4, S8, S9).
func (w *world) startsOne(p *program, session, user string) {
	g := p.told[session]
	switch {
	case g == nil:
		w.fail("S4", "%s starts session %s of %s, and was not given it", p.c.name, session, user)
	case g.user != user || g.c != p.c:
		w.fail("S4", "%s starts session %s of %s, which was given to %s on %s", p.c.name, session, user, g.user, g.c.name)
	case g.used:
		w.fail("S4", "%s starts session %s twice", p.c.name, session)
	case g.epoch < p.c.epoch:
		w.fail("S9", "%s starts session %s by the word of epoch %d, after it has obeyed %d", p.c.name, session, g.epoch, p.c.epoch)
	case p.latest != g.cable:
		w.fail("S8", "%s starts session %s on an answer that came over an earlier link", p.c.name, session)
	}
	if g != nil {
		g.used = true
	}
}

// began looks at a new process (S1).
func (w *world) began(x *process) {
	w.note("process", x.c.name, x.pid, x.session, x.user)
	for _, y := range w.alive[x.user] {
		if !w.excused(y) {
			w.fail("S1", "%s has session %s on %s (pid %d), and session %s on %s (pid %d) since %v", x.user, x.session, x.c.name, x.pid, y.session, y.c.name, y.pid, y.began)
		}
	}
	w.alive[x.user] = append(w.alive[x.user], x)
}

// excused tells whether a desktop does not count: under leases one on a host
// that was suspended does not run, and is ended within seconds when the host
// goes on.
func (w *world) excused(x *process) bool {
	return w.plan.lease && (x.c.suspended > 0 || x.c.resumed > 0 && w.time-x.c.resumed < 10*time.Second)
}

// ended looks at the end of a process.
func (w *world) ended(x *process, why string) {
	w.note("process ended", x.c.name, x.pid, x.session, why)
	w.alive[x.user] = slices.DeleteFunc(w.alive[x.user], func(y *process) bool { return x == y })
	delete(w.ladders, x.session)
	w.lastEnd[x.user] = w.time
	w.count("end")
}

// acts looks at what a satellite's program does to a process (S7, S8, S9).
func (w *world) acts(p *program, session, what string, x *process) {
	c := p.c
	w.note(what, c.name, session)
	if x == nil || x.dead {
		return
	}
	switch {
	case x.session != session:
		w.fail("S7", "%s means session %s and hits %s of %s (pid %d)", c.name, session, x.session, x.user, x.pid)
	case p.order != nil && p.order.Epoch < c.epoch:
		w.fail("S9", "%s obeys epoch %d for session %s, after it has obeyed %d", c.name, p.order.Epoch, session, c.epoch)
	case c.forced[session] || what == "power down" && c.ordered[session]:
	default:
		w.fail("S7", "%s ends session %s of %s (pid %d) by %q, and nobody has ordered that", c.name, session, x.user, x.pid, what)
	}
}

// doom notes which desktops a program may end because their lease is over: what
// was begun goes on when there is a lease again.
func (c *computer) doom() {
	if c.self > 0 && c.clock().Boot-c.leaseAt > c.self-time.Millisecond {
		for _, x := range c.procs {
			c.forced[x.session] = true
		}
	}
}

// ordered looks at an order of a master before it is sent (S8): a desktop that
// lives is only ended because an administrator wants it.
func (w *world) ordered(m *master, c *computer, o *pb.SessionOrder) {
	w.note("order", m.id, c.name, o.Action.String(), o.Session)
	if _, ok := w.wanted[o.Session]; ok {
		return
	}
	for _, x := range c.procs {
		if x.session == o.Session && !w.excused(x) {
			w.fail("S8", "master %d orders the end of session %s of %s on %s, which runs and which no administrator has ended", m.id, x.session, x.user, c.name)
		}
	}
}

// confirmed notes an order that a satellite has confirmed (LV3).
func (w *world) confirmed(c *computer, session string, how monitor.How, limit time.Duration) {
	if how == monitor.Shutdown || c == nil {
		return
	}
	if how == monitor.Abort {
		limit = 0
	} else if w.logoffs[session] {
		return
	}
	if c.full > 0 {
		return // perhaps not noted
	}
	w.logoffs[session] = true
	wait := limit*12/10 + 7*time.Second
	l := &ladder{c: c, by: w.time + wait}
	w.ladders[session] = l
	began := w.time
	var look func()
	look = func() {
		if w.ladders[session] != l {
			return
		}
		// After a fault it has its whole time again, from when the program is
		// back and has found its desktops.
		if c.program == nil || c.program.frozen > 0 || c.suspended > 0 {
			c.troubled = w.time
		}
		if by := c.troubled + foundAgain + wait; c.troubled > began && by > w.time {
			w.queue.push(by, look)
			return
		}
		for _, x := range c.procs {
			if x.session == session {
				w.fail("LV3", "session %s of %s on %s still runs %v after its end was confirmed with a limit of %v", session, x.user, c.name, w.time-began, limit)
			}
		}
	}
	w.queue.push(l.by, look)
}

// foundAgain is how long a satellite's program may take after a fault before it
// goes on with its orders.
const foundAgain = 15 * time.Second

// known notes the number that a master has given to a computer (S5).
func (w *world) known(m *master, c *computer, id uint64) {
	if w.hostOf[id] == c {
		return
	}
	if old := w.hostOf[id]; old != nil {
		w.fail("S5", "server %d was %s, and is %s now", id, old.name, c.name)
		return
	}
	if id <= w.highest {
		w.fail("S5", "server number %d is given after %d", id, w.highest)
	}
	w.highest = id
	w.hostOf[id] = c
	c.servers = append(c.servers, id)
	w.states[id] = &wish{of: []wanted{{cluster.Online, ""}}}
}

// asks notes that an administrator wants something, before it is answered.
func (w *world) asks(id uint64, state cluster.State, reason string) wanted {
	x := wanted{state, reason}
	if s := w.states[id]; s != nil {
		s.of = append(s.of, x)
	}
	return x
}

// withdrawn notes that what was asked for was not done, and that nobody will.
func (w *world) withdrawn(id uint64, x wanted) {
	if s := w.states[id]; s != nil && len(s.of) > 1 {
		if i := slices.Index(s.of[1:], x); i >= 0 {
			s.of = slices.Delete(s.of, i+1, i+2)
		}
	}
}

// acknowledged notes that it was answered. Changes of one master are made one
// after the other, so that what was asked before is over.
func (w *world) acknowledged(m *master, x wanted, changed bool) {
	for _, id := range sortedKeys(w.states) {
		s := w.states[id]
		if i := slices.Index(s.of, x); i >= 0 {
			s.of = slices.Delete(s.of, 0, i)
			got := m.cluster.Server(id)
			if got == nil || got.State != x.state {
				w.fail("S5", "server %d is to be %s, and its master does not know that", id, x.state)
			}
		}
	}
	if changed {
		w.count("admin")
	}
}

// released notes that the release of sessions was acknowledged.
func (w *world) released(ids []string) {
	for _, id := range ids {
		w.freed[id] = true
	}
}

func (w *world) forgetting(id uint64) {
	if s := w.states[id]; s != nil {
		s.maybe = true
	}
}

func (w *world) forgot(id uint64) {
	if s := w.states[id]; s != nil {
		s.forgotten = true
	}
}

// restored looks at what a master has read from its store (S5, S8).
func (w *world) restored(m *master) {
	w.reread(m)
	for _, id := range sortedKeys(w.states) {
		want, got := w.states[id], m.cluster.Server(id)
		switch {
		case got == nil && (want.forgotten || want.maybe):
			want.forgotten = true
		case got == nil:
			w.fail("S5", "server %d (%s) was registered, and master %d does not know it", id, w.hostOf[id].name, m.id)
		case want.forgotten:
			w.fail("S5", "server %d was forgotten, and master %d knows it", id, m.id)
		default:
			x := wanted{got.State, got.Reason}
			if !slices.Contains(want.of, x) {
				w.fail("S5", "server %d is %s (%s) for master %d, want one of %v", id, x.state, x.reason, m.id, want.of)
			}
			want.of, want.maybe = []wanted{x}, false
		}
	}
	for _, id := range sortedKeys(w.freed) {
		if m.cluster.SessionByID(id) != nil {
			w.fail("S5", "the release of session %s was acknowledged, and master %d has it", id, m.id)
		}
	}
	for _, c := range w.computers {
		for _, x := range c.procs {
			if g := w.grants[x.session]; g != nil && m.cluster.SessionByID(x.session) == nil && !w.excused(x) {
				w.fail("S5", "session %s of %s was given and runs on %s, and master %d does not know it", x.session, x.user, c.name, m.id)
			}
		}
	}
}

// audit looks at one master: what its books say and what it announces.
type audit struct {
	m        *master
	ticks    uint64
	looks    uint64
	made     map[string]time.Time   // by reservation: when it must be over
	sessions map[string]bool        // in the books at the last look
	told     map[string]bool        // whose end was announced since then
	links    map[uint64]uint64      // attachments at the last look
	downs    map[uint64]bool        // servers whose loss was announced since then
	odd      map[what]time.Duration // causes without an alarm, or the other way round, since when
	calm     time.Duration          // since when the disk takes what comes
}

func (a *audit) start(m *master) {
	*a = audit{m: m, made: map[string]time.Time{}, sessions: map[string]bool{}, told: map[string]bool{}, links: map[uint64]uint64{}, downs: map[uint64]bool{}, odd: map[what]time.Duration{}}
}

// event takes what the master announces.
func (a *audit) event(typ string, pairs []monitor.Pair) {
	get := func(key string) any {
		for _, p := range pairs {
			if p.Key == key {
				return p.Value
			}
		}
		return nil
	}
	switch typ {
	case "reservation.made":
		id, _ := get("reservation").(string)
		a.made[id] = a.m.now().Add(a.m.cluster.Limits().ReservationTimeout)
	case "reservation.used", "reservation.expired", "reservation.cancelled":
		id, _ := get("reservation").(string)
		if _, ok := a.made[id]; !ok {
			a.m.w.fail("S3", "reservation %s has ended twice: %s", id, typ)
		}
		delete(a.made, id)
	case "session.ended", "session.failed":
		id, _ := get("session").(string)
		a.told[id] = true
	case "server.down", "server.up", "server.forgotten":
		id, _ := get("server").(uint64)
		a.downs[id] = true
	case alarm.Raised, alarm.Acked, alarm.Cleared:
		id, _ := get("alarm").(uint64)
		a.m.w.announced(a.m, typ, id)
	}
}

// look is called every second and a half, when what is over has been ended.
func (a *audit) look() {
	m, w := a.m, a.m.w
	now := m.now()
	for _, r := range m.cluster.Reservations() {
		by, ok := a.made[r.ID]
		switch {
		case !ok:
			w.fail("S3", "reservation %s of %s is there after it was announced that it has ended", r.ID, r.User)
		case now.After(by.Add(time.Second)) && !r.Connecting:
			w.fail("S3", "reservation %s of %s is there %v after its end", r.ID, r.User, now.Sub(by))
		}
	}
	here := map[string]bool{}
	for _, x := range m.cluster.Sessions() {
		here[x.ID] = true
		delete(a.sessions, x.ID)
	}
	for _, id := range sortedKeys(a.sessions) {
		if !a.told[id] {
			w.fail("S11", "session %s has left the books of master %d, and nobody was told", id, m.id)
		}
	}
	a.sessions = here
	clear(a.told)
	for _, s := range m.cluster.Servers() {
		if was := a.links[s.ID]; was != s.Attachment && was != 0 && !a.downs[s.ID] {
			w.fail("S11", "the link of server %d is down at master %d, and nobody was told", s.ID, m.id)
		}
		a.links[s.ID] = s.Attachment
	}
	clear(a.downs)
	if a.looks%2 == 0 {
		a.alarmed()
	}
	if a.looks++; a.looks%5 == 0 {
		if err := m.cluster.Check(); err != nil {
			w.fail("S3", "master %d: %v", m.id, err)
		}
	}
}

func (g *grant) String() string {
	return fmt.Sprintf("session %s of %s on %s", g.session, g.user, g.c.name)
}

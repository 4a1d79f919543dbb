package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"verdecmd/proto/planted"
)

// Hello is a satellite's whole truth when its link opens.
type Hello struct {
	UUID, Instance, Address, Version string
	Journal                          string // names the journal that the sessions come from
	Mismatch                         string
	Certificate                      Certificate // that the link was opened with
	Facts                            Facts
	Load                             Load
	Sessions                         []Reported
	Ended                            []Ended
}

// Reported is a session as its satellite reports it.
type Reported struct {
	ID     string
	User   string
	UID    uint32
	Memory uint64
	Seen   Seen
}

// Ended is a session that its satellite says is over.
type Ended struct {
	ID, User, How, Why string
}

// Release is a session whose record is to be removed durably; then Released.
type Release struct {
	Session Session
	How     string // shutdown, abort, guest, failed, crashed, vanished, forced, fenced, lease
	Why     string
	Condemn bool // not proven: to be ended if it shows up again; made durable in the same commit
}

// Change is a session whose reported state has changed.
type Change struct {
	Session Session
	From    string
}

// Effects is what a message of a satellite leads to.
type Effects struct {
	Release   []Release     // to be made durable, then Released
	Adopt     []Session     // nobody knew them, and they count already: to be made durable, then Adopted
	Pardon    []string      // condemned sessions that are gone: forget durably, then Pardoned
	Abort     []string      // sessions that must not be: order the satellite to abort them; told again until they are gone
	Changes   []Change      // to be announced
	Cancelled []Reservation // of users whose sessions were adopted: to be announced
}

// Attach opens the link of a known server and returns its number. From now on
// only this link speaks for the server.
func (c *Cluster) Attach(now time.Time, h Hello) (attachment uint64, e Effects, err error) {
	s := c.byUUID[h.UUID]
	if s == nil {
		return 0, e, ErrUnknownServer
	}
	if s.Attachment != 0 && s.Instance != h.Instance {
		// Nobody can tell which of them is the true one.
		s.Twin = now
		c.refit(s)
		return 0, e, fmt.Errorf("server %d (%s), at %s: %w; this one is refused while that one is connected", s.ID, s.Name, s.Address, ErrDuplicate)
	}
	c.voidClaims(s.ID)
	c.nextAttachment++
	s.Attachment, s.Instance, s.Since = c.nextAttachment, h.Instance, now
	s.Address, s.Version, s.Facts, s.Mismatch = h.Address, h.Version, h.Facts, h.Mismatch
	s.Facts.Features = slices.Sorted(slices.Values(h.Facts.Features))
	s.Certificate = h.Certificate
	s.Twin = time.Time{}
	s.Renewed, s.leased = now, c.limits.Lost == Lease
	c.loaded(now, s, h.Load)

	for _, x := range s.byUser() {
		x.listed = s.Attachment // this list is complete for all of them
	}
	c.list(now, s, h.Sessions, h.Ended, &e)
	return s.Attachment, e, nil
}

// Report takes in a report of the link with this number. sessions is all that
// run there, or nil where nothing about them has changed.
func (c *Cluster) Report(now time.Time, id, attachment uint64, load Load, sessions []Reported, ended []Ended) (Effects, error) {
	var e Effects
	s, err := c.linked(id, attachment)
	if err != nil {
		return e, err
	}
	c.loaded(now, s, load)
	if sessions != nil {
		c.list(now, s, sessions, ended, &e)
		return e, nil
	}
	c.ended(s, ended, nil, &e)
	c.judge(now, s, &e)
	return e, nil
}

// Detach closes a link. It is without effect if the link is no longer the
// server's. lost are the sessions that are unknown from now on, cancelled the
// reservations that nobody can claim any more.
func (c *Cluster) Detach(now time.Time, id, attachment uint64) (lost []Session, cancelled []Reservation, closed bool) {
	s, err := c.linked(id, attachment)
	if err != nil {
		return nil, nil, false
	}
	s.Attachment, s.Since = 0, now
	c.voidClaims(id)
	for _, x := range c.strangersOn(id) {
		delete(c.strangers, at{id, x.ID})
	}
	for _, x := range s.byUser() {
		x.Reported, x.LostSince = false, now
		lost = append(lost, *x)
	}
	cancelled = c.cancelWhere(func(r *Reservation) bool { return r.Server == id })
	c.refit(s)
	return lost, cancelled, true
}

// linked returns the server if the attachment is its live link.
func (c *Cluster) linked(id, attachment uint64) (*Server, error) {
	s := c.servers[id]
	switch {
	case s == nil:
		return nil, ErrUnknownServer
	case s.Attachment == 0 || s.Attachment != attachment:
		return nil, ErrStaleLink
	}
	return s, nil
}

// list takes in all sessions of a satellite, and those that have ended. One
// that is in both runs: nothing is released on a doubtful word.
func (c *Cluster) list(now time.Time, s *Server, sessions []Reported, ended []Ended, e *Effects) {
	here := map[string]bool{}
	for _, r := range sessions {
		here[r.ID] = true
		own := s.sessions[r.ID]
		if own == nil || c.over[r.ID] {
			x := c.strangers[at{s.ID, r.ID}]
			if x == nil {
				x = &stranger{server: s.ID}
				c.strangers[at{s.ID, r.ID}] = x
			}
			x.Reported = r
			continue
		}
		from := own.State()
		own.Reported, own.Seen, own.listed, own.LostSince = true, r.Seen, s.Attachment, time.Time{}
		if !own.need.counted && r.Seen.State != Starting {
			s.usage.count(own.need)
			own.need.counted = true
		}
		if from != own.State() {
			e.Changes = append(e.Changes, Change{Session: *own, From: from})
		}
	}
	c.ended(s, ended, here, e)
	for _, x := range s.byUser() {
		if !here[x.ID] && (x.listed == s.Attachment || planted.Bug("old-list-counts")) {
			c.end(x, "vanished", "its server no longer has it", e)
		}
	}
	for _, x := range c.strangersOn(s.ID) {
		if !here[x.ID] {
			delete(c.strangers, at{s.ID, x.ID})
		}
	}
	c.refit(s)
	c.judge(now, s, e)
}

// ended takes in the ends of sessions that are not here.
func (c *Cluster) ended(s *Server, ended []Ended, here map[string]bool, e *Effects) {
	for _, x := range ended {
		if here[x.ID] {
			continue
		}
		if own := s.sessions[x.ID]; own != nil {
			c.end(own, x.How, x.Why, e)
		}
		delete(c.strangers, at{s.ID, x.ID})
	}
}

// end decides to release a session whose end is proven, once.
func (c *Cluster) end(x *Session, how, why string, e *Effects) {
	if !c.over[x.ID] {
		c.over[x.ID] = true
		e.Release = append(e.Release, Release{Session: *x, How: how, Why: why})
	}
}

// retold is after what time a satellite that still has a session which must
// not be is told again to abort it.
const retold = 10 * time.Second

// judge decides about the sessions of a satellite that are not its own by our
// books. It adopts those whose users have nothing else: the satellites are the
// truth for what runs. It aborts condemned ones, and those whose users have a
// session that surely runs. While that session is lost, or its record is being
// removed, nothing is done: unknown is not gone, and the next report asks again.
// Condemned sessions that it does not have are pardoned, once.
func (c *Cluster) judge(now time.Time, s *Server, e *Effects) {
	for id, server := range c.condemned {
		if server == s.ID && c.strangers[at{server, id}] == nil && !c.pardoning[id] {
			c.pardoning[id] = true
			e.Pardon = append(e.Pardon, id)
		}
	}
	slices.Sort(e.Pardon)
	for _, x := range c.strangersOn(s.ID) {
		n, ours := sessionNumber(x.ID)
		_, condemned := c.condemned[x.ID]
		other := c.rival(x)
		switch {
		case condemned, !ours, s.sessions[x.ID] != nil, other != nil && other.Reported && !c.over[other.ID]:
			if x.told.IsZero() || now.Sub(x.told) >= retold {
				x.told = now
				e.Abort = append(e.Abort, x.ID)
			}
		case other != nil || !c.makeWay(x.User, x.UID, e):
		default:
			delete(c.strangers, at{s.ID, x.ID})
			c.nextSession = max(c.nextSession, n+1)
			own := Session{ID: x.ID, User: x.User, UID: x.UID, Server: s.ID, Memory: min(x.Memory, s.Load.MemoryTotal),
				Epoch: c.epoch, Reported: true, Seen: x.Seen, listed: s.Attachment}
			c.add(own)
			e.Adopt = append(e.Adopt, own)
		}
	}
}

// rival returns the session that stands against the adoption of a stranger.
func (c *Cluster) rival(x *stranger) *Session {
	if own := c.byID[x.ID]; own != nil {
		return own
	}
	if own := c.sessions[x.User]; own != nil {
		return own
	}
	return c.sessions[c.byUID[x.UID]]
}

// makeWay gives up what a user, and whoever has the user's number, has
// reserved. It reports false where a claim must be settled first.
func (c *Cluster) makeWay(user string, uid uint32, e *Effects) bool {
	free := true
	for _, r := range []*Reservation{c.reservations[user], c.reservations[c.byUID[uid]]} {
		switch {
		case r == nil || c.reservations[r.User] != r:
		case r.Connecting:
			c.claims[r.User].void = true
			free = false
		default:
			e.Cancelled = append(e.Cancelled, *c.drop(r))
		}
	}
	return free
}

// strangersOn returns the strangers on a server by ID.
func (c *Cluster) strangersOn(server uint64) (out []*stranger) {
	if len(c.strangers) == 0 {
		return nil
	}
	for _, x := range sorted(c.strangers, func(a, b *stranger) int { return cmp.Compare(a.ID, b.ID) }) {
		if x.server == server {
			out = append(out, x)
		}
	}
	return out
}

// byUser returns a server's sessions in the order of their users.
func (s *Server) byUser() []*Session {
	return sorted(s.sessions, func(a, b *Session) int { return cmp.Compare(a.User, b.User) })
}

// LeaseRenewed notes that a server's lease was renewed at now: its desktops may
// run on until LeaseReplace after this.
func (c *Cluster) LeaseRenewed(now time.Time, id uint64) {
	if s := c.servers[id]; s != nil {
		s.Renewed = now
	}
}

package cluster

import (
	"errors"
	"fmt"
	"time"

	"verdecmd/master/placement"
)

// Errors about servers.
var (
	ErrUnknownServer = errors.New("unknown server")
	ErrStaleLink     = errors.New("this link has been replaced by a newer one")
	ErrDuplicate     = errors.New("another machine with the same identity is connected")
	ErrLinkUp        = errors.New("the server's link is up")
	ErrOccupied      = errors.New("the server holds sessions")
	ErrResync        = errors.New("the master has just started and the server may still come back")
)

// ServerRecord is the durable part of a server.
type ServerRecord struct {
	ID     uint64
	UUID   string
	Name   string
	State  State
	Reason string
	// Journal names the satellite's journal of its sessions; empty: not known yet.
	Journal string
}

// Enrol decides the record of a satellite that connects for the first time. The
// caller makes it durable and then calls Registered. Asked again for the same
// identity, it answers the same.
func (c *Cluster) Enrol(uuid, name string) ServerRecord {
	if s := c.byUUID[uuid]; s != nil {
		return s.Record()
	}
	r, ok := c.enrols[uuid]
	if !ok {
		r = ServerRecord{ID: c.nextServer, UUID: uuid, State: Online}
		c.nextServer++
	}
	r.Name = name
	c.enrols[uuid] = r
	return r
}

// Withdrawn takes back what Enrol has decided and nobody has made durable.
func (c *Cluster) Withdrawn(uuid string) {
	r, ok := c.enrols[uuid]
	if ok && r.ID+1 == c.nextServer {
		c.nextServer--
	}
	delete(c.enrols, uuid)
}

// Certificate is what a server proves its identity with; all zero: not known.
type Certificate struct {
	Serial      string // hexadecimal
	From, Until time.Time
}

// Certified notes that a connected server has a new certificate.
func (c *Cluster) Certified(id uint64, cert Certificate) {
	if s := c.servers[id]; s != nil {
		s.Certificate = cert
	}
}

// Registered takes over the durable part of a server, new or changed.
func (c *Cluster) Registered(now time.Time, r ServerRecord) {
	delete(c.enrols, r.UUID)
	s := c.servers[r.ID]
	if s == nil {
		s = &Server{ID: r.ID, UUID: r.UUID, Since: now, sessions: map[string]*Session{}}
		s.slot = c.slots.Add(placement.Server{ID: r.ID})
		c.servers[r.ID] = s
		c.nextServer = max(c.nextServer, r.ID+1)
	}
	if c.byUUID[s.UUID] == s {
		delete(c.byUUID, s.UUID)
	}
	if s.UUID != r.UUID { // another machine, which has shown nothing and was not checked
		s.Certificate, s.Hard = Certificate{}, nil
	}
	c.byUUID[r.UUID] = s
	s.UUID, s.Name, s.State, s.Reason, s.Journal = r.UUID, r.Name, r.State, r.Reason, r.Journal
	c.refit(s)
}

// Record returns the durable part of a server.
func (s *Server) Record() ServerRecord {
	return ServerRecord{ID: s.ID, UUID: s.UUID, Name: s.Name, State: s.State, Reason: s.Reason, Journal: s.Journal}
}

// Checked takes over which checks of a server's host keep desktops away, in
// words; none: it is fit. They count until they are told anew, also while its
// link is down, but only for the machine with this identity.
func (c *Cluster) Checked(id uint64, uuid string, hard []string) {
	if s := c.servers[id]; s != nil && s.UUID == uuid {
		s.Hard = hard
		c.refit(s)
	}
}

// StateSet takes over a server's new state after it was made durable. The
// reservations on a server that takes no logins are cancelled and returned, and
// claims of them that are not durable yet will not become sessions.
func (c *Cluster) StateSet(now time.Time, r ServerRecord) []Reservation {
	c.Registered(now, r)
	if r.State == Online {
		return nil
	}
	c.voidClaims(r.ID)
	return c.cancelWhere(func(res *Reservation) bool { return res.Server == r.ID })
}

// Forget takes a server out that is gone; its number is never given again. The
// caller makes that durable afterwards, and calls Registered with the record if
// that went wrong. Errors are ErrUnknownServer, ErrLinkUp, ErrOccupied and, for
// a server that the master has not heard of for Resync since its start,
// ErrResync.
//
// What is condemned on it stays so: the machine may come back as another server.
func (c *Cluster) Forget(now time.Time, id uint64) (ServerRecord, error) {
	s := c.servers[id]
	switch {
	case s == nil:
		return ServerRecord{}, ErrUnknownServer
	case s.Attachment != 0:
		return ServerRecord{}, fmt.Errorf("server %d (%s) is connected: %w", s.ID, s.Name, ErrLinkUp)
	case s.usage.held > 0:
		return ServerRecord{}, fmt.Errorf("server %d (%s) has %d sessions and reservations: %w", s.ID, s.Name, s.usage.held, ErrOccupied)
	case c.Awaited(now, id) > 0:
		return ServerRecord{}, fmt.Errorf("server %d (%s): %w", s.ID, s.Name, ErrResync)
	}
	delete(c.servers, id)
	delete(c.byUUID, s.UUID)
	last := c.slots.Len() - 1
	c.slots.Remove(s.slot)
	for _, other := range c.servers {
		if other.slot == last {
			other.slot = s.slot
		}
	}
	return s.Record(), nil
}

// Awaited is how long the master, which has just started, still gives a server
// to come back before it believes that it is away; 0: it does not wait.
func (c *Cluster) Awaited(now time.Time, id uint64) time.Duration {
	s := c.servers[id]
	if s == nil || s.Attachment != 0 || !s.Reported.IsZero() {
		return 0
	}
	return max(0, c.limits.Resync-now.Sub(c.start))
}

package cluster

import (
	"errors"
	"time"

	"verdecmd/master/placement"
)

// Errors about servers.
var (
	ErrUnknownServer = errors.New("unknown server")
	ErrStaleLink     = errors.New("this link has been replaced by a newer one")
	ErrDuplicate     = errors.New("another machine with the same identity is connected")
	ErrLinkUp        = errors.New("the server's link is up")
)

// ServerRecord is the durable part of a server.
type ServerRecord struct {
	ID     uint64
	UUID   string
	Name   string
	State  State
	Reason string
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
	c.byUUID[r.UUID] = s
	s.UUID, s.Name, s.State, s.Reason = r.UUID, r.Name, r.State, r.Reason
	c.refit(s)
}

// Record returns the durable part of a server.
func (s *Server) Record() ServerRecord {
	return ServerRecord{ID: s.ID, UUID: s.UUID, Name: s.Name, State: s.State, Reason: s.Reason}
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

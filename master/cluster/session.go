package cluster

import (
	"fmt"
	"time"

	"verdecmd/proto/planted"
)

// BeginClaim consumes the reservation of a user on the server that asks: the
// only way to a session. The caller makes the claim durable and then calls
// Claimed, or Unclaimed if that went wrong.
func (c *Cluster) BeginClaim(now time.Time, server, attachment uint64, user string, uid uint32) (*Claim, error) {
	s, err := c.linked(server, attachment)
	if err != nil {
		return nil, err
	}
	if err := c.sameUser(user, uid); err != nil {
		return nil, err
	}
	r := c.reservations[user]
	switch {
	case c.sessions[user] != nil:
		return nil, fmt.Errorf("%s has session %s on server %d: %w", user, c.sessions[user].ID, c.sessions[user].Server, ErrNoReservation)
	case r == nil:
		return nil, fmt.Errorf("for %s on server %d (%s): %w; log in again", user, s.ID, s.Name, ErrNoReservation)
	case r.Server != server:
		return nil, fmt.Errorf("for %s on server %d (%s): %w; the place of %s is on server %d", user, s.ID, s.Name, ErrNoReservation, user, r.Server)
	case r.Connecting && !planted.Bug("claimed-twice"):
		return nil, fmt.Errorf("%s for %s: %w", r.ID, user, ErrClaimed)
	case now.After(r.Expires) && !planted.Bug("late-expiry"):
		return nil, fmt.Errorf("%s for %s expired %v ago: %w; log in again", r.ID, user, now.Sub(r.Expires).Round(time.Millisecond), ErrNoReservation)
	case s.State != Online:
		return nil, fmt.Errorf("server %d (%s) is %s: %w; log in again", s.ID, s.Name, s.State, ErrNoReservation)
	}
	if err := c.unsettled(user, uid); err != nil {
		return nil, err
	}
	r.Connecting = true
	claim := &Claim{
		Session:    Session{ID: sessionID(c.nextSession), User: user, UID: uid, Server: server, Memory: r.Need.Memory, Epoch: c.epoch, Reported: true},
		Attachment: attachment, Number: c.nextSession, reservation: r.ID,
	}
	if c.nextSession > c.highWater && !planted.Bug("number-twice") {
		claim.HighWater = (c.nextSession/idBlock + 1) * idBlock
	}
	c.nextSession++
	c.claims[user] = claim
	return claim, nil
}

// Claimed turns a claim that is durable into a session. It reports false if the
// link on which it was asked has ended meanwhile, or the server has been taken
// offline: then there is no session, and the caller removes the record before
// it does anything else.
func (c *Cluster) Claimed(now time.Time, claim *Claim) bool {
	c.highWater = max(c.highWater, claim.HighWater)
	user := claim.Session.User
	if c.claims[user] != claim {
		return c.byID[claim.Session.ID] != nil
	}
	if claim.void {
		c.Unclaimed(claim)
		return false
	}
	x, r := claim.Session, c.reservations[user]
	x.Seen.State, x.Seen.Started, x.need = Starting, now, r.needs()
	delete(c.claims, user)
	delete(c.reservations, user)
	c.answered(r)
	s := c.servers[x.Server]
	s.usage.reserved--
	c.sessions[user], c.byID[x.ID], s.sessions[x.ID] = &x, &x, &x
	return true
}

// Void gives up a claim that is not durable yet and whose satellite has been
// told that it came to nothing: Claimed then makes no session of it.
func (c *Cluster) Void(claim *Claim) { claim.void = true }

// Unclaimed gives up a claim, and its reservation with it.
func (c *Cluster) Unclaimed(claim *Claim) {
	user := claim.Session.User
	if c.claims[user] != claim {
		return
	}
	delete(c.claims, user)
	c.drop(c.reservations[user])
}

// voidClaims gives up the claims on a server that are not durable yet: their
// link has ended, or the server takes no logins any more.
func (c *Cluster) voidClaims(server uint64) {
	if planted.Bug("claim-not-voided") {
		return
	}
	for _, claim := range c.claims {
		if claim.Session.Server == server {
			claim.void = true
		}
	}
}

// Owned takes over a session's record at the start of the master; its server
// must have been Registered. Until its satellite reports it, it is lost, never
// gone.
func (c *Cluster) Owned(now time.Time, x Session) {
	x.Reported, x.LostSince, x.listed = false, now, 0
	c.add(x)
	if n, ok := sessionNumber(x.ID); ok {
		c.nextSession = max(c.nextSession, n+1)
	}
}

// Adopted notes that a session which a satellite reported and nobody knew has
// been made durable. It reports false if that session has ended meanwhile: then
// the caller removes the record again.
func (c *Cluster) Adopted(x Session) bool { return c.byID[x.ID] != nil }

// add enters a session that needed no reservation.
func (c *Cluster) add(x Session) {
	if c.sessions[x.User] != nil {
		return
	}
	x.need = need{memory: x.Memory, counted: true}
	s := c.servers[x.Server]
	c.sessions[x.User], c.byID[x.ID], s.sessions[x.ID], c.byUID[x.UID] = &x, &x, &x, x.User
	s.usage.add(x.need)
	c.refit(s)
}

// Released takes a session away whose record has been removed. Repeated, or for
// a session that is not there, it does nothing. abort tells that its server has
// come back meanwhile and is to be told to end it.
func (c *Cluster) Released(r Release) (abort bool) {
	if r.Condemn {
		c.condemned[r.Session.ID] = r.Session.Server
		s := c.servers[r.Session.Server]
		abort = s != nil && s.Attachment != 0
	}
	x := c.byID[r.Session.ID]
	if x == nil {
		return abort
	}
	s := c.servers[x.Server]
	if abort && x.Reported && !c.over[x.ID] {
		// It runs, against what was affirmed: its user waits until it has ended.
		c.strangers[at{s.ID, x.ID}] = &stranger{server: s.ID, Reported: Reported{ID: x.ID, User: x.User, UID: x.UID, Memory: x.Memory, Seen: x.Seen}}
	}
	delete(c.over, x.ID)
	delete(c.byID, x.ID)
	delete(c.sessions, x.User)
	delete(s.sessions, x.ID)
	c.freeUID(x.UID)
	s.usage.remove(x.need)
	c.refit(s)
	return abort
}

// Kept takes the decision about a Release back that is not carried out since
// its server is connected: what that one tells next decides.
func (c *Cluster) Kept(r Release) {
	if x := c.byID[r.Session.ID]; x != nil {
		delete(c.over, x.ID)
		delete(c.strangers, at{x.Server, x.ID})
	}
}

// CondemnedRestored takes over what Released had noted before a restart.
func (c *Cluster) CondemnedRestored(session string, server uint64) { c.condemned[session] = server }

// Pardoned forgets a condemned session that is proven to be gone.
func (c *Cluster) Pardoned(session string) {
	delete(c.condemned, session)
	delete(c.pardoning, session)
}

// Force decides to drop the record of a lost session: an administrator affirms
// that it does not run any more.
func (c *Cluster) Force(user string) (Release, error) {
	x := c.sessions[user]
	if x == nil {
		return Release{}, fmt.Errorf("%s has no session", user)
	}
	if s := c.servers[x.Server]; s.Attachment != 0 {
		return Release{}, fmt.Errorf("server %d (%s), where %s has session %s: %w", s.ID, s.Name, user, x.ID, ErrLinkUp)
	}
	return Release{Session: *x, How: "forced", Why: "an administrator dropped the record", Condemn: true}, nil
}

// Fence decides to release all lost sessions of a server that an administrator
// affirms to be powered off.
func (c *Cluster) Fence(id uint64) ([]Release, error) {
	s := c.servers[id]
	if s == nil {
		return nil, ErrUnknownServer
	}
	if s.Attachment != 0 {
		return nil, fmt.Errorf("server %d (%s): %w", s.ID, s.Name, ErrLinkUp)
	}
	var out []Release
	for _, x := range s.byUser() {
		out = append(out, Release{Session: *x, How: "fenced", Why: "an administrator affirmed that the server is powered off", Condemn: true})
	}
	return out, nil
}

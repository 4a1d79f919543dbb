package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"verdecmd/master/placement"
	"verdecmd/proto/planted"
)

// Login is somebody who wants a desktop.
type Login struct {
	User   string
	UID    uint32
	Need   placement.Need
	Client string
	From   uint64 // the server that asks; 0: none
}

// Referral is where a login is to go.
type Referral struct {
	Server      *Server
	Session     *Session     // it runs there already
	Reservation *Reservation // else: the place held there
	Made        bool         // the reservation is new
	Cancelled   *Reservation // an older one that could no longer be used; also beside an error
}

// Refer finds the place of a login: the session that there is, else the
// reservation that there is, else the least loaded server, on which a place is
// reserved at once. Nothing of this touches a disk.
func (c *Cluster) Refer(now time.Time, l Login) (Referral, error) {
	if err := c.sameUser(l.User, l.UID); err != nil {
		return Referral{}, err
	}
	if x := c.sessions[l.User]; x != nil {
		switch {
		case c.over[x.ID]:
			return Referral{}, fmt.Errorf("session %s of %s has ended and its record is being removed; %w", x.ID, l.User, ErrSettling)
		case !x.Reported:
			return Referral{}, c.lost(now, x)
		}
		return Referral{Server: c.servers[x.Server], Session: x}, nil
	}
	if err := c.unsettled(l.User, l.UID); err != nil {
		return Referral{}, err
	}
	var out Referral
	if r := c.reservations[l.User]; r != nil {
		switch {
		case r.Connecting && c.claims[l.User].void:
			return Referral{}, fmt.Errorf("server %d, where %s has just tried to log in, takes no logins any more; %w", r.Server, l.User, ErrSettling)
		case r.Connecting, !now.After(r.Expires) && c.usable(now, r):
			return Referral{Server: c.servers[r.Server], Reservation: r}, nil
		}
		out.Cancelled = c.drop(r)
	}
	i := c.slots.Choose(now.Sub(c.start), &l.Need)
	if i < 0 {
		return out, c.refused(now, l)
	}
	if err := c.greedy(l, c.slots.Server(i).ID); err != nil {
		return out, err
	}
	s := c.servers[c.slots.Server(i).ID]
	c.nextReservation++
	r := &Reservation{
		ID: "r" + strconv.FormatUint(c.nextReservation, 10), User: l.User, UID: l.UID, Server: s.ID, Need: l.Need,
		Made: now, Expires: now.Add(c.limits.ReservationTimeout), Client: l.Client, From: l.From,
	}
	c.ask(r)
	c.reservations[l.User], c.byUID[l.UID] = r, l.User
	s.usage.reserved++
	s.usage.add(r.needs())
	if !planted.Bug("reservation-not-charged") {
		c.refit(s)
	}
	out.Server, out.Reservation, out.Made = s, r, true
	return out, nil
}

// usable tells whether the server of a reservation still takes it.
func (c *Cluster) usable(now time.Time, r *Reservation) bool {
	s := c.servers[r.Server]
	b := c.blocked(s)
	return (b == placement.Eligible || b == placement.Full) && now.Sub(s.Reported) <= c.patience(s)
}

// sameUser refuses a login whose name and number do not belong together as
// they do in the user's session or reservation.
func (c *Cluster) sameUser(user string, uid uint32) error {
	if u, ok := c.byUID[uid]; ok && u != user {
		return fmt.Errorf("%w: UID %d is %s in the cluster and %s here; make the accounts the same on all servers", ErrUIDDiffers, uid, u, user)
	}
	known := uid
	if x := c.sessions[user]; x != nil {
		known = x.UID
	} else if r := c.reservations[user]; r != nil {
		known = r.UID
	}
	if known != uid {
		return fmt.Errorf("%w: %s has UID %d in the cluster and %d here; make the accounts the same on all servers", ErrUIDDiffers, user, known, uid)
	}
	return nil
}

// unsettled refuses a login while a server runs something for this user that
// is to be adopted or ended first.
func (c *Cluster) unsettled(user string, uid uint32) error {
	for _, x := range c.strangers { // nearly always empty; which one is told does not matter
		if x.User == user || x.UID == uid {
			return fmt.Errorf("server %d runs a session of %s that the master does not own; it is ended or adopted first; %w", x.server, user, ErrSettling)
		}
	}
	return nil
}

// CancelReservation gives up a reservation by its ID, or all for "all". One
// that is being claimed stays.
func (c *Cluster) CancelReservation(id string) []Reservation {
	return c.cancelWhere(func(r *Reservation) bool { return id == "all" || r.ID == id })
}

// cancelWhere gives up the reservations that match, but for those that are
// being claimed, and returns them by user.
func (c *Cluster) cancelWhere(match func(*Reservation) bool) []Reservation {
	var out []Reservation
	for _, r := range c.reservations {
		if !r.Connecting && match(r) {
			out = append(out, *c.drop(r))
		}
	}
	slices.SortFunc(out, func(a, b Reservation) int { return cmp.Compare(a.User, b.User) })
	return out
}

// Expire ends what has lasted too long at now: reservations that nobody
// claimed, and under Lease the sessions of servers that are silent for so long
// that they have surely stopped their desktops.
func (c *Cluster) Expire(now time.Time) (gone []Reservation, e Effects) {
	late := time.Duration(0)
	if planted.Bug("late-expiry") {
		late = c.limits.Interval
	}
	gone = c.cancelWhere(func(r *Reservation) bool { return now.After(r.Expires.Add(late)) })
	if c.limits.Lost != Lease && !planted.Bug("silent-is-gone") {
		return gone, e
	}
	for _, s := range c.Servers() {
		if s.Attachment != 0 {
			continue // four times a second it must not cost what all sessions cost
		}
		for _, x := range s.byUser() {
			if t, ok := c.released(x); ok && !now.Before(t) && !c.over[x.ID] {
				c.over[x.ID] = true
				e.Release = append(e.Release, Release{Session: *x, How: "lease", Condemn: true,
					Why: fmt.Sprintf("server %d was silent for %d s, its lease is over", x.Server, seconds(now.Sub(t)+c.limits.LeaseReplace))})
			}
		}
	}
	return gone, e
}

// released returns when a session of a silent server counts as ended; ok is
// false where only a word of the server or of an administrator ends it.
func (c *Cluster) released(x *Session) (t time.Time, ok bool) {
	s := c.servers[x.Server]
	l := &c.limits
	if planted.Bug("silent-is-gone") && !x.Reported && s.Attachment == 0 {
		return x.LostSince.Add(l.Resync), true
	}
	if l.Lost != Lease || l.LeaseReplace <= 0 || x.Reported || s.Attachment != 0 {
		return t, false
	}
	// Only a satellite that was told of the lease stops by itself.
	if !s.leased && (!s.Reported.IsZero() || l.LeaseSince == 0 || x.Epoch < l.LeaseSince) {
		return t, false
	}
	// An earlier master may have renewed up to the moment at which this started.
	for _, t2 := range []time.Time{c.start, s.Renewed, s.Since, x.LostSince} {
		if t2.After(t) {
			t = t2
		}
	}
	if planted.Bug("short-lease") {
		return t.Add(l.LeaseReplace / 2), true
	}
	return t.Add(l.LeaseReplace), true
}

// drop removes a reservation and gives its capacity back.
func (c *Cluster) drop(r *Reservation) *Reservation {
	delete(c.reservations, r.User)
	c.answered(r)
	c.freeUID(r.UID)
	s := c.servers[r.Server]
	s.usage.reserved--
	s.usage.remove(r.needs())
	if planted.Bug("double-return") {
		s.usage.remove(r.needs())
	}
	c.refit(s)
	return r
}

// freeUID forgets whose a number is when nothing of that user has it.
func (c *Cluster) freeUID(uid uint32) {
	user := c.byUID[uid]
	x, r := c.sessions[user], c.reservations[user]
	if (x == nil || x.UID != uid) && (r == nil || r.UID != uid) {
		delete(c.byUID, uid)
	}
}

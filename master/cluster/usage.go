package cluster

import (
	"errors"
	"fmt"
	"maps"

	"verdecmd/master/placement"
)

// usage is what the sessions and reservations of a server take.
type usage struct {
	held, reserved int    // sessions and reservations; of them reservations
	fresh          int    // of held: not yet in a load report
	charged        uint64 // bytes of memory promised
	pending        uint64 // of charged: not yet in a load report
	snap           uint64 // bytes in the snap directory that are not yet in a load report
}

// need is what one session or reservation takes.
type need struct {
	memory, snap uint64
	counted      bool // it shows in the satellite's load reports
}

func (u *usage) add(n need) {
	u.held++
	u.charged += n.memory + placement.Overhead
	if !n.counted {
		u.fresh++
		u.pending += n.memory + placement.Overhead
		u.snap += n.snap
	}
}

func (u *usage) remove(n need) {
	if !n.counted {
		u.count(n)
	}
	u.held--
	u.charged -= n.memory + placement.Overhead
}

// count notes that what was added shows in the server's load reports now.
func (u *usage) count(n need) {
	u.fresh--
	u.pending -= n.memory + placement.Overhead
	u.snap -= n.snap
}

func (r *Reservation) needs() need { return need{memory: r.Need.Memory, snap: r.Need.Snap} }

// refit works out anew what placement sees of a server.
func (c *Cluster) refit(s *Server) { c.slots.Set(s.slot, c.slot(s)) }

func (c *Cluster) slot(s *Server) placement.Server {
	out := placement.Server{
		ID: s.ID, Blocked: c.blocked(s), FreshUntil: -1,
		Memory: s.Load.MemoryTotal, Charged: s.usage.charged, Free: less(s.Load.MemoryFree, s.usage.pending),
		SnapFree: less(s.Load.SnapFree, s.Facts.SnapReserve, s.usage.snap),
		CPU:      placement.CPUShare(s.Load.CPUBusy, s.usage.fresh, s.Facts.CPUs),
		Features: s.Facts.Features,
	}
	if !s.Reported.IsZero() {
		out.FreshUntil = s.Reported.Sub(c.start) + c.patience(s)
	}
	if s.Facts.MaxSessions > 0 {
		out.Share = float64(s.usage.held) / float64(s.Facts.MaxSessions)
	}
	return out
}

// blocked is the first thing that keeps every session away from a server.
func (c *Cluster) blocked(s *Server) placement.Reason {
	switch {
	case s.State == Draining:
		return placement.Draining
	case s.State != Online:
		return placement.Offline
	case s.Attachment == 0:
		return placement.Down
	case s.Mismatch != "" || s.Suspect != "" || len(s.Facts.Problems) > 0 || len(s.Hard) > 0 || !s.Twin.IsZero():
		return placement.Unfit
	case s.Facts.MaxSessions > 0 && s.usage.held >= s.Facts.MaxSessions:
		return placement.Full
	}
	return placement.Eligible
}

// less subtracts down to 0.
func less(a uint64, all ...uint64) uint64 {
	for _, b := range all {
		a -= min(a, b)
	}
	return a
}

// Check compares what the cluster keeps for speed with what it follows from,
// and returns the first difference. It is for tests and costs a walk over
// everything.
func (c *Cluster) Check() error {
	want := map[uint64]*usage{}
	uids := map[uint32]string{}
	for id := range c.servers {
		want[id] = &usage{}
	}
	hold := func(what string, server uint64, uid uint32, user string, n need) error {
		u := want[server]
		if u == nil {
			return fmt.Errorf("%s is on server %d, which does not exist", what, server)
		}
		if other, ok := uids[uid]; ok && other != user {
			return fmt.Errorf("UID %d belongs to %s and %s", uid, user, other)
		}
		uids[uid] = user
		u.add(n)
		return nil
	}
	for user, x := range c.sessions {
		if x.User != user || c.byID[x.ID] != x || c.servers[x.Server] == nil || c.servers[x.Server].sessions[x.ID] != x {
			return fmt.Errorf("session %s of %s is not found by its user, ID and server", x.ID, x.User)
		}
		if err := hold("session "+x.ID, x.Server, x.UID, user, x.need); err != nil {
			return err
		}
		if x.Reported && c.servers[x.Server].Attachment == 0 {
			return fmt.Errorf("session %s is reported by server %d, whose link is down", x.ID, x.Server)
		}
	}
	for user, r := range c.reservations {
		if err := hold("reservation "+r.ID, r.Server, r.UID, user, r.needs()); err != nil {
			return err
		}
		want[r.Server].reserved++
		claim := c.claims[user]
		if r.User != user || r.Connecting != (claim != nil) || claim != nil && claim.reservation != r.ID {
			return fmt.Errorf("reservation %s of %s and its claim do not agree", r.ID, user)
		}
		if c.sessions[user] != nil {
			return fmt.Errorf("%s has both session %s and reservation %s", user, c.sessions[user].ID, r.ID)
		}
	}
	asks := map[uint64]asked{}
	for _, r := range c.reservations {
		if r.From != 0 && r.From != r.Server {
			a := asks[r.From]
			asks[r.From] = asked{a.places + 1, a.memory + r.cost()}
		}
	}
	if !maps.Equal(asks, c.asked) {
		return fmt.Errorf("servers have asked for %v, from reservations follows %v", c.asked, asks)
	}
	for id := range c.over {
		if c.byID[id] == nil {
			return fmt.Errorf("session %s is over and unknown", id)
		}
	}
	listed := 0
	for id, s := range c.servers {
		listed += len(s.sessions)
		if s.usage != *want[id] {
			return fmt.Errorf("server %d: counted %+v, the sum is %+v", id, s.usage, *want[id])
		}
		if c.byUUID[s.UUID] != s {
			return fmt.Errorf("server %d is not found by its identity %s", id, s.UUID)
		}
		if got, want := c.slots.Server(s.slot), c.slot(s); fmt.Sprint(*got) != fmt.Sprint(want) {
			return fmt.Errorf("server %d: placement sees %+v, it is %+v", id, *got, want)
		}
	}
	switch {
	case len(c.byID) != len(c.sessions) || listed != len(c.sessions):
		return errors.New("a session is found by its ID or server only")
	case len(c.claims) > len(c.reservations):
		return errors.New("a claim has no reservation")
	case len(c.byUUID) != len(c.servers) || c.slots.Len() != len(c.servers):
		return errors.New("there is an index entry without its server")
	case !maps.Equal(c.byUID, uids):
		return fmt.Errorf("UIDs are %v, from sessions and reservations follows %v", c.byUID, uids)
	}
	return nil
}

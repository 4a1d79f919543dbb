package session

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	"verdecmd/monitor"
)

// Users returns all sessions by login name.
func (m *Manager) Users() []monitor.Session {
	var out []monitor.Session
	m.cfg.State(func(c *cluster.Cluster) {
		n, _ := c.Total()
		out = make([]monitor.Session, 0, n)
		c.EachSession(func(x *cluster.Session) { out = append(out, row(x)) })
	})
	// Sorted here: reports would wait for it there.
	slices.SortFunc(out, func(a, b monitor.Session) int { return strings.Compare(a.User, b.User) })
	return out
}

func row(x *cluster.Session) monitor.Session {
	return monitor.Session{
		User: x.User, UID: x.UID, Server: x.Server, Desktop: x.Seen.Desktop, Image: x.Seen.Image,
		State: x.State(), Started: x.Seen.Started, Client: x.Seen.Client, ID: x.ID,
	}
}

// User describes the session of a user; known is false where there is none.
func (m *Manager) User(user string) (d monitor.UserDetail, known bool) {
	now := m.cfg.Now()
	m.cfg.State(func(c *cluster.Cluster) {
		x := c.Session(user)
		if x == nil {
			return
		}
		known = true
		s := c.Server(x.Server)
		d = monitor.UserDetail{
			Session: row(x), ServerName: s.Name, Current: x.Seen.Current, Display: x.Seen.Display,
			Memory: x.Memory, CPU: x.Seen.CPU, PID: x.Seen.PID, Why: x.Seen.Why, Serial: x.Seen.Serial,
		}
		switch x.State() {
		case cluster.Lost:
			d.Why = fmt.Sprintf("server %d (%s) has not told about it since %s, %d s ago; the desktop may still run there and is shown again when the server is back. "+
				"If that host is powered off: \"fenceserver %d\", or \"abortuser %s force\"",
				s.ID, s.Name, clock(x.LostSince), int64(now.Sub(x.LostSince)/time.Second), s.ID, user)
		case cluster.Hung:
			d.Why = fmt.Sprintf("%s; \"abortuser %s\" ends it", x.Seen.Why, user)
		case cluster.Failed:
			d.Why = fmt.Sprintf("%s; \"abortuser %s\" clears it away", x.Seen.Why, user)
		}
	})
	if known {
		for _, j := range m.cfg.Jobs.List(false) {
			if j.Object == user {
				d.Job = j.ID
			}
		}
	}
	d.Last = m.Last(user)
	return d, known
}

// Reservations returns all, oldest first.
func (m *Manager) Reservations() []monitor.Reservation {
	var out []monitor.Reservation
	now := m.cfg.Now()
	m.cfg.State(func(c *cluster.Cluster) {
		for _, r := range c.Reservations() {
			state := "waiting"
			if r.Connecting {
				state = "connecting"
			}
			out = append(out, monitor.Reservation{ID: r.ID, User: r.User, UID: r.UID, Server: r.Server, State: state,
				Made: r.Made, Expires: r.Expires, Remaining: max(0, r.Expires.Sub(now)), Client: r.Client})
		}
	})
	return out
}

// CancelReservation gives up one reservation, or all for "all".
func (m *Manager) CancelReservation(_ context.Context, id string) int {
	var gone []cluster.Reservation
	m.cfg.State(func(c *cluster.Cluster) { gone = c.CancelReservation(id) })
	m.Cancelled(gone)
	return len(gone)
}

// Cancelled announces reservations that were given up.
func (m *Manager) Cancelled(gone []cluster.Reservation) {
	for _, r := range gone {
		m.cfg.Log.Info().Str("user", r.User).Uint64("server", r.Server).Str("reservation", r.ID).Msg("reservation cancelled")
		m.cfg.Event("reservation.cancelled", fmt.Sprintf("The reservation of %s on server %d is cancelled.", r.User, r.Server), reservationPairs(r)...)
	}
}

// Need is what the next session of a user is likely to take: what the user's
// last login asked for, else what anybody's did.
func (m *Manager) Need(user string) placement.Need {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.needs[user]; ok {
		return n
	}
	return m.need
}

// needed notes what a login asks for.
func (m *Manager) needed(user string, n placement.Need) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.need = n
	bounded(m.needs, user, n)
}

// bounded sets a key of a map that holds at most maxLast others.
func bounded[V any](in map[string]V, key string, v V) {
	if len(in) >= maxLast {
		for k := range in {
			delete(in, k)
			break
		}
	}
	in[key] = v
}

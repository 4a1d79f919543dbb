package sim

import (
	"context"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/session"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// administer carries out what an administrator does. An operation that was
// answered counts as acknowledged; one whose master died did not.
func (w *world) administer(s *step) {
	m := w.master()
	if m == nil {
		return
	}
	ctx := context.Background()
	switch s.kind {
	case "offline", "online", "drain":
		c := w.computers[s.on]
		id := c.server(m)
		if id == 0 {
			return
		}
		state := map[string]cluster.State{"offline": cluster.Offline, "online": cluster.Online, "drain": cluster.Draining}[s.kind]
		if s.kind == "drain" {
			w.drain(m, c, s)
		} else {
			w.setState(m, id, state, s.id)
		}
		if state != cluster.Online { // it is put online again
			w.queue.push(min(w.time+s.dice.between(5*time.Second, time.Minute), active), func() {
				if m := w.master(); m != nil {
					w.setState(m, id, cluster.Online, s.id+100000)
				}
			})
		}
	case "cancel":
		if m.session.CancelReservation(ctx, m.reservation(w.users[s.on].name)) > 0 {
			w.count("admin")
		}
	case "settings":
		w.interval = pick[time.Duration](&s.dice, 1, 2, 3, 5) * time.Second
		w.reservation = pick[time.Duration](&s.dice, 5, 20, 60) * time.Second
		w.note("settings", w.interval, w.reservation)
		m.setTimes()
		w.count("admin")
	case "fence":
		c := w.computers[s.on]
		if dead := w.dead(); len(dead) > 0 {
			c = pick(&s.dice, dead...)
		}
		w.fence(m, c)
	case "forget":
		c := w.computers[s.on]
		if dead := w.dead(); len(dead) > 0 && s.dice.chance(80) {
			c = pick(&s.dice, dead...)
			w.fence(m, c)
		}
		w.queue.push(w.time+s.dice.between(0, 2*time.Second), func() { w.forget(m, c) })
	case "force":
		w.force(m, s)
	case "logoff", "shutdown", "abort":
		how := map[string]monitor.How{"logoff": monitor.Logoff, "shutdown": monitor.Shutdown, "abort": monitor.Abort}[s.kind]
		u := w.users[s.on]
		if x := w.any(m, u.name, &s.dice); x != nil {
			w.end(x.User, x.ID, x.Server, how, s.dice.between(time.Second, 40*time.Second).Round(time.Second))
		}
	}
}

// any returns the user's session, or most times another one: administrators
// look before they end something.
func (w *world) any(m *master, user string, d *dice) *cluster.Session {
	if x := m.cluster.Session(user); x != nil {
		return x
	}
	if all := m.cluster.Sessions(); len(all) > 0 && d.chance(90) {
		return all[d.below(len(all))]
	}
	return nil
}

// dead are the hosts that are off.
func (w *world) dead() (out []*computer) {
	for _, c := range w.computers {
		if !c.powered {
			out = append(out, c)
		}
	}
	return out
}

// server is the number that a master has for a computer; 0: none.
func (c *computer) server(m *master) uint64 {
	if s := m.cluster.ServerByUUID(c.uuid); s != nil {
		return s.ID
	}
	return 0
}

func (m *master) reservation(user string) string {
	if r := m.cluster.Reservation(user); r != nil {
		return r.ID
	}
	if all := m.cluster.Reservations(); len(all) > 0 {
		return all[0].ID
	}
	return "r0"
}

// setState puts a server on- or offline. The reason names the operation, so
// that a mixture of two would show (S5).
func (w *world) setState(m *master, id uint64, state cluster.State, op int) {
	w.change(m, id, state, op, nil)
}

// change is setState; then, if not nil, follows when it was acknowledged.
func (w *world) change(m *master, id uint64, state cluster.State, op int, then func()) {
	reason := fmt.Sprintf("op%d", op)
	m.begin(func() {
		x := w.asks(id, state, reason)
		changed, _, err := m.host.SetState(context.Background(), id, state, reason)
		w.note("admin", m.id, string(state), id, err)
		w.refusal(err)
		if err == nil {
			w.acknowledged(m, x, changed)
			if then != nil {
				then()
			}
		}
	})
}

// fence affirms that a host is off: only when it is.
func (w *world) fence(m *master, c *computer) {
	id := c.server(m)
	if id == 0 || c.powered && !m.up(id) {
		return // a false affirmation is not counted
	}
	m.begin(func() {
		var all []string
		for _, x := range m.cluster.Sessions() {
			if x.Server == id {
				all = append(all, x.ID)
			}
		}
		n, err := m.session.Fence(context.Background(), id)
		w.note("admin", m.id, "fence", id, n, err)
		w.refusal(err)
		if err == nil {
			w.released(all)
			w.faultHit("true fence")
			if n > 0 {
				w.count("admin")
			}
		}
	})
}

// up tells whether a server's link is up by the master's books.
func (m *master) up(id uint64) bool {
	s := m.cluster.Server(id)
	return s != nil && s.Attachment != 0
}

// force drops the record of a session on a host that is off.
func (w *world) force(m *master, s *step) {
	user := w.users[s.on].name
	for _, x := range m.cluster.Sessions() {
		if c := w.hostOf[x.Server]; c != nil && !c.powered {
			user = x.User
			break
		}
	}
	x := m.cluster.Session(user)
	if x != nil {
		if c := w.hostOf[x.Server]; c == nil || c.powered && !m.up(x.Server) {
			return
		}
	}
	m.begin(func() {
		rel, stored, err := m.session.Force(context.Background(), user)
		w.note("admin", m.id, "force", user, err)
		w.refusal(err)
		if err == nil && stored {
			w.released([]string{rel.Session.ID})
			w.count("admin")
			w.faultHit("true force")
		}
	})
}

// forget takes a server out of the books.
func (w *world) forget(m *master, c *computer) {
	if m.dead || m.frozen > 0 {
		return
	}
	id := c.server(m)
	if id == 0 {
		return
	}
	m.begin(func() {
		w.forgetting(id)
		err := m.host.Forget(context.Background(), id)
		if err == nil {
			m.hub.Forget(id)
		}
		w.note("admin", m.id, "forget", id, err)
		w.refusal(err)
		if err == nil {
			w.forgot(id)
			w.count("admin")
		}
	})
}

// end is the job of an administrator's order, which a master that is started
// anew goes on with: it is told again until the satellite confirms or the
// session is over.
func (w *world) end(user, id string, server uint64, how monitor.How, limit time.Duration) {
	w.wanted[id] = how
	tries := 0
	var again func()
	try := func(m *master) {
		m.begin(func() {
			if m.cluster.SessionByID(id) == nil {
				return
			}
			if !m.up(server) {
				w.queue.push(w.time+time.Second, again)
				return
			}
			err := session.Link{Server: m}.Order(context.Background(), server, session.Order{Session: id, How: how, Limit: limit})
			switch {
			case err == nil:
				w.confirmed(w.hostOf[server], id, how, limit)
			case wire.KindOf(err) == wire.NotFound:
				w.refusal(err)
			default:
				w.logoffs[id] = w.logoffs[id] || how == monitor.Logoff // it may have arrived
				w.queue.push(w.time+time.Second, again)
			}
		})
	}
	again = func() {
		if tries++; tries > 60 {
			return
		}
		if m := w.master(); m != nil {
			try(m)
		} else {
			w.queue.push(w.time+time.Second, again)
		}
	}
	w.note("admin order", user, id, string(how), limit)
	again()
}

package sim

import (
	"slices"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
)

// What comes after the faults.
const (
	settled  = 30 * time.Second // LV1
	promptly = 5 * time.Second  // LV2 without a fault
	afterOne = 15 * time.Second // LV2 after one host has died
)

// healed ends all faults: from now on the promises of liveness count.
func (w *world) healed() {
	w.note("all faults heal")
	w.disk = disks{}
	w.desk.hang, w.desk.deaf, w.desk.crash = 0, 0, 0
	for _, m := range slices.Clone(w.masters) {
		if m.broken || m.id != w.newest {
			m.crash("restarted when all heals")
		}
	}
	for _, c := range w.computers {
		c.lag, c.reorder, c.repeat, c.stale, c.full, c.failing, c.problem = 0, 0, 0, 0, 0, 0, false
		c.cut = [2]int{}
		c.powerOn()
		if p := c.program; p != nil {
			p.crashIn = 0
		}
	}
	w.recheck(nil)
	w.queue.push(w.time+settled, w.allKnown)
}

// allKnown is LV1: every satellite is connected and its sessions are known.
func (w *world) allKnown() {
	w.note("LV1")
	m := w.master()
	if m == nil {
		w.fail("LV1", "no master is ready %v after all faults have healed", settled)
		return
	}
	for _, c := range w.computers {
		if c.gone {
			continue
		}
		s := m.cluster.ServerByUUID(c.uuid)
		if s == nil || s.Attachment == 0 {
			w.fail("LV1", "%s is not connected %v after all faults have healed", c.name, settled)
			return
		}
		if s.State != cluster.Online {
			w.setState(m, s.ID, cluster.Online, 200000+int(c.number))
		}
	}
	w.booksAgree("LV1")
	w.queue.push(w.time+2*time.Second, w.loginsWork)
}

// booksAgree compares the master's books with the desktops.
func (w *world) booksAgree(check string) {
	m := w.master()
	if m == nil {
		w.fail(check, "no master is ready")
		return
	}
	for _, c := range w.computers {
		for _, x := range c.procs {
			if w.time-x.began < 5*time.Second {
				continue // being told
			}
			s := m.cluster.SessionByID(x.session)
			switch {
			case s == nil:
				w.fail(check, "session %s of %s runs on %s, and the master does not know it", x.session, x.user, c.name)
			case w.hostOf[s.Server] != c || s.User != x.user:
				w.fail(check, "session %s of %s runs on %s, and the master has it on server %d for %s", x.session, x.user, c.name, s.Server, s.User)
			case !s.Reported:
				w.fail(check, "session %s of %s runs on %s, and is lost for the master", x.session, x.user, c.name)
			case s.Seen.PID != 0 && s.Seen.PID != x.pid:
				w.fail("S7", "session %s of %s has pid %d, and the master was told %d", x.session, x.user, x.pid, s.Seen.PID)
			}
		}
	}
	for _, s := range m.cluster.Sessions() {
		if !s.Reported {
			w.fail(check, "session %s of %s on server %d is lost, and all faults have healed", s.ID, s.User, s.Server)
		}
		if x := w.runs(s.User); x == nil && s.Seen.State == cluster.Running && !m.cluster.Ending(s.ID) && w.time-w.lastEnd[s.User] > 10*time.Second {
			w.fail(check, "session %s of %s runs for the master, and there is no such desktop", s.ID, s.User)
		}
	}
	if err := m.cluster.Check(); err != nil {
		w.fail("S3", "%v", err)
	}
}

// loginsWork is LV2: users without a session log in, first while all is well,
// then after the death of a host.
func (w *world) loginsWork() {
	w.note("LV2")
	w.prompt(4, promptly, nil)
	w.queue.push(w.time+promptly+time.Second, func() {
		m := w.master()
		if m == nil {
			w.fail("LV2", "no master is ready")
			return
		}
		r := w.dice.of("last death")
		dead := w.computers[r.below(len(w.computers))]
		dead.powerOff()
		limit := max(afterOne, 3*w.interval+6*time.Second)
		w.queue.push(w.time+time.Second, func() { w.prompt(4, limit, dead) })
		w.queue.push(w.time+limit+2*time.Second, func() {
			dead.powerOn()
			w.ladderWorks()
		})
	})
}

// prompt lets some users without a session log in within a limit; dead is a
// host that has just died.
func (w *world) prompt(n int, limit time.Duration, dead *computer) {
	m := w.master()
	if m == nil {
		w.fail("LV2", "no master is ready")
		return
	}
	for _, u := range w.users {
		if n == 0 {
			return
		}
		if u.bare || u.requires != nil || u.memory > 1<<16 || m.cluster.Session(u.name) != nil || m.cluster.Reservation(u.name) != nil || len(w.alive[u.name]) > 0 || w.busy(u) {
			continue
		}
		if !w.room(m, u, dead) {
			return
		}
		n--
		v := &visit{user: u, uid: u.uid, dice: w.dice.of("prompt", u.id, uint64(w.time)), end: w.time + limit}
		for v.entry = nil; v.entry == nil || v.entry == dead; {
			v.entry = w.computers[v.dice.below(len(w.computers))]
		}
		began := w.time
		ok, over := false, false
		var last error
		v.done = func(done bool, err error) { ok, over, last = done, true, err }
		w.login(v)
		w.queue.push(w.time+limit, func() {
			// A desktop that is being started is what was asked for.
			if len(w.alive[u.name]) == 0 && !ok {
				w.fail("LV2", "%s has no desktop %v after the login (given up: %v, last answer: %v)", u.name, w.time-began, over, last)
			}
		})
	}
}

// busy tells whether a login of the user is under way somewhere.
func (w *world) busy(u *user) bool {
	for _, c := range w.computers {
		if p := c.program; p != nil {
			for id := range p.logins {
				if p.visitor[id] == u {
					return true
				}
			}
		}
	}
	return false
}

// room tells whether there is capacity for such a desktop, with some to spare,
// on hosts that are not dead.
func (w *world) room(m *master, u *user, dead *computer) bool {
	for _, s := range m.cluster.Servers() {
		c := w.hostOf[s.ID]
		if c == nil || c == dead || s.Attachment == 0 || s.State != cluster.Online || len(s.Facts.Problems) > 0 {
			continue
		}
		sessions, reserved := m.cluster.Counts(s.ID)
		if s.Facts.MaxSessions > 0 && sessions+reserved+6 > s.Facts.MaxSessions {
			continue
		}
		if uint64(sessions+reserved+8)*4500<<20 < s.Load.MemoryTotal {
			return true
		}
	}
	return false
}

// ladderWorks is LV3: guests that hear nothing are ended all the same.
func (w *world) ladderWorks() {
	w.note("LV3")
	m := w.master()
	if m == nil {
		w.fail("LV3", "no master is ready")
		return
	}
	n := 0
	for _, x := range m.cluster.Sessions() {
		if c := w.hostOf[x.Server]; n < 4 && x.Reported && c != nil && c.powered {
			n++
			for _, p := range c.procs {
				if p.session == x.ID && n%2 == 0 {
					p.deaf = true
				}
			}
			how := []monitor.How{monitor.Logoff, monitor.Abort}[n%2]
			w.end(x.User, x.ID, x.Server, how, 5*time.Second)
		}
	}
	w.queue.push(w.time+25*time.Second+w.interval, func() {
		w.booksAgree("end")
		w.over = true
	})
}

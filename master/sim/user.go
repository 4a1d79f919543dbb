package sim

import (
	"slices"
	"time"

	"verdecmd/proto/simulated"
)

// visit is a user's way to the desktop: from server to server, with patience.
type visit struct {
	user  *user
	uid   uint32
	dice  dice
	hops  int
	tries int
	entry *computer // the first; nil: any
	stays *computer // not nil: the user goes nowhere else
	// done is told the outcome, if anybody wants to know; ok: there is a session.
	done func(ok bool, last error)
	last error
	end  time.Duration // no further try after this; 0: 90 s
	over bool
}

// login begins a visit.
func (w *world) login(v *visit) {
	if v.end == 0 {
		v.end = w.time + 90*time.Second
	}
	c := v.entry
	if c == nil {
		c = w.computers[v.dice.below(len(w.computers))]
		if v.user.at != nil && v.dice.chance(30) {
			c = v.user.at
		}
	}
	w.enter(v, c)
}

// retry tries again after a while, or gives up.
func (w *world) retry(v *visit) {
	v.tries++
	patient := v.done != nil || v.tries < 4 && v.dice.chance(70)
	if !patient || w.time >= v.end {
		w.leave(v, false)
		return
	}
	wait := v.dice.between(300*time.Millisecond, 6*time.Second)
	if v.done != nil {
		wait = v.dice.between(200*time.Millisecond, 700*time.Millisecond)
	}
	w.queue.push(w.time+wait, func() {
		v.hops = 0
		w.enter(v, w.computers[v.dice.below(len(w.computers))])
	})
}

func (w *world) leave(v *visit, ok bool) {
	if !v.over {
		v.over = true
		if v.done != nil {
			v.done(ok, v.last)
		}
	}
}

// patience is how long a user waits for a server that does not answer.
const patience = 40 * time.Second

// enter asks a satellite for the desktop.
func (w *world) enter(v *visit, c *computer) {
	p := c.program
	if p == nil || p.sat == nil || !c.powered || c.suspended > 0 {
		wait := time.Second // no route, or nothing listens
		w.queue.push(w.time+wait, func() { w.retry(v) })
		return
	}
	w.logins++
	id := w.logins
	w.note("login", id, v.user.name, c.name)
	answered := false
	p.visitor[id] = v.user
	p.logins[id] = func(o simulated.Outcome) {
		if !answered {
			answered = true
			w.answered(v, c, o)
		}
	}
	w.tell(&p.actor, func() { p.call(func() { p.sat.Login(id, v.user.name, v.uid) }) })
	limit := patience
	if v.done != nil {
		limit = 4 * time.Second // who waits for the answer tries elsewhere soon
	}
	w.queue.push(w.time+limit, func() {
		if !answered {
			answered = true
			delete(p.logins, id)
			w.retry(v)
		}
	})
}

// answered goes on with what a satellite has said.
func (w *world) answered(v *visit, c *computer, o simulated.Outcome) {
	u := v.user
	switch {
	case o.Err != nil:
		v.last = o.Err
		w.note("login refused", u.name, c.name, o.Err)
		w.refusal(o.Err)
		w.retry(v)
	case o.Server != 0:
		there := w.hostOf[o.Server]
		w.note("login referred", u.name, c.name, o.Server)
		if there == nil {
			w.fail("S4", "%s was referred to server %d, which nobody has", u.name, o.Server)
			return
		}
		v.hops++
		switch {
		case v.hops > 4:
			w.retry(v)
			return
		case v.stays != nil && there != v.stays, v.done == nil && v.dice.chance(8):
			w.leave(v, false) // has changed its mind: the place expires
			return
		}
		way := v.dice.between(5*time.Millisecond, 300*time.Millisecond)
		if v.done == nil && v.dice.chance(6) { // dawdles
			way = v.dice.between(time.Second, 70*time.Second)
		}
		w.queue.push(w.time+way, func() { w.enter(v, there) })
	default:
		w.note("login done", u.name, c.name, o.Session, o.Existing)
		w.count("session")
		u.at = c
		w.stats.logins = append(w.stats.logins, w.time)
		w.leave(v, true)
	}
}

// host returns where a session runs by the witness, or nil.
func (w *world) runs(user string) *process {
	for _, c := range w.computers {
		if i := slices.IndexFunc(c.procs, func(x *process) bool { return x.user == user }); i >= 0 {
			return c.procs[i]
		}
	}
	return nil
}

package sim

import (
	"errors"
	"slices"
	"time"

	"verdecmd/proto/simulated"
)

// process is a desktop that lives, and the witness of what is promised.
type process struct {
	c       *computer
	pid     int
	session string
	uuid    string
	user    string
	memory  uint64
	began   time.Duration
	dead    bool
	watcher *program // that hears of it

	boot             time.Duration
	ready            bool
	hung, deaf       bool // answers nothing; does not hear a request to shut down
	halted           bool
	stopping, ending bool
	dice             dice
}

// Start implements simulated.Host.
func (p *program) Start(session, uuid, user string) {
	p.host()
	c, w := p.c, p.c.w
	s := &starting{}
	p.starts[session] = s
	r := w.dice.of("start", c.number, w.byName[user].id, w.byName[user].starts)
	w.byName[user].starts++
	w.note("start ordered", c.name, session, user)
	w.startsOne(p, session, user)
	w.at(c.hw, w.time+r.between(20*time.Millisecond, 1200*time.Millisecond), func() {
		if s.over || p.dead {
			return
		}
		fail := func(err error) {
			w.note("start fails", c.name, session, err)
			w.after(&p.actor, 0, func() {
				delete(p.starts, session)
				p.call(func() { p.sat.Started(session, 0, err) })
			})
		}
		switch {
		case c.full > 0:
			w.faultHit("satellite's disk full")
			fail(simulated.ErrNoSpace)
			return
		case c.failing > 0 && r.chance(60):
			w.faultHit("desktop start fails")
			fail(errors.New("qemu-system-x86_64: could not open the base image"))
			return
		}
		c.lastPID++
		x := &process{c: c, pid: c.lastPID, session: session, uuid: uuid, user: user, memory: uint64(w.byName[user].memory) << 20, began: w.time, watcher: p,
			boot: r.between(time.Second, 12*time.Second), dice: r}
		x.behave()
		c.procs = append(c.procs, x)
		p.procs[session] = x
		w.began(x)
		w.after(&p.actor, r.between(5*time.Millisecond, 600*time.Millisecond), func() {
			delete(p.starts, session)
			if s.over {
				return
			}
			if x.dead {
				p.call(func() { p.sat.Started(session, 0, errors.New("the process ended at once")) })
				return
			}
			p.call(func() { p.sat.Started(session, x.pid, nil) })
			x.settle()
		})
	})
}

// behave draws what the desktop will do.
func (x *process) behave() {
	w, r := x.c.w, &x.dice
	if w.desk.hang > 0 && r.chance(50) {
		w.faultHit("desktop hangs")
		w.at(x.c.hw, w.time+r.between(0, 20*time.Second), func() { x.hung = true })
		if r.chance(50) {
			w.at(x.c.hw, w.time+r.between(30*time.Second, 80*time.Second), func() { x.hung = false })
		}
	}
	if w.desk.deaf > 0 && r.chance(50) {
		x.deaf = true
	}
	if w.desk.crash > 0 && r.chance(50) {
		w.at(x.c.hw, w.time+r.between(100*time.Millisecond, 40*time.Second), func() {
			if !x.dead {
				w.faultHit("guest crashes")
				x.end("crash")
			}
		})
	}
	w.at(x.c.hw, w.time+x.boot, func() {
		if !x.dead && !x.hung {
			x.ready = true
			x.settle()
		}
	})
}

// tell lets the program that watches the process hear of something.
func (x *process) tell(f func(simulated.Satellite)) {
	p := x.watcher
	if p == nil {
		return
	}
	x.c.w.after(&p.actor, time.Millisecond, func() {
		if p.procs[x.session] == x {
			p.call(func() { f(p.sat) })
		}
	})
}

// settle tells that the guest is ready, if it is.
func (x *process) settle() {
	if x.ready && !x.dead {
		x.tell(func(s simulated.Satellite) { s.Ready(x.session) })
	}
}

// end ends the process.
func (x *process) end(why string) {
	if x.dead {
		return
	}
	x.dead = true
	c, w := x.c, x.c.w
	c.procs = slices.DeleteFunc(c.procs, func(y *process) bool { return x == y })
	w.ended(x, why)
	x.tell(func(s simulated.Satellite) { s.Exited(x.session, why == "guest") })
}

// leave lets the guest shut itself down.
func (x *process) leave(after time.Duration) {
	if x.dead || x.stopping || x.hung {
		return
	}
	x.stopping = true
	w := x.c.w
	w.at(x.c.hw, w.time+after, func() {
		if !x.dead {
			x.tell(func(s simulated.Satellite) { s.Stopping(x.session) })
		}
	})
	w.at(x.c.hw, w.time+after+x.dice.between(500*time.Millisecond, 8*time.Second), func() { x.end("guest") })
}

// Find implements simulated.Host.
func (p *program) Find(session, uuid string, pid int) {
	p.host()
	c, w := p.c, p.c.w
	r := p.dice.of("find", uint64(pid), p.dice.roll())
	w.after(&p.actor, r.between(2*time.Millisecond, 300*time.Millisecond), func() {
		var found *process
		for _, x := range c.procs {
			if uuid != "" && x.uuid == uuid && x.session == session || uuid == "" && x.pid == pid {
				found = x
			}
		}
		err := error(nil)
		switch {
		case found == nil:
			err, pid = simulated.ErrGone, 0
		case r.chance(4): // whether it is there cannot be found out just now
			err, pid = simulated.ErrNoReply, 0
		default:
			pid = found.pid
			found.watcher = p
			p.procs[session] = found
		}
		w.note("found", c.name, session, pid, err)
		p.call(func() { p.sat.Found(session, pid, err) })
		if found != nil && err == nil {
			found.settle()
		}
	})
}

// Ping implements simulated.Host.
func (p *program) Ping(session string) {
	p.host()
	w := p.c.w
	x := p.procs[session]
	err := error(nil)
	wait := time.Millisecond
	if x == nil || x.dead || x.hung {
		err, wait = simulated.ErrNoReply, 4*time.Second
	}
	w.after(&p.actor, wait, func() { p.call(func() { p.sat.Pinged(session, err) }) })
}

// PowerDown implements simulated.Host.
func (p *program) PowerDown(session string) {
	p.host()
	x := p.procs[session]
	p.c.w.acts(p, session, "power down", x)
	if x == nil || x.dead || x.hung {
		return
	}
	if x.deaf {
		p.c.w.faultHit("guest ignores shutdown")
		return
	}
	if !x.ready {
		return // nobody in there hears it yet
	}
	x.leave(x.dice.between(100*time.Millisecond, 2*time.Second))
}

// Quit implements simulated.Host.
func (p *program) Quit(session string) {
	p.host()
	x := p.procs[session]
	p.c.w.acts(p, session, "quit", x)
	p.giveUp(session)
	if x == nil || x.dead || x.hung {
		return
	}
	p.c.w.at(p.c.hw, p.c.w.time+x.dice.between(time.Millisecond, 400*time.Millisecond), func() { x.end("quit") })
}

// Kill implements simulated.Host.
func (p *program) Kill(session string) {
	p.host()
	x := p.procs[session]
	p.c.w.acts(p, session, "kill", x)
	p.giveUp(session)
	if x != nil && !x.dead {
		p.c.w.at(p.c.hw, p.c.w.time+x.dice.between(time.Millisecond, 20*time.Millisecond), func() { x.end("kill") })
	}
}

// giveUp ends a start that is under way.
func (p *program) giveUp(session string) {
	s := p.starts[session]
	if s == nil || s.over || p.procs[session] != nil {
		return
	}
	s.over = true
	delete(p.starts, session)
	p.c.w.after(&p.actor, time.Millisecond, func() {
		p.call(func() { p.sat.Started(session, 0, errors.New("the start was given up")) })
	})
}

package sim

import (
	"slices"
	"time"

	"verdecmd/proto/simulated"
)

// guardian is the process that ends a computer's desktops with their lease when
// the satellite's program cannot. It stands still with the host, not with the
// program that has started it, and ends with the boot.
type guardian struct {
	actor
	c       *computer
	pid     int
	boot    uint64
	parent  *program
	journal string
	code    simulated.Guardian
	ticked  time.Duration
}

// Guard implements simulated.Host.
func (p *program) Guard(journal string, code simulated.Guardian) (int, error) {
	p.host()
	c, w := p.c, p.c.w
	c.lastPID++
	g := &guardian{c: c, pid: c.lastPID, boot: c.boots, parent: p, journal: journal, code: code}
	c.guards = append(c.guards, g)
	w.note("guardian starts", c.name, g.pid)
	d := p.dice.of("guardian", uint64(g.pid))
	w.after(c.hw, d.between(10*time.Millisecond, 300*time.Millisecond), g.tick)
	return g.pid, nil
}

// tick lets the guardian look, and again in a second.
func (g *guardian) tick() {
	c, w := g.c, g.c.w
	w.tell(&g.actor, func() {
		g.ticked = w.time
		if !g.code.Tick(g) {
			w.note("guardian leaves", c.name, g.pid)
			g.end()
			return
		}
		w.after(c.hw, w.shrink(time.Second, c.rate), g.tick)
	})
}

func (g *guardian) end() {
	g.dead = true
	g.backlog = nil
	g.c.guards = slices.DeleteFunc(g.c.guards, func(x *guardian) bool { return x == g })
}

// guardians are the guardians that live.
func (c *computer) guardians() []*guardian {
	c.guards = slices.DeleteFunc(c.guards, func(g *guardian) bool { return !c.powered || g.boot != c.boots })
	return c.guards
}

// guarded tells whether a guardian would act if the program could not.
func (c *computer) guarded() bool {
	return slices.ContainsFunc(c.guardians(), func(g *guardian) bool { return g.frozen == 0 && g.ticked > 0 })
}

// forsaken tells whether a guardian has a journal that the present program does
// not have: nobody else ends its desktops, so its end would be a second fault.
func (c *computer) forsaken() bool {
	return slices.ContainsFunc(c.guardians(), func(g *guardian) bool { return g.journal != string(c.files["id"]) })
}

// works tells whether there is a program that would act.
func (c *computer) works() bool { return c.program != nil && c.program.frozen == 0 }

// Guards implements simulated.Host.
func (p *program) Guards(journal string) []int {
	var out []int
	for _, g := range p.c.guardians() {
		if g.journal == journal {
			out = append(out, g.pid)
		}
	}
	return out
}

// EndGuard implements simulated.Host.
func (p *program) EndGuard(pid int) {
	p.host()
	for _, g := range slices.Clone(p.c.guardians()) {
		if g.pid == pid {
			p.c.w.note("guardian dismissed", p.c.name, pid)
			g.end()
		}
	}
}

// Clock implements simulated.GuardHost.
func (g *guardian) Clock() simulated.Clock { return g.c.clock() }

// Files implements simulated.GuardHost.
func (g *guardian) Files() []string { return sortedKeys(g.c.files) }

// Read implements simulated.GuardHost.
func (g *guardian) Read(name string) ([]byte, bool) {
	b, ok := g.c.files[name] // files are replaced as a whole, so nobody changes it
	return b, ok
}

// Alone implements simulated.GuardHost.
func (g *guardian) Alone() bool { return g.parent.dead }

// find is the process of a desktop that the guardian means, nil for none.
func (g *guardian) find(uuid string, pid int) *process {
	i := slices.IndexFunc(g.c.procs, func(x *process) bool { return x.uuid == uuid && (pid == 0 || x.pid == pid) })
	if i < 0 {
		return nil
	}
	return g.c.procs[i]
}

// Exists implements simulated.GuardHost.
func (g *guardian) Exists(_, uuid string, pid int) error {
	if g.find(uuid, pid) == nil {
		return simulated.ErrGone
	}
	return nil
}

// Kill implements simulated.GuardHost.
func (g *guardian) Kill(session, uuid string, pid int) error {
	c, w := g.c, g.c.w
	x := g.find(uuid, pid)
	if x == nil {
		return simulated.ErrGone
	}
	w.note("guardian kills", c.name, session, x.pid)
	w.count("guardian kills")
	switch {
	case x.session != session:
		w.fail("S7", "the guardian of %s means session %s and hits %s of %s (pid %d)", c.name, session, x.session, x.user, x.pid)
	case string(c.files["id"]) != g.journal: // the present program has another one, and knows of none of these
	case c.self == 0 || c.clock().Boot-c.leaseAt <= c.self:
		w.fail("S7", "the guardian of %s ends session %s of %s (pid %d), whose lease is not over", c.name, session, x.user, x.pid)
	}
	w.after(c.hw, x.dice.between(time.Millisecond, 20*time.Millisecond), func() { x.end("guardian") })
	return nil
}

// guardFaults is what may happen to a guardian, or while there is nobody but
// it. The program and its guardian do not fail both: that is two faults.
var guardFaults = map[string]fault{
	"guardian killed": {weight: 4, do: func(w *world, _ *step, c *computer) func() {
		if c.works() && !c.forsaken() {
			for _, g := range slices.Clone(c.guardians()) {
				w.note("guardian killed", c.name, g.pid)
				g.end()
			}
		}
		return nil
	}},
	// Both at once, as by the kernel when memory is short, and no master to be
	// reached: the program that the service manager starts again must know that
	// its desktops have a lease.
	"satellite and its guardian killed": {least: 40 * time.Second, most: 3 * time.Minute, weight: 6, do: func(w *world, _ *step, c *computer) func() {
		if !c.works() || w.plan.lease && (!c.guarded() || c.forsaken()) {
			return nil
		}
		c.cut[up]++
		c.cut[down]++
		for _, g := range slices.Clone(c.guardians()) {
			g.end()
		}
		c.program.crash("killed, with its guardian")
		w.recheck(c)
		return func() {
			c.cut[up]--
			c.cut[down]--
			w.recheck(c)
		}
	}},
	"guardian frozen": {least: time.Second, most: 20 * time.Second, weight: 4, do: func(w *world, _ *step, c *computer) func() {
		if !c.works() || len(c.guardians()) == 0 {
			return nil
		}
		g := c.guardians()[0]
		w.freeze(&g.actor)
		return func() { w.thaw(&g.actor) }
	}},
	"satellite stays down": {least: 30 * time.Second, most: 4 * time.Minute, weight: 8, do: func(w *world, _ *step, c *computer) func() {
		if !c.works() || w.plan.lease && !c.guarded() {
			return nil
		}
		c.program.crash("killed, and nobody starts it again")
		c.programs++ // the start that was due does not come
		n := c.programs
		return func() {
			if c.program == nil && c.powered && c.programs == n {
				c.startProgram(0)
			}
		}
	}},
}

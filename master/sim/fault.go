package sim

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"verdecmd/master/cluster"
)

// fault is a kind of fault: how long it lasts and what it does. It returns how
// it is healed; nil: it heals by itself, or there is nothing to heal.
type fault struct {
	least, most     time.Duration
	neverUnderLease bool
	weight          int
	do              func(w *world, s *step, c *computer) (heal func())
}

// The kinds of faults. Under leases two masters may not have links at the same
// time, since each renews leases: that is said where the setting is explained.
var faults = map[string]fault{
	"link cut": {weight: 6, do: func(w *world, _ *step, c *computer) func() {
		for _, k := range w.cables {
			if k.c == c && k.sat && k.mas {
				k.severed = true
				k.changed()
			}
		}
		return nil
	}},
	"link cut noticed by one end": {weight: 8, do: func(w *world, s *step, c *computer) func() {
		for _, k := range slices.Clone(w.cables) {
			if k.c == c && k.sat && k.mas {
				k.severed = true
				k.changed()
				if s.dice.chance(60) {
					w.tell(&k.p.actor, func() { k.p.lose(k) })
				} else {
					w.tell(&k.m.actor, func() { k.m.hangUp(k) })
				}
			}
		}
		return nil
	}},
	"delayed":      {least: 5 * time.Second, most: time.Minute, weight: 6, do: whileIt(func(c *computer) *int { return &c.lag })},
	"repeated":     {least: 20 * time.Second, most: 3 * time.Minute, weight: 6, do: whileIt(func(c *computer) *int { return &c.repeat })},
	"reordered":    {least: 20 * time.Second, most: 2 * time.Minute, weight: 6, do: whileIt(func(c *computer) *int { return &c.reorder })},
	"stale report": {weight: 6, do: func(_ *world, _ *step, c *computer) func() { c.stale++; return nil }},

	"partition":               {least: time.Second, most: 3 * time.Minute, weight: 8, do: partition(up, down)},
	"one-way partition, up":   {least: time.Second, most: time.Minute, weight: 6, do: partition(up)},
	"one-way partition, down": {least: time.Second, most: time.Minute, weight: 6, do: partition(down)},
	"flapping": {least: 10 * time.Second, most: time.Minute, weight: 6, do: func(w *world, s *step, c *computer) func() {
		off, over := false, false
		var flip func()
		flip = func() {
			if off || !over {
				off = !off
				n := map[bool]int{true: 1, false: -1}[off]
				c.cut[up] += n
				c.cut[down] += n
				w.recheck(c)
			}
			if !over {
				w.queue.push(w.time+s.dice.between(300*time.Millisecond, 6*time.Second), flip)
			}
		}
		flip()
		return func() {
			over = true
			if off {
				flip()
			}
		}
	}},
	"all links cut": {least: 2 * time.Second, most: 40 * time.Second, weight: 4, do: func(w *world, _ *step, _ *computer) func() {
		add := func(n int) {
			for _, c := range w.computers {
				c.cut[up] += n
				c.cut[down] += n
			}
			w.recheck(nil)
		}
		add(1)
		return func() { add(-1) }
	}},

	"master crash": {weight: 10, do: func(w *world, s *step, _ *computer) func() {
		crash := func() {
			if m := w.master(); m != nil {
				m.crash("killed")
			}
		}
		if s.dice.chance(60) {
			crash()
			return nil
		}
		// The newest session of all has ended just before: its number must not be
		// given again.
		if x := w.newestDesktop(); x != nil {
			x.end("crash")
		}
		w.queue.push(w.time+s.dice.between(500*time.Millisecond, 3*time.Second), crash)
		return nil
	}},
	"master dies at a commit": {weight: 10, do: func(w *world, s *step, _ *computer) func() {
		w.disk.crash = 1 + s.dice.below(12)
		return func() { w.disk.crash = 0 }
	}, least: 30 * time.Second, most: time.Minute},
	"master frozen": {least: 100 * time.Millisecond, most: time.Minute, weight: 6, do: func(w *world, _ *step, _ *computer) func() {
		m := w.master()
		if m == nil {
			return nil
		}
		w.freeze(&m.actor)
		w.recheck(nil)
		return func() {
			w.thaw(&m.actor)
			w.recheck(nil)
		}
	}},
	"old master thaws": {least: 10 * time.Second, most: 80 * time.Second, neverUnderLease: true, weight: 8, do: func(w *world, s *step, _ *computer) func() {
		m := w.master()
		if m == nil || len(w.masters) > 1 {
			return nil
		}
		w.freeze(&m.actor)
		w.recheck(nil)
		w.queue.push(w.time+s.dice.between(500*time.Millisecond, 8*time.Second), func() {
			if !m.dead {
				w.startMaster()
			}
		})
		w.queue.push(w.time+s.dice.between(time.Second, s.lasts), func() {
			w.thaw(&m.actor)
			w.recheck(nil)
		})
		// Satellites that start again must still know whom they have obeyed.
		for _, c := range w.computers {
			if s.dice.chance(40) {
				w.queue.push(w.time+s.dice.between(0, s.lasts), func() {
					if c.program != nil {
						c.program.crash("killed while there are two masters")
					}
				})
			}
		}
		return func() {
			if !m.dead {
				m.crash("it was replaced")
			}
		}
	}},
	"master's disk full": {least: 2 * time.Second, most: 40 * time.Second, weight: 5, do: func(w *world, _ *step, _ *computer) func() {
		w.disk.full++
		return func() { w.disk.full-- }
	}},
	// Commits that are slow give time for much to happen in between.
	"slow commit": {least: 5 * time.Second, most: 40 * time.Second, weight: 8, do: func(w *world, s *step, _ *computer) func() {
		w.disk.slow++
		for range 2 + s.dice.below(5) {
			w.queue.push(w.time+s.dice.between(0, s.lasts), func() { w.disturb(&s.dice) })
		}
		return func() { w.disk.slow-- }
	}},
	"unknown commit": {least: 10 * time.Second, most: time.Minute, weight: 8, do: func(w *world, s *step, _ *computer) func() {
		w.disk.unknown += 1 + s.dice.below(3)
		return func() { // an administrator restarts it
			w.disk.unknown = 0
			for _, m := range slices.Clone(w.masters) {
				if m.broken {
					m.crash("restarted after a failed sync")
				}
			}
		}
	}},

	"satellite crash": {weight: 10, do: func(_ *world, _ *step, c *computer) func() {
		if c.program != nil {
			c.program.crash("killed")
		}
		return nil
	}},
	"satellite dies within a call": {least: 20 * time.Second, most: time.Minute, weight: 10, do: func(_ *world, s *step, c *computer) func() {
		if c.program != nil {
			c.program.crashIn = 1 + s.dice.below(60)
		}
		return nil
	}},
	"satellite frozen": {least: 100 * time.Millisecond, most: 2 * time.Minute, weight: 6, do: func(w *world, _ *step, c *computer) func() {
		p := c.program
		if p == nil || w.plan.lease && !c.guarded() { // a single fault: its guardian is there
			return nil
		}
		w.freeze(&p.actor)
		w.recheck(c)
		return func() {
			if !p.dead {
				c.touched()
			}
			w.thaw(&p.actor)
			w.recheck(c)
		}
	}},
	"satellite's disk full": {least: 10 * time.Second, most: time.Minute, weight: 5, do: whileIt(func(c *computer) *int { return &c.full })},
	"power cut": {least: 5 * time.Second, most: 4 * time.Minute, weight: 8, do: func(_ *world, _ *step, c *computer) func() {
		c.powerOff()
		return c.powerOn
	}},
	"suspend": {least: time.Second, most: 3 * time.Minute, weight: 8, do: func(w *world, _ *step, c *computer) func() {
		if !c.powered || c.program == nil {
			return nil
		}
		boot := c.boots
		c.suspend()
		return func() {
			if c.boots == boot && c.powered {
				c.resume()
			}
		}
	}},
	// Another state directory, or another machine with the same certificate: what
	// it says about sessions proves nothing. Under leases the guardian of the
	// journal before ends its desktops.
	"journal gone": {least: 20 * time.Second, most: 2 * time.Minute, weight: 6, do: func(w *world, _ *step, c *computer) func() {
		if w.plan.lease && !c.guarded() { // a single fault: its guardian is there
			return nil
		}
		if c.journalGone { // and comes back when that fault heals
			return nil
		}
		c.journalGone = true
		c.forgets()
		if c.wiped { // one is put aside already
			return nil
		}
		c.wiped = true
		restart := func() {
			if c.program != nil {
				c.program.crash("restarted with another journal")
			}
		}
		was, servers := c.files, len(c.servers)
		c.files = map[string][]byte{}
		restart()
		return func() {
			c.journalGone = false
			if len(c.servers) == servers { // else it was forgotten meanwhile, and is registered anew
				c.files = was
				restart()
			}
		}
	}},
	"clock step": {weight: 4, do: func(_ *world, s *step, c *computer) func() {
		c.wallOff += time.Duration(int64(s.dice.below(7201))-3600) * time.Second
		return nil
	}},
	"not able to run desktops": {weight: 3, do: func(_ *world, _ *step, c *computer) func() {
		c.problem = true
		if c.program != nil {
			c.program.crash("restarted")
		}
		return func() { // what was wrong is mended, and it is started again
			if c.program != nil {
				c.program.crash("restarted")
			}
		}
	}, least: 20 * time.Second, most: time.Minute},

	"desktop start fails":    {least: 10 * time.Second, most: time.Minute, weight: 4, do: whileIt(func(c *computer) *int { return &c.failing })},
	"desktop hangs":          {least: 10 * time.Second, most: time.Minute, weight: 4, do: whileDesk(func(w *world) *int { return &w.desk.hang })},
	"guest ignores shutdown": {least: 30 * time.Second, most: 2 * time.Minute, weight: 5, do: whileDesk(func(w *world) *int { return &w.desk.deaf })},
	"guest crashes":          {least: 20 * time.Second, most: time.Minute, weight: 4, do: whileDesk(func(w *world) *int { return &w.desk.crash })},

	"restart of everything": {weight: 3, do: func(w *world, s *step, _ *computer) func() {
		for _, c := range w.computers {
			if s.dice.chance(50) {
				c.powerOff()
				w.queue.push(w.time+s.dice.between(2*time.Second, 20*time.Second), c.powerOn)
			} else if c.program != nil {
				c.program.crash("restart of everything")
			}
		}
		for _, m := range slices.Clone(w.masters) {
			m.crash("restart of everything")
		}
		return nil
	}},
}

// faultWeights is how often each kind is drawn.
var faultWeights = func() (out []weighted) {
	maps.Copy(faults, guardFaults)
	for _, kind := range sortedKeys(faults) {
		out = append(out, weighted{kind, faults[kind].weight})
	}
	return out
}()

// whileIt is a fault that is in force on a computer while its counter is not 0.
func whileIt(of func(*computer) *int) func(*world, *step, *computer) func() {
	return func(_ *world, _ *step, c *computer) func() {
		c.touched()
		*of(c)++
		return func() {
			*of(c)--
			c.touched()
		}
	}
}

// whileDesk is one that desktops meet which start while it is in force.
func whileDesk(of func(*world) *int) func(*world, *step, *computer) func() {
	return func(w *world, _ *step, _ *computer) func() {
		*of(w)++
		return func() { *of(w)-- }
	}
}

// disturb lets something happen to a server that has a claim under way, or to
// any.
func (w *world) disturb(d *dice) {
	m := w.master()
	if m == nil {
		return
	}
	c := w.computers[d.below(len(w.computers))]
	for _, r := range m.cluster.Reservations() {
		if r.Connecting {
			c = w.hostOf[r.Server]
		}
	}
	switch k := m.lines[c.server(m)]; {
	case k == nil:
	case d.chance(40):
		w.setState(m, k.server, cluster.Offline, 300000+d.below(1000000))
	case d.chance(50):
		k.severed = true
		k.changed()
		m.hangUp(k)
	case c.program != nil:
		c.program.crash("killed during a slow commit")
	}
}

// newestDesktop is that of the highest session number, if it lives.
func (w *world) newestDesktop() *process {
	number := func(session string) int {
		n, err := strconv.Atoi(strings.TrimPrefix(session, "s"))
		if err != nil {
			return 0
		}
		return n
	}
	most := 0
	for id := range w.grants {
		most = max(most, number(id))
	}
	for _, c := range w.computers {
		for _, x := range c.procs {
			if number(x.session) == most {
				return x
			}
		}
	}
	return nil
}

// partition holds up what goes one way or both.
func partition(ways ...direction) func(*world, *step, *computer) func() {
	return func(w *world, _ *step, c *computer) func() {
		for _, d := range ways {
			c.cut[d]++
		}
		w.recheck(c)
		return func() {
			for _, d := range ways {
				c.cut[d]--
			}
			w.recheck(c)
		}
	}
}

// suspend stops a computer as it is, and resume lets it go on.
func (c *computer) suspend() {
	c.settle()
	c.suspended++
	c.w.freeze(c.hw)
	if c.program != nil {
		c.w.freeze(&c.program.actor)
	}
	c.touched()
	c.w.note("suspended", c.name)
	c.w.recheck(c)
}

func (c *computer) resume() {
	c.settle()
	c.suspended--
	c.w.thaw(c.hw)
	if c.program != nil {
		c.w.thaw(&c.program.actor)
	}
	c.resumed = c.w.time
	for _, x := range c.procs { // its users look at once what has become of it
		if x.dice.chance(50) {
			u := c.w.byName[x.user]
			c.w.queue.push(c.w.time+x.dice.between(0, 4*time.Second), func() {
				c.w.login(&visit{user: u, uid: u.uid, dice: x.dice.of("back"), entry: c})
			})
		}
	}
	c.touched()
	c.w.note("resumed", c.name)
	c.w.recheck(c)
}

// inject carries out a fault and sees to it that it heals in time.
func (w *world) inject(s *step) {
	c := w.computers[s.on%len(w.computers)]
	w.note("fault", s.kind, s.on, s.lasts)
	w.faultHit(s.kind)
	w.injected++
	c.touched()
	heal := faults[s.kind].do(w, s, c)
	if heal == nil {
		return
	}
	w.queue.push(min(w.time+s.lasts, active), func() {
		w.note("heals", s.kind, s.on)
		heal()
	})
}

package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
)

// computer is a host of desktops: its clocks, files and processes, which
// survive the satellite's program.
type computer struct {
	w        *world
	number   uint64
	name     string
	uuid     string  // of its identity, the enrolled+1st
	rate     float64 // of its oscillator
	facts    *pb.HostFacts
	enrolled int

	hw        *actor // of this boot: the desktops; frozen while suspended
	powered   bool
	boots     uint64
	suspended int
	monoBase  time.Duration // when since began
	bootBase  time.Duration
	since     time.Duration
	wallOff   time.Duration
	files     map[string][]byte
	procs     []*process // that live
	lastPID   int

	cut         [2]int // by how many faults
	lag         int
	reorder     int
	repeat      int
	stale       int
	full        int  // its disk
	failing     int  // desktops do not start
	wiped       bool // its journal is put aside
	problem     bool // found at the next start of the program
	journalGone bool
	program     *program
	programs    uint64
	guards      []*guardian   // also of earlier boots; see guardians
	troubled    time.Duration // when a fault touched it last

	// What the witness knows.

	epoch      uint64        // highest that was welcomed
	leaseAt    time.Duration // uptime of the last renewal
	leaseNoted time.Duration // the same, as it is on the disk
	self       time.Duration
	resumed    time.Duration // when it was last woken from a suspend
	servers    []uint64      // numbers that masters gave it
	ordered    map[string]bool
	gone       bool            // it is not to come back
	forced     map[string]bool // of ordered: by force if need be
}

// program is one start of a satellite's program, and its simulated.Host.
type program struct {
	actor
	c      *computer
	n      uint64
	sat    simulated.Satellite
	cable  *cable
	latest uint64        // the newest cable, also when it is over
	delay  time.Duration // before the next link
	tries  uint64
	links  uint64
	asked  uint64
	order  *pb.Order // that it is carrying out

	next    time.Duration // when it ticks next
	stamp   uint64
	ticked  time.Duration
	crashIn int // calls of the Host from now; 0: not
	depth   int
	dice    dice
	logins  map[uint64]func(simulated.Outcome)
	visitor map[uint64]*user    // of logins
	procs   map[string]*process // by session: those that it started or found
	starts  map[string]*starting
	told    map[string]*grant // by session
}

type starting struct{ over bool }

// crashed is the panic by which a program ends within a call of its Host.
type crashed struct{}

// clock is what the clocks show, without the program.
func (c *computer) clock() simulated.Clock {
	d := c.w.stretch(c.w.time-c.since, c.rate)
	mono := c.monoBase
	if c.suspended == 0 {
		mono += d
	}
	return simulated.Clock{Mono: start.Add(mono), Wall: start.Add(c.w.stretch(c.w.time, c.rate) + c.wallOff), Boot: c.bootBase + d}
}

// settle begins a new stretch of the clocks.
func (c *computer) settle() {
	d := c.w.stretch(c.w.time-c.since, c.rate)
	if c.suspended == 0 {
		c.monoBase += d
	}
	c.bootBase += d
	c.since = c.w.time
}

// powerOn boots the computer; the service manager starts the program.
func (c *computer) powerOn() {
	if c.powered || c.gone {
		return
	}
	c.powered, c.hw = true, &actor{}
	c.boots++
	c.since, c.bootBase = c.w.time, 20*time.Second
	c.lastPID = 300 + int(c.boots%3)
	c.self, c.leaseAt, c.leaseNoted = 0, 0, 0
	c.w.note("power on", c.name)
	c.startProgram(0)
	c.w.recheck(c)
}

// powerOff cuts the power: everything on it ends, and nobody is told.
func (c *computer) powerOff() {
	if !c.powered {
		return
	}
	c.settle()
	c.powered = false
	c.w.note("power off", c.name)
	if p := c.program; p != nil {
		p.die()
	}
	for _, x := range slices.Clone(c.procs) {
		x.end("power cut")
	}
	c.hw.dead = true // what was to happen on it does not
	c.suspended = 0
	for _, k := range c.w.cables {
		if k.c == c {
			k.sat = false // without a word
			k.severed = true
			k.changed()
		}
	}
}

// startProgram starts the satellite's program in d.
func (c *computer) startProgram(d time.Duration) {
	w := c.w
	c.programs++
	n := c.programs
	w.queue.push(w.time+d, func() {
		if !c.powered || c.programs != n || c.gone {
			return
		}
		p := &program{c: c, n: n, delay: time.Second, logins: map[uint64]func(simulated.Outcome){}, visitor: map[uint64]*user{}, procs: map[string]*process{},
			starts: map[string]*starting{}, told: map[string]*grant{}, dice: w.dice.of("program", c.number, n)}
		p.frozen = c.suspended
		c.program, c.leaseAt = p, min(c.leaseAt, c.leaseNoted)
		facts := c.facts
		if c.problem {
			facts = &pb.HostFacts{Hostname: facts.Hostname, Arch: facts.Arch, CpuVendor: facts.CpuVendor, Cpus: facts.Cpus, MemoryBytes: facts.MemoryBytes,
				Accelerator: facts.Accelerator, MaxSessions: facts.MaxSessions, SnapReserveBytes: facts.SnapReserveBytes, Features: facts.Features,
				Problems: []string{"/dev/kvm cannot be opened"}, AsRoot: true}
			c.problem = false
		}
		w.note("program starts", c.name, n)
		w.tell(&p.actor, func() {
			p.sat = w.cfg.Satellite(simulated.Config{Name: c.name, Facts: facts, Instance: c.name + "-" + strconv.FormatUint(n, 10), Host: p,
				MasterLost: 15 * time.Second, StartTimeout: w.plan.startTimeout, HungAfter: 15 * time.Second})
			var err error
			p.call(func() { err = p.sat.Begin() })
			if p.dead {
				return
			}
			if err != nil {
				w.note("program cannot start", c.name, err)
				p.crash("cannot start")
				return
			}
			p.tickAt(w.time + w.shrink(time.Second, c.rate))
			p.connect(time.Second)
		})
	})
}

// die ends the program. What it had open is the kernel's to close.
func (p *program) die() {
	if p.dead {
		return
	}
	p.dead = true
	p.backlog = nil
	p.c.program = nil
	for _, s := range p.starts {
		s.over = true
	}
	for _, x := range p.procs {
		x.watcher = nil
	}
	for _, id := range sortedKeys(p.logins) {
		done := p.logins[id]
		delete(p.logins, id)
		p.c.w.queue.push(p.c.w.time+time.Millisecond, func() { done(simulated.Outcome{Err: errCut}) })
	}
}

// errCut: the program that a user talked to is gone.
var errCut = errors.New("the satellite has ended")

// crash ends the program by itself; the service manager starts it again.
func (p *program) crash(why string) {
	if p.dead {
		return
	}
	c, w := p.c, p.c.w
	w.note("program dies", c.name, p.n, why)
	c.touched()
	p.die()
	for _, k := range slices.Clone(w.cables) {
		if k.p == p && k.sat {
			k.sat = false
			k.send(up, k.closedAbove)
		}
	}
	r := p.dice.of("restart")
	c.startProgram(r.between(300*time.Millisecond, 6*time.Second))
}

// call calls the program's code, which may end it.
func (p *program) call(f func()) {
	if p.dead || p.sat == nil {
		return
	}
	p.depth++
	p.c.doom()
	defer func() {
		p.depth--
		switch v := recover(); v {
		case nil:
			if p.depth == 0 && !p.dead {
				p.rearm()
			}
		case crashed{}:
			if p.depth > 0 {
				panic(v)
			}
			p.crash("within a call")
		default:
			panic(v)
		}
	}()
	f()
}

// tickAt schedules the next tick.
func (p *program) tickAt(at time.Duration) {
	p.next = at
	p.stamp++
	stamp := p.stamp
	p.c.w.at(&p.actor, at, func() {
		if p.stamp != stamp {
			return
		}
		p.ticked = p.c.w.time
		p.next = p.c.w.time + p.c.w.shrink(time.Second, p.c.rate)
		next := p.next
		p.stamp++
		p.call(func() { p.sat.Tick() })
		if !p.dead && p.next == next {
			p.tickAt(next)
		}
	})
}

// rearm lets the program tick earlier where it wants that.
func (p *program) rearm() {
	wake := p.sat.Wake()
	if wake.IsZero() {
		return
	}
	left := wake.Sub(p.c.clock().Mono)
	at := max(p.c.w.time+p.c.w.shrink(max(left, 0), p.c.rate)+time.Microsecond, p.ticked+time.Millisecond)
	if at < p.next {
		p.tickAt(at)
	}
}

// host is called at the begin of each call of the Host.
func (p *program) host() {
	if p.dead {
		panic(crashed{})
	}
	if p.crashIn > 0 {
		if p.crashIn--; p.crashIn == 0 {
			panic(crashed{})
		}
	}
}

// Clock implements simulated.Host.
func (p *program) Clock() simulated.Clock { return p.c.clock() }

// Files implements simulated.Host.
func (p *program) Files() []string { return sortedKeys(p.c.files) }

// Read implements simulated.Host.
func (p *program) Read(name string) ([]byte, bool) {
	b, ok := p.c.files[name]
	return slices.Clone(b), ok
}

// Write implements simulated.Host.
func (p *program) Write(name string, data []byte) error {
	p.host()
	if p.c.full > 0 {
		p.c.w.faultHit("satellite's disk full")
		p.c.forgets()
		return simulated.ErrNoSpace
	}
	p.c.files[name] = slices.Clone(data)
	p.host()
	return nil
}

// Remove implements simulated.Host.
func (p *program) Remove(name string) error {
	p.host()
	delete(p.c.files, name)
	return nil
}

// Load implements simulated.Host.
func (p *program) Load() *pb.Load {
	c := p.c
	var used uint64
	for _, x := range c.procs {
		used += x.memory
	}
	total := c.facts.MemoryBytes
	snap := uint64(200 << 30)
	if c.full > 0 {
		snap = 1 << 20
	}
	return &pb.Load{CpuBusy: min(1, float64(len(c.procs))/20), Load1: float64(len(c.procs)), MemoryTotal: total, MemoryFree: total - min(total, used+512<<20),
		SnapFree: snap, HomeFree: 100 << 30}
}

// Desktop implements simulated.Host.
func (p *program) Desktop(user string) (memoryMiB, cpus int, requires []string, err error) {
	u := p.c.w.byName[user]
	if u == nil || u.bare {
		return 0, 0, nil, errors.New("there is no link win4 in the home directory")
	}
	return u.memory, 2, u.requires, nil
}

// Random implements simulated.Host.
func (p *program) Random() uint64 { return p.dice.roll() }

// Send implements simulated.Host.
func (p *program) Send(link uint64, u *pb.Up) {
	p.host()
	if k := p.cable; k != nil && k.n == link && k.sat {
		if r := u.GetReport(); r != nil {
			k.reported(r)
		}
		k.up(u)
	}
}

// Close implements simulated.Host.
func (p *program) Close(link uint64) {
	p.host()
	if k := p.cable; k != nil && k.n == link && k.sat {
		p.c.w.note("satellite closes link", p.c.name, link)
		p.c.w.after(&p.actor, 0, func() {
			if k.sat {
				p.lose(k)
				k.send(up, k.closedAbove)
			}
		})
	}
}

// Refer implements simulated.Host.
func (p *program) Refer(link uint64, r *pb.ReferRequest) uint64 {
	p.host()
	return p.request(link, r)
}

// Claim implements simulated.Host.
func (p *program) Claim(link uint64, r *pb.ClaimRequest) uint64 {
	p.host()
	return p.request(link, r)
}

// LoggedIn implements simulated.Host.
func (p *program) LoggedIn(login uint64, o simulated.Outcome) {
	p.host()
	done := p.logins[login]
	if done == nil {
		return
	}
	delete(p.logins, login)
	p.c.w.queue.push(p.c.w.time+time.Millisecond, func() { done(o) })
}

// touched notes that a fault has touched the computer.
func (c *computer) touched() { c.troubled = c.w.time }

// forgets notes that orders may be forgotten: a disk has not taken them, or lost
// them.
func (c *computer) forgets() {
	maps.DeleteFunc(c.w.ladders, func(_ string, l *ladder) bool { return l.c == c })
}

func (c *computer) String() string { return fmt.Sprintf("host %s", c.name) }

// enrol gives it another identity, as an administrator does with a computer
// whose own was revoked.
func (c *computer) enrol() {
	c.enrolled++
	c.uuid = fmt.Sprintf("uuid-%d-%d", c.number+1, c.enrolled)
	c.w.note("enrolled anew", c.name)
}

package sim

import (
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"verdecmd/master/store"
	pb "verdecmd/proto"
)

// world is one history.
type world struct {
	cfg   Config
	plan  plan
	dice  dice
	time  time.Duration // since start
	queue queue
	trace trace
	stats stats
	bad   *Violation
	over  bool

	store    *store.Mem
	disk     disks
	masters  []*master // that live; the newest is the last
	newest   uint64    // epoch
	starting bool
	idle     []*task
	cables   []*cable
	linked   uint64

	computers []*computer
	users     []*user
	byName    map[string]*user
	logins    uint64
	injected  int
	desk      struct{ hang, deaf, crash int }

	interval, reservation time.Duration // settings in force

	witness
}

// user is somebody with a desktop.
type user struct {
	id       uint64
	name     string
	uid      uint32
	memory   int // MiB
	requires []string
	bare     bool // has no desktop
	starts   uint64
	at       *computer // where the last login ended
}

// stretch is what a clock of this rate shows of a true duration, and shrink the
// opposite.
func (w *world) stretch(d time.Duration, rate float64) time.Duration {
	return time.Duration(float64(d) * rate)
}

func (w *world) shrink(d time.Duration, rate float64) time.Duration {
	return time.Duration(float64(d) / rate)
}

// newWorld lays a history out.
func newWorld(cfg Config, p plan) *world {
	w := &world{cfg: cfg, plan: p, dice: dice(mix(p.seed)), trace: trace{keep: cfg.Trace}, store: store.NewMem(), byName: map[string]*user{},
		interval: p.interval, reservation: p.reservation, stats: newStats()}
	w.witness.start()
	for i := range p.users {
		r := w.dice.of("user", uint64(i))
		u := &user{id: uint64(i), name: "u" + strconv.Itoa(i), uid: uint32(2000 + i), memory: pick(&r, 1024, 2048, 2048, 4096)}
		switch {
		case i == 0:
			u.bare = true
		case i == 1:
			u.requires = []string{"gpu"} // nobody has it
		case i == 2:
			u.memory = 1 << 20 // more than there is
		}
		w.users = append(w.users, u)
		w.byName[u.name] = u
	}
	for i := range p.satellites {
		r := w.dice.of("host", uint64(i))
		c := &computer{w: w, number: uint64(i), name: "sat" + strconv.Itoa(i+1), uuid: "uuid-" + strconv.Itoa(i+1), rate: rate(&r),
			files: map[string][]byte{}, ordered: map[string]bool{}, forced: map[string]bool{}, monoBase: time.Duration(i+1) * time.Hour,
			facts: &pb.HostFacts{Hostname: "sat" + strconv.Itoa(i+1), Arch: "x86_64", CpuVendor: "GenuineIntel", Cpus: 16,
				MemoryBytes: pick[uint64](&r, 16, 32, 64, 64) << 30, Accelerator: "kvm", SnapReserveBytes: 2 << 30, AsRoot: true}}
		if r.chance(30) {
			c.facts.MaxSessions = uint32(3 + r.below(8))
		}
		if c.rate != 1 || p.masterRate != 1 {
			w.faultHit("clock drift")
		}
		w.computers = append(w.computers, c)
	}
	return w
}

// run lets the history happen.
func (w *world) run() {
	defer func() {
		for _, m := range w.masters {
			m.kill()
		}
		for _, t := range w.idle {
			t.stop()
		}
	}()
	w.startMaster()
	for _, c := range w.computers {
		r := w.dice.of("power on", c.number)
		w.queue.push(r.between(0, 2*time.Second), c.powerOn)
	}
	for i := range w.plan.steps {
		s := w.plan.steps[i] // a copy: its dice are rolled
		w.queue.push(s.at, func() { w.take(&s) })
	}
	w.queue.push(active, w.healed)
	w.happen()
}

// happen lets one event after the other happen, until a promise is broken or all
// is over. A panic of the rules is a violation too.
func (w *world) happen() {
	defer func() {
		if v := recover(); v != nil {
			w.fail("panic", "%v\n%s", v, debug.Stack())
		}
	}()
	for len(w.queue.all) > 0 && w.bad == nil && !w.over {
		e := w.queue.pop()
		w.time = e.at
		w.stats.events++
		e.do()
	}
}

// master is the one that administrators talk to: the newest that answers.
func (w *world) master() *master {
	for i := len(w.masters) - 1; i >= 0; i-- {
		if m := w.masters[i]; m.ready && m.frozen == 0 {
			return m
		}
	}
	return nil
}

// take carries a step out.
func (w *world) take(s *step) {
	switch {
	case s.fault():
		w.inject(s)
	case s.kind == "login" || s.kind == "login under another number" || s.kind == "login everywhere at once":
		u := w.users[s.on]
		uid := u.uid
		if s.kind == "login under another number" {
			uid += 5000
		}
		times := 1
		if s.kind == "login everywhere at once" {
			times = 3
		}
		for range times {
			w.login(&visit{user: u, uid: uid, dice: s.dice.of("visit", s.dice.roll())})
		}
	case s.kind == "crowd": // all at one server, and nobody stays
		c := w.computers[s.dice.below(len(w.computers))]
		for i := range w.users {
			u := w.users[(s.on+i)%len(w.users)]
			w.login(&visit{user: u, uid: u.uid, dice: s.dice.of("visit", u.id), entry: c, stays: c, end: w.time + time.Second})
		}
	case s.kind == "guest leaves":
		for _, c := range w.computers {
			for _, x := range c.procs {
				if x.user == w.users[s.on].name && x.ready {
					x.leave(0)
				}
			}
		}
	default:
		w.administer(s)
	}
}

// Violation is a promise that was broken.
type Violation struct {
	Check string // S1, LV1, ...
	Text  string
	At    time.Duration // since the begin of the history
}

func (v *Violation) String() string { return fmt.Sprintf("%s at %v: %s", v.Check, v.At, v.Text) }

// fail notes the first violation; the history ends there.
func (w *world) fail(check, format string, args ...any) {
	if w.bad == nil {
		w.bad = &Violation{check, fmt.Sprintf(format, args...), w.time}
		w.note("VIOLATION "+check, w.bad.Text)
	}
}

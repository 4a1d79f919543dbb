package sim

import (
	"context"
	"maps"
	"slices"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// direction is which way a message goes.
type direction int

const (
	up direction = iota
	down
)

// cable is one connection of a satellite's program with a master, with both of
// its ends: each learns by itself that it is over. It is TCP: what is sent comes
// in order or not at all, what a partition holds up comes when that heals, and
// who hears nothing for long gives up. Calls beside the stream may overtake.
type cable struct {
	w  *world
	id uint64 // of all cables
	n  uint64 // the satellite's number for it
	c  *computer
	p  *program
	m  *master

	sat, mas bool // the ends that think it is open
	severed  bool // nothing passes any more, and nobody was told
	sent     [2]uint64
	last     [2]time.Duration // when the latest message arrives
	held     [2][]func()      // by a partition
	hold     time.Duration    // the messages up come only after this
	bad      uint64           // grows with each change of bad times; odd: they are bad

	// The satellite's end.

	welcomed bool
	interval time.Duration
	due      uint64 // changes with the schedule of reports
	calls    map[uint64]bool
	hello    time.Duration            // uptime at the hello
	reports  map[uint64]time.Duration // uptime at the reports that no lease has answered

	// The master's end.

	server, attachment uint64
	inbox              []*pb.Up
	busy               bool
	waiting            map[uint64]func(error) // by order
	lost               []uint64
}

// blocked tells whether messages are held up.
func (k *cable) blocked(d direction) bool {
	return k.c.cut[d] > 0 || !k.c.powered || k.c.suspended > 0
}

// deaf tells whether an end that waits for the other waits in vain.
func (k *cable) deaf() bool {
	return k.severed || k.blocked(up) || k.blocked(down) || k.p.frozen > 0 || k.m.frozen > 0
}

// send lets do happen at the other end, after all that was sent before.
func (k *cable) send(d direction, do func()) {
	if k.severed {
		return
	}
	if k.blocked(d) {
		k.held[d] = append(k.held[d], do)
		return
	}
	at := max(k.last[d], k.w.time+k.latency(d))
	if d == up {
		at = max(at, k.hold)
	}
	k.last[d] = at
	k.arrive(d, at, do)
}

// beside sends a call or its answer, which may overtake the stream and be
// overtaken.
func (k *cable) beside(d direction, do func()) {
	if k.severed {
		return
	}
	if k.blocked(d) {
		k.held[d] = append(k.held[d], do)
		return
	}
	late := time.Duration(0)
	if k.c.reorder > 0 {
		r := k.w.dice.of("reorder", k.id, k.sent[d])
		late = r.between(0, 3*time.Second)
		k.w.faultHit("reordered")
	}
	k.arrive(d, k.w.time+k.latency(d)+late, do)
}

func (k *cable) arrive(d direction, at time.Duration, do func()) {
	k.w.queue.push(at, func() {
		switch {
		case k.severed:
		case k.blocked(d): // cut while it was under way
			k.held[d] = append(k.held[d], do)
		case d == up:
			k.w.tell(&k.m.actor, do)
		default:
			k.w.tell(&k.p.actor, do)
		}
	})
}

func (k *cable) latency(d direction) time.Duration {
	k.sent[d]++
	r := k.w.dice.of("latency", k.id, uint64(d), k.sent[d])
	t := r.between(200*time.Microsecond, 15*time.Millisecond)
	if k.c.lag > 0 {
		t += r.between(100*time.Millisecond, 2*time.Second)
		k.w.faultHit("delayed")
	}
	return t
}

// up sends a message of the satellite, down (post) one of the master.
func (k *cable) up(u *pb.Up) {
	k.send(up, func() {
		if k.mas {
			k.m.receive(k, u)
		}
	})
}

func (k *cable) post(d *pb.Down) {
	k.send(down, func() {
		if k.sat {
			k.p.receive(k, d)
		}
	})
}

// closedAbove tells the master that the satellite has closed it.
func (k *cable) closedAbove() {
	if k.mas {
		k.mas = false
		k.m.ended(k)
	}
}

// closedBelow tells the satellite that the master has closed it.
func (k *cable) closedBelow() {
	if k.sat {
		k.p.lose(k)
	}
}

// changed is called when something about the way may have become bad or good:
// what was held up goes on, or each end that is still open gives up after some
// time.
func (k *cable) changed() {
	bad := k.deaf()
	if bad == (k.bad%2 == 1) {
		return
	}
	k.bad++
	if !bad {
		for d := range k.held {
			all := k.held[d]
			k.held[d] = nil
			for _, do := range all {
				k.send(direction(d), do)
			}
		}
		return
	}
	stamp := k.bad
	r := k.w.dice.of("gives up", k.id, stamp)
	// wire.KeepaliveTime of silence, and wire.KeepaliveTimeout without an answer.
	give := func() time.Duration {
		return r.between(wire.KeepaliveTimeout, wire.KeepaliveTime+wire.KeepaliveTimeout)
	}
	k.w.after(&k.p.actor, give(), func() {
		if k.sat && k.bad == stamp {
			k.w.note("satellite gives up link", k.c.name, k.n)
			k.p.lose(k)
			k.send(up, k.closedAbove)
		}
	})
	k.w.after(&k.m.actor, give(), func() {
		if k.mas && k.bad == stamp {
			k.w.note("master gives up link", k.m.id, k.c.name)
			k.m.hangUp(k)
		}
	})
}

// recheck looks at all cables of a computer (nil: of all) and forgets those
// that are over.
func (w *world) recheck(c *computer) {
	w.cables = slices.DeleteFunc(w.cables, func(k *cable) bool { return !k.sat && !k.mas && len(k.held[up])+len(k.held[down]) == 0 })
	for _, k := range slices.Clone(w.cables) {
		if c == nil || k.c == c {
			k.changed()
		}
	}
}

// connect is satellite/link.Run: it makes a new link, again and again.
func (p *program) connect(delay time.Duration) {
	w := p.c.w
	p.tries++
	r := w.dice.of("connect", p.c.number, p.n, p.tries)
	next := min(5*time.Second, delay*16/10)
	w.after(&p.actor, r.between(0, delay), func() {
		if p.cable != nil {
			return
		}
		m := w.listener(&r)
		if m == nil || p.c.cut[up]+p.c.cut[down] > 0 {
			// Refused, or no answer for some time.
			wait := time.Duration(0)
			if m != nil {
				wait = r.between(time.Second, 5*time.Second)
			}
			w.after(&p.actor, wait, func() { p.connect(next) })
			return
		}
		w.linked++
		p.links++
		k := &cable{w: w, id: w.linked, n: p.links, c: p.c, p: p, m: m, sat: true, mas: true, calls: map[uint64]bool{}, reports: map[uint64]time.Duration{}}
		w.cables = append(w.cables, k)
		k.changed()
		p.cable, p.latest = k, k.id
		p.delay = next
		k.hello = p.Clock().Boot
		var hello *pb.Hello
		p.call(func() { hello = p.sat.Open(k.n) })
		if hello == nil {
			return // it has crashed
		}
		w.note("hello", p.c.name, k.n, len(hello.Report.GetSessions().GetSessions()), hello.EpochSeen)
		k.up(&pb.Up{Kind: &pb.Up_Hello{Hello: hello}})
		w.after(&p.actor, 15*time.Second, func() { // link.welcomeWithin
			if k.sat && !k.welcomed {
				p.lose(k)
				k.send(up, k.closedAbove)
			}
		})
	})
}

// listener is a master that takes connections now.
func (w *world) listener(r *dice) *master {
	var ready []*master
	for _, m := range w.masters {
		if m.ready {
			ready = append(ready, m)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return pick(r, ready...)
}

// lose ends the satellite's end of a link: its calls fail, and a new one is
// made.
func (p *program) lose(k *cable) {
	if !k.sat {
		return
	}
	k.sat = false
	p.c.w.note("link lost", p.c.name, k.n)
	k.calls = map[uint64]bool{}
	if p.cable == k {
		p.cable = nil
		delay := p.delay
		if k.welcomed {
			delay = time.Second
		}
		p.connect(delay)
	}
	p.call(func() { p.sat.Closed(k.n) })
}

// receive takes a message of the master.
func (p *program) receive(k *cable, d *pb.Down) {
	w, c := p.c.w, p.c
	var pace *pb.Pace
	var order *pb.Order
	obeyed := func() {}
	switch x := d.Kind.(type) {
	case *pb.Down_Welcome:
		pace = x.Welcome.Pace
		obeyed = func() {
			k.welcomed = true
			if x.Welcome.Epoch < c.epoch {
				w.fail("S9", "%s obeys master %d, after it has obeyed %d", c.name, x.Welcome.Epoch, c.epoch)
			}
			c.epoch = x.Welcome.Epoch
			c.self = time.Duration(x.Welcome.LeaseSelfMs) * time.Millisecond
			c.leased(k.hello)
		}
	case *pb.Down_Pace:
		pace = x.Pace
	case *pb.Down_Lease:
		if at, ok := k.reports[x.Lease.Report]; ok {
			obeyed = func() { c.leased(max(c.leaseAt, at)) }
			for seq := range k.reports {
				if seq <= x.Lease.Report {
					delete(k.reports, seq)
				}
			}
		}
	case *pb.Down_Order:
		order = x.Order
		if o := order.GetSession(); o != nil {
			c.ordered[o.Session] = true
			c.forced[o.Session] = c.forced[o.Session] || o.Action != pb.SessionOrder_SHUTDOWN
		}
	}
	var err error
	p.order = order
	p.call(func() { err = p.sat.Receive(k.n, d) })
	p.order = nil
	if err != nil {
		w.note("satellite ends link", c.name, k.n, err)
		w.refusal(err)
		if k.sat {
			p.lose(k)
			k.send(up, k.closedAbove)
		}
		return
	}
	if p.dead {
		return
	}
	obeyed()
	if pace != nil {
		k.schedule(pace)
	}
}

// leased notes a lease that the program has taken in. On a full disk it knows of
// it only until it ends.
func (c *computer) leased(at time.Duration) {
	c.leaseAt = at
	if c.full == 0 {
		c.leaseNoted = at
	}
}

// schedule asks for reports at their pace.
func (k *cable) schedule(pace *pb.Pace) {
	k.interval = time.Duration(pace.IntervalMs) * time.Millisecond
	k.due++
	due := k.due
	first := time.Duration(pace.SlotMs)*time.Millisecond%k.interval + k.interval/100
	var next func()
	next = func() {
		if !k.sat || k.due != due {
			return
		}
		k.w.after(&k.p.actor, k.w.shrink(k.interval, k.c.rate), next)
		var r *pb.Report
		k.p.call(func() { r = k.p.sat.Report(k.n) })
		if r != nil && k.sat {
			k.reported(r)
			k.up(&pb.Up{Kind: &pb.Up_Report{Report: r}})
		}
	}
	k.w.after(&k.p.actor, k.w.shrink(first, k.c.rate), next)
}

// reported notes when a report was sent: the lease counts from there.
func (k *cable) reported(r *pb.Report) {
	if k.c.self > 0 {
		k.reports[r.Seq] = k.p.Clock().Boot
	}
	if k.c.stale > 0 { // this report will be late, and its link over before
		k.c.stale--
		r := k.w.dice.of("stale", k.id, k.sent[up])
		k.hold = k.w.time + r.between(time.Second, 8*time.Second)
		k.w.faultHit("stale report")
		k.w.after(&k.p.actor, 10*time.Millisecond, func() {
			k.p.lose(k)
			k.send(up, k.closedAbove)
		})
	}
}

// call sends a call of the satellite and answers it.
func (p *program) request(n uint64, request any) uint64 {
	w := p.c.w
	p.asked++
	id := p.asked
	k := p.cable
	answer := func(reply any, err error) {
		if claim, ok := reply.(*pb.ClaimReply); ok {
			p.c.told(p, k, claim)
		}
		p.call(func() { p.sat.Answered(id, reply, err) })
	}
	if k == nil || k.n != n || !k.sat {
		w.after(&p.actor, 0, func() { answer(nil, wire.Errorf(wire.Unreachable, "there is no link to the master")) })
		return id
	}
	k.calls[id] = true
	settle := func(reply any, err error) {
		if k.calls[id] {
			delete(k.calls, id)
			answer(reply, err)
		}
	}
	w.after(&p.actor, w.shrink(10*time.Second, p.c.rate), func() { // link.callWithin
		settle(nil, wire.FromStatus(context.DeadlineExceeded))
	})
	times := 1
	if p.c.repeat > 0 {
		times = 2
		w.faultHit("repeated")
	}
	for i := range times {
		k.beside(up, func() {
			if !k.mas {
				return
			}
			k.m.call(k, request, func(reply any, err error) {
				if i == 0 && k.mas {
					k.beside(down, func() {
						if k.sat {
							settle(reply, err)
						}
					})
				}
			})
		})
	}
	return id
}

func sortedKeys[K int | uint64 | string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

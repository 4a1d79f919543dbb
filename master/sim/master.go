package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/alarm"
	"verdecmd/master/cluster"
	"verdecmd/master/host"
	"verdecmd/master/hub"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// master is one start of the master's program: the real rules and what makes
// them durable, and a model of the streams.
type master struct {
	actor
	w  *world
	id uint64 // its epoch

	tasks   map[*task]bool
	task    *task // that runs now
	waiters []*waiter
	turn    turn

	commits uint64
	pending int           // commits under way
	disk    time.Duration // when the commits that are being written are made
	next    time.Duration // and when those that wait for them; not later than disk: none do
	broken  bool          // no commit is made any more

	ready   bool // it listens
	cluster *cluster.Cluster
	session *session.Manager
	host    *host.Manager
	hub     *hub.Hub
	alarm   *alarm.Manager

	recording turn
	storing   bool // alarms are being stored, or wait for the next tick

	lines  map[uint64]*cable // by server
	orders uint64
	times  link.Times
	audit  audit
}

// now is what the master's clock shows.
func (m *master) now() time.Time { return start.Add(m.w.stretch(m.w.time, m.w.plan.masterRate)) }

func (m *master) state(f func(*cluster.Cluster)) { f(m.cluster) }

// startMaster starts the master's program on the store.
func (w *world) startMaster() *master {
	m := &master{w: w, id: uint64(w.store.Restart()), tasks: map[*task]bool{}, lines: map[uint64]*cable{}, disk: w.time}
	m.turn.m = m
	m.audit.start(m)
	w.newest = m.id
	w.masters = append(w.masters, m)
	w.note("master starts", m.id)
	m.begin(m.boot)
	return m
}

// boot is what master.New does.
func (m *master) boot() {
	ctx, s, e := context.Background(), disk{m}, store.Epoch(m.id)
	limits, self := m.w.limits()
	since, err := session.LeaseSince(ctx, s, e, limits, self)
	if err != nil {
		m.w.note("master cannot start", m.id, err)
		m.w.after(&m.actor, 0, func() { m.crash("cannot start") })
		return
	}
	limits.LeaseSince = since
	m.cluster = cluster.New(limits, m.now())
	if err := m.newAlarms(s, e); err != nil {
		m.w.fail("S11", "master %d cannot read its alarms: %v", m.id, err)
		return
	}
	orders := &session.Link{Server: m}
	m.session = session.New(session.Config{State: m.state, Store: s, Epoch: e, Orders: orders, Event: m.event, Log: zerolog.Nop(),
		Now: m.now, Wait: m.wait,
		Go: func(f func()) { m.w.after(&m.actor, 0, func() { m.begin(f) }) },
		Timeout: func(ctx context.Context, _ time.Duration) (context.Context, context.CancelFunc) {
			return ctx, func() {}
		}})
	m.host = host.New(host.Config{State: m.state, Store: s, Epoch: e, Event: m.event, Cancelled: m.session.Cancelled, Log: zerolog.Nop(), Now: m.now, Turn: &m.turn})
	m.hub = hub.New(hub.Config{State: m.state, Host: m.host, Session: m.session, Event: m.event, Again: m.again, Now: m.now, Log: zerolog.Nop()})
	m.times = link.Times{Interval: limits.Interval, LeaseSelf: self}
	last, err := m.host.Restore(ctx, m.now(), m.cluster)
	if err == nil {
		err = m.session.Restore(ctx, m.now(), m.cluster, last)
	}
	if err != nil {
		m.w.fail("S5", "master %d cannot read its store: %v", m.id, err)
		return
	}
	m.settleAlarms()
	m.event("master.started", "")
	m.ready = true
	m.w.note("master is ready", m.id)
	m.w.restored(m)
	m.tick()
	m.retry()
}

// tick is session.Run's ticker of a quarter of a second.
func (m *master) tick() {
	m.session.Expire()
	if m.audit.ticks++; m.audit.ticks%6 == 0 {
		m.audit.look()
	}
	if m.audit.ticks%4 == 0 {
		m.watch()
	}
	m.w.after(&m.actor, 250*time.Millisecond, m.tick)
}

// retry is session.Run's ticker of a second, which waits for what it does.
func (m *master) retry() {
	m.w.after(&m.actor, time.Second, func() {
		m.begin(func() {
			m.session.Retry()
			m.retry()
		})
	})
}

// crash ends the program. Its kernel closes what it had open; the service
// manager starts it again.
func (m *master) crash(why string) {
	w := m.w
	w.note("master dies", m.id, why)
	m.kill()
	w.masters = slices.DeleteFunc(w.masters, func(x *master) bool { return x == m })
	for _, k := range w.cables {
		if k.m == m && k.mas {
			k.mas = false
			k.send(down, k.closedBelow)
		}
	}
	if len(w.masters) > 0 || w.starting {
		return // another one is there
	}
	w.starting = true
	back := w.dice.of("restart", m.id)
	w.queue.push(w.time+back.between(500*time.Millisecond, 8*time.Second), func() {
		w.starting = false
		if len(w.masters) == 0 {
			w.startMaster()
		}
	})
}

// event takes what the master announces.
func (m *master) event(typ, text string, pairs ...monitor.Pair) {
	m.w.note("event", m.id, typ)
	m.audit.event(typ, pairs)
	m.again(typ, text, pairs...)
}

// again takes what it has announced before.
func (m *master) again(typ, text string, pairs ...monitor.Pair) { m.alarm.Event(typ, text, pairs...) }

// receive takes a message from a link, in order.
func (m *master) receive(k *cable, u *pb.Up) {
	k.inbox = append(k.inbox, u)
	if k.busy {
		return
	}
	k.busy = true
	m.begin(func() {
		for len(k.inbox) > 0 && k.mas {
			u := k.inbox[0]
			k.inbox = k.inbox[1:]
			if err := m.take(k, u); err != nil {
				m.w.note("link refused", m.id, k.c.name, err)
				m.w.refusal(err)
				if wire.KindOf(err) == wire.Revoked {
					k.c.enrol()
				}
				m.hangUp(k)
			}
		}
		k.busy = false
	})
}

// take is what link.Server does with a message.
func (m *master) take(k *cable, u *pb.Up) error {
	ctx := context.Background()
	switch x := u.Kind.(type) {
	case *pb.Up_Hello:
		h, err := link.Admit(wire.Identity{ID: k.c.uuid, Name: k.c.name}, x.Hello, m.id)
		if err != nil {
			return err
		}
		at, err := m.hub.Attach(ctx, h, k.c.name)
		if err != nil {
			return err
		}
		k.server, k.attachment = at.Server, at.Attachment
		m.w.note("attached", m.id, k.c.name, at.Server, at.Attachment)
		m.w.known(m, k.c, at.Server)
		if !k.mas { // it has ended meanwhile
			m.hub.Detach(ctx, at.Server, at.Attachment)
			return nil
		}
		if old := m.lines[at.Server]; old != nil {
			if old.attachment > at.Attachment {
				m.hangUp(k)
				return nil
			}
			m.hangUp(old)
		}
		m.lines[at.Server] = k
		k.post(&pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{
			Epoch: m.id, ServerId: at.Server, Attachment: at.Attachment, Version: "sim",
			Pace: link.PaceAt(m.times, at.Server, m.now()), LeaseSelfMs: uint32(m.times.LeaseSelf / time.Millisecond),
		}}})
	case *pb.Up_Report:
		if k.attachment == 0 {
			return wire.Errorf(wire.BadRequest, "a report before a hello")
		}
		r, err := link.FromReport(x.Report)
		if err != nil {
			return err
		}
		if err := m.hub.Report(ctx, k.server, k.attachment, r); err != nil {
			return err
		}
		if m.times.LeaseSelf > 0 {
			k.post(&pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: x.Report.Seq}}})
		}
	case *pb.Up_Result:
		if f := k.waiting[x.Result.Order]; f != nil {
			delete(k.waiting, x.Result.Order)
			f(wire.FromDetail(x.Result.Error))
		}
	}
	return nil
}

// hangUp ends a link from above.
func (m *master) hangUp(k *cable) {
	if k.mas {
		k.mas = false
		k.send(down, k.closedBelow)
		m.ended(k)
	}
}

// ended is what link.Server does when a link has ended.
func (m *master) ended(k *cable) {
	if k.attachment == 0 {
		return
	}
	if m.lines[k.server] == k {
		delete(m.lines, k.server)
	}
	m.w.note("link is down", m.id, k.c.name)
	m.hub.Detach(context.Background(), k.server, k.attachment)
	for id := range k.waiting {
		k.lost = append(k.lost, id)
	}
	slices.Sort(k.lost)
	for _, id := range k.lost {
		k.waiting[id](link.ErrDown)
	}
	k.waiting, k.lost = nil, nil
}

// orderWithin bounds the wait for a satellite's answer, as in session.
const orderWithin = 5 * time.Second

// Order is link.Server.Order.
func (m *master) Order(_ context.Context, server uint64, o *pb.SessionOrder) (err error) {
	k := m.lines[server]
	m.orders++
	id := m.orders
	if k == nil || !k.mas {
		return link.ErrDown
	}
	m.w.ordered(m, k.c, o)
	k.post(&pb.Down{Kind: &pb.Down_Order{Order: &pb.Order{Id: id, Epoch: m.id, Kind: &pb.Order_Session{Session: o}}}})
	m.park(func(resume func()) {
		if k.waiting == nil {
			k.waiting = map[uint64]func(error){}
		}
		k.waiting[id] = func(e error) { err = e; resume() }
		m.w.after(&m.actor, orderWithin, func() {
			if k.waiting[id] != nil {
				delete(k.waiting, id)
				err = context.DeadlineExceeded
				resume()
			}
		})
	})
	m.w.note("order answered", m.id, o.Session, err)
	if err == nil {
		m.w.count("order")
	}
	return err
}

// call answers a call beside a stream; then is told what comes of it.
func (m *master) call(k *cable, request any, then func(reply any, err error)) {
	m.begin(func() {
		var reply any
		var err error
		switch r := request.(type) {
		case *pb.ReferRequest:
			var out *pb.ReferReply
			if out, err = m.refer(k, r); err == nil {
				reply = out
			}
		case *pb.ClaimRequest:
			var out *pb.ClaimReply
			if out, err = m.claim(k, r); err == nil {
				reply = out
			}
		}
		if err != nil {
			m.w.refusal(err)
			var e *wire.Error
			if !errors.As(err, &e) {
				err = wire.Errorf(wire.Internal, "%v", err)
			}
		}
		then(reply, err)
	})
}

// caller is link.Server.caller.
func (m *master) caller(k *cable, attachment uint64) error {
	for _, l := range m.lines {
		if l.c == k.c && l.attachment == attachment && l.mas {
			return nil
		}
	}
	return wire.Errorf(wire.StaleLink, "this link is no longer the current one of %s", k.c.name)
}

func (m *master) refer(k *cable, r *pb.ReferRequest) (*pb.ReferReply, error) {
	if err := m.caller(k, r.Attachment); err != nil {
		return nil, err
	}
	login, err := link.FromRefer(r)
	if err != nil {
		return nil, err
	}
	out, err := m.hub.Refer(context.Background(), k.server, k.attachment, login)
	if err != nil {
		m.w.note("refer refused", m.id, r.User, err)
		return nil, err
	}
	m.w.note("referred", m.id, r.User, out.ServerId, out.Reservation, out.Session)
	m.w.count("place")
	return out, nil
}

func (m *master) claim(k *cable, r *pb.ClaimRequest) (*pb.ClaimReply, error) {
	if err := m.caller(k, r.Attachment); err != nil {
		return nil, err
	}
	if err := link.CheckUser(r.User); err != nil {
		return nil, err
	}
	g := m.audit.claiming(k, r)
	out, err := m.hub.Claim(context.Background(), k.server, k.attachment, r.User, r.Uid)
	if err != nil {
		m.w.note("claim refused", m.id, r.User, err)
		return nil, err
	}
	m.w.note("claimed", m.id, r.User, out.Session, k.c.name)
	m.w.granted(m, k.c, g, out)
	return out, nil
}

// limits are the settings in force.
func (w *world) limits() (l cluster.Limits, self time.Duration) {
	p := &w.plan
	l = cluster.Limits{Interval: w.interval, ReservationTimeout: w.reservation, Resync: 15 * time.Second}
	if p.lease {
		l.Lost, l.LeaseReplace = cluster.Lease, p.replace
		self = p.self
	}
	return l, self
}

// setTimes is Master.SetLimits.
func (m *master) setTimes() {
	l, _ := m.w.limits()
	m.cluster.SetLimits(l)
	m.times.Interval = l.Interval
	for _, id := range sortedKeys(m.lines) {
		m.lines[id].post(&pb.Down{Kind: &pb.Down_Pace{Pace: link.PaceAt(m.times, id, m.now())}})
	}
}

func (m *master) String() string { return fmt.Sprintf("master %d", m.id) }

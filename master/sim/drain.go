package sim

import (
	"context"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/drain"
	"verdecmd/monitor"
)

// emptying is the job that empties a server, which a master that is started
// anew goes on with.
type emptying struct {
	w     *world
	plan  drain.Plan
	began []string // sessions that were there at its start
	by    uint64   // the master that works on it; another one begins again
	p     *drain.Plan
}

// drain begins to empty a server. The wish is told as offlineserver's is.
func (w *world) drain(m *master, c *computer, s *step) {
	e := &emptying{w: w, plan: drain.Plan{Server: c.server(m), Method: drain.Logoff, Started: m.now(), LogoffWait: 20 * time.Second}}
	if s.dice.chance(30) {
		e.plan.Method = drain.Wait
	}
	if s.dice.chance(60) {
		e.plan.Limit = s.dice.between(5*time.Second, 90*time.Second).Round(time.Second)
	}
	for _, x := range m.cluster.SessionsOn(e.plan.Server) {
		e.began = append(e.began, x.ID)
	}
	w.note("drain", e.plan.Server, string(e.plan.Method), e.plan.Limit)
	w.change(m, e.plan.Server, cluster.Draining, s.id, e.look)
}

// look is what the job does every so often.
func (e *emptying) look() {
	w := e.w
	m := w.master()
	if m == nil || m.frozen > 0 {
		w.queue.push(w.time+time.Second, e.look)
		return
	}
	if e.by != m.id {
		e.by, e.p = m.id, drain.NewPlan(e.plan, e.began)
	}
	v := e.p.Look(m.cluster, m.now())
	step := e.p.Next(m.now(), v)
	switch step.Over {
	case drain.Going:
		for _, o := range step.Logoff {
			w.end(o.User, o.Session, e.plan.Server, monitor.Logoff, o.Limit)
		}
		w.queue.push(w.time+500*time.Millisecond, e.look)
	case drain.Empty:
		w.emptied(e.plan.Server)
		w.count("emptied")
		e.offline(m)
	case drain.Late:
		w.count("not emptied in time")
		e.offline(m)
	default:
		w.note("drain ended", e.plan.Server, string(v.State))
	}
}

// emptied looks at a server of which a master says that nobody is left there
// (S6): nothing runs there, and as long as it is offline nothing comes.
func (w *world) emptied(server uint64) {
	w.note("emptied", server)
	for _, x := range w.hostOf[server].procs {
		if !w.excused(x) {
			w.fail("S6", "server %d is empty, its master says, and session %s of %s (pid %d) runs on %s", server, x.session, x.user, x.pid, x.c.name)
		}
	}
}

// offline is the end of the job: the server is put offline, unless somebody has
// given it another state in this moment. A master that dies over it leaves the
// job to the next one.
func (e *emptying) offline(m *master) {
	w, id, done := e.w, e.plan.Server, false
	m.begin(func() {
		x := w.asks(id, cluster.Offline, m.cluster.Server(id).Reason)
		err := m.host.Drained(context.Background(), id)
		done = true
		w.note("drained", m.id, id, err)
		w.refusal(err)
		if s := m.cluster.Server(id); err == nil && s != nil && s.State == x.state && s.Reason == x.reason {
			w.acknowledged(m, x, true)
		} else {
			w.withdrawn(id, x)
		}
		if err != nil {
			w.queue.push(w.time+time.Second, e.look)
		}
	})
	if !done {
		w.queue.push(w.time+10*time.Second, func() {
			if !done && m.dead {
				e.look()
			}
		})
	}
}

package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/job"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// Jobs is what the ends of sessions need from the job manager.
type Jobs interface {
	Start(ctx context.Context, spec job.Spec, run job.Func) (j monitor.Job, joined bool, err error)
	Register(action string, resume func(job.Record) job.Func)
	List(all bool) []monitor.Job
}

const (
	abortLimit = 10 * time.Second // PROTOCOL 11.10
	// grace is what a log off may take beyond its limit: the abort by the
	// satellite, and its way here.
	grace       = 15 * time.Second
	orderLimit  = 5 * time.Second
	retryOrders = time.Second
)

// ending is what a job needs to go on after a restart.
type ending struct {
	Session string      `json:"session"`
	Server  uint64      `json:"server"`
	How     monitor.How `json:"how"`
	Force   bool        `json:"force,omitempty"`
}

// RegisterJobs lets the jobs of an earlier master go on. Call it before the
// job manager runs.
func (m *Manager) RegisterJobs() {
	for _, action := range []string{"shutdownuser", "logoffuser", "abortuser"} {
		m.cfg.Jobs.Register(action, func(r job.Record) job.Func {
			var e ending
			if err := json.Unmarshal(r.Data, &e); err != nil {
				return nil
			}
			return func(ctx context.Context, p *job.Progress) job.Outcome {
				return m.end(ctx, p, r.Object, e, r.Started, r.Limit)
			}
		})
	}
}

// End starts the job that ends the session of user, or joins it. limit 0 is the
// default of how. Without a session the job has the ID 0.
func (m *Manager) End(ctx context.Context, user string, how monitor.How, limit time.Duration, force bool, by string) (monitor.Job, bool, error) {
	var x cluster.Session
	var known, up bool
	var server string
	m.cfg.State(func(c *cluster.Cluster) {
		if s := c.Session(user); s != nil {
			x, known = *s, true
			server, up = c.Server(x.Server).Name, c.Server(x.Server).Attachment != 0
		}
	})
	if !known {
		return monitor.Job{}, false, nil
	}
	if !up && !(force && how == monitor.Abort) {
		return monitor.Job{}, false, monitor.Errorf(441, []monitor.Pair{{Key: "server", Value: x.Server}},
			"server %d (%s), where the session of %s is, does not answer; nothing was done. If it is powered off, \"fenceserver %d\" or \"abortuser %s force\" releases the session",
			x.Server, server, user, x.Server, user)
	}
	shutdown, logoff := m.waits()
	switch {
	case how == monitor.Abort:
		limit = abortLimit
	case limit == 0 && how == monitor.Shutdown:
		limit = shutdown
	case limit == 0:
		limit = logoff
	}
	return m.start(ctx, x, how, limit, force, by)
}

// LogoffSession starts the job that logs off one session, or joins it. Without
// such a session it does nothing.
func (m *Manager) LogoffSession(ctx context.Context, id string, limit time.Duration, by string) error {
	var x cluster.Session
	known := false
	m.cfg.State(func(c *cluster.Cluster) {
		if s := c.SessionByID(id); s != nil {
			x, known = *s, true
		}
	})
	if !known {
		return nil
	}
	_, _, err := m.start(ctx, x, monitor.Logoff, limit, false, by)
	return err
}

// LogoffWait is how long a guest gets to shut down where nothing else is said.
func (m *Manager) LogoffWait() time.Duration {
	_, logoff := m.waits()
	return logoff
}

// start starts the job that ends a session, or joins it.
func (m *Manager) start(ctx context.Context, x cluster.Session, how monitor.How, limit time.Duration, force bool, by string) (monitor.Job, bool, error) {
	e := ending{Session: x.ID, Server: x.Server, How: how, Force: force}
	data, err := json.Marshal(e)
	if err != nil {
		return monitor.Job{}, false, err
	}
	spec := job.Spec{Action: string(how) + "user", Object: x.User, By: by, Limit: limit, Data: data}
	started := time.Now()
	return m.cfg.Jobs.Start(ctx, spec, func(ctx context.Context, p *job.Progress) job.Outcome {
		return m.end(ctx, p, x.User, e, started, limit)
	})
}

// end is the work of the job.
func (m *Manager) end(ctx context.Context, p *job.Progress, user string, e ending, started time.Time, limit time.Duration) job.Outcome {
	r := reply{job: p.Record().ID, user: user, e: e, started: started, limit: limit}
	ended := m.watch(e.Session)
	defer m.unwatch(e.Session, ended)
	var here, up bool
	m.cfg.State(func(c *cluster.Cluster) {
		here = c.SessionByID(e.Session) != nil
		up = here && c.Server(e.Server).Attachment != 0
	})
	if !here {
		return r.done("ended", "")
	}
	if e.Force && !up {
		return m.force(ctx, r)
	}
	if e.How != monitor.Shutdown && !p.Final() {
		return r.cancelled()
	}
	wait := limit
	if e.How == monitor.Logoff {
		wait += grace
	}
	deadline := time.NewTimer(time.Until(started.Add(wait)))
	defer deadline.Stop()
	order := time.NewTimer(0)
	defer order.Stop()
	var sent bool
	var last error
	for {
		select {
		case x := <-ended:
			return r.done(x.How, x.Why)
		case <-ctx.Done():
			return r.cancelled()
		case <-deadline.C:
			return r.timedOut(sent, last)
		case <-order.C:
			left := max(time.Second, time.Until(started.Add(limit)))
			octx, cancel := context.WithTimeout(ctx, orderLimit)
			last = m.cfg.Orders.Order(octx, e.Server, Order{Session: e.Session, How: e.How, Limit: left})
			cancel()
			switch {
			case last == nil:
				sent = true
				p.Set(0, "waiting for the guest")
			case wire.KindOf(last) == wire.NotFound:
				// the satellite has ended it: its report is on the way
			default:
				p.Set(0, "waiting for the server's link")
				order.Reset(retryOrders)
			}
		}
	}
}

// force drops the record of a session on a silent server.
func (m *Manager) force(ctx context.Context, r reply) job.Outcome {
	rel, stored, err := m.Force(ctx, r.user)
	switch {
	case err != nil:
		return r.failed(554, err.Error())
	case !stored:
		return r.failed(452, fmt.Sprintf("the release of session %s could not be stored; it is tried again", rel.Session.ID))
	}
	return r.done(rel.How, "")
}

// Force drops the record of a user's session on a silent server: an
// administrator affirms that it does not run. What could not be stored is tried
// again, but not promised. The error is that of cluster.Force.
func (m *Manager) Force(ctx context.Context, user string) (rel cluster.Release, stored bool, err error) {
	m.cfg.State(func(c *cluster.Cluster) { rel, err = c.Force(user) })
	if err != nil {
		return rel, false, err
	}
	m.release(ctx, []cluster.Release{rel})
	m.cfg.State(func(c *cluster.Cluster) { stored = c.SessionByID(rel.Session.ID) == nil })
	return rel, stored, nil
}

// Fence releases the lost sessions of a server that is powered off.
func (m *Manager) Fence(ctx context.Context, server uint64) (released int, err error) {
	var all []cluster.Release
	m.cfg.State(func(c *cluster.Cluster) { all, err = c.Fence(server) })
	switch {
	case errors.Is(err, cluster.ErrUnknownServer):
		return 0, monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "server"}, {Key: "id", Value: server}}, "no server has the ID %d", server)
	case err != nil:
		return 0, monitor.Errorf(554, []monitor.Pair{{Key: "server", Value: server}}, "%v: it is not powered off. Power it off first, or end its sessions by \"logoffuser\"", err)
	}
	m.release(ctx, all)
	m.cfg.State(func(c *cluster.Cluster) { // what could not be stored now is tried again, but not promised
		for _, r := range all {
			if c.SessionByID(r.Session.ID) == nil {
				released++
			}
		}
	})
	if released < len(all) {
		return released, monitor.Errorf(452, []monitor.Pair{{Key: "released", Value: released}}, "%d of %d sessions released; the rest could not be stored and will be tried again", released, len(all))
	}
	return released, nil
}

// watch returns a channel that gets the end of a session, once.
func (m *Manager) watch(id string) chan Ended {
	ch := make(chan Ended, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[id] = append(m.waiting[id], ch)
	return ch
}

func (m *Manager) unwatch(id string, ch chan Ended) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rest []chan Ended
	for _, x := range m.waiting[id] {
		if x != ch {
			rest = append(rest, x)
		}
	}
	if m.waiting[id] = rest; rest == nil {
		delete(m.waiting, id)
	}
}

// reply makes the final replies of PROTOCOL 11.10 to 11.12.
type reply struct {
	job     uint64
	user    string
	e       ending
	started time.Time
	limit   time.Duration
}

func (r reply) pairs(how string, more ...monitor.Pair) []monitor.Pair {
	out := []monitor.Pair{{Key: "user", Value: r.user}, {Key: "server", Value: r.e.Server}, {Key: "session", Value: r.e.Session}}
	if how != "" {
		out = append(out, monitor.Pair{Key: "how", Value: how})
	}
	out = append(out, monitor.Pair{Key: "elapsed", Value: r.elapsed()}, monitor.Pair{Key: "job", Value: r.job})
	return append(out, more...)
}

func (r reply) elapsed() int64 { return int64(time.Since(r.started).Round(time.Second) / time.Second) }

func (r reply) done(how, why string) job.Outcome {
	var text string
	switch how {
	case "forced":
		text = fmt.Sprintf("The record of the session of %s on server %d is dropped. If its desktop shows up again, it is ended.", r.user, r.e.Server)
	case "abort":
		text = fmt.Sprintf("The session of %s on server %d is aborted.", r.user, r.e.Server)
		switch {
		case r.e.How != monitor.Abort && (r.e.How == monitor.Shutdown || time.Since(r.started) < r.limit):
			text = fmt.Sprintf("The session of %s on server %d has ended: it was aborted meanwhile.", r.user, r.e.Server)
		case r.e.How == monitor.Logoff:
			text = fmt.Sprintf("The session of %s on server %d has ended: the guest did not shut down in time and was aborted.", r.user, r.e.Server)
		}
	case "shutdown", "guest":
		how = "shutdown"
		text = fmt.Sprintf("The session of %s on server %d has ended: the guest shut down in %d s.", r.user, r.e.Server, r.elapsed())
	default:
		text = fmt.Sprintf("The session of %s on server %d has ended: %s.", r.user, r.e.Server, howText(how, why))
	}
	return job.Outcome{Code: 200, Pairs: r.pairs(how), Text: text}
}

func (r reply) timedOut(sent bool, last error) job.Outcome {
	if !sent {
		return r.failed(441, fmt.Sprintf("server %d did not take the order within %v: %v", r.e.Server, r.limit, last))
	}
	msg := "guest still running, the request stands"
	text := fmt.Sprintf("The guest of %s is still running after %d s; the request stands. \"logoffuser %s\" ends it by force after a time.", r.user, r.elapsed(), r.user)
	if r.e.How != monitor.Shutdown {
		msg = "the server has not reported the end yet"
		text = fmt.Sprintf("Server %d has not reported the end of the session of %s within %d s; see \"user %s\".", r.e.Server, r.user, r.elapsed(), r.user)
	}
	return job.Outcome{Code: 443, Pairs: r.pairs("", monitor.Pair{Key: "msg", Value: msg}), Text: text}
}

func (r reply) cancelled() job.Outcome {
	return job.Outcome{Code: 444, Pairs: r.pairs("", monitor.Pair{Key: "msg", Value: "cancelled, the request to the guest stands"}),
		Text: fmt.Sprintf("Cancelled. The guest of %s has been asked to shut down and may still do so.", r.user)}
}

func (r reply) failed(code int, text string) job.Outcome {
	return job.Outcome{Code: code, Pairs: r.pairs("", monitor.Pair{Key: "msg", Value: text}), Text: text}
}

// Package drain empties servers: no new logins, then it waits until the sessions
// there have ended, or logs them off a few at a time, and puts the server
// offline.
//
// The rules are in plan.go. The job is on the disk first, then the state of the
// server, and only then anything else is done. A server is draining for as long
// as a job empties it: the job ends where somebody has given the server another
// state meanwhile, and Run puts right what a full disk or a database from a copy
// has left. Sessions are logged off by jobs of their own, so that they end
// whatever becomes of this one.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/job"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// Action is the action of the jobs.
const Action = "drainserver"

// look is how often a job looks at its server.
const look = 250 * time.Millisecond

// tidy is how often Run looks for servers that are draining without a job.
const tidy = 10 * time.Second

// Servers is what the emptying needs of the register of servers.
type Servers interface {
	// SetState gives a server another state, durably.
	SetState(ctx context.Context, id uint64, state cluster.State, reason string) (changed bool, left int, err error)
	// Drained puts a server offline, durably, if it is draining.
	Drained(ctx context.Context, id uint64) error
}

// Sessions is what the emptying needs of the sessions.
type Sessions interface {
	// LogoffSession starts the job that logs off one session, or joins it.
	LogoffSession(ctx context.Context, session string, limit time.Duration, by string) error
	// LogoffWait is how long a guest gets for its shutdown.
	LogoffWait() time.Duration
}

// Jobs is what the emptying needs of the job manager.
type Jobs interface {
	Start(ctx context.Context, spec job.Spec, run job.Func) (j monitor.Job, joined bool, err error)
	Register(action string, resume func(job.Record) job.Func)
	List(all bool) []monitor.Job
}

// Config is everything a Manager needs; all of it is required.
type Config struct {
	// State runs f with the cluster under its lock. f must not block.
	State    func(f func(*cluster.Cluster))
	Servers  Servers
	Sessions Sessions
	Jobs     Jobs
	Log      zerolog.Logger
}

// Manager empties servers.
type Manager struct {
	cfg Config
	// turn lets one of them begin at a time, so that whoever joins finds the
	// server draining, and Run finds its job.
	turn sync.Mutex
}

// New returns a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// work is what a job needs to know after a restart.
type work struct {
	Method   Method   `json:"method"`
	Sessions []string `json:"sessions,omitempty"` // that were there at its start
}

func decode(b []byte) (w work, err error) {
	err = json.Unmarshal(b, &w)
	if err == nil && w.Method != Wait && w.Method != Logoff {
		err = fmt.Errorf("the method %.20q is not known", w.Method)
	}
	return w, err
}

// RegisterJobs lets the jobs of an earlier master go on. Call it before the job
// manager runs.
func (m *Manager) RegisterJobs() {
	m.cfg.Jobs.Register(Action, func(r job.Record) job.Func {
		w, err := decode(r.Data)
		server, err2 := strconv.ParseUint(r.Object, 10, 64)
		if err := errors.Join(err, err2); err != nil {
			m.cfg.Log.Error().Err(err).Uint64("job", r.ID).Msg("job cannot go on")
			return nil
		}
		p := NewPlan(Plan{Server: server, Method: w.Method, Started: r.Started, Limit: r.Limit, LogoffWait: m.cfg.Sessions.LogoffWait()}, w.Sessions)
		return func(ctx context.Context, progress *job.Progress) job.Outcome { return m.run(ctx, progress, p) }
	})
}

// Run puts servers offline that are draining and that no job empties. It returns
// when ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(tidy)
	defer tick.Stop()
	for ctx.Err() == nil {
		m.tidy(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func (m *Manager) tidy(ctx context.Context) {
	m.turn.Lock()
	defer m.turn.Unlock()
	var draining []uint64
	m.cfg.State(func(c *cluster.Cluster) {
		for _, s := range c.Servers() {
			if s.State == cluster.Draining {
				draining = append(draining, s.ID)
			}
		}
	})
	for _, id := range draining {
		if _, ok := Job(m.cfg.Jobs, id); ok {
			continue
		}
		m.cfg.Log.Warn().Uint64("server", id).Msg("no job empties the server that is draining: it is put offline")
		if err := m.cfg.Servers.Drained(ctx, id); err != nil {
			m.cfg.Log.Error().Err(err).Uint64("server", id).Msg("server not put offline, trying again")
		}
	}
}

// Job is the job that empties a server.
func Job(jobs interface{ List(all bool) []monitor.Job }, server uint64) (monitor.Job, bool) {
	object := strconv.FormatUint(server, 10)
	for _, j := range jobs.List(false) {
		if j.Action == Action && j.Object == object {
			return j, true
		}
	}
	return monitor.Job{}, false
}

// Drain starts the job that empties a server, or joins the one that does it in
// the same way with the same limit (0: none). When it returns no login goes to
// the server any more. A server that is offline and empty gets no job: its ID is
// 0. Other errors than a *monitor.Error are those of the job manager and the
// store.
func (m *Manager) Drain(ctx context.Context, server uint64, method Method, limit time.Duration, by string) (j monitor.Job, joined bool, err error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	p := NewPlan(Plan{Server: server, Method: method, Started: time.Now(), Limit: limit, LogoffWait: m.cfg.Sessions.LogoffWait()}, nil)
	var v View
	var reason string
	m.cfg.State(func(c *cluster.Cluster) {
		if v = p.Look(c, p.Started); v.Known {
			reason = c.Server(server).Reason
		}
	})
	_, under := Job(m.cfg.Jobs, server)
	switch {
	case !v.Known:
		return j, false, monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "server"}, {Key: "id", Value: server}}, "no server has the ID %d", server)
	case !under && v.State == cluster.Offline && len(v.Sessions) == 0 && len(v.Unowned) == 0:
		return j, false, nil
	}
	w := work{Method: method}
	for _, x := range v.Sessions {
		w.Sessions = append(w.Sessions, x.ID)
		p.seen[x.ID] = true
	}
	data, err := json.Marshal(w)
	if err != nil {
		return j, false, err
	}
	spec := job.Spec{Action: Action, Object: strconv.FormatUint(server, 10), Variant: variant(method, limit), By: by, Limit: limit, Data: data}
	draining := make(chan struct{}) // closed when the store has spoken; where that is an error the job tells it
	j, joined, err = m.cfg.Jobs.Start(ctx, spec, func(ctx context.Context, progress *job.Progress) job.Outcome {
		err := func() error {
			defer close(draining)
			_, _, err := m.cfg.Servers.SetState(ctx, server, cluster.Draining, reason)
			return err
		}()
		if err != nil {
			return m.notBegun(ctx, p, err)
		}
		return m.run(ctx, progress, p)
	})
	var busy *job.BusyError
	switch {
	case errors.As(err, &busy):
		return j, false, monitor.Errorf(440, []monitor.Pair{{Key: "server", Value: server}, {Key: "job", Value: busy.Job}},
			"job %d empties server %d already, with %s; \"waitjob %d\" waits for it, \"canceljob %d\" stops it", busy.Job, server, busy.Variant, busy.Job, busy.Job)
	case err == nil && !joined:
		<-draining
	}
	return j, joined, err
}

// variant tells jobs apart that empty a server in different ways.
func variant(method Method, limit time.Duration) string {
	text := "method=" + string(method)
	if limit > 0 {
		text += " timeout=" + strconv.FormatFloat(limit.Seconds(), 'f', -1, 64)
	}
	return text
}

// run is the work of the job. The server is draining, or was so when an earlier
// master began.
func (m *Manager) run(ctx context.Context, progress *job.Progress, p *Plan) job.Outcome {
	by := progress.Record().By
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		v, now := m.view(p)
		step := p.Next(now, v)
		progress.Set(step.Percent, step.Message)
		switch {
		case errors.Is(context.Cause(ctx), job.ErrStopping):
			return job.Outcome{} // the next master goes on
		case step.Over == Changed, step.Over == Forgotten:
			return p.outcome(now, v, step.Over)
		case step.Over != Going, ctx.Err() != nil:
			return m.offline(p, step.Over)
		}
		for _, o := range step.Logoff {
			if err := m.cfg.Sessions.LogoffSession(ctx, o.Session, o.Limit, by); err != nil {
				m.cfg.Log.Warn().Err(err).Str("user", o.User).Str("session", o.Session).Uint64("server", p.Server).Msg("session not logged off, trying again")
				p.Failed(now, o.Session)
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (m *Manager) view(p *Plan) (v View, now time.Time) {
	now = time.Now()
	m.cfg.State(func(c *cluster.Cluster) { v = p.Look(c, now) })
	return v, now
}

// offline ends the work: the server stays without logins. What somebody else has
// made of it in this moment counts.
func (m *Manager) offline(p *Plan, over Over) job.Outcome {
	err := m.cfg.Servers.Drained(context.Background(), p.Server)
	v, now := m.view(p)
	switch {
	case !v.Known:
		over = Forgotten
	case v.State == cluster.Online:
		over = Changed
	}
	out := p.outcome(now, v, over)
	if err != nil && v.State == cluster.Draining {
		m.cfg.Log.Error().Err(err).Uint64("server", p.Server).Msg("server not put offline, trying again")
		return failed(p.Server, err, fmt.Sprintf("server %d stays draining until its state can be stored: %v. %s", p.Server, err, out.Text))
	}
	return out
}

// notBegun is the reply of a job whose server could not be made draining.
func (m *Manager) notBegun(ctx context.Context, p *Plan, err error) job.Outcome {
	v, now := m.view(p)
	switch {
	case !v.Known:
		return p.outcome(now, v, Forgotten)
	case ctx.Err() != nil:
		return p.outcome(now, v, Going)
	}
	return failed(p.Server, err, fmt.Sprintf("nothing was done: %v", err))
}

func failed(server uint64, err error, text string) job.Outcome {
	code := 555
	var told *monitor.Error
	switch {
	case errors.As(err, &told):
		code = told.Code
	case errors.Is(err, store.ErrNoSpace):
		code = 452
	}
	return job.Outcome{Code: code, Pairs: []monitor.Pair{{Key: "server", Value: server}, {Key: "msg", Value: text}}, Text: text}
}

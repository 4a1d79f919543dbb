// Package master is the deciding daemon: it admits satellites, refers users to
// them, owns who has a session where, and does what administrators order.
//
// Rules are in cluster and placement, which are pure; capabilities (session,
// host) make durable what they decide; link and the admin socket are the two
// ways in. This package only joins them. What is acknowledged is on the disk.
package master

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"verdecmd/master/alarm"
	"verdecmd/master/audit"
	"verdecmd/master/cluster"
	"verdecmd/master/drain"
	"verdecmd/master/event"
	"verdecmd/master/host"
	"verdecmd/master/hub"
	"verdecmd/master/job"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/master/store"
	"verdecmd/master/trust"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// Accounts is what the master needs to know of the users' accounts.
type Accounts interface {
	// Find returns name and number of an account by either; ok is false where
	// there is none.
	Find(ctx context.Context, name string, byUID bool) (user string, uid uint32, ok bool)
	// Names returns login names that begin with prefix, at most limit.
	Names(prefix string, limit int) []string
}

// Config is everything a Master needs from outside.
type Config struct {
	Monitor  net.Listener // where administrators connect; required
	Link     net.Listener // where satellites connect; required
	GRPC     []grpc.ServerOption
	Store    store.Store // required
	Epoch    store.Epoch
	Copies   store.Copies   // of the store, made beside the master; without Dir none
	Accounts Accounts       // required
	Admin    monitor.Config // without Table
	Limits   cluster.Limits
	// LeaseSelf: satellites end their desktops after so long without a
	// lease; 0 under cluster.Hold.
	LeaseSelf                time.Duration
	ShutdownWait, LogoffWait time.Duration
	// Settings is the file as it was read, for the commands about it, and Level
	// the level of Log. Both may be nil: then they cannot be changed.
	Settings *settings.Values
	Level    *Level
	// Credentials are the master's own; nil only in tests.
	Credentials *wire.Credentials
	// Rejoin is how long after the end of its certificate a server may ask for
	// a new one without an administrator; 0: never.
	Rejoin time.Duration
	// PKI is the directory of keys and certificates; empty: none. Where the key of
	// the authority is not in it, nobody can join.
	PKI           string
	Version, Host string
	// Used is the time of processors that this program has used since its
	// start; the default asks the kernel.
	Used func() time.Duration
	// Space is how many bytes are free for the database; nil: nobody looks.
	Space func() (uint64, error)
	Log   zerolog.Logger
}

// Master is the deciding daemon. Use New, then Run.
type Master struct {
	cfg     Config
	started time.Time

	mu      sync.Mutex // guards cluster, never held across I/O
	cluster *cluster.Cluster

	events  *event.Ring
	alarm   *alarm.Manager
	audit   *audit.Keeper
	jobs    *job.Manager
	session *session.Manager
	host    *host.Manager
	drain   *drain.Manager
	checks  *host.Checks
	link    *link.Server
	hub     *hub.Hub
	trust   *trust.Manager // nil: there is no PKI directory
	commits *counted
	config  config
	tuner   monitor.Tuner
	pace    pace
}

// New reads the store and joins the parts. It starts nothing.
func New(ctx context.Context, cfg Config) (*Master, error) {
	if cfg.Monitor == nil || cfg.Link == nil || cfg.Store == nil || cfg.Accounts == nil {
		return nil, errors.New("master: Config needs Monitor, Link, Store and Accounts")
	}
	if cfg.Used == nil {
		cfg.Used = used
	}
	if cfg.Admin.Directory == nil {
		cfg.Admin.Directory = monitor.LocalFiles{}
	}
	commits := &counted{Store: cfg.Store}
	cfg.Store = commits
	now := time.Now()
	since, err := session.LeaseSince(ctx, cfg.Store, cfg.Epoch, cfg.Limits, cfg.LeaseSelf)
	if err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	cfg.Limits.LeaseSince = since
	m := &Master{cfg: cfg, started: now, cluster: cluster.New(cfg.Limits, now),
		commits: commits, config: config{start: cfg.Settings, level: cfg.Level}}
	if m.events, err = event.New(ctx, event.Config{Store: cfg.Store, Epoch: cfg.Epoch, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	if m.alarm, err = alarm.New(ctx, alarm.Config{Store: cfg.Store, Epoch: cfg.Epoch, Event: m.event, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	if m.audit, err = audit.New(ctx, audit.Config{Store: cfg.Store, Epoch: cfg.Epoch, Event: m.event, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	commits.tell = func(typ, text string) {
		cfg.Log.Error().Str("event", typ).Msg(text)
		m.event(typ, text)
	}
	m.jobs, err = job.New(ctx, job.Config{Store: cfg.Store, Epoch: cfg.Epoch, Log: cfg.Log, OnChange: m.jobChanged})
	if err != nil {
		return nil, fmt.Errorf("master: %w", err)
	}
	m.pace.wish, m.pace.rules = cfg.Limits, link.NewPacing(cfg.Limits.Interval, cfg.LeaseSelf)
	m.join()
	if cfg.Credentials != nil {
		cfg.Credentials.SetRevoked(m.host.Refuse)
	}
	m.session.RegisterJobs()
	m.drain.RegisterJobs()
	if m.trust != nil {
		m.trust.RegisterJobs()
	}
	m.jobs.Register(backupAction, func(r job.Record) job.Func { return m.copyTo(r.Object, true) })

	last, err := m.host.Restore(ctx, now, m.cluster)
	if err != nil {
		return nil, fmt.Errorf("master: reading servers: %w", err)
	}
	if m.trust != nil {
		if err := m.trust.Restore(ctx); err != nil {
			return nil, fmt.Errorf("master: trust bundle: %w", err)
		}
	}
	if err := m.checks.Restore(ctx, m.cluster); err != nil {
		return nil, fmt.Errorf("master: reading the checks of hosts: %w", err)
	}
	if err := m.session.Restore(ctx, now, m.cluster, last); err != nil {
		return nil, fmt.Errorf("master: reading sessions: %w", err)
	}
	m.alarm.Settle(exists(m.cluster))
	return m, nil
}

// Run works until ctx is cancelled or a part fails, and returns when every
// goroutine it started has ended. It returns nil after a cancellation.
func (m *Master) Run(ctx context.Context) error {
	admin := m.cfg.Admin
	admin.Table, admin.Tuner, admin.Audit = monitor.NewTable(backend{m}), &m.tuner, m.audit.Add
	server := grpc.NewServer(append(m.cfg.GRPC[:len(m.cfg.GRPC):len(m.cfg.GRPC)], grpc.WaitForHandlers(true))...)
	pb.RegisterLinkServer(server, m.link)
	pb.RegisterHostServer(server, m.checks.Service())
	if c := m.cfg.Credentials; c != nil {
		e := &host.Enrolment{Manager: m.host, Cluster: c.Identity.Cluster, Roots: c.Roots}
		if m.trust != nil {
			e.Trust = m.trust.Current
		}
		pb.RegisterEnrolmentServer(server, e)
	}
	m.event("master.started", fmt.Sprintf("The cluster master has started (epoch %d).", m.cfg.Epoch), monitor.Pair{Key: "epoch", Value: uint64(m.cfg.Epoch)})

	defer m.audit.Wait()
	g, ctx := errgroup.WithContext(ctx)
	if err := m.tellRestored(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("master: %w", err)
	}
	g.Go(func() error { return m.events.Run(ctx) })
	g.Go(func() error { return m.alarm.Run(ctx) })
	if m.cfg.Space != nil {
		g.Go(func() error { return m.watchSpace(ctx) })
	}
	g.Go(func() error { return m.audit.Run(ctx) })
	g.Go(func() error { return m.hub.Run(ctx) })
	g.Go(func() error { return m.jobs.Run(ctx) })
	g.Go(func() error { return m.session.Run(ctx) })
	g.Go(func() error { return m.drain.Run(ctx) })
	g.Go(func() error { return m.host.Run(ctx) })
	if m.trust != nil {
		g.Go(func() error { return m.trust.Run(ctx) })
	}
	g.Go(func() error { return m.keepPace(ctx) })
	if m.cfg.Copies.Dir != "" {
		g.Go(func() error { return m.cfg.Copies.Run(ctx) })
	}
	g.Go(func() error { return monitor.Serve(ctx, m.cfg.Monitor, admin) })
	g.Go(func() error { return server.Serve(m.cfg.Link) })
	g.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("master: %w", err)
	}
	return nil
}

// with runs f with the cluster under its lock.
func (m *Master) with(f func(*cluster.Cluster)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.cluster)
}

// alive returns at once unless the master hangs.
func (m *Master) alive() { m.with(func(*cluster.Cluster) {}) }

// event tells what has happened: to those who watch, and to the alarms.
func (m *Master) event(typ, text string, pairs ...monitor.Pair) {
	m.events.Publish(time.Now(), typ, text, pairs...)
	m.again(typ, text, pairs...)
}

// again tells the alarms alone: those who watch have been told before.
func (m *Master) again(typ, text string, pairs ...monitor.Pair) {
	if m.alarm != nil { // not while it reads its records
		m.alarm.Event(typ, text, pairs...)
	}
}

// jobChanged announces the start and the end of jobs.
func (m *Master) jobChanged(j monitor.Job) {
	pairs := []monitor.Pair{{Key: "job", Value: j.ID}, {Key: "action", Value: j.Action}, {Key: "object", Value: j.Object}}
	if j.Finished() {
		m.event("job.finished", fmt.Sprintf("Job %d (%s %s) has finished: %s", j.ID, j.Action, j.Object, j.Text), append(pairs, monitor.Pair{Key: "code", Value: j.Code})...)
		return
	}
	m.event("job.started", fmt.Sprintf("Job %d (%s %s) has started.", j.ID, j.Action, j.Object), pairs...)
}

func part(log zerolog.Logger, name string) zerolog.Logger {
	return log.With().Str("part", name).Logger()
}

package master

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/drain"
	"verdecmd/master/host"
	"verdecmd/master/job"
	"verdecmd/master/placement"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// backend is the master as the commands of the admin socket see it.
type backend struct{ m *Master }

func (b backend) Overview() monitor.Overview {
	o := monitor.Overview{Version: b.m.cfg.Version, Host: b.m.cfg.Host, Uptime: time.Since(b.m.started), Seq: b.m.events.Seq()}
	o.Interval, o.Wish, o.IntervalWhy = b.m.interval()
	active, critical := b.m.alarm.Counts()
	o.Critical = critical
	for _, n := range active {
		o.Alarms += n
	}
	now := time.Now()
	b.m.with(func(c *cluster.Cluster) {
		for _, s := range c.Servers() {
			o.Servers++
			if s.State == cluster.Online && c.Link(s, now) != monitor.LinkDown {
				o.Online++
			}
		}
		o.Users, o.Reservations = c.Total()
		if left := c.Limits().Resync - now.Sub(b.m.started); left > 0 {
			c.EachSession(func(x *cluster.Session) {
				if s := c.Server(x.Server); s.Attachment == 0 && s.Reported.IsZero() { // awaited since the start
					o.RetryAfter = left
				}
			})
		}
	})
	return o
}

func (b backend) Seq() uint64 { return b.m.events.Seq() }

func (b backend) Accounts(prefix string, limit int) []string {
	return b.m.cfg.Accounts.Names(prefix, limit)
}

// The seq of a list is read before its rows: an event may then be told again,
// never missed.

func (b backend) Servers() ([]monitor.Server, uint64) {
	seq := b.m.events.Seq()
	return b.m.host.Servers(), seq
}

func (b backend) Server(id uint64) (monitor.Server, uint64, bool) {
	seq := b.m.events.Seq()
	s, ok := b.m.host.Server(id)
	if j, under := drain.Job(b.m.jobs, id); under {
		s.Job, s.Waits = j.ID, j.Message
	}
	s.Checks, _ = b.m.checks.Of(id)
	s.Checks.Rows = nil
	if b.m.trust != nil {
		v := b.m.trust.Of(id)
		s.Trust = monitor.Trust{Current: v.Current, Takes: v.Takes, Version: v.Version, Behind: v.Behind, Error: v.Error}
	}
	return s, seq, ok
}

func (b backend) RotateCA(ctx context.Context, abort bool, skip []uint64) (monitor.Job, bool, error) {
	if b.m.trust == nil {
		return monitor.Job{}, false, monitor.Errorf(554, nil, "this master has no directory with the cluster's authority")
	}
	by := "the master"
	if c, ok := monitor.CallerOf(ctx); ok {
		by = c.Name
	}
	j, joined, err := b.m.trust.RotateCA(ctx, abort, skip, by)
	return j, joined, refusal(err)
}

func (b backend) Checks(id uint64) (monitor.Checks, bool) { return b.m.checks.Of(id) }

func (b backend) Drain(ctx context.Context, id uint64, method string, limit time.Duration) (monitor.Job, bool, error) {
	by := "the master"
	if c, ok := monitor.CallerOf(ctx); ok {
		by = c.Name
	}
	j, joined, err := b.m.drain.Drain(ctx, id, drain.Method(method), limit, by)
	return j, joined, refusal(err)
}

func (b backend) SetServer(ctx context.Context, id uint64, state, reason string) (monitor.Server, bool, int, error) {
	changed, left, err := b.m.host.SetState(ctx, id, cluster.State(state), reason)
	if err != nil {
		return monitor.Server{}, false, 0, refusal(err)
	}
	s, _ := b.m.host.Server(id)
	return s, changed, left, nil
}

// notReady refuses what would be decided too early: after a start of the
// master, a server has some time to come back.
func (b backend) notReady(id uint64) error {
	var wait time.Duration
	b.m.with(func(c *cluster.Cluster) { wait = c.Awaited(time.Now(), id) })
	if wait > 0 {
		return host.NotReady(id, wait)
	}
	return nil
}

func (b backend) Forget(ctx context.Context, id uint64) error {
	if err := b.m.host.Forget(ctx, id); err != nil {
		return refusal(err)
	}
	b.m.hub.Forget(id)
	b.m.checks.Forget(id)
	return nil
}

func (b backend) Fence(ctx context.Context, id uint64) (int, error) {
	if err := b.notReady(id); err != nil {
		return 0, err
	}
	n, err := b.m.session.Fence(ctx, id)
	return n, refusal(err)
}

// Placement shows the session of a user, who always goes back to it, before
// the servers.
func (b backend) Placement(ctx context.Context, user string) ([]monitor.Candidate, error) {
	need := placement.Need{}
	if user != "" {
		if _, _, ok := b.m.cfg.Accounts.Find(ctx, user, false); !ok {
			return nil, noAccount(user)
		}
		need = b.m.session.Need(user)
	}
	rows := b.m.host.Placement(need)
	d, known := b.m.session.User(user)
	if !known {
		return rows, nil
	}
	for i, r := range rows {
		if r.Server == d.Server {
			copy(rows[1:i+1], rows[:i])
			r.Eligible, r.Reason = d.State != cluster.Lost, fmt.Sprintf("%s has session %s here (%s)", user, d.ID, d.State)
			if d.Why != "" {
				r.Reason += ": " + d.Why
			}
			rows[0] = r
		}
	}
	return rows, nil
}

func (b backend) Users() ([]monitor.Session, uint64) {
	seq := b.m.events.Seq()
	return b.m.session.Users(), seq
}

func (b backend) User(ctx context.Context, name string, byUID bool) (monitor.UserDetail, uint64, error) {
	seq := b.m.events.Seq()
	user, uid, known := b.m.cfg.Accounts.Find(ctx, name, byUID)
	if !known {
		user = name
		if byUID {
			user = b.userOf(name)
		}
	}
	d, has := b.m.session.User(user)
	switch {
	case has:
		return d, seq, nil
	case known:
		d.User, d.UID, d.State = user, uid, "none"
		d.Why = b.place(user)
		return d, seq, nil
	}
	return d, seq, noAccount(name)
}

// place says in words which place is held for a user; empty for none.
func (b backend) place(user string) (text string) {
	now := time.Now()
	b.m.with(func(c *cluster.Cluster) {
		r := c.Reservation(user)
		if r == nil {
			return
		}
		text = fmt.Sprintf("a place on server %d (%s), until %s, %d s left; the login has to go on there. \"cancelreservation %s\" gives it up",
			r.Server, c.Server(r.Server).Name, r.Expires.Local().Format("15:04:05"), int64(max(0, r.Expires.Sub(now))/time.Second), r.ID)
	})
	return text
}

// userOf finds who holds a session with a number that has no account here.
func (b backend) userOf(number string) (user string) {
	b.m.with(func(c *cluster.Cluster) {
		uid, err := strconv.ParseUint(number, 10, 32)
		if x := c.Session(c.UserOf(uint32(uid))); err == nil && x != nil && uint64(x.UID) == uid {
			user = x.User
		}
	})
	return user
}

func (b backend) End(ctx context.Context, user string, how monitor.How, limit time.Duration, force bool) (monitor.Job, bool, error) {
	by := caller(ctx)
	if _, _, ok := b.m.cfg.Accounts.Find(ctx, user, false); !ok {
		if _, has := b.m.session.User(user); !has {
			return monitor.Job{}, false, noAccount(user)
		}
	}
	var server uint64
	b.m.with(func(c *cluster.Cluster) {
		if x := c.Session(user); x != nil {
			server = x.Server
		}
	})
	if err := b.notReady(server); err != nil {
		return monitor.Job{}, false, err
	}
	j, joined, err := b.m.session.End(ctx, user, how, limit, force, by)
	return j, joined, refusal(err)
}

func (b backend) Reservations() ([]monitor.Reservation, uint64) {
	seq := b.m.events.Seq()
	return b.m.session.Reservations(), seq
}

func (b backend) CancelReservation(ctx context.Context, id string) (int, error) {
	return b.m.session.CancelReservation(ctx, id), nil
}

func (b backend) Jobs(all bool) ([]monitor.Job, uint64) {
	seq := b.m.events.Seq()
	return b.m.jobs.List(all), seq
}

func (b backend) Job(id uint64) (monitor.Job, bool) { return b.m.jobs.Get(id) }

func (b backend) WaitJob(ctx context.Context, id uint64) (monitor.Job, error) {
	return b.m.jobs.Wait(ctx, id)
}

func (b backend) CancelJob(ctx context.Context, id uint64) (monitor.Job, bool, error) {
	j, asked, err := b.m.jobs.Cancel(ctx, id)
	return j, asked, refusal(err)
}

func (b backend) Since(seq uint64) ([]monitor.Event, uint64, <-chan struct{}) {
	return b.m.events.Since(seq)
}

func noAccount(user string) error {
	return &monitor.Error{Code: 550, Pairs: []monitor.Pair{{Key: "kind", Value: "user"}, {Key: "id", Value: user}, {Key: "msg", Value: "no such account"}},
		Text: fmt.Sprintf("No account is named %q. Type \"users\" to see who is logged in.", user)}
}

// refusal gives an error of the capabilities its code.
func refusal(err error) error {
	var told *monitor.Error
	var busy *job.BusyError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return told
	case errors.As(err, &busy):
		return monitor.Errorf(440, []monitor.Pair{{Key: "job", Value: busy.Job}}, "%v", err)
	case errors.Is(err, job.ErrStopping):
		return monitor.ErrStopping
	case errors.Is(err, job.ErrUnknown):
		return monitor.Errorf(550, []monitor.Pair{{Key: "kind", Value: "job"}}, "%v", err)
	case errors.Is(err, job.ErrTooLate):
		return monitor.Errorf(554, nil, "%v: what it does has been ordered already; for a session, \"abortuser\" ends it at once", err)
	case errors.Is(err, store.ErrNoSpace):
		return monitor.Errorf(452, nil, "%v", err)
	}
	return err
}

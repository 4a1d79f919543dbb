package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// fleet is all satellites and their one master.
type fleet struct {
	o     Options
	child *child
	addr  string
	plain bool
	facts *pb.HostFacts
	out   io.Writer

	sats  []*satellite
	gate  chan struct{} // of those who connect for the first time
	first atomic.Bool   // the gate counts

	ups, overran, sent atomic.Int64
	tells              atomic.Bool // news are told at once, as they should be
	held               atomic.Bool // no satellite connects
	pause              sync.RWMutex

	mu       sync.Mutex
	byServer map[uint64]*satellite // guarded by mu
	why      error                 // why a connection failed last; guarded by mu
	users    int                   // names given out; guarded by mu
}

// callers is how many log in at once where throughput is measured.
const callers = 128

// drive starts the master, or the floor, and measures it.
func drive(ctx context.Context, o Options, floor bool, out io.Writer) (*Figures, error) {
	c, authority, err := newChild(o, floor)
	if err != nil {
		return nil, err
	}
	defer c.end()
	f := &fleet{o: o, child: c, addr: c.addr, plain: floor && !o.TLS, out: out, gate: make(chan struct{}, 64), byServer: map[uint64]*satellite{},
		facts: &pb.HostFacts{Hostname: "satellite", Arch: "x86_64", Kernel: "6.1.0", CpuVendor: "GenuineIntel", Cpus: 64, MemoryBytes: 1 << 40, Accelerator: "kvm",
			Qemu: "9.0.0", SnapDir: "/var/lib/win4linpro/snap", SnapKind: "local", BootId: wire.NewUUID(), SnapReserveBytes: 2 << 30, AsRoot: true}}
	f.first.Store(true)
	f.tells.Store(true)
	if err := f.enrol(ctx, authority); err != nil {
		return nil, err
	}
	if _, err := c.start(ctx); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end(nil)
	running.Go(func() { c.watch(ctx, end) })
	running.Go(func() { f.progress(ctx) })
	r := &Figures{}
	err = f.measure(ctx, &running, r)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause // the child died
	}
	return r, err
}

// enrol makes the certificates of all satellites.
func (f *fleet) enrol(ctx context.Context, a *wire.Authority) error {
	f.sats = make([]*satellite, f.o.Satellites)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.NumCPU())
	for i := range f.sats {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			creds, err := a.Credentials(wire.Satellite, fmt.Sprintf("sat%05d", i+1), time.Now(), 24*time.Hour)
			if err != nil {
				return err
			}
			f.sats[i] = newSatellite(f, i, creds)
			return nil
		})
	}
	return g.Wait()
}

// measure goes through all phases.
func (f *fleet) measure(ctx context.Context, running *sync.WaitGroup, r *Figures) error {
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	r.BaseRSS = f.child.rss()
	cpu, began := f.child.cpu(), time.Now()
	for _, s := range f.sats {
		running.Go(func() { s.run(ctx) })
	}
	if err := f.all(ctx); err != nil {
		return err
	}
	n := float64(len(f.sats))
	r.FirstPerS, r.FirstCPU = n/time.Since(began).Seconds(), micro(f.child.cpu()-cpu)/n
	f.say("all %d satellites are connected after %.1f s", len(f.sats), time.Since(began).Seconds())
	f.first.Store(false)
	if err := wait(ctx, 2*f.o.Interval); err != nil {
		return err
	}
	r.RSS = f.child.rss()
	r.RSSSatellite = (r.RSS - r.BaseRSS) / int64(len(f.sats))

	for _, phase := range []func(context.Context, *Figures) error{f.logins, f.steady, f.busy, f.restart, f.restartAlone} {
		if err := phase(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// all waits until all satellites are connected, as long as more of them come.
func (f *fleet) all(ctx context.Context) error {
	most, at := int64(0), time.Now()
	for {
		n := f.ups.Load()
		if n == int64(len(f.sats)) {
			return nil
		}
		if n > most {
			most, at = n, time.Now()
		}
		if time.Since(at) > time.Minute {
			f.mu.Lock()
			defer f.mu.Unlock()
			return fmt.Errorf("%d of %d satellites are connected and no more come; the last failure: %v", n, len(f.sats), f.why)
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// steady measures the quiet hours: sessions run, reports come.
func (f *fleet) steady(ctx context.Context, r *Figures) error {
	if err := wait(ctx, f.o.Interval); err != nil {
		return err
	}
	r.RSSSessions = f.child.rss()
	lost, err := f.count(ctx) // while they came for the first time
	if err != nil {
		return err
	}
	if err := wait(ctx, f.o.Interval); err != nil { // what was held back comes late
		return err
	}
	before, err := f.child.figures()
	if err != nil {
		return err
	}
	if err := wait(ctx, f.o.Interval/2); err != nil { // its answer costs too
		return err
	}
	f.overran.Store(0)
	cpu, own, began, sent := f.child.cpu(), cpuOf(os.Getpid()), time.Now(), f.sent.Load()
	if err := f.profiled(func() error { return wait(ctx, time.Duration(f.o.Seconds)*time.Second) }); err != nil {
		return err
	}
	used, took := f.child.cpu()-cpu, time.Since(began).Seconds()
	r.Reports = uint64(f.sent.Load() - sent)
	r.FleetCPU = 100 * (cpuOf(os.Getpid()) - own).Seconds() / took
	r.Overran = int(f.overran.Load())
	after, err := f.child.figures()
	if err != nil {
		return err
	}
	r.Late = lateBetween(before.late, after.late)
	r.ReportsPerS, r.CPU = float64(r.Reports)/took, 100*used.Seconds()/took
	r.ReportCPU = micro(used) / float64(max(r.Reports, 1))
	r.InForce = after.interval
	slices.Sort(after.ages)
	if n := len(after.ages); n > 0 {
		r.AgeP50, r.AgeP99, r.AgeMax = after.ages[n/2], after.ages[n*99/100], after.ages[n-1]
	}
	f.say("%.0f reports a second: %.1f %% of a core, %.0f µs each, p99 %.1f ms late", r.ReportsPerS, r.CPU, r.ReportCPU, 1e3*r.Late.P99)
	r.Lost, err = f.count(ctx)
	r.Lost -= lost
	return err
}

// count tells how many reports were sent and not taken in, all reports held
// back for a moment. What was on its way when a link broke is lost.
func (f *fleet) count(ctx context.Context) (lost int64, err error) {
	f.pause.Lock()
	defer f.pause.Unlock()
	for try := range 8 {
		if err := wait(ctx, time.Duration(try+1)*50*time.Millisecond); err != nil {
			return 0, err
		}
		now, err := f.child.figures()
		if err != nil {
			return 0, err
		}
		if lost = f.sent.Load() - int64(now.late.Count()); lost == 0 {
			break
		}
	}
	return lost, nil
}

// busy measures the hours of work: users come and go, and administrators look.
func (f *fleet) busy(ctx context.Context, r *Figures) error {
	if f.child.floor {
		return nil
	}
	before, err := f.child.figures()
	if err != nil {
		return err
	}
	window, cancel := context.WithTimeout(ctx, time.Duration(f.o.Seconds)*time.Second)
	defer cancel()
	var g errgroup.Group
	var took []time.Duration
	began := time.Now()
	g.Go(func() (err error) {
		took, err = f.comeAndGo(window)
		return err
	})
	var servers, users []time.Duration
	g.Go(func() error {
		m, err := monitor.Dial(f.child.socket())
		if err != nil {
			return err
		}
		defer m.Close()
		for window.Err() == nil {
			for command, into := range map[string]*[]time.Duration{"servers": &servers, "users": &users} {
				at := time.Now()
				rows, err := ask(m, command)
				if err != nil {
					return err
				}
				*into = append(*into, time.Since(at))
				if command == "users" {
					r.Rows = len(rows) - 1
				}
			}
			wait(window, 100*time.Millisecond)
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.BusyPerS = float64(len(took)) / time.Since(began).Seconds()
	r.BusyLogin, r.Servers, r.Users = spread(took), spread(servers), spread(users)
	after, err := f.child.figures()
	if err != nil {
		return err
	}
	r.BusyLate = lateBetween(before.late, after.late)
	f.say("lists of %d users in %.1f ms beside %.0f logins a second", r.Rows, r.Users.P50/1e3, r.BusyPerS)
	return f.agree(ctx)
}

// restart kills the master and starts it again: all satellites come back at once.
func (f *fleet) restart(ctx context.Context, r *Figures) error {
	f.child.kill()
	for f.ups.Load() > 0 {
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	f.sent.Store(0)
	began := time.Now()
	took, err := f.child.start(ctx)
	if err != nil {
		return err
	}
	r.RestartS = took.Seconds()
	cpu := f.child.cpu()
	if err := f.profiled(func() error { return f.all(ctx) }); err != nil {
		return err
	}
	r.BackS = time.Since(began).Seconds()
	r.BackPerS = float64(len(f.sats)) / r.BackS
	r.BackCPU = micro(f.child.cpu()-cpu) / float64(len(f.sats))
	if !f.child.floor {
		if err := f.agree(ctx); err != nil {
			return err
		}
		r.KnownS = time.Since(began).Seconds()
	}
	f.say("killed and started again: it answers after %.0f ms, all are back after %.1f s", 1e3*r.RestartS, r.BackS)
	return nil
}

// restartAlone measures a restart that no satellite disturbs: what it takes to
// read and verify all records.
func (f *fleet) restartAlone(ctx context.Context, r *Figures) error {
	f.held.Store(true)
	f.child.kill()
	for f.ups.Load() > 0 {
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	took, err := f.child.start(ctx)
	r.RestartAloneS = took.Seconds()
	return err
}

// agree waits until the master's list of users is what runs on the satellites.
func (f *fleet) agree(ctx context.Context) error {
	var problem error
	for end := time.Now().Add(30*time.Second + 3*f.o.Interval); ; {
		rows, err := f.child.list("users")
		if err != nil {
			return err
		}
		if problem = f.compare(rows); problem == nil {
			return nil
		}
		if time.Now().After(end) {
			return problem
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// compare looks for the first difference between the master's list of users
// and what runs on the satellites.
func (f *fleet) compare(rows []string) error {
	type session struct {
		id     string
		server uint64
	}
	there := map[string]session{}
	for _, s := range f.sats {
		s.mu.Lock()
		for id, x := range s.sessions {
			server := uint64(0)
			if s.link != nil {
				server = s.link.server
			}
			there[x.User] = session{id, server}
		}
		s.mu.Unlock()
	}
	seen := 0
	for _, row := range rows {
		v := strings.Split(row, "\t")
		if strings.HasPrefix(row, "#") || len(v) < 9 {
			continue
		}
		seen++
		x, ok := there[v[0]]
		switch server, _ := strconv.ParseUint(v[2], 10, 64); {
		case !ok:
			return fmt.Errorf("the master has session %s of %s, which runs nowhere: %w", v[8], v[0], errLost)
		case x.id != v[8] || x.server != server:
			return fmt.Errorf("session %s of %s runs on server %d, the master has %s on %d: %w", x.id, v[0], x.server, v[8], server, errLost)
		case v[5] != "running":
			return fmt.Errorf("session %s of %s runs and is %s to the master: %w", x.id, v[0], v[5], errLost)
		}
	}
	if seen != len(there) {
		return fmt.Errorf("%d sessions run, the master has %d: %w", len(there), seen, errLost)
	}
	return nil
}

// enter holds connections back that are made for the first time: the fleet is
// no storm by itself, a restart of the master is one. leave may be called twice.
func (f *fleet) enter(ctx context.Context) (leave func(), ok bool) {
	if !f.first.Load() {
		return func() {}, true
	}
	select {
	case f.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	var once sync.Once
	return func() { once.Do(func() { <-f.gate }) }, true
}

func (f *fleet) attached(s *satellite, server uint64) {
	f.mu.Lock()
	f.byServer[server] = s
	f.mu.Unlock()
	f.ups.Add(1)
}

func (f *fleet) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.why = wire.FromStatus(err)
}

func (f *fleet) server(id uint64) *satellite {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byServer[id]
}

// load is one sample; it need not be true, only as long as a true one.
func (f *fleet) load() *pb.Load {
	return &pb.Load{CpuBusy: 0.37, Load1: 12.5, MemoryTotal: 1 << 40, MemoryFree: 900 << 30, SnapFree: 1 << 42, HomeFree: 1 << 43,
		HasPressure: true, PressureCpu: 0.02, PressureMemory: 0.01, PressureIo: 0.03}
}

// progress prints a line every two seconds.
func (f *fleet) progress(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	sent, cpu, began := f.sent.Load(), time.Duration(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.child.mu.Lock()
		now := f.child.cpu()
		f.child.mu.Unlock()
		took := time.Since(began).Seconds()
		busy := 100 * max(0, now-cpu).Seconds() / took
		s := f.sent.Load()
		f.say("%d of %d satellites, %.0f reports a second, %.0f %% of a core", f.ups.Load(), len(f.sats), float64(max(0, s-sent))/took, busy)
		sent, cpu, began = s, now, time.Now()
	}
}

func (f *fleet) say(format string, args ...any) {
	what := "master"
	if f.child.floor {
		what = "floor"
	}
	fmt.Fprintf(f.out, "%s: "+format+"\n", append([]any{what}, args...)...)
}

// profiled lets the master write a profile of what happens in do, where that is
// wished.
func (f *fleet) profiled(do func() error) error {
	if f.o.Profile == "" || f.child.floor {
		return do()
	}
	f.child.signal(syscall.SIGUSR1)
	defer f.child.signal(syscall.SIGUSR2)
	return do()
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// wait returns after d, or with the error of a context that ends before.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

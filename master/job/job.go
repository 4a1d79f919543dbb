// Package job runs what takes long: numbered, told about while it runs,
// cancellable, and remembered over a restart of the master.
//
// A job is on the disk before it begins and its outcome is on the disk before
// it is told, if the disk takes it. A master that ends leaves its jobs
// recorded as running; the next one resumes those whose action has been
// registered and closes the others. So a Func must be able to begin again
// where another one was cut off, and must leave everything as it is when its
// context ends with ErrStopping.
package job

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// Causes of the end of a Func's context; see context.Cause.
var (
	ErrCancelled = errors.New("cancelled by an administrator")
	ErrStopping  = errors.New("the master stops")
)

// Refusals of the methods.
var (
	ErrUnknown = errors.New("unknown job")
	ErrTooLate = errors.New("the job cannot be stopped any more")
)

// BusyError refuses a start: another job works on the object.
type BusyError struct {
	Job     uint64
	Object  string
	Variant string // of that job
}

func (e *BusyError) Error() string { return fmt.Sprintf("job %d works on %s", e.Job, e.Object) }

// Func does the work of a job and returns its final reply. Its context ends
// with the cause ErrCancelled or ErrStopping; in the second case the outcome
// is not looked at.
type Func func(ctx context.Context, p *Progress) Outcome

// Config is what a Manager needs.
type Config struct {
	Store store.Store // required
	Epoch store.Epoch
	Log   zerolog.Logger
	// OnChange is told when a job has started and when it has finished, in
	// this order, without any lock held; it must not wait. The default is
	// nobody. Resumed jobs are told when they finish.
	OnChange func(monitor.Job)
}

// Manager has the jobs of a master. All methods may be called by many
// goroutines.
type Manager struct {
	cfg  Config
	base context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup // the Funcs that run

	mu      sync.Mutex // guards all below
	jobs    map[uint64]*entry
	next    uint64
	resume  map[string]func(Record) Func
	stopped bool
}

// entry is one job. rec.Outcome is set and done is closed together.
type entry struct {
	rec     Record
	percent int
	message string
	final   bool  // cannot be cancelled any more
	unsaved bool  // rec is newer than the disk
	running bool  // has a Func
	known   bool  // the start is on the disk: only then others see the job
	refused error // the start could not be stored

	disk sync.Mutex // orders the writes of this record; taken before m.mu

	ctx    context.Context
	cancel context.CancelCauseFunc
	stored chan struct{} // closed when the start is on the disk or refused
	done   chan struct{}
}

// New reads the jobs that earlier masters kept. It runs none of them.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Store == nil {
		return nil, errors.New("job: no store")
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(monitor.Job) {}
	}
	cfg.Log = cfg.Log.With().Str("part", "job").Logger()
	m := &Manager{cfg: cfg, jobs: map[uint64]*entry{}, next: 1, resume: map[string]func(Record) Func{}}
	m.base, m.stop = context.WithCancelCause(context.Background())
	if err := m.load(ctx); err != nil {
		return nil, fmt.Errorf("job: reading the jobs: %w", err)
	}
	return m, nil
}

// Register tells how jobs of an action go on after a restart. It must be
// called before Run.
func (m *Manager) Register(action string, resume func(Record) Func) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resume[action] = resume
}

// Run resumes or closes what an earlier master left, and then keeps the list
// short until ctx ends. It returns when every job has let go.
func (m *Manager) Run(ctx context.Context) error {
	m.takeOver()
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for ctx.Err() == nil {
		m.tidy(time.Now())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.stop(ErrStopping)
	m.wg.Wait()
	m.tidy(time.Now())
	return nil
}

// Start runs a new job, or joins the unfinished one with the same action and
// object; run is not used then. It returns when the job is on the disk, and
// does not wait for its end. Errors are a *BusyError, ErrStopping, or the
// store's.
func (m *Manager) Start(ctx context.Context, spec Spec, run Func) (j monitor.Job, joined bool, err error) {
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return monitor.Job{}, false, ErrStopping
	}
	join, busy := under(m.records(), spec)
	if busy != 0 {
		err := &BusyError{busy, spec.Object, m.jobs[busy].rec.Variant}
		m.mu.Unlock()
		return monitor.Job{}, false, err
	}
	if join != 0 {
		e := m.jobs[join]
		m.mu.Unlock()
		select {
		case <-e.stored:
		case <-ctx.Done():
			return monitor.Job{}, false, ctx.Err()
		}
		if e.refused != nil {
			return monitor.Job{}, false, e.refused
		}
		return m.show(e), true, nil
	}
	e := m.add(Record{
		ID: m.next, Action: spec.Action, Object: spec.Object, Variant: spec.Variant, By: spec.By,
		Started: time.Now().UTC().Round(time.Millisecond), Limit: spec.Limit, Data: spec.Data,
	})
	m.next++
	m.wg.Add(1) // before the commit, so that Run waits for it
	m.mu.Unlock()

	if err := m.write(context.WithoutCancel(ctx), e.rec); err != nil {
		err = fmt.Errorf("job %s %s: %w", spec.Action, spec.Object, err)
		m.mu.Lock()
		delete(m.jobs, e.rec.ID)
		e.refused = err
		close(e.stored)
		m.mu.Unlock()
		e.cancel(err)
		m.wg.Done()
		return monitor.Job{}, false, err
	}
	m.mu.Lock()
	e.known = true
	close(e.stored)
	m.mu.Unlock()
	j = m.show(e)
	m.cfg.OnChange(j)
	go m.work(e, run)
	return j, false, nil
}

// work runs one job to its end. The caller has added it to wg.
func (m *Manager) work(e *entry, run Func) {
	defer m.wg.Done()
	out := m.guarded(e, run)
	if errors.Is(context.Cause(e.ctx), ErrStopping) {
		return // stays recorded as running
	}
	if out.Code == 0 {
		out = failed(451, "the job ended without a result")
		if e.ctx.Err() != nil {
			out = failed(444, ErrCancelled.Error())
		}
	}
	m.finish(e, out)
}

// guarded keeps a panic of one job from ending the master.
func (m *Manager) guarded(e *entry, run Func) (out Outcome) {
	defer func() {
		if v := recover(); v != nil {
			m.cfg.Log.Error().Uint64("job", e.rec.ID).Str("action", e.rec.Action).Interface("panic", v).Stack().Msg("job panicked")
			out = failed(451, fmt.Sprintf("a fault of the master, see job %d in its log", e.rec.ID))
		}
	}()
	return run(e.ctx, &Progress{m, e})
}

// finish stores the outcome, then tells it. A disk that does not take it
// holds nobody up: it is stored later.
func (m *Manager) finish(e *entry, out Outcome) {
	e.disk.Lock()
	m.mu.Lock()
	rec := e.rec
	rec.Finished, rec.Outcome = time.Now().UTC().Round(time.Millisecond), &out
	m.mu.Unlock()
	err := m.write(context.Background(), rec)
	if err != nil {
		m.cfg.Log.Error().Err(err).Uint64("job", rec.ID).Msg("outcome of a job not stored, trying again")
	}
	m.mu.Lock()
	e.rec, e.unsaved = rec, err != nil
	e.running = false
	close(e.done)
	m.mu.Unlock()
	e.disk.Unlock()
	e.cancel(nil)
	m.cfg.OnChange(m.show(e))
}

// Get returns a job.
func (m *Manager) Get(id uint64) (monitor.Job, bool) {
	e := m.entry(id)
	if e == nil {
		return monitor.Job{}, false
	}
	return m.show(e), true
}

// List returns the unfinished jobs, or all of them, by number.
func (m *Manager) List(all bool) []monitor.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	var jobs []monitor.Job
	for _, e := range m.jobs {
		if e.known && (all || e.rec.Outcome == nil) {
			jobs = append(jobs, e.job(time.Now()))
		}
	}
	slices.SortFunc(jobs, func(a, b monitor.Job) int { return cmp.Compare(a.ID, b.ID) })
	return jobs
}

// Wait returns when the job has finished. Where ctx ends first, or the master
// stops, the job is returned as it is with the cause of that.
func (m *Manager) Wait(ctx context.Context, id uint64) (monitor.Job, error) {
	e := m.entry(id)
	if e == nil {
		return monitor.Job{}, fmt.Errorf("job %d: %w", id, ErrUnknown)
	}
	var err error
	select {
	case <-e.done:
		return m.show(e), nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-m.base.Done():
		err = ErrStopping
	}
	return m.show(e), err
}

// Cancel asks a job to end; Wait tells when it has. The wish is stored, so
// a restart does not forget it. asked is false where the job has finished.
func (m *Manager) Cancel(ctx context.Context, id uint64) (j monitor.Job, asked bool, err error) {
	e := m.entry(id)
	if e == nil {
		return monitor.Job{}, false, fmt.Errorf("job %d: %w", id, ErrUnknown)
	}
	m.mu.Lock()
	finished, final, before := e.rec.Outcome != nil, e.final, e.rec.Cancelled
	if !finished && !final && !before {
		e.rec.Cancelled, e.unsaved = true, true
	}
	m.mu.Unlock()
	switch {
	case finished:
		return m.show(e), false, nil
	case final:
		return m.show(e), false, fmt.Errorf("job %d: %w", id, ErrTooLate)
	case before:
		return m.show(e), true, nil
	}
	e.cancel(ErrCancelled)
	if err := m.save(context.WithoutCancel(ctx), e); err != nil {
		m.cfg.Log.Warn().Err(err).Uint64("job", id).Msg("cancelled job not stored, trying again")
	}
	return m.show(e), true, nil
}

// Progress is how a Func tells how far it is. Its methods never wait for the
// disk.
type Progress struct {
	m *Manager
	e *entry
}

// Record is the job as it was started.
func (p *Progress) Record() Record {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return p.e.rec
}

// Set tells how far the job is, 0 to 100, and in words what it waits for.
func (p *Progress) Set(percent int, message string) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.e.percent, p.e.message = min(max(percent, 0), 100), message
}

// Final makes the job one that cannot be cancelled any more. It is false
// where somebody has cancelled it already.
func (p *Progress) Final() bool {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if p.e.rec.Cancelled {
		return false
	}
	p.e.final = true
	return true
}

// job is the entry as an administrator sees it. m.mu must be held.
func (e *entry) job(now time.Time) monitor.Job {
	r := e.rec
	j := monitor.Job{
		ID: r.ID, Action: r.Action, Object: r.Object, State: Waiting, Percent: e.percent,
		Started: r.Started, Elapsed: max(now.Sub(r.Started), 0), Limit: r.Limit, By: r.By, Message: e.message,
	}
	if e.running {
		j.State = Running
	}
	if o := r.Outcome; o != nil {
		j.State, j.Code, j.Pairs, j.Text = o.state(), o.Code, o.Pairs, o.Text
		j.Elapsed, j.Message = max(r.Finished.Sub(r.Started), 0), ""
		if j.State == Done {
			j.Percent = 100
		}
	}
	return j
}

func (m *Manager) show(e *entry) monitor.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.job(time.Now())
}

func (m *Manager) entry(id uint64) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.jobs[id]; e != nil && e.known {
		return e
	}
	return nil
}

// add makes the entry of a job that is about to run. m.mu must be held.
func (m *Manager) add(r Record) *entry {
	e := &entry{rec: r, running: true, stored: make(chan struct{}), done: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancelCause(m.base)
	m.jobs[r.ID] = e
	return e
}

// records are all jobs. m.mu must be held, also while they are looked at.
func (m *Manager) records() []*Record {
	rs := make([]*Record, 0, len(m.jobs))
	for _, e := range m.jobs {
		rs = append(rs, &e.rec)
	}
	return rs
}

func decodeRecord(v []byte) (Record, error) {
	var r Record
	err := json.Unmarshal(v, &r)
	return r, err
}

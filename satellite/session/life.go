package session

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
)

const (
	askWithin  = 5 * time.Second
	quitWithin = time.Second
	serialMax  = 12          // lines of the console that are told of a failed desktop
	maxPath    = 4096        // of the display
	fileWithin = time.Second // how long a user's files may keep a session waiting
)

// session is one session. Its goroutine alone touches what is below life.
type session struct {
	m       *Manager
	spec    desktop.Spec
	log     zerolog.Logger
	orders  chan func(now time.Time) []desktop.Action
	shown   atomic.Pointer[pb.Session]      // what the inventory says
	over    chan struct{}                   // closed when the process is gone and everything is removed
	how     *pb.Ended                       // set before over is closed
	because atomic.Pointer[string]          // why this satellite ends it; nil: it does not
	process atomic.Pointer[desktop.Desktop] // what desk will be, as soon as it exists

	life    *Life
	desk    desktop.Desktop
	cancel  context.CancelFunc // of a start that is under way
	begun   chan begun
	pings   chan error
	pinging bool
	usage   usage

	// What the user's files tell. They may be on a file server that is dead, and
	// then a desktop must still be told to end.
	image   patient[bool]
	console patient[[]string]
}

type begun struct {
	desk desktop.Desktop
	err  error
}

// usage is the processor time at the last look.
type usage struct {
	at   time.Time
	used time.Duration
}

func (m *Manager) newSession(life *Life) *session {
	e := life.Entry()
	s := &session{
		m: m, spec: e.Spec, life: life,
		log:    m.cfg.Log.With().Str("user", e.Spec.User.Name).Str("session", e.Spec.Session).Logger(),
		orders: make(chan func(time.Time) []desktop.Action, 16), over: make(chan struct{}),
		begun: make(chan begun, 1), pings: make(chan error, 1),
	}
	s.show()
	return s
}

// start runs a session's goroutine. While the program ends nothing is started:
// the next one finds the session in the journal, and no desktop.
func (m *Manager) start(s *session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() == nil {
		m.wg.Go(func() { s.run(m.ctx) })
	}
}

// order gives the session an order of the master. It does not wait for what
// comes of it.
func (s *session) order(a pb.SessionOrder_Action, limit time.Duration) error {
	if err := Orderly(a); err != nil {
		return err
	}
	f := func(now time.Time) []desktop.Action { return s.life.Order(a, limit, now) }
	select {
	case s.orders <- f:
		return nil
	case <-s.over:
		return nil
	case <-time.After(askWithin):
		return wire.Errorf(wire.Unreachable, "session %s is busy", s.spec.Session)
	}
}

// run is the life of the session. It returns when the session is over, or when
// the program ends and lets go of the desktop.
func (s *session) run(ctx context.Context) {
	s.begin(ctx)
	ping := time.NewTicker(s.m.cfg.PingEvery)
	defer ping.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for s.life.Phase() != desktop.PhaseEnded {
		wait := time.Hour
		if at, ok := s.life.Next(); ok {
			wait = time.Until(at)
		}
		timer.Reset(wait)
		var events <-chan desktop.Event
		if s.desk != nil {
			events = s.desk.Events()
		}
		var todo []desktop.Action
		select {
		case <-ctx.Done():
			s.letGo()
			return
		case f := <-s.orders:
			todo = f(time.Now())
		case b := <-s.begun:
			todo = s.started(b)
		case e, ok := <-events:
			if !ok {
				e = desktop.Event{Kind: desktop.Exited, Reason: desktop.Crashed}
			}
			todo = s.happened(e)
		case <-ping.C:
			s.look(ctx)
		case err := <-s.pings:
			s.pinging = false
			todo = s.pinged(err)
		case <-timer.C:
			todo = s.life.Tick(time.Now())
		}
		s.perform(ctx, todo)
	}
	close(s.over)
}

// begin starts the desktop, or looks for the one that runs. The end of this
// program does not cut a start off: letGo waits for it.
func (s *session) begin(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	adopt, process := s.life.Adopt(), s.life.Entry().Process
	go func() {
		var b begun
		if adopt {
			b.desk, b.err = s.m.cfg.Driver.Adopt(ctx, s.spec, process)
		} else {
			b.desk, b.err = s.m.cfg.Driver.Start(ctx, s.spec)
		}
		if b.desk != nil {
			s.process.Store(&b.desk)
		}
		s.begun <- b
	}()
}

// letGo leaves the desktop running for the next start of this program.
func (s *session) letGo() {
	if s.desk == nil { // its start is under way: whatever comes of it is wanted
		select {
		case b := <-s.begun:
			if b.desk != nil {
				s.desk = b.desk
				s.life.Found(b.desk.Process())
				s.write()
			}
		case <-time.After(askWithin):
		}
	}
	if s.desk != nil {
		s.desk.Release()
	}
}

func (s *session) started(b begun) []desktop.Action {
	now := time.Now()
	var p desktop.Process
	if b.err == nil {
		s.desk = b.desk
		p = b.desk.Process()
	}
	todo, again := s.life.Started(now, p, b.err)
	switch adopt := s.life.Adopt(); {
	case again:
		s.log.Warn().Err(b.err).Msg("a desktop of an earlier start does not answer")
		time.AfterFunc(s.m.cfg.PingEvery, func() { s.again() })
	case b.err != nil && !adopt:
		s.log.Error().Err(b.err).Msg("the desktop could not be started")
	case b.err == nil && adopt:
		s.log.Info().Int("pid", p.PID).Msg("desktop of an earlier start adopted")
	case b.err == nil:
		s.log.Info().Int("pid", p.PID).Dur("took", now.Sub(s.life.Entry().Started)).Msg("desktop started")
	}
	return todo
}

// again looks once more for a desktop that did not answer.
func (s *session) again() {
	select {
	case s.orders <- func(time.Time) []desktop.Action { s.begin(s.m.ctx); return nil }:
	case <-s.m.ctx.Done():
	}
}

func (s *session) happened(e desktop.Event) []desktop.Action {
	now := time.Now()
	if e.Kind == desktop.Ready {
		s.log.Info().Dur("took", now.Sub(s.life.Entry().Started)).Msg("the guest is ready")
	}
	return s.life.Happened(now, e)
}

// pinged takes the outcome of a look at the hypervisor.
func (s *session) pinged(err error) []desktop.Action {
	todo := s.life.Pinged(time.Now(), err)
	switch {
	case todo == nil:
	case err == nil:
		s.log.Info().Msg("the desktop goes on")
	case errors.Is(err, desktop.ErrHalted):
		s.log.Error().Str("state", string(s.life.Phase())).Err(err).Msg("the desktop is halted")
	default:
		s.log.Error().Str("why", s.life.Why()).Msg("the desktop hangs")
	}
	return todo
}

// perform does what the rules ask for.
func (s *session) perform(ctx context.Context, todo []desktop.Action) {
	for _, a := range todo { // first what a slow disk must not keep waiting
		switch a {
		case desktop.AskPowerDown:
			s.tell(ctx, askWithin, "the request to shut down", s.desk.PowerDown)
		case desktop.Quit:
			if s.desk == nil {
				s.cancel()
			} else {
				s.tell(ctx, quitWithin, "the order to end", s.desk.Quit)
			}
		case desktop.Kill:
			if s.desk == nil {
				s.cancel()
			} else if err := s.desk.Kill(); err != nil {
				s.log.Error().Err(err).Msg("the desktop's process cannot be killed")
			}
		}
	}
	for _, a := range todo {
		switch {
		case a == desktop.Clean:
			s.clean()
		case a == desktop.Report && s.life.Phase() != desktop.PhaseEnded:
			s.report()
		}
	}
}

// tell asks the hypervisor for something without waiting for it.
func (s *session) tell(ctx context.Context, within time.Duration, what string, f func(context.Context) error) {
	go func() {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if err := f(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msgf("%s was not taken", what)
		}
	}()
}

// look asks for a sign of life and measures, without waiting.
func (s *session) look(ctx context.Context) {
	if s.desk == nil || s.pinging {
		return
	}
	s.pinging = true
	desk := s.desk
	go func() {
		ctx, cancel := context.WithTimeout(ctx, s.m.cfg.PingEvery)
		defer cancel()
		s.pings <- desk.Ping(ctx)
	}()
	now := time.Now()
	if used, err := desk.CPUTime(); err == nil {
		if d := now.Sub(s.usage.at); !s.usage.at.IsZero() && d > 0 {
			s.life.CPU = 100 * float64(used-s.usage.used) / float64(d)
		}
		s.usage.at, s.usage.used = now, used
	}
	s.read()
	s.show()
}

// report writes the journal and tells the master.
func (s *session) report() {
	s.write()
	s.read()
	s.show()
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.known.Touch()
	s.m.tell()
}

// write puts the session into the journal. A disk that does not take it stops
// nothing: what is lost is only news.
func (s *session) write() {
	now := time.Now()
	if err := s.m.journal.put(s.life.Note(now, now)); err != nil {
		s.log.Error().Err(err).Msg("the session was not noted")
	}
}

// show makes the row of the inventory.
func (s *session) show() {
	if s.desk != nil {
		s.life.Display = wire.Clean(s.desk.Display(), maxPath)
	}
	row := s.life.Row(s.m.cfg.DesktopName)
	s.shown.Store(row)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.known.Show(row)
}

// read looks into the user's files, if they are to be had: whether a new login
// would get the version that runs, and what a failed guest has said last.
func (s *session) read() {
	u, name, runs := s.spec.User, s.m.cfg.DesktopName, s.spec.Image.Dir
	if is, ok := s.image.ask(fileWithin, func() (is bool) {
		err := u.Do(func() error {
			now, err := desktop.Resolve(u.Home, name)
			is = err == nil && now.Dir == runs
			return err
		})
		return is && err == nil
	}); ok {
		s.life.Current = is
	}
	if s.desk == nil || s.life.Phase() != desktop.PhaseFailed {
		return
	}
	if lines, ok := s.console.ask(fileWithin, s.lines(serialMax)); ok {
		s.life.Serial = lines
	}
}

// lines returns a reader of the last lines of the guest's console.
func (s *session) lines(n int) func() []string {
	desk := s.desk
	return func() (out []string) {
		for _, line := range desk.Serial(n) {
			out = append(out, wire.Clean(line, maxText))
		}
		return out
	}
}

// clean removes what the session has on the disk, and then the session itself
// from journal and inventory.
func (s *session) clean() {
	last := ""
	if s.life.WantsLastLine() {
		if lines, _ := s.console.ask(fileWithin, s.lines(1)); len(lines) > 0 {
			last = lines[len(lines)-1]
		}
	}
	because := ""
	if b := s.because.Load(); b != nil {
		because = *b
	}
	how := s.life.Ended(last, because)
	err := s.spec.User.RemoveDir(s.spec.Dir)
	if err == nil {
		err = s.m.journal.remove(s.spec.Session)
	}
	if err != nil { // the next start of the program removes it
		s.log.Error().Err(err).Msg("the session's files could not be removed")
	}
	s.log.Info().Str("how", how.How).Str("why", how.Why).Msg("session ended")
	s.how = how
	s.m.gone(s, how)
}

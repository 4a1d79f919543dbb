package session

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
)

const progressEvery = time.Second

// Open gives a user the desktop: the one that runs here, else the one that the
// master says, else a new one. progress is told what is being waited for.
func (m *Manager) Open(ctx context.Context, u desktop.User, client string, progress func(text string)) (Opened, error) {
	l, err := NewLogin(m.rules, u, client)
	if err != nil {
		return Opened{}, err
	}
	o, err := m.open(ctx, l, progress)
	if err != nil && ctx.Err() == nil {
		m.refuse(u.Name, err)
	}
	return o, err
}

func (m *Manager) open(ctx context.Context, l *Login, progress func(text string)) (_ Opened, err error) {
	u := l.User()
	unlock, err := m.lockLogin(ctx, u.Name)
	if err != nil {
		return Opened{}, wire.Errorf(wire.InUse, "another login of %s is under way here", u.Name)
	}
	defer func() {
		if err != nil {
			time.AfterFunc(RefusedPause, unlock)
			return
		}
		unlock()
	}()
	if err := m.barred(); err != nil {
		return Opened{}, err
	}
	w := &walk{m: m, login: l, progress: progress, began: time.Now()}
	defer w.stop()
	step := w.look()
	for {
		switch step.Do {
		case Answer:
			return step.Opened, nil
		case Refuse:
			return Opened{}, step.Err
		case Break:
			m.master.Break()
			return Opened{}, step.Err
		}
		if step, err = w.do(ctx, step); err != nil {
			return Opened{}, err
		}
	}
}

// walk carries out the steps of a login.
type walk struct {
	m        *Manager
	login    *Login
	progress func(text string)
	session  *session // that the login waits for
	began    time.Time
	tick     *time.Ticker // while it waits for a desktop
}

func (w *walk) stop() {
	if w.tick != nil {
		w.tick.Stop()
	}
}

// look finds the user's session here, for the step Look.
func (w *walk) look() Step {
	u := w.login.User()
	w.session = w.m.of(u.Name, u.UID)
	if w.session == nil {
		return w.login.Look(nil)
	}
	w.began = time.Now()
	return w.login.Look(w.session.shown.Load())
}

// do carries out one step and returns the next; an error ends the login.
func (w *walk) do(ctx context.Context, step Step) (Step, error) {
	m, l := w.m, w.login
	if step.Text != "" {
		w.progress(step.Text)
	}
	switch step.Do {
	case Resolve:
		u := l.User()
		var image desktop.Image
		err := u.Do(func() (err error) {
			image, err = desktop.Resolve(u.Home, m.cfg.DesktopName)
			return err
		})
		return l.Resolved(image, err), nil
	case Wait:
		return w.wait(ctx, step.Wait)
	case Refer:
		return l.Referred(m.master.Refer(ctx, l.Request())), nil
	case Secure:
		return l.Secured(m.guarded()), nil
	case Claim:
		u := l.User()
		reply, on, err := m.master.Claim(ctx, u.Name, u.UID)
		return l.Claimed(reply, on, m.granted(u), err), nil
	case Alone:
		next := l.Invented(random(), m.granted(l.User()))
		m.cfg.Log.Warn().Str("user", l.User().Name).Str("session", next.Session).Msg("login without a master (WIN4_VERDE_STANDALONE_LOGIN)")
		return next, nil
	case Note:
		return l.Noted(m.journal.put(step.Life.Entry())), nil
	case Accept:
		w.session = m.newSession(step.Life)
		return l.Accepted(m.accept(w.session, step.Link)), nil
	case Forget:
		if err := m.journal.remove(step.Session); err != nil {
			m.cfg.Log.Error().Err(err).Str("session", step.Session).Msg("journal")
		}
		return l.Forgotten(step.Err), nil
	case Start:
		m.start(w.session)
		w.began = time.Now()
		return l.Watch(w.session.shown.Load()), nil
	case Await:
		return w.await(ctx)
	case AwaitEnd:
		select {
		case <-w.session.over:
			return w.look(), nil
		case <-ctx.Done():
			return Step{}, ctx.Err()
		}
	case Pause:
		select {
		case <-time.After(step.Wait):
			return w.look(), nil
		case <-ctx.Done():
			return Step{}, ctx.Err()
		}
	}
	return Step{}, fmt.Errorf("unknown step %d of a login", step.Do) // a bug
}

// wait waits for the link, at most for left.
func (w *walk) wait(ctx context.Context, left time.Duration) (Step, error) {
	up, down, why, changed := w.m.master.Status()
	if !up && left > 0 {
		select {
		case <-changed:
		case <-time.After(left):
		case <-ctx.Done():
			return Step{}, ctx.Err()
		}
		up, down, why, _ = w.m.master.Status()
	}
	return w.login.Linked(up, time.Since(down), why), nil
}

// await waits until something about the session changes.
func (w *walk) await(ctx context.Context) (Step, error) {
	s := w.session
	if w.tick == nil {
		w.tick = time.NewTicker(progressEvery)
	}
	for again := false; ; again = true {
		changed := w.m.Changed()
		row := s.shown.Load()
		next := w.login.Watch(row)
		if next.Do != Await {
			return next, nil
		}
		if again && next.Text != "" {
			w.progress(next.Text)
		}
		select {
		case <-s.over:
			return w.login.Over(s.how), nil
		case <-w.m.ctx.Done():
			return Step{}, wire.Errorf(wire.Unreachable, "this satellite is being stopped; the desktop goes on, log in again in a moment")
		case <-changed:
		case <-w.tick.C:
			text := fmt.Sprintf("the desktop is starting (%d s)", int(time.Since(w.began).Seconds()))
			if row.Why != "" {
				text += ": " + row.Why
			}
			w.progress(text)
		case <-ctx.Done():
			return Step{}, ctx.Err()
		}
	}
}

// guarded tells whether a desktop would end with its lease though this program
// died.
func (m *Manager) guarded() error {
	m.mu.Lock()
	l := m.known.Lease()
	m.mu.Unlock()
	if m.cfg.Guard == nil || l.Self == 0 {
		return nil
	}
	return m.cfg.Guard.Awake()
}

// granted is what a new session of a user is made with.
func (m *Manager) granted(u desktop.User) Granted {
	now := time.Now()
	return Granted{Dir: func(id string) string { return m.dir(u, id) }, UUID: newUUID(), Limits: m.cfg.Limits, Now: now, Wall: now}
}

// lockLogin lets one login of a user at a time pass.
func (m *Manager) lockLogin(ctx context.Context, user string) (unlock func(), err error) {
	m.mu.Lock()
	free := m.logins[user]
	if free == nil {
		free = make(chan struct{}, 1)
		m.logins[user] = free
	}
	m.mu.Unlock()
	select {
	case free <- struct{}{}:
		return func() { <-free }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Screenshot returns what is on the screen of a user's desktop here, as PNG.
func (m *Manager) Screenshot(ctx context.Context, u desktop.User) ([]byte, error) {
	s := m.of(u.Name, u.UID)
	if s == nil {
		return nil, wire.Errorf(wire.NotFound, "%s has no desktop on this satellite", u.Name)
	}
	got := make(chan desktop.Desktop, 1)
	select {
	case s.orders <- func(time.Time) []desktop.Action { got <- s.desk; return nil }:
	case <-s.over:
		return nil, wire.Errorf(wire.NotFound, "the desktop of %s has just ended", u.Name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var desk desktop.Desktop
	select {
	case desk = <-got:
	case <-s.over:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if desk == nil {
		return nil, wire.Errorf(wire.NotReady, "the desktop of %s is just starting", u.Name)
	}
	return desk.Screenshot(ctx)
}

// newUUID is a random UUID.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return UUID(b)
}

// random is a random number.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

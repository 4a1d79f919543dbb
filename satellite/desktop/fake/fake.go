// Package fake is a desktop.Driver without a hypervisor, for simulations and
// tests of what is built on desktops.
//
// It behaves: a desktop takes time to boot and to shut down, may ignore the
// power button, hang or crash, and lives on when the satellite that started it
// is gone. A Host is the machine on which the processes live; each start of a
// satellite takes a new Driver of the same Host. It has no goroutines, only
// timers, and so runs in testing/synctest bubbles at any speed.
package fake

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/png"
	"slices"
	"sync"
	"time"

	"verdecmd/satellite/desktop"
)

// Behaviour is what a desktop does. The zero value boots and shuts down at
// once and does all it is asked.
type Behaviour struct {
	Start       time.Duration // until the process answers
	StartErr    error         // Start fails with it after that time
	Boot        time.Duration // from then until the guest is ready
	NeverReady  bool          // it boots for ever
	Shutdown    time.Duration // from the request to the end
	IgnorePower bool          // the guest does not react to requests
	IgnoreQuit  bool          // the hypervisor answers, but does not end
	Hang        time.Duration // after this time the hypervisor stops answering; 0: never
	Crash       time.Duration // after this time the process dies; 0: never
	PowerOff    time.Duration // after this time the user shuts down inside; 0: never
}

// Host is a machine with its processes. Its methods may be called from any
// goroutine.
type Host struct {
	behave func(desktop.Spec) Behaviour

	mu    sync.Mutex // guards the fields below and all of the processes
	procs map[int]*process
	pids  int
}

// NewHost is a machine without processes. behave, which may be nil, says how
// each new desktop behaves.
func NewHost(behave func(desktop.Spec) Behaviour) *Host {
	if behave == nil {
		behave = func(desktop.Spec) Behaviour { return Behaviour{} }
	}
	return &Host{behave: behave, procs: map[int]*process{}, pids: 1000}
}

// Driver is the Driver of a satellite that has just started on the machine.
func (h *Host) Driver() desktop.Driver { return driver{h} }

// Running is the sessions whose processes exist, in order of their start.
func (h *Host) Running() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	procs := make([]*process, 0, len(h.procs))
	for _, p := range h.procs {
		procs = append(procs, p)
	}
	slices.SortFunc(procs, func(a, b *process) int { return cmp.Compare(a.pid, b.pid) })
	var out []string
	for _, p := range procs {
		out = append(out, p.spec.Session)
	}
	return out
}

// Hang makes the hypervisor of a session stop answering, or go on.
func (h *Host) Hang(session string, hang bool) {
	h.with(session, func(p *process) {
		p.hung = hang
		if !hang {
			close(p.thaw)
			p.thaw = make(chan struct{})
		}
	})
}

// Crash ends the process of a session as a fault does.
func (h *Host) Crash(session string) {
	h.with(session, func(p *process) { p.exit(desktop.Crashed, "signal: aborted") })
}

// PowerOff is the user shutting down inside.
func (h *Host) PowerOff(session string) { h.with(session, (*process).powerOff) }

// Reboot is the end of all processes: the machine lost its power.
func (h *Host) Reboot() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		p.exit(desktop.Crashed, "")
	}
}

func (h *Host) with(session string, f func(*process)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.spec.Session == session {
			f(p)
			return
		}
	}
}

// process is one running desktop. All is guarded by the Host's lock.
type process struct {
	host     *Host
	spec     desktop.Spec
	does     Behaviour
	pid      int
	started  time.Time
	timers   []*time.Timer
	attached *handle // the satellite that holds it; nil: none
	ready    bool
	stopping bool
	hung     bool
	gone     bool
	thaw     chan struct{} // closed when it answers again, or ends
}

// after runs f under the lock if the process still exists then.
func (p *process) after(d time.Duration, f func(*process)) {
	p.timers = append(p.timers, time.AfterFunc(d, func() {
		p.host.mu.Lock()
		defer p.host.mu.Unlock()
		if !p.gone {
			f(p)
		}
	}))
}

func (p *process) becomeReady() {
	p.ready = true
	p.tell(desktop.Event{Kind: desktop.Ready})
}

func (p *process) powerOff() {
	if p.stopping {
		return
	}
	p.stopping = true
	p.tell(desktop.Event{Kind: desktop.Stopping})
	p.after(p.does.Shutdown, func(p *process) { p.exit(desktop.GuestShutdown, "") })
}

func (p *process) tell(e desktop.Event) {
	if p.attached != nil {
		p.attached.events <- e // there is room for one of each kind
	}
}

func (p *process) exit(r desktop.Reason, detail string) {
	if p.gone {
		return
	}
	p.gone = true
	close(p.thaw)
	for _, t := range p.timers {
		t.Stop()
	}
	delete(p.host.procs, p.pid)
	if p.attached != nil {
		p.tell(desktop.Event{Kind: desktop.Exited, Reason: r, Detail: detail})
		close(p.attached.events)
		p.attached.released = true
		p.attached = nil
	}
}

func (p *process) identity() desktop.Process {
	return desktop.Process{PID: p.pid, StartTime: uint64(p.started.UnixNano() / 1e7), UUID: p.spec.UUID}
}

type driver struct{ host *Host }

// Start implements desktop.Driver.
func (d driver) Start(ctx context.Context, s desktop.Spec) (desktop.Desktop, error) {
	h := d.host
	does := h.behave(s)
	if does.Start > 0 {
		select {
		case <-time.After(does.Start):
		case <-ctx.Done():
			return nil, fmt.Errorf("QEMU did not answer: %w", ctx.Err())
		}
	}
	if does.StartErr != nil {
		return nil, does.StartErr
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.spec.Dir == s.Dir {
			return nil, fmt.Errorf("session directory %s: %w", s.Dir, desktop.ErrInUse)
		}
	}
	h.pids++
	p := &process{host: h, spec: s, does: does, pid: h.pids, started: time.Now(), thaw: make(chan struct{})}
	h.procs[p.pid] = p
	a := attach(p)
	if !does.NeverReady {
		p.after(does.Boot, (*process).becomeReady)
	}
	if does.Hang > 0 {
		p.after(does.Hang, func(p *process) { p.hung = true })
	}
	if does.Crash > 0 {
		p.after(does.Crash, func(p *process) { p.exit(desktop.Crashed, "signal: segmentation fault") })
	}
	if does.PowerOff > 0 {
		p.after(does.PowerOff, (*process).powerOff)
	}
	return a, nil
}

// Adopt implements desktop.Driver.
func (d driver) Adopt(ctx context.Context, s desktop.Spec, want desktop.Process) (desktop.Desktop, error) {
	h := d.host
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.spec.UUID != s.UUID || p.spec.Dir != s.Dir || want.PID != 0 && p.identity() != want {
			continue
		}
		if p.attached != nil {
			p.attached.release()
		}
		a := attach(p)
		if p.ready {
			p.tell(desktop.Event{Kind: desktop.Ready})
		}
		return a, nil
	}
	return nil, fmt.Errorf("session %s: %w", s.Session, desktop.ErrGone)
}

func attach(p *process) *handle {
	p.attached = &handle{p: p, id: p.identity(), events: make(chan desktop.Event, 3)}
	return p.attached
}

// handle is a satellite's hold on a process.
type handle struct {
	p        *process
	id       desktop.Process
	events   chan desktop.Event
	released bool
}

func (a *handle) release() {
	if !a.released {
		a.released = true
		a.p.attached = nil
		close(a.events)
	}
}

// answer waits until the hypervisor answers, then runs f under the lock.
func (a *handle) answer(ctx context.Context, f func()) error {
	h := a.p.host
	for {
		h.mu.Lock()
		if a.p.gone || a.released {
			h.mu.Unlock()
			return desktop.ErrGone
		}
		if !a.p.hung {
			f()
			h.mu.Unlock()
			return nil
		}
		thaw := a.p.thaw
		h.mu.Unlock()
		select {
		case <-thaw:
		case <-ctx.Done():
			return fmt.Errorf("QEMU does not answer: %w", ctx.Err())
		}
	}
}

func (a *handle) Process() desktop.Process       { return a.id }
func (a *handle) Events() <-chan desktop.Event   { return a.events }
func (a *handle) Display() string                { return "vnc+unix:" + a.p.spec.Dir + "/vnc" }
func (a *handle) Ping(ctx context.Context) error { return a.answer(ctx, func() {}) }

func (a *handle) PowerDown(ctx context.Context) error {
	return a.answer(ctx, func() {
		if a.p.ready && !a.p.does.IgnorePower {
			a.p.powerOff()
		}
	})
}

func (a *handle) Quit(ctx context.Context) error {
	err := a.answer(ctx, func() {
		if !a.p.does.IgnoreQuit {
			a.p.exit(desktop.HostQuit, "")
		}
	})
	if ctx.Err() == nil {
		return nil
	}
	return err
}

func (a *handle) Kill() error {
	a.p.host.mu.Lock()
	defer a.p.host.mu.Unlock()
	a.p.exit(desktop.Crashed, "signal: killed")
	return nil
}

// Screenshot returns a small grey picture that gets lighter when the guest is
// ready.
func (a *handle) Screenshot(ctx context.Context) ([]byte, error) {
	var out bytes.Buffer
	var err error
	aerr := a.answer(ctx, func() {
		img := image.NewGray(image.Rect(0, 0, 64, 48))
		for i := range img.Pix {
			if a.p.ready {
				img.Pix[i] = byte(i)
			}
		}
		err = png.Encode(&out, img)
	})
	if aerr != nil {
		return nil, aerr
	}
	return out.Bytes(), err
}

func (a *handle) Serial(n int) []string {
	a.p.host.mu.Lock()
	defer a.p.host.mu.Unlock()
	lines := []string{"GUEST KERNEL"}
	if a.p.ready {
		lines = append(lines, "GUEST UP "+a.p.spec.Name)
	}
	return lines[max(0, len(lines)-n):]
}

func (a *handle) CPUTime() (time.Duration, error) {
	a.p.host.mu.Lock()
	defer a.p.host.mu.Unlock()
	if a.p.gone {
		return 0, desktop.ErrGone
	}
	return time.Since(a.p.started) / 20, nil
}

func (a *handle) Release() {
	a.p.host.mu.Lock()
	defer a.p.host.mu.Unlock()
	a.release()
}

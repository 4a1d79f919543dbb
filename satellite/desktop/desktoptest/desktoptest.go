// Package desktoptest holds the tests that every desktop.Driver passes, the
// one with QEMU and the fake alike.
//
// They start few desktops and boot only one of them, for a real one takes
// seconds of processor time.
package desktoptest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"testing"
	"time"

	"verdecmd/satellite/desktop"
)

// Setup is what the tests need.
type Setup struct {
	// Driver returns a new Driver for the same machine, as a restarted
	// satellite has it.
	Driver func() desktop.Driver
	// Spec returns a session that boots and obeys; each call another one.
	Spec func() desktop.Spec
	// Limit bounds the boot and the shut-down.
	Limit time.Duration
}

// Run tests a Driver. Each test begins with a new Setup.
func Run(t *testing.T, setup func(t *testing.T) Setup) {
	tests := map[string]func(*testing.T, Setup){
		"life":                life,
		"quit":                quit,
		"kill":                kill,
		"adopt refuses":       adoptRefuses,
		"directory is in use": inUse,
		"cancelled start":     cancelledStart,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { test(t, setup(t)) })
	}
}

// life: starts, gets ready, survives the satellite (S7, V-95), shuts down when
// asked (V-81).
func life(t *testing.T, s Setup) {
	spec := s.Spec()
	d := start(t, s, spec)
	p := d.Process()
	if p.PID <= 0 || p.StartTime == 0 || p.UUID != spec.UUID {
		t.Errorf("got process %+v, want all fields, UUID %s", p, spec.UUID)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	want(t, s, d, desktop.Event{Kind: desktop.Ready})
	if data, err := d.Screenshot(t.Context()); err != nil {
		t.Errorf("screenshot: %v", err)
	} else if blank(t, data) {
		t.Error("the screenshot of a ready desktop is of one colour")
	}
	if cpu, err := d.CPUTime(); err != nil || cpu < 0 {
		t.Errorf("got processor time %v, %v", cpu, err)
	}
	if got := d.Serial(1); len(got) != 1 || got[0] == "" {
		t.Errorf("got serial lines %q, want one", got)
	}

	d.Release()
	if e, open := <-d.Events(); open {
		t.Errorf("after Release: got event %+v, want a closed channel", e)
	}
	if err := d.Ping(t.Context()); !errors.Is(err, desktop.ErrGone) {
		t.Errorf("ping after Release: got %v, want ErrGone", err)
	}
	d, err := s.Driver().Adopt(t.Context(), spec, p)
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	if got := d.Process(); got != p {
		t.Errorf("adopted: got process %+v, want %+v", got, p)
	}
	want(t, s, d, desktop.Event{Kind: desktop.Ready})

	if err := d.PowerDown(t.Context()); err != nil {
		t.Errorf("power down: %v", err)
	}
	want(t, s, d, desktop.Event{Kind: desktop.Stopping})
	want(t, s, d, desktop.Event{Kind: desktop.Exited, Reason: desktop.GuestShutdown})
	over(t, s, d, spec, p)
}

func quit(t *testing.T, s Setup) {
	spec := s.Spec()
	d := start(t, s, spec)
	if err := d.Quit(t.Context()); err != nil {
		t.Errorf("quit: %v", err)
	}
	wantEnd(t, s, d, desktop.HostQuit)
	over(t, s, d, spec, d.Process())
}

func kill(t *testing.T, s Setup) {
	spec := s.Spec()
	d := start(t, s, spec)
	if err := d.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	wantEnd(t, s, d, desktop.Crashed)
	over(t, s, d, spec, d.Process())
}

// over checks what holds after the end.
func over(t *testing.T, s Setup, d desktop.Desktop, spec desktop.Spec, p desktop.Process) {
	t.Helper()
	if e, open := <-d.Events(); open {
		t.Errorf("after Exited: got event %+v, want a closed channel", e)
	}
	for name, err := range map[string]error{
		"Ping": d.Ping(t.Context()), "PowerDown": d.PowerDown(t.Context()),
		"Screenshot": second(d.Screenshot(t.Context())), "CPUTime": second(d.CPUTime()),
	} {
		if !errors.Is(err, desktop.ErrGone) {
			t.Errorf("%s after the end: got %v, want ErrGone", name, err)
		}
	}
	if err := errors.Join(d.Quit(t.Context()), d.Kill()); err != nil {
		t.Errorf("Quit and Kill after the end: got %v, want nil", err)
	}
	d.Serial(10)
	d.Release()
	d.Release()
	if _, err := s.Driver().Adopt(t.Context(), spec, p); !errors.Is(err, desktop.ErrGone) {
		t.Errorf("adopt after the end: got %v, want ErrGone", err)
	}
}

func second[T any](_ T, err error) error { return err }

// adoptRefuses: the pid alone is no identity, and who is refused is left alone.
func adoptRefuses(t *testing.T, s Setup) {
	spec := s.Spec()
	d := start(t, s, spec)
	p := d.Process()
	d.Release()
	later, other := p, spec
	later.StartTime++
	other.UUID = s.Spec().UUID
	for name, try := range map[string]func() (desktop.Desktop, error){
		"another start time": func() (desktop.Desktop, error) { return s.Driver().Adopt(t.Context(), spec, later) },
		"another UUID": func() (desktop.Desktop, error) {
			return s.Driver().Adopt(t.Context(), other, desktop.Process{PID: p.PID, StartTime: p.StartTime, UUID: other.UUID})
		},
		"another session's directory": func() (desktop.Desktop, error) { return s.Driver().Adopt(t.Context(), s.Spec(), p) },
	} {
		if _, err := try(); !errors.Is(err, desktop.ErrGone) {
			t.Errorf("%s: got %v, want ErrGone", name, err)
		}
	}
	// The satellite may have ended before it wrote the pid down.
	d, err := s.Driver().Adopt(t.Context(), spec, desktop.Process{UUID: spec.UUID})
	if err != nil {
		t.Fatalf("adopt without a pid: %v", err)
	}
	if got := d.Process(); got != p {
		t.Errorf("adopted without a pid: got %+v, want %+v", got, p)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	end(t, s, d)
}

// inUse: one directory, one desktop; the second start harms nothing.
func inUse(t *testing.T, s Setup) {
	spec := s.Spec()
	d := start(t, s, spec)
	if _, err := s.Driver().Start(t.Context(), spec); !errors.Is(err, desktop.ErrInUse) {
		t.Errorf("second start: got %v, want ErrInUse", err)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("the first one: %v", err)
	}
	end(t, s, d)
}

// cancelledStart: nothing is left, the same session can be started again.
func cancelledStart(t *testing.T, s Setup) {
	spec := s.Spec()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := s.Driver().Start(ctx, spec); err == nil {
		end(t, s, d) // it was faster
		return
	}
	if _, err := s.Driver().Adopt(t.Context(), spec, desktop.Process{UUID: spec.UUID}); !errors.Is(err, desktop.ErrGone) {
		t.Errorf("adopt: got %v, want ErrGone", err)
	}
	end(t, s, start(t, s, spec))
}

func start(t *testing.T, s Setup, spec desktop.Spec) desktop.Desktop {
	t.Helper()
	d, err := s.Driver().Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { // whatever the test has done, no process is left
		if a, err := s.Driver().Adopt(context.Background(), spec, d.Process()); err == nil {
			_ = a.Kill()
			for range a.Events() {
			}
		}
	})
	return d
}

func end(t *testing.T, s Setup, d desktop.Desktop) {
	t.Helper()
	if err := d.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	timer := time.NewTimer(s.Limit)
	defer timer.Stop()
	for {
		select {
		case _, open := <-d.Events():
			if !open {
				return
			}
		case <-timer.C:
			t.Fatal("the desktop does not end")
		}
	}
}

// want takes the next event and compares it, but for the detail.
func want(t *testing.T, s Setup, d desktop.Desktop, w desktop.Event) {
	t.Helper()
	if got := next(t, s, d, w); got != w {
		t.Fatalf("got event %+v, want %+v; console: %q", got, w, d.Serial(20))
	}
}

// wantEnd is want for the end of a desktop whose guest may have become ready
// before.
func wantEnd(t *testing.T, s Setup, d desktop.Desktop, r desktop.Reason) {
	t.Helper()
	w := desktop.Event{Kind: desktop.Exited, Reason: r}
	got := next(t, s, d, w)
	if got == (desktop.Event{Kind: desktop.Ready}) {
		got = next(t, s, d, w)
	}
	if got != w {
		t.Fatalf("got event %+v, want %+v; console: %q", got, w, d.Serial(20))
	}
}

// next takes the next event without its detail; w is what it should be.
func next(t *testing.T, s Setup, d desktop.Desktop, w desktop.Event) desktop.Event {
	t.Helper()
	select {
	case got, open := <-d.Events():
		if got.Detail = ""; !open {
			t.Fatalf("no event any more, want %+v; console: %q", w, d.Serial(20))
		}
		return got
	case <-time.After(s.Limit):
		t.Fatalf("no event within %v, want %+v; console: %q", s.Limit, w, d.Serial(20))
	}
	panic("unreachable")
}

// blank says whether a picture has one colour.
func blank(t *testing.T, data []byte) bool {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	b := img.Bounds()
	first := img.At(b.Min.X, b.Min.Y)
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			if img.At(x, y) != first {
				return false
			}
		}
	}
	return true
}

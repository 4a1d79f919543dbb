package fake

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/desktoptest"
)

func specs() func() desktop.Spec {
	n := 0
	return func() desktop.Spec {
		n++
		id := fmt.Sprintf("s%d", n)
		return desktop.Spec{Session: id, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Dir: "/snap/" + id, Name: "alice", MemoryMiB: 1, CPUs: 1}
	}
}

func TestDriver(t *testing.T) {
	desktoptest.Run(t, func(t *testing.T) desktoptest.Setup {
		h := NewHost(func(desktop.Spec) Behaviour {
			return Behaviour{Start: time.Millisecond, Boot: 5 * time.Millisecond, Shutdown: 5 * time.Millisecond}
		})
		t.Cleanup(func() {
			if left := h.Running(); left != nil {
				t.Errorf("left running: %q", left)
			}
		})
		return desktoptest.Setup{Driver: h.Driver, Spec: specs(), Limit: 10 * time.Second}
	})
}

// seen is the events of a desktop with their times until it ends.
func seen(d desktop.Desktop, since time.Time) []string {
	names := map[desktop.EventKind]string{desktop.Ready: "ready", desktop.Stopping: "stopping", desktop.Exited: "exited "}
	var out []string
	for e := range d.Events() {
		out = append(out, fmt.Sprint(time.Since(since), " ", names[e.Kind], e.Reason))
	}
	return out
}

func TestBehaviour(t *testing.T) {
	const s = time.Second
	tests := map[string]struct {
		does Behaviour
		do   func(h *Host, d desktop.Desktop)
		want []string
	}{
		"boots and shuts down": {
			does: Behaviour{Boot: 8 * s, Shutdown: 3 * s},
			do:   func(_ *Host, d desktop.Desktop) { time.Sleep(10 * s); d.PowerDown(context.Background()) },
			want: []string{"8s ready", "10s stopping", "13s exited guest"},
		},
		"does not hear the button while booting": {
			does: Behaviour{Boot: 8 * s},
			do: func(_ *Host, d desktop.Desktop) {
				d.PowerDown(context.Background())
				time.Sleep(20 * s)
				d.Quit(context.Background())
			},
			want: []string{"8s ready", "20s exited quit"},
		},
		"ignores power and quit": {
			does: Behaviour{IgnorePower: true, IgnoreQuit: true},
			do: func(_ *Host, d desktop.Desktop) {
				time.Sleep(s)
				d.PowerDown(context.Background())
				d.Quit(context.Background())
				time.Sleep(s)
				d.Kill()
			},
			want: []string{"0s ready", "2s exited crashed"},
		},
		"crashes":                 {does: Behaviour{NeverReady: true, Crash: 4 * s}, want: []string{"4s exited crashed"}},
		"the user shuts down":     {does: Behaviour{Boot: s, PowerOff: 9 * s, Shutdown: s}, want: []string{"1s ready", "9s stopping", "10s exited guest"}},
		"the machine loses power": {do: func(h *Host, _ desktop.Desktop) { time.Sleep(s); h.Reboot() }, want: []string{"0s ready", "1s exited crashed"}},
		"is told to crash":        {do: func(h *Host, _ desktop.Desktop) { time.Sleep(s); h.Crash("s1") }, want: []string{"0s ready", "1s exited crashed"}},
		"is told to shut down":    {do: func(h *Host, _ desktop.Desktop) { time.Sleep(s); h.PowerOff("s1") }, want: []string{"0s ready", "1s stopping", "1s exited guest"}},
		"another one is told to":  {does: Behaviour{Crash: 2 * s}, do: func(h *Host, _ desktop.Desktop) { time.Sleep(s); h.PowerOff("s2") }, want: []string{"0s ready", "2s exited crashed"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := NewHost(func(desktop.Spec) Behaviour { return tt.does })
				begin := time.Now()
				d, err := h.Driver().Start(t.Context(), specs()())
				if err != nil {
					t.Fatal(err)
				}
				if tt.do != nil {
					go tt.do(h, d)
				}
				if got := seen(d, begin); !reflect.DeepEqual(got, tt.want) {
					t.Errorf("got  %q\nwant %q", got, tt.want)
				}
			})
		})
	}
}

func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHost(func(desktop.Spec) Behaviour { return Behaviour{Hang: time.Second} })
		d, err := h.Driver().Start(t.Context(), specs()())
		if err != nil {
			t.Fatal(err)
		}
		ping := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return d.Ping(ctx)
		}
		if err := ping(); err != nil {
			t.Errorf("before: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := ping(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hung: got %v, want a time-out", err)
		}
		go func() {
			time.Sleep(time.Second)
			h.Hang("s1", false)
		}()
		if err := ping(); err != nil {
			t.Errorf("it answers again: %v", err)
		}
		h.Hang("s1", true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Quit(ctx); err == nil {
			t.Error("a hung one was told to quit: got nil, want a time-out")
		}
		if err := d.Kill(); err != nil || h.Running() != nil {
			t.Errorf("kill: got %v, left %q", err, h.Running())
		}
	})
}

func TestStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHost(func(desktop.Spec) Behaviour {
			return Behaviour{Start: time.Second, StartErr: desktop.ErrNoSpace}
		})
		if _, err := h.Driver().Start(t.Context(), specs()()); !errors.Is(err, desktop.ErrNoSpace) {
			t.Errorf("got %v, want ErrNoSpace", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := h.Driver().Start(ctx, specs()()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

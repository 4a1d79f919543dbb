package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// manager listens as a service manager does.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// heard is the next message to a manager; empty: none comes.
func heard(t *testing.T, l *net.UnixConn, within time.Duration) string {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, _ := l.Read(b)
	return string(b[:n])
}

func connect(t *testing.T, socket, usec, pid string) *Manager {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", usec)
	t.Setenv("WATCHDOG_PID", pid)
	m, err := Connect()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if v, ok := os.LookupEnv(name); ok {
			t.Errorf("%s=%s is left to the desktops", name, v)
		}
	}
	return m
}

func TestManager(t *testing.T) {
	for kind, socket := range map[string]string{
		"a file": filepath.Join(t.TempDir(), "notify"), "a name": fmt.Sprintf("@verdecmd-test-%d", os.Getpid()),
	} {
		t.Run(kind, func(t *testing.T) {
			l := manager(t, socket)
			m := connect(t, socket, "", "")
			m.Ready()
			m.Stopping()
			if a, b := heard(t, l, time.Minute), heard(t, l, time.Minute); !m.Managed() || a != "READY=1" || b != "STOPPING=1" {
				t.Errorf("got %q, %q", a, b)
			}
			m.Watch(t.Context(), func() { t.Error("nobody has asked for signs of life") })
		})
	}
}

// Signs of life come as long as the program has some.
func TestWatch(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l := manager(t, socket)
	m := connect(t, socket, "200000", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	lock := make(chan struct{}, 1)
	lock <- struct{}{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Watch(ctx, func() { <-lock; lock <- struct{}{} })
	}()
	for range 3 {
		if got := heard(t, l, time.Minute); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	<-lock           // the program hangs
	for range 1000 { // what is under way already, and what this test has not taken in
		if heard(t, l, time.Second) == "" {
			break
		}
	}
	if got := heard(t, l, 300*time.Millisecond); got != "" {
		t.Errorf("got %q while it hangs", got)
	}
	lock <- struct{}{}
	cancel()
	<-done
}

// Started by hand there is nobody to talk to.
func TestNoManager(t *testing.T) {
	m := connect(t, "", "1000000", "")
	m.Ready()
	m.Stopping()
	m.Watch(t.Context(), func() { t.Error("asked") })
	if m.Managed() {
		t.Error("got a manager without NOTIFY_SOCKET")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if m, err := Connect(); err == nil {
		t.Errorf("a socket that is not there: got %v", m)
	}
}

func TestInterval(t *testing.T) {
	tests := map[string]struct {
		usec, pid string
		want      time.Duration
	}{
		"none": {"", "", 0}, "for all": {"30000000", "", 30 * time.Second}, "for us": {"1000000", "7", time.Second},
		"for another": {"1000000", "8", 0}, "no number": {"soon", "7", 0}, "negative": {"-1", "", 0}, "huge": {"18446744073709551615", "", 0},
		"zero": {"0", "", 0}, "shortest": {"1", "", time.Microsecond},
	}
	for name, tt := range tests {
		if got := interval(tt.usec, tt.pid, 7); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}

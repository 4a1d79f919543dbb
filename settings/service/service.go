// Package service talks to the service manager that has started this program:
// it is ready, it is alive, it is about to end.
//
// This is systemd's protocol (sd_notify): a datagram to the socket that
// NOTIFY_SOCKET names. Without one, as when the program was started by hand, all
// of it does nothing. The variables are taken out of the environment, so that
// no desktop speaks in the program's name.
package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Manager is the service manager. The zero value is none.
type Manager struct {
	conn  *net.UnixConn // nil: there is none
	watch time.Duration // it ends the program after so long without a sign of life; 0: never
}

// Connect finds the service manager of this process.
func Connect() (*Manager, error) {
	path, usec, pid := take("NOTIFY_SOCKET"), take("WATCHDOG_USEC"), take("WATCHDOG_PID")
	if path == "" {
		return &Manager{}, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // Go knows what @ means
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager: %w", err)
	}
	return &Manager{conn, interval(usec, pid, os.Getpid())}, nil
}

func take(name string) string {
	value := os.Getenv(name)
	os.Unsetenv(name)
	return value
}

// interval is how long the manager waits for a sign of life; 0: for ever. The
// variables may be meant for another process.
func interval(usec, pid string, self int) time.Duration {
	const most = 1 << 40 // microseconds, twelve days
	n, err := strconv.ParseUint(usec, 10, 64)
	if err != nil || n > most || pid != "" && pid != strconv.Itoa(self) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// Managed tells whether there is a service manager.
func (m *Manager) Managed() bool { return m.conn != nil }

// Ready tells that the program does its work from now on.
func (m *Manager) Ready() { m.send("READY=1") }

// Stopping tells that the program has begun to end.
func (m *Manager) Stopping() { m.send("STOPPING=1") }

// send says something. What a manager that does not listen misses, it learns
// from the process itself.
func (m *Manager) send(state string) {
	if m.conn != nil {
		_, _ = m.conn.Write([]byte(state))
	}
}

// Watch gives signs of life until ctx ends, each after alive has returned: that
// takes what a program that hangs does not give, and returns at once. Where the
// manager does not ask for signs, nothing is done.
func (m *Manager) Watch(ctx context.Context, alive func()) {
	if m.conn == nil || m.watch == 0 {
		return
	}
	tick := time.NewTicker(max(m.watch/4, time.Millisecond))
	defer tick.Stop()
	for {
		alive()
		m.send("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Protected says to whom systemd has started, after an error of writing, that the
// unit may be what keeps a directory from being written to; else nothing.
func Protected(err error) string {
	if !errors.Is(err, syscall.EROFS) || os.Getenv("INVOCATION_ID") == "" {
		return ""
	}
	return "; the unit protects all directories but those in its ReadWritePaths: add yours by systemctl edit"
}

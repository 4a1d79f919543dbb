package qemu

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"verdecmd/satellite/desktop"
)

// FuzzConsole: what a guest writes on its console comes to an administrator as
// at most so many lines of UTF-8 without control characters; lines cut from
// lines are the same (S21).
func FuzzConsole(f *testing.F) {
	f.Add([]byte("[    0.000000] Linux version 6.1.0 (gcc)\r\n[    1.2] \x1b[31mred\x1b[0m\tx\n\nGUEST UP alice\n"), uint8(24))
	f.Add([]byte("\x1b]0;title\x07\x1b[2J\xff\xfe\u009b5m\r\r\n"), uint8(1))
	f.Add([]byte(strings.Repeat("\x1b[", 100)+"m"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		got := lines(data, int(n))
		if len(got) > int(n) {
			t.Errorf("%d lines of %d", len(got), n)
		}
		for _, l := range got {
			if !utf8.ValidString(l) || l == "" || strings.ContainsFunc(l, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
				t.Errorf("line %q", l)
			}
		}
		again := lines([]byte(strings.Join(got, "\n")), int(n))
		if strings.Join(again, "\n") != strings.Join(got, "\n") {
			t.Errorf("%q becomes %q", got, again)
		}
	})
}

// FuzzProcess: whatever a process calls itself, its times are read from its stat
// file; any other bytes are an error or times that are not negative.
func FuzzProcess(f *testing.F) {
	f.Add([]byte("1234 (qemu-system-x86) S 1 1234 1234 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 5 0 98765 1 1\n"), "qemu", uint32(250), uint32(150), uint32(98765))
	f.Add([]byte("1 (a) b) c) R"), "a) S 1 1 (", uint32(0), uint32(0), uint32(0))
	f.Add([]byte("1"), "years of work", uint32(4e9), uint32(4e9), uint32(4e9)) // overflowed once
	f.Add([]byte("1 ()"+strings.Repeat(" 9223372036854775807", 30)), "", uint32(1), uint32(1), uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, name string, user, system, start uint32) {
		if s, err := parseStat(data); err == nil && s.cpu < 0 {
			t.Errorf("%q: got %+v", data, s)
		}
		line := fmt.Sprintf("77 (%s) S 1 77 77 0 -1 0 0 0 0 0 %d %d 0 0 20 0 1 0 %d 0 0\n", name, user, system, start)
		s, err := parseStat([]byte(line))
		if want := (time.Duration(user) + time.Duration(system)) * 10 * time.Millisecond; err != nil || s.startTime != uint64(start) || s.cpu != want {
			t.Errorf("%q: got %+v, %v, want %v and %d", line, s, err, want, start)
		}
	})
}

// FuzzHost: nonsense about the machine, from /proc or from a program that is not
// QEMU, decides nothing: a mount point is one of the file's, a version that is
// none is not too old.
func FuzzHost(f *testing.F) {
	f.Add("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "QEMU emulator version 10.0.2 (Debian)")
	f.Add("none /a\\040b cgroup2", "version 7.1")
	f.Add("a b cgroup2\n\x00 \x00 cgroup2", "version 99999999999999999999.1")
	f.Fuzz(func(t *testing.T, mounts, answer string) {
		if got := findCgroup2(mounts); got != "" && !strings.Contains(mounts, got) {
			t.Errorf("%q: got %q", mounts, got)
		}
		m := versionText.FindStringSubmatch(answer)
		if m == nil {
			return
		}
		if strings.Trim(m[1], "0123456789.") != "" {
			t.Errorf("%q has version %q", answer, m[1])
		}
		if older(m[1], 7, 2) && !older(m[1], 8, 0) {
			t.Errorf("version %q is older than 7.2 and not older than 8.0", m[1])
		}
	})
}

// FuzzEvent: an event of QEMU with any data changes at most what it is about: a
// shutdown is told once, and only where the guest wanted it.
func FuzzEvent(f *testing.F) {
	f.Add("SHUTDOWN", []byte(`{"guest": true, "reason": "guest-shutdown"}`))
	f.Add("SHUTDOWN", []byte(`{"guest": false, "reason": "host-signal"}`))
	f.Add("VSERPORT_CHANGE", []byte(`{"id": "agent", "open": true}`))
	f.Add("RESUME", []byte(`null`))
	f.Add("SHUTDOWN", []byte(`[[`))
	f.Add("STOP", []byte(nil))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r := (&Driver{}).running(desktop.Spec{}, nil)
		r.ctx, r.cancel = context.WithCancel(t.Context())
		r.cancel() // what follows from an event is not started
		for range 3 {
			r.event(qmpEvent{name, data})
		}
		told := len(r.events)
		if told > 1 || told == 1 && (name != "SHUTDOWN" && name != "VSERPORT_CHANGE") {
			t.Errorf("%s %q: %d events", name, data, told)
		}
	})
}

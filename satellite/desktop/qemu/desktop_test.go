package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// begin starts a desktop and sees to it that no process is left.
func begin(t testing.TB, s *site, spec desktop.Spec) desktop.Desktop {
	t.Helper()
	d, err := s.driver().Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(d.Process().PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		for !exited(pidfd) {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 1000)
		}
		unix.Close(pidfd)
	})
	return d
}

// next waits for an event of this kind. Before its end a guest may have become
// ready.
func next(t testing.TB, d desktop.Desktop, kind desktop.EventKind) desktop.Event {
	t.Helper()
	limit := time.After(bootLimit)
	for {
		select {
		case e, open := <-d.Events():
			if open && e.Kind == desktop.Ready && kind == desktop.Exited {
				continue
			}
			if !open || e.Kind != kind {
				t.Fatalf("got event %+v (open %v), want kind %d; console: %q", e, open, kind, d.Serial(20))
			}
			return e
		case <-limit:
			t.Fatalf("no event, want kind %d; console: %q", kind, d.Serial(20))
		}
	}
}

// lateness counts by how much this process is woken too late: what a busy machine
// takes away is no part of a time that was promised.
func lateness(t testing.TB) (late func() time.Duration) {
	const nap = 10 * time.Millisecond
	var sum atomic.Int64
	go func() {
		for t.Context().Err() == nil {
			at := time.Now()
			time.Sleep(nap)
			sum.Add(int64(time.Since(at) - nap))
		}
	}()
	return func() time.Duration {
		time.Sleep(5 * nap) // the last nap has been counted
		return time.Duration(sum.Load())
	}
}

// console waits until the guest has said something.
func console(t testing.TB, d desktop.Desktop, text string) {
	t.Helper()
	limit := time.After(bootLimit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(strings.Join(d.Serial(1000), "\n"), text) {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the guest did not say %q; console: %q", text, d.Serial(50))
		}
	}
}

// TestDesktop boots one desktop and looks at it from all sides: identity and
// sandbox (V-95, RELIABILITY 1.1 C), directory (V-36), the home, a hang, a
// satellite that dies and comes back (S7).
func TestDesktop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	spec := s.spec("verdecmd.write=hello")
	d := begin(t, s, spec)
	p := d.Process()
	proc := func(name string) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID, name))
		must(t, err)
		return string(b)
	}

	wantStatus := []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"}
	if s.cfg.AsRoot {
		wantStatus = append(wantStatus, "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
			fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d", testUID, testUID, testUID, testUID),
			fmt.Sprintf("Gid:\t%d\t%d\t%d\t%d", testGID, testGID, testGID, testGID),
			fmt.Sprintf("Groups:\t%d %d", testGID, testGID+1))
	}
	status := strings.Split(strings.ReplaceAll(proc("status"), " \n", "\n"), "\n")
	for _, want := range wantStatus {
		if !slices.Contains(status, want) {
			t.Errorf("/proc/PID/status lacks %q:\n%s", want, strings.Join(status, "\n"))
		}
	}
	if sid, err := unix.Getsid(p.PID); err != nil || sid != p.PID {
		t.Errorf("got session %d, %v, want one of its own, %d", sid, err, p.PID)
	}
	entries, err := os.ReadDir(spec.Dir)
	must(t, err)
	for _, e := range entries {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(spec.Dir, e.Name()), &st))
		if st.Uid != s.user.UID || st.Gid != s.user.GID {
			t.Errorf("%s belongs to %d:%d, want the user", e.Name(), st.Uid, st.Gid)
		}
	}
	if got := listening(t, p.PID); got != nil {
		t.Errorf("listens on TCP: %q", got)
	}
	for _, kv := range strings.Split(proc("environ"), "\x00") {
		if name, _, _ := strings.Cut(kv, "="); name != "" && !slices.Contains([]string{"PATH", "LANG", "HOME", "TMPDIR"}, name) {
			t.Errorf("the satellite's environment leaks: %s", name)
		}
	}

	next(t, d, desktop.Ready)
	console(t, d, "GUEST WROTE hello")
	console(t, d, "GUEST UP alice")
	console(t, d, "GUEST DISK boots=1") // V-46: each session's disk is fresh, see TestOverlay
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(s.user.Home, "hello"), &st))
	if got, err := os.ReadFile(filepath.Join(s.user.Home, "hello")); err != nil || string(got) != "alice\n" || st.Uid != s.user.UID {
		t.Errorf("a file that the guest wrote: got %q of %d, %v, want the name, the user's", got, st.Uid, err)
	}

	// A hang: nothing answers, the process is there.
	must(t, unix.Kill(p.PID, unix.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping of a stopped process: got %v, want a time-out", err)
	}
	// The satellite is killed and comes back; the desktop still hangs.
	d.Release()
	d, err = s.driver().Adopt(t.Context(), spec, p)
	if err != nil {
		t.Fatalf("adopting a desktop that hangs: %v", err)
	}
	if got := d.Process(); got != p {
		t.Errorf("adopted: got %+v, want %+v", got, p)
	}
	must(t, unix.Kill(p.PID, unix.SIGCONT))
	if err := d.Ping(t.Context()); err != nil {
		t.Errorf("ping after SIGCONT: %v", err)
	}
	next(t, d, desktop.Ready)

	// Somebody else's socket in place of QEMU's is noticed.
	d.Release()
	must(t, os.Rename(spec.Dir+"/qmp", spec.Dir+"/qmp.real"))
	impostor := listen(t, spec.Dir+"/qmp")
	// Adopted without a pid, too: the satellite died before it was recorded.
	d, err = s.driver().Adopt(t.Context(), spec, desktop.Process{UUID: spec.UUID})
	must(t, err)
	if got := d.Process(); got != p {
		t.Errorf("adopted without a pid: got %+v, want %+v", got, p)
	}
	if err := d.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "in place of QEMU") {
		t.Errorf("ping of an impostor: got %v, want it found out", err)
	}
	impostor.Close()
	must(t, os.Rename(spec.Dir+"/qmp.real", spec.Dir+"/qmp"))
	must(t, d.Ping(t.Context())) // connected anew
	d.Release()

	// S1: while its process runs a desktop is never called gone, whatever else
	// cannot be had. Its user may take the directory away, and it can still be
	// ended; put back, all is as before.
	must(t, os.Rename(spec.Dir, spec.Dir+".away"))
	d, err = s.driver().Adopt(t.Context(), spec, p)
	must(t, err)
	if err := d.Ping(t.Context()); err == nil || errors.Is(err, desktop.ErrGone) {
		t.Errorf("ping without its directory: got %v, want an error that is not ErrGone", err)
	}
	must(t, signal(d.(*running).pidfd, p.PID, 0, false)) // Kill reaches it
	must(t, os.Rename(spec.Dir+".away", spec.Dir), d.Ping(t.Context()))
	next(t, d, desktop.Ready)

	// A console without end does not fill the disk.
	must(t, os.WriteFile(spec.Dir+"/serial.log", bytes.Repeat([]byte("0123456789abcde\n"), 2<<20/16), 0o600))
	must(t, d.(*running).cutSerial())
	if st, err := os.Stat(spec.Dir + "/serial.log"); err != nil || st.Size() > 2*keepSerial {
		t.Errorf("got a console file of %d bytes, %v, want at most %d", st.Size(), err, 2*keepSerial)
	}

	must(t, d.PowerDown(t.Context()))
	next(t, d, desktop.Stopping)
	if e := next(t, d, desktop.Exited); e.Reason != desktop.GuestShutdown {
		t.Errorf("got %+v, want the guest's shut-down", e)
	}
	if got := strings.Join(d.Serial(100), "\n"); !strings.Contains(got, "GUEST DOWN") {
		t.Errorf("after the end the console is still told: got %q, want GUEST DOWN in it", got)
	}
	must(t, desktop.RemoveDir(spec.Dir))
}

// A guest that ignores the button: asking does nothing (V-81), a log-off ends
// it at its limit (V-82), and says so.
func TestLadder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := begin(t, s, s.spec("verdecmd.ignorepower"))
	m := desktop.NewMachine(desktop.Limits{}, time.Now())
	m.Started(time.Now())
	next(t, d, desktop.Ready)
	m.Ready(time.Now())
	do(t, d, m.Shutdown(time.Now()))
	console(t, d, "GUEST IGNORES")
	must(t, d.Ping(t.Context()))

	late, begun := lateness(t), time.Now()
	do(t, d, m.Logoff(time.Now(), 2*time.Second))
	drive(t, d, m)
	if took := time.Since(begun); m.How() != desktop.HowAbort || took < 2*time.Second || took > 7*time.Second+late() {
		t.Errorf("got %q after %v, want abort after 2 to 7 s (LV3)", m.How(), took)
	}
}

// V-80: less than 3 s, also where QEMU does not answer at all.
func TestAbort(t *testing.T) {
	for name, sig := range map[string]unix.Signal{"answers": 0, "hangs": unix.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			spec := s.spec("")
			d := begin(t, s, spec)
			must(t, unix.Kill(d.Process().PID, sig))
			m := desktop.NewMachine(desktop.Limits{}, time.Now())
			m.Started(time.Now())
			late, begun := lateness(t), time.Now()
			do(t, d, m.Abort(begun))
			drive(t, d, m)
			if took := time.Since(begun); m.How() != desktop.HowAbort || took > 3*time.Second+late() {
				t.Errorf("got %q after %v, want abort within 3 s", m.How(), took)
			}
			must(t, desktop.RemoveDir(spec.Dir))
			begin(t, s, spec) // and in again at once
		})
	}
}

// do carries out a machine's actions.
func do(t testing.TB, d desktop.Desktop, acts []desktop.Action) {
	t.Helper()
	for _, a := range acts {
		switch a {
		case desktop.AskPowerDown:
			must(t, d.PowerDown(t.Context()))
		case desktop.Quit:
			go func() { // may hang with QEMU
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_ = d.Quit(ctx)
			}()
		case desktop.Kill:
			must(t, d.Kill())
		}
	}
}

// drive serves the machine's timer and the desktop's events until the end.
func drive(t testing.TB, d desktop.Desktop, m *desktop.Machine) {
	t.Helper()
	for m.Phase() != desktop.PhaseEnded {
		wait := bootLimit
		if at, ok := m.Next(); ok {
			wait = time.Until(at)
		}
		select {
		case e := <-d.Events():
			switch e.Kind {
			case desktop.Stopping:
				do(t, d, m.Stopping(time.Now()))
			case desktop.Exited:
				do(t, d, m.Exited(time.Now(), e.Reason, e.Detail))
			}
		case <-time.After(wait):
			if wait == bootLimit {
				t.Fatal("nothing happens any more")
			}
			do(t, d, m.Tick(time.Now()))
		}
	}
}

// Without an agent the picture tells, and the power button shuts down.
func TestNoAgent(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	spec := s.spec("verdecmd.noagent")
	spec.Image.Agent = false
	d := begin(t, s, spec)
	next(t, d, desktop.Ready)
	console(t, d, "lease of") // by then the guest listens to its button, too
	m := desktop.NewMachine(desktop.Limits{}, time.Now())
	m.Started(time.Now())
	m.Ready(time.Now())
	do(t, d, m.Shutdown(time.Now()))
	drive(t, d, m)
	if m.How() != desktop.HowShutdown {
		t.Errorf("got %q, want shutdown", m.How())
	}
}

// The profile for guests that boot from their disk is one that QEMU takes,
// and so are names that look like options.
func TestProfiles(t *testing.T) {
	for name, change := range map[string]func(*desktop.Spec){
		"windows": func(s *desktop.Spec) {
			s.Image.OS, s.Image.Kernel, s.Image.Initrd, s.Image.Append = "windows", "", "", ""
		},
		"no disk":       func(s *desktop.Spec) { s.Image.Disk = "" },
		"hostile names": func(s *desktop.Spec) { s.Name, s.User.Name = "a,b=c,file=/etc/passwd", "-nographic,x" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			spec := s.spec("")
			change(&spec)
			d := begin(t, s, spec)
			must(t, d.Quit(t.Context()))
			if e := next(t, d, desktop.Exited); e.Reason != desktop.HostQuit {
				t.Errorf("got %+v, want the quit", e)
			}
		})
	}
}

// What keeps a desktop from starting is said plainly, and nothing is left.
func TestStartFails(t *testing.T) {
	broken := filepath.Join(place(t), "qemu")
	must(t, os.WriteFile(broken, []byte("#!/bin/sh\necho 'qemu: something odd' >&2\nexit 1\n"), 0o755))
	silent := filepath.Join(place(t), "qemu")
	must(t, os.WriteFile(silent, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755))
	tests := map[string]struct {
		change func(*site, *desktop.Spec)
		err    error
		text   string
		root   bool
	}{
		"no QEMU":           {change: func(s *site, _ *desktop.Spec) { s.cfg.Binary = "qemu-none" }, err: desktop.ErrNoQEMU, text: "apt install qemu-system-x86"},
		"no qemu-img":       {change: func(s *site, _ *desktop.Spec) { s.cfg.ImageTool = "qemu-img-none" }, err: desktop.ErrNoQEMU, text: "apt install qemu-utils"},
		"QEMU fails":        {change: func(s *site, _ *desktop.Spec) { s.cfg.Binary = broken }, text: "something odd"},
		"QEMU is silent":    {change: func(s *site, _ *desktop.Spec) { s.cfg.Binary = silent }, text: "did not answer"},
		"no disk":           {change: func(_ *site, s *desktop.Spec) { s.Image.Disk += ".none" }, err: desktop.ErrNoImage, text: "disk.qcow2.none"},
		"no kernel":         {change: func(_ *site, s *desktop.Spec) { s.Image.Kernel += ".none" }, err: desktop.ErrNoImage, text: "vmlinux.none"},
		"too much memory":   {change: func(_ *site, s *desktop.Spec) { s.MemoryMiB = 1 << 40 }, text: "QEMU"},
		"no home":           {change: func(_ *site, s *desktop.Spec) { s.User.Home += "/none" }, text: "none"},
		"no bridge":         {change: func(s *site, _ *desktop.Spec) { s.cfg.Network = "bridge:win4none" }, err: desktop.ErrNetwork, text: "win4none", root: true},
		"root's desktop":    {change: func(_ *site, s *desktop.Spec) { s.User.UID = 0 }, text: "do not run as root", root: true},
		"no snap directory": {change: func(_ *site, s *desktop.Spec) { s.Dir = "/nowhere/s1" }, text: "WIN4_SNAP_DIR"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.root {
				needRoot(t)
			}
			t.Parallel()
			s := newSite(t)
			spec := s.spec("")
			tt.change(s, &spec)
			limit := time.Minute
			if s.cfg.Binary == silent {
				limit = 10 * time.Second // what comes before QEMU takes less
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			d, err := s.driver().Start(ctx, spec)
			if err == nil {
				_ = d.Kill()
				t.Fatal("got no error")
			}
			if tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %q, want %v with %q", err, tt.err, tt.text)
			}
			left, _ := os.ReadDir(s.snap())
			if len(left) != 0 {
				t.Errorf("left in the snap directory: %v", left)
			}
			if out, _ := exec.Command("pgrep", "-f", spec.UUID).Output(); len(out) != 0 {
				t.Errorf("left running: %s", out)
			}
		})
	}
}

// listening is the TCP sockets on which the process waits for connections.
func listening(t testing.TB, pid int) []string {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	inodes := map[string]bool{}
	for _, fd := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if rest, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(rest, "]")] = true
		}
	}
	if len(inodes) == 0 {
		t.Error("the process has no sockets at all: the test looks at the wrong one")
	}
	var out []string
	for _, table := range []string{"tcp", "tcp6"} {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		for l := range strings.SplitSeq(string(data), "\n") {
			if f := strings.Fields(l); len(f) > 9 && f[3] == "0A" && inodes[f[9]] {
				out = append(out, l)
			}
		}
	}
	return out
}

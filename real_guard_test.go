package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// S1, V-91, lease: a satellite's program that is killed and never started again,
// or stopped, does not end its desktops; its guardian does, long before the
// master lets the users in elsewhere. One that comes back keeps its desktop, and
// a guardian that is killed is replaced. That no user ever has two desktops is
// what the witness sees.
func TestRealGuardian(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	for _, s := range [][2]string{{"WIN4_VERDE_LEASE_SELF", "20"}, {"WIN4_VERDE_LEASE_REPLACE", "52"}, {"WIN4_VERDE_LOST_SESSIONS", "lease"}} {
		r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), s[0], s[1])
	}
	r.master(nil, "")
	var sats []*daemon
	users := []string{"alice", "bob", "carol"}
	for i, u := range users { // each on a satellite of their own
		sats = append(sats, r.satellite(i+1, nil, ""))
		r.win4(0, i+1, u)
		r.admin("offlineserver", strconv.Itoa(i+1))
	}
	pids := map[string]int{}
	for pid, line := range r.desktops() {
		for _, u := range users {
			if strings.Contains(line, "/user,string="+u+"\x00") {
				pids[u] = pid
			}
		}
	}
	if len(pids) != 3 {
		t.Fatalf("desktops %v", pids)
	}
	for i := range sats {
		r.until("one guardian of each", func() bool { return len(r.guardians(i+1)) == 1 })
	}
	// Who ends in order takes its guardian along where there is nothing to guard.
	empty := r.satellite(4, nil, "")
	r.until("a guardian without desktops", func() bool { return len(r.guardians(4)) == 1 })
	check(t, empty.cmd.Process.Signal(syscall.SIGTERM), empty.cmd.Wait())
	if left := r.guardians(4); len(left) != 0 {
		t.Errorf("guardians %v of a satellite that left no desktop", left)
	}
	check(t, sats[2].cmd.Process.Signal(syscall.SIGTERM), sats[2].cmd.Wait())
	if left := r.guardians(3); len(left) != 1 {
		t.Errorf("guardians %v of a satellite that left a desktop", left)
	}
	sats[2].start()
	r.until("the satellite that left a desktop", func() bool { return r.link(3) == "up" })

	began := time.Now()
	sats[0].kill()
	check(t, sats[1].cmd.Process.Signal(syscall.SIGSTOP))
	sats[2].kill()
	old := r.guardians(3)
	sats[2].start()
	r.until("another guardian of the satellite that came back", func() bool {
		now := r.guardians(3)
		return len(now) == 1 && !slices.Equal(now, old)
	})
	old = r.guardians(3)
	check(t, syscall.Kill(old[0], syscall.SIGKILL))
	r.until("another guardian for the one that was killed", func() bool {
		now := r.guardians(3)
		return len(now) == 1 && !slices.Equal(now, old)
	})
	r.until("a log that says so", func() bool {
		return strings.Contains(sats[2].log.String(), "the guardian of the desktops has ended, another takes its place")
	})
	for _, pid := range append(r.guardians(1), r.guardians(3)...) {
		r.onlyKills(pid)
	}

	r.admin("onlineserver", "3")
	var let []string
	r.until("the end of two desktops", func() bool {
		for _, u := range users[:2] { // nobody is let in before
			if _, code := r.try("win4", "--satellite", r.path("sat3"), "--user", u); code == 0 {
				let = append(let, u)
			}
		}
		return len(r.desktops()) == 1+len(let)
	})
	if took := time.Since(began); len(let) > 0 || took < 20*time.Second || took > 50*time.Second {
		t.Errorf("the desktops were ended after %v, with a lease of 20 s; let in elsewhere by then: %v", took, let)
	}
	if _, still := r.desktops()[pids["carol"]]; !still {
		t.Error("the desktop of the satellite that came back is gone")
	}
	r.until("the end of the lease", func() bool {
		_, code := r.try("win4", "--satellite", r.path("sat3"), "--user", "alice")
		return code == 0
	})
	if took := time.Since(began); took < 50*time.Second {
		t.Errorf("alice was let in after %v, want not before 52 s", took)
	}
	check(t, sats[1].cmd.Process.Signal(syscall.SIGCONT))

	// Without leases there are no guardians, and desktops stay.
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_LOST_SESSIONS", "hold")
	before := slices.Sorted(maps.Keys(r.desktops()))
	r.all[0].kill()
	r.all[0].start()
	r.until("no guardians on satellites that are told", func() bool { return len(r.guardians(2))+len(r.guardians(3)) == 0 })
	if now := slices.Sorted(maps.Keys(r.desktops())); !slices.Equal(now, before) {
		t.Errorf("desktops %v, before %v", now, before)
	}
}

// guardians are the processes that guard the nth satellite's desktops.
func (r *real) guardians(n int) (out []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(line), "\x00guardian\x00--dir\x00"+r.path("ssat"+strconv.Itoa(n))+"/") {
			pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

// onlyKills checks that a guardian has no rights but those to see and to end
// processes of others, no port, and none of its satellite's sockets and keys.
func (r *real) onlyKills(pid int) {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return // it has done its work meanwhile
	}
	var own [2]unix.CapUserData // a container may have no CAP_SYS_PTRACE to give
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &own[0]); err != nil {
		r.t.Fatal(err)
	}
	may := fmt.Sprintf(":\t%016x\n", own[0].Effective&(1<<unix.CAP_KILL|1<<unix.CAP_SYS_PTRACE))
	for _, want := range []string{"CapPrm" + may, "CapEff" + may, "CapBnd" + may, "CapInh:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			r.t.Errorf("guardian %d: want %q in %s", pid, want, status)
		}
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			r.t.Errorf("guardian %d has %s", pid, to)
		}
	}
}

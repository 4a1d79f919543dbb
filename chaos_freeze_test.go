package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chaosFreezes: SIGSTOP and, after a while, SIGCONT of any process (S1, S2, S8):
// of the master, a satellite, a desktop, and of a desktop whose satellite is
// killed meanwhile, which must not take it for gone.
func chaosFreezes(t *testing.T, p plan) {
	const users = 6
	c := newChaos(t, p, 2, users, nil)
	l := c.newLoad(users, 0)
	l.start(3)
	c.until("some desktops", func() bool { return len(c.desktops()) >= users/2 })
	var known longest
	for k := 0; k < p.freezes && !stopChaos.Load(); k++ {
		// From short to long and back, so that a few are long enough for time-outs.
		took := min(p.longest, 100*time.Millisecond<<(2*(k%6))+time.Duration(c.rnd.Int64N(int64(500*time.Millisecond))))
		switch k % 4 {
		case 0:
			c.freeze(took, "the master", c.m.cmd.Process.Pid, nil)
		case 1:
			s := c.sats[c.rnd.IntN(len(c.sats))]
			c.freeze(took, s.name, s.cmd.Process.Pid, nil)
		case 2:
			pid, _ := c.desktop()
			c.freeze(took, fmt.Sprint("a desktop, process ", pid), pid, nil)
		case 3:
			pid, s := c.desktop()
			c.freeze(max(took, 2*time.Second), fmt.Sprintf("a desktop of %s, process %d", s.name, pid), pid, func() {
				c.note("kill -9 of its satellite")
				s.kill()
				s.start()
			})
			c.survived("kill-satellite")
		}
		thawed := time.Now()
		for n := range c.sats {
			c.until("a satellite's link", func() bool { return c.up(n + 1) })
		}
		known.add(t, "all are connected after", time.Since(thawed), connectedWithin)
		c.verify()
		c.survived("freeze")
	}
	l.end()
	took := c.settled(knownWithin)
	c.verify()
	t.Logf("after a freeze: all connected %v; at the end all known after %v", &known, took)
}

// freeze stops a process for a while.
func (c *chaosCluster) freeze(took time.Duration, what string, pid int, meanwhile func()) {
	c.t.Helper()
	c.note("%s is frozen for %v", what, took)
	end := time.Now().Add(took)
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		c.note("it has just ended")
		return
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGCONT) // killed meanwhile: then it has not ended well, and that is seen
		c.note("%s goes on", what)
	}()
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	session := sessionOf(string(line))
	watching := make(chan struct{})
	go func() { // a frozen desktop is there, and cannot say so
		defer close(watching)
		for tick := time.NewTicker(20 * time.Millisecond); time.Now().Before(end); <-tick.C {
			now := sinceBoot()
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(b), ") Z ") || strings.Contains(string(b), ") X ") {
				return
			}
			c.mu.Lock()
			c.seen[session] = max(c.seen[session], now)
			c.mu.Unlock()
		}
	}()
	if meanwhile != nil {
		meanwhile()
	}
	<-watching
}

// desktop is one that runs, and its satellite.
func (c *chaosCluster) desktop() (int, *daemon) {
	c.t.Helper()
	for {
		lives, there := c.lives(), c.desktops()
		var pids []int
		for pid := range there {
			pids = append(pids, pid)
		}
		slices.Sort(pids)
		if len(pids) > 0 {
			pid := pids[c.rnd.IntN(len(pids))]
			for _, l := range lives {
				if l.pid == pid {
					for _, s := range c.sats {
						if s.name == l.host {
							return pid, s
						}
					}
				}
			}
		}
		c.pause(10*time.Millisecond, 50*time.Millisecond)
	}
}

// chaosLease: a satellite's program is frozen, another one's killed, both for
// longer than the lease of their desktops: those end without them, and after
// that their users are let in elsewhere (S1, V-91).
func chaosLease(t *testing.T, p plan) {
	lease := values{"m:WIN4_VERDE_LOST_SESSIONS": "lease", "m:WIN4_VERDE_LEASE_SELF": "20", "m:WIN4_VERDE_LEASE_REPLACE": "52",
		"WIN4_VERDE_LOST_SESSIONS": "lease", "WIN4_VERDE_LEASE_SELF": "20"}
	c := newChaos(t, p, 3, 2, lease)
	c.admin("offlineserver", c.id(3))
	for n := 1; n <= 2; n++ { // one on each
		c.admin("offlineserver", c.id(3-n))
		c.win4(0, n, "u"+strconv.Itoa(n))
		c.admin("onlineserver", c.id(3-n))
	}
	c.settled(knownWithin)
	c.admin("onlineserver", c.id(3))
	began := time.Now()
	frozen, dead := c.sats[0], c.sats[1]
	c.note("%s is frozen, %s is killed", frozen.name, dead.name)
	check(t, frozen.cmd.Process.Signal(syscall.SIGSTOP))
	defer frozen.cmd.Process.Signal(syscall.SIGCONT)
	dead.kill()
	c.until("the end of both desktops", func() bool { return len(c.desktops()) == 0 })
	ended := time.Since(began)
	if ended < 10*time.Second { // the last one that was given may be some seconds old
		t.Errorf("the desktops were ended after %v, with a lease of 20 s", ended)
	}
	for n := 1; n <= 2; n++ {
		c.until("the end of the lease", func() bool {
			_, code := c.try("win4", "--satellite", c.path("sat3"), "--user", "u"+strconv.Itoa(n))
			return code == 0
		})
		if took := time.Since(began); took < 50*time.Second {
			t.Errorf("u%d was let in after %v, want not before 52 s", n, took)
		}
	}
	t.Logf("desktops ended %v and their users were let in elsewhere %v after the freeze", ended, time.Since(began))
	c.note("%s goes on, %s is started", frozen.name, dead.name)
	check(t, frozen.cmd.Process.Signal(syscall.SIGCONT))
	dead.start()
	c.settled(knownWithin)
	lives := c.lives()
	if n := len(lives); n != 4 {
		t.Errorf("%d desktops have lived, want 4: %v", n, lives)
	}
	for _, v := range slices.Concat(oneDesktopEach(lives), allowedEach(lives, c.claimsOf(lives))) {
		t.Error(v)
	}
	c.survived("freeze")
	c.survived("kill-satellite")
	c.survived("lease")
}

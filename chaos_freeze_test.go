package main

import (
	"fmt"
	"os"
	"os/exec"
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
		took := min(p.longest, 100*time.Millisecond<<(2*(k%5))+time.Duration(c.rnd.Int64N(int64(500*time.Millisecond))))
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
			c.seen[pid] = now
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

// chaosMasters: a master is frozen, and another one is started elsewhere on a
// copy of its state. After the thaw the old one orders in vain, and is refused
// by all who have seen the newer one (S9).
func chaosMasters(t *testing.T, p plan) {
	const users = 4
	const second = "10.77.0.2"
	c := newChaos(t, p, 2, users, values{"WIN4_VERDE_CMADDR": chaosMaster + ":" + chaosPort + "," + second + ":" + chaosPort})
	for n := range users {
		if out, code := c.try("win4", "--satellite", c.path("sat1"), "--user", "u"+strconv.Itoa(n+1)); code == 3 {
			c.run(0, "win4", "--satellite", c.path("sat2"), "--user", "u"+strconv.Itoa(n+1))
		} else if code != 0 {
			t.Fatal(out)
		}
	}
	c.settled(knownWithin)
	before := c.desktops()
	c.note("the master is frozen, its state is copied, and another master is started on the copy")
	check(t, c.m.cmd.Process.Signal(syscall.SIGSTOP))
	defer c.m.cmd.Process.Signal(syscall.SIGCONT)
	frozen := time.Now()
	c.run(0, "cp", "-a", c.path("master"), c.path("master2"))
	text, err := os.ReadFile(c.path("m"))
	check(t, err)
	text = []byte(strings.NewReplacer(c.path("master"), c.path("master2"), c.path("sock"), c.path("two/sock"), chaosMaster, second).Replace(string(text)))
	check(t, os.WriteFile(c.path("m2"), text, 0o644))
	check(t, os.Mkdir(c.path("two"), 0o755))
	newer := c.host(&daemon{r: c.real, name: "master", settings: c.path("m2")}, "m2", second)
	c.masters = append(c.masters, newer)
	older, oldSock, newSock := c.m, c.path("sock"), c.path("two/sock")
	newer.start()
	c.socket = newSock
	took := c.settled(knownWithin)
	t.Logf("all are known to the second master %v after the first was frozen, and %v after it was asked", time.Since(frozen), took)

	c.note("the old master goes on")
	check(t, older.cmd.Process.Signal(syscall.SIGCONT))
	// It believes in links that are not there: its orders reach nobody.
	for n := range users {
		out, code := c.try("verdecmon", "-s", oldSock, "-t", "5", "abortuser", "u"+strconv.Itoa(n+1))
		c.note("abortuser u%d at the old master: %d %s", n+1, code, out)
		if code == 0 {
			t.Errorf("S9: the old master says to have ended a session: %s", out)
		}
	}
	c.note("the newer master is killed: the satellites ask the old one")
	newer.kill()
	c.until("the refusal of the old master", func() bool {
		return strings.Contains(older.log.String(), "a newer master has been seen, this one is left alone")
	})
	for _, f := range c.tableOf(oldSock, "servers") {
		if len(f) > 4 && f[4] == "up" {
			t.Errorf("S9: %s is connected to the old master", f[1])
		}
	}
	if out, code := c.try("win4", "--satellite", c.path("sat1"), "--user", "u1"); code != 0 && code != 3 && !strings.Contains(out, "epoch") {
		t.Errorf("a login meanwhile: %d %s", code, out)
	}
	newer.start()
	c.settled(knownWithin)
	c.verify()
	if now := c.desktops(); !slices.Equal(pids(now), pids(before)) {
		t.Errorf("S9: processes %v, before %v", pids(now), pids(before))
	}
	c.survived("freeze")
	c.survived("second-master")
}

func pids(of map[int]string) []int {
	var out []int
	for pid := range of {
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// chaosStranger: a desktop dies while its satellite is dead, and a process of
// the same user gets its number. The desktop is gone, and the stranger is not
// touched (S1, S7, V-95). A name space of numbers is needed to choose one.
func chaosStranger(t *testing.T, p plan) {
	c := newChaos(t, p, 0, 2, nil)
	d := c.configure(1, values{"WIN4_VERDE_PUBADDR": "10.77.0.11"}, "")
	c.host(d, d.name, "10.77.0.11")
	// The first process of the name space buries all, since it ignores that.
	first := exec.Command("nsenter", "--net=/run/netns/"+d.space, "unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--propagation", "private",
		"env", "--ignore-signal=CHLD", "sleep", "100000")
	check(t, first.Start())
	defer func() { first.Process.Kill(); first.Wait() }()
	inside := 0
	c.until("the name space", func() bool { inside = childOf(first.Process.Pid); return inside > 0 && comm(inside) == "sleep" })
	enter := []string{"nsenter", "--target=" + strconv.Itoa(inside), "--net", "--pid", "--mount"}
	d.enter = enter
	d.start()
	c.sats = []*daemon{d}
	c.until("the satellite", func() bool { return c.up(1) })
	c.number()
	c.run(0, "win4", "--satellite", c.path("sat1"), "--user", "u1")
	c.run(0, "win4", "--satellite", c.path("sat1"), "--user", "u2")
	c.settled(knownWithin)

	lives := c.lives()
	victim := lives[slices.IndexFunc(lives, func(l *life) bool { return l.user == "u1" })]
	c.note("kill -9 of the satellite, and of the desktop of u1, which has the number %d there", victim.pid)
	check(t, syscall.Kill(childOf(d.cmd.Process.Pid), syscall.SIGKILL))
	_ = d.cmd.Wait()
	for pid, line := range c.desktops() {
		if sessionOf(line) == victim.session {
			c.end(pid)
			c.until("its number", func() bool { _, err := os.Stat("/proc/" + strconv.Itoa(pid)); return err != nil })
		}
	}
	uid := strconv.Itoa(firstRealUID)
	stranger := exec.Command("nsenter", append(enter[1:], "sh", "-c", fmt.Sprintf(
		`echo %d >/proc/sys/kernel/ns_last_pid; setpriv --reuid=%s --regid=%s --clear-groups sleep 1000 & echo $!; wait`, victim.pid-1, uid, uid))...)
	out, err := stranger.StdoutPipe()
	check(t, err, stranger.Start())
	defer func() { stranger.Process.Kill(); stranger.Wait() }()
	var got int
	if _, err := fmt.Fscan(out, &got); err != nil || got != victim.pid {
		t.Fatalf("the stranger has the number %d, not %d: %v", got, victim.pid, err)
	}
	c.note("a stranger has the number now")
	d.start()
	c.until("the satellite's word", func() bool { return c.up(1) && len(c.table("users", "state=running")) == 2 }) // a heading and u2
	c.settled(knownWithin)
	if !alive(inside, got) {
		t.Error("S7: the stranger was touched")
	}
	if !strings.Contains(c.m.log.String(), `"session":"`+victim.session+`","server":1,"how":"vanished"`) {
		t.Errorf("V-95: the master was not told that session %s has vanished", victim.session)
	}
	c.run(0, "win4", "--satellite", c.path("sat1"), "--user", "u1")
	if !alive(inside, got) {
		t.Error("S7: the stranger was touched at the next login")
	}
	lives = c.lives()
	if n := len(lives); n != 3 {
		t.Errorf("%d desktops have lived, want 3: %v", n, lives)
	}
	for _, v := range slices.Concat(oneDesktopEach(lives), allowedEach(lives, c.claims())) {
		t.Error(v)
	}
	c.survived("stranger")
}

// childOf is the first child of a process, 0 for none.
func childOf(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(f[0])
	return n
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}

// alive tells whether a process, by its number in the name space of another
// one, sleeps as it should: neither gone nor stopped.
func alive(inside, pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/proc/%d/stat", inside, pid))
	return err == nil && strings.Contains(string(b), "(sleep) S ")
}

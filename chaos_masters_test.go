package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chaosMasters: a master is frozen, and another one is started elsewhere on a
// copy of its state. After the thaw the old one orders in vain, and is refused
// by all who have seen the newer one (S9).
func chaosMasters(t *testing.T, p plan) {
	const users = 4
	const second = "10.77.0.2"
	c := newChaos(t, p, 2, users, values{"WIN4_VERDE_CMADDR": chaosMaster + ":" + chaosPort + "," + second + ":" + chaosPort})
	for n := range users {
		c.until("a login", func() bool {
			out, code := c.try("win4", "--satellite", c.path("sat1"), "--user", "u"+strconv.Itoa(n+1))
			if code == 3 {
				out, code = c.try("win4", "--satellite", c.path("sat2"), "--user", "u"+strconv.Itoa(n+1))
			}
			if code != 0 && code != 3 && !momentary(out) {
				t.Fatal(out)
			}
			return code == 0
		})
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
	if out, code := c.try("win4", "--satellite", c.path("sat1"), "--user", "u1"); code != 0 && code != 3 && !strings.Contains(out, "epoch") && !strings.Contains(out, "cannot be reached") { // the master that was asked last
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

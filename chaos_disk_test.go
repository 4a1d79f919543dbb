package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"verdecmd/monitor"
)

// chaosFullDisk: the disk of the database is full (S20). What runs goes on, who
// has a desktop gets it, what there is can be read; changes and new sessions are
// refused by name and leave nothing, and it is over without a restart.
func chaosFullDisk(t *testing.T, p plan) {
	const users = 3
	const servers = 60 // so many records that the file of the database must grow
	c := prepareChaos(t, p, users+1)
	check(t, os.MkdirAll(c.path("master/master"), 0o700))
	c.m = c.host(&daemon{r: c.real, name: "master", settings: c.path("m"), before: "mount -t tmpfs -o size=4m,mode=700 none " + c.path("master/master")}, "m", chaosMaster)
	c.masters = []*daemon{c.m}
	c.m.start()
	c.until("the master's socket", c.ready)
	c.addSatellite(1, nil)
	c.until("the satellite", func() bool { return c.up(1) })
	for n := range users {
		c.win4(0, 1, "u"+strconv.Itoa(n+1))
	}
	for n := range servers {
		defer c.puppet(t, n+2, func(p *puppet) { p.memory = 1 << 20 }).end()
	}
	c.until("the links", func() bool { return strings.Count(c.admin("servers"), "\tup\t") == servers+1 })
	c.number()
	for k := 0; k < p.fills && !stopChaos.Load(); k++ {
		c.fill(servers, users+1)
		c.verify()
		c.survived("full-disk")
	}
	c.settled(knownWithin)
}

// fill fills the disk once, and frees it.
func (c *chaosCluster) fill(servers, newcomer int) {
	t := c.t
	t.Helper()
	m, err := monitor.Dial(c.path("sock"))
	check(t, err)
	defer m.Close()
	for n := range servers { // as long as there is room
		_, _, err := tell(m, fmt.Sprintf("onlineserver %d", n+2))
		check(t, err)
	}
	filler := c.m.inside(c.path("master/master/filler"))
	f, err := os.Create(filler)
	check(t, err)
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	f.Close()
	c.note("the disk is full")
	// The file of the database has some room inside.
	code, out, n := 200, "", 1
	for code/100 == 2 && n <= servers {
		n++
		code, out, err = tell(m, fmt.Sprintf("offlineserver %d reason=%s", n, strings.Repeat("x", 200)))
		check(t, err)
	}
	c.note("after %d changes: %d %s", n-2, code, out)
	if code/100 == 2 || !strings.Contains(out, "space") {
		t.Errorf("S20: after %d changes: %d %s", n-2, code, out)
	}
	if got := c.value("state", "server", strconv.Itoa(n)); got != "online" {
		t.Errorf("S5: what was refused is there: %s", got)
	}
	if got := strings.Count(c.admin("servers"), "\toffline\t"); got != n-2 {
		t.Errorf("S5: %d servers are offline, acknowledged were %d", got, n-2)
	}
	before := len(c.desktops())
	for u := 1; u < newcomer; u++ {
		if out := c.run(0, "win4", "--satellite", c.path("sat1"), "--user", "u"+strconv.Itoa(u)); !strings.Contains(out, "was there already") {
			t.Errorf("S20: u%d: %s", u, out)
		}
	}
	// A session's record is small and may find room where a reason does not.
	c.until("what becomes of a new login", func() bool {
		out, code = c.try("win4", "--satellite", c.path("sat1"), "--user", "u"+strconv.Itoa(newcomer))
		return code != 1 || strings.Contains(out, "space") || !momentary(out)
	})
	if now := len(c.desktops()); now-before != 0 && code != 0 || now-before != 1 && code == 0 || code != 0 && !strings.Contains(out, "space") {
		t.Errorf("S20: a new login: %d %s, and %d desktops after %d", code, out, now, before)
	}
	c.note("a new login on the full disk: %d %s", code, out)
	check(t, os.Remove(filler))
	free := time.Now()
	c.until("changes again", func() bool {
		code, _, err := tell(m, fmt.Sprintf("offlineserver %d", n))
		check(t, err)
		return code/100 == 2
	})
	took := time.Since(free)
	t.Logf("after %d changes refused; changes again %v after there was room", n-2, took)
	c.note("the disk has room")
	c.win4(0, 1, "u"+strconv.Itoa(newcomer))
	if code, out, err := c.asked("abortuser", "u"+strconv.Itoa(newcomer)); err != nil || code/100 != 2 {
		t.Errorf("abortuser: %d %s %v", code, out, err)
	}
}

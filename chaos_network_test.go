package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// cuts are the partitions: which packets are lost on their way in, at the
// satellite and at the master, for how long.
var cuts = []struct {
	name                  string
	atSatellite, atMaster string // what is dropped there; empty: nothing
	seen                  bool   // the master must say that the link is down
	restart               bool   // the master is killed meanwhile: what it does not know then is not gone
	took, every           time.Duration
}{
	// For longer than a master waits for satellites after its start.
	{name: "both ways", atSatellite: "drop", atMaster: "drop", seen: true, restart: true, took: 45 * time.Second},
	{name: "only from the master", atSatellite: "drop", seen: true, took: 26 * time.Second},
	{name: "on and off", atSatellite: "drop", atMaster: "drop", took: 15 * time.Second, every: 1500 * time.Millisecond},
	{name: "20 of 100 packets", atSatellite: "numgen random mod 100 < 20 drop", atMaster: "numgen random mod 100 < 20 drop", took: 15 * time.Second},
	{name: "only to the master", atMaster: "drop", seen: true, took: 20 * time.Second},
}

// What is said of a satellite that is silent: down after so long. A report may
// just have come, and the link may be silent in one direction only.
const (
	downNotBefore = 9 * time.Second
	downWithin    = 15 * time.Second
	downGrace     = 3 * time.Second // one interval of reports; a slow machine may take more of them
)

// chaosPartitions: networks that are cut (S1, S4, S8, V-91): desktops go on,
// nobody gets a second one, and when the cut is over all is known again without
// anybody's help.
func chaosPartitions(t *testing.T, p plan) {
	const users = 6
	c := newChaos(t, p, 2, users, values{"m:WIN4_VERDE_STATS_INTERVAL": "3"})
	l := c.newLoad(users, 0)
	l.start(4)
	c.until("some desktops", func() bool { return len(c.desktops()) >= users/2 })
	var back longest
	// Four of them, each time others: the one-way cuts take turns.
	skip := []int{1, 4}[p.seed%2]
	for i, cut := range cuts {
		if i == skip || stopChaos.Load() {
			continue
		}
		s := c.sats[c.rnd.IntN(len(c.sats))]
		lostBefore := strings.Count(c.m.log.String(), "satellite's link is down")
		c.note("the network of %s is cut: %s", s.name, cut.name)
		began, end := time.Now(), time.Now().Add(cut.took)
		c.filter(s, cut.atSatellite, cut.atMaster)
		if cut.seen {
			var down time.Duration
			c.until("the loss of the link", func() bool { down = time.Since(began); return c.linkOf(s) == "down" })
			if down < downNotBefore-downGrace || down > downWithin+patience*downGrace {
				t.Errorf("cut %s: down is seen after %v, promised are %v to %v", cut.name, down, downNotBefore, downWithin)
			}
			t.Logf("cut %s: down is seen after %v", cut.name, down)
			c.note("the master says that %s is down", s.name)
		}
		if cut.restart {
			c.note("kill -9 of the master")
			c.m.kill()
			c.m.start()
			c.until("an answer of the master", func() bool { return answers(c.path("sock")) })
		}
		for on := true; time.Now().Before(end); {
			if cut.every == 0 {
				c.pause(100*time.Millisecond, 300*time.Millisecond)
				continue
			}
			c.pause(cut.every/3, cut.every)
			if on = !on; on {
				c.filter(s, cut.atSatellite, cut.atMaster)
			} else {
				c.filter(s, "", "")
			}
			c.note("the network of %s is cut: %v", s.name, on)
		}
		if n := strings.Count(c.m.log.String(), "satellite's link is down") - lostBefore; !cut.seen && cut.every == 0 && n > 1 {
			t.Errorf("with %s lost the link was lost %d times in %v", cut.name, n, cut.took)
		}
		c.filter(s, "", "")
		c.note("the network of %s is whole", s.name)
		healed := time.Now()
		for n := range c.sats {
			c.until("a satellite's link", func() bool { return c.up(n + 1) })
		}
		back.add(t, "all are connected after", time.Since(healed), connectedWithin)
		c.verify()
		c.survived("partition")
	}
	l.end()
	known := c.settled(knownWithin)
	c.verify()
	t.Logf("after a partition: all connected %v; at the end all known after %v", &back, known)
}

// filter loses packets between the master and one satellite, each at its
// receiver, so that no sender is told; empty: none.
func (c *chaosCluster) filter(s *daemon, atSatellite, atMaster string) {
	c.t.Helper()
	for _, x := range []struct{ space, from, what string }{{s.space, c.m.ip, atSatellite}, {c.m.space, s.ip, atMaster}} {
		rules := "add table inet chaos\nflush table inet chaos\nadd chain inet chaos in { type filter hook input priority 0; }\n"
		if x.what != "" {
			rules += fmt.Sprintf("add rule inet chaos in ip saddr %s %s\n", x.from, x.what)
		}
		c.run(0, "nsenter", "--net=/run/netns/"+x.space, "sh", "-c", "nft -f - <<'END'\n"+rules+"END")
	}
}

// linkOf is the link of a satellite as the master sees it.
func (c *chaosCluster) linkOf(s *daemon) string {
	for _, f := range c.table("servers") {
		if len(f) > 4 && f[1] == s.name {
			return f[4]
		}
	}
	return ""
}

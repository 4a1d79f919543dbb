package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"verdecmd/monitor"
)

// chaosMasterKills: kill -9 of a master under 50 changes and 20 logins a second
// (S5, V-39). Now and then a satellite goes down with it, and a server is
// offline meanwhile (S6).
func chaosMasterKills(t *testing.T, p plan) {
	const users = 10
	c := newChaos(t, p, 3, users, nil)
	l := c.newLoad(users, 8)
	before := c.open()
	l.start(1)
	c.until("some desktops", func() bool { return len(c.desktops()) >= users/2 })
	var back, connected longest
	for k := 0; k < p.masterKills && !stopChaos.Load(); k++ {
		switch k % 5 {
		case 1:
			c.offline(3)
		case 4:
			c.online(3)
		}
		l.write()
		l.count(true)
		c.pause(600*time.Millisecond, 1500*time.Millisecond)
		l.count(false)
		var with *daemon
		if k%5 == 3 {
			with = c.sats[c.rnd.IntN(len(c.sats))]
			c.note("kill -9 of %s, which goes down with the master", with.name)
			with.kill()
		}
		c.note("kill -9 of the master")
		c.m.kill()
		l.writers.Wait()
		began := time.Now()
		c.m.start()
		c.until("an answer of the master", func() bool { return answers(c.path("sock")) })
		back.add(t, "the master answers after", time.Since(began), backWithin)
		c.note("the master answers")
		l.compare()
		if with != nil {
			c.owned(with)
			began = time.Now() // what we have looked at meanwhile is not the programs' time
			with.start()
		}
		for n := range c.sats {
			c.until("a satellite's link", func() bool { return c.up(n + 1) })
		}
		connected.add(t, "all satellites are connected after", time.Since(began), connectedWithin)
		c.verify()
		c.survived("kill-master")
		if with != nil {
			c.survived("kill-satellite")
		}
	}
	l.end()
	known := c.settled(knownWithin)
	c.verify()
	t.Logf("after a kill: the master answers %v, all connected %v; at the end all known after %v", &back, &connected, known)
	l.enough(t, 20, 50)
	c.sameOpen(before)
}

// offline takes a server off and notes since when logins must stay away (S6).
func (c *chaosCluster) offline(n int) {
	c.t.Helper()
	c.admin("offlineserver", c.id(n))
	c.mu.Lock()
	c.windows = append(c.windows, &window{c.sats[n-1].name, sinceBoot(), windowEnd})
	c.mu.Unlock()
	c.note("sat%d is offline", n)
}

// online lets logins on to it again.
func (c *chaosCluster) online(n int) {
	c.t.Helper()
	if got := c.value("state", "server", c.id(n)); got != "offline" {
		c.t.Errorf("S6: server %d is %s and was taken offline", n, got)
	}
	c.mu.Lock()
	for _, w := range c.windows {
		w.to = min(w.to, sinceBoot())
	}
	c.mu.Unlock()
	c.admin("onlineserver", c.id(n))
	c.note("sat%d is online", n)
}

// id is the number of the nth satellite's server.
func (c *chaosCluster) id(n int) string {
	for id, name := range c.names {
		if name == "sat"+strconv.Itoa(n) {
			return strconv.Itoa(id)
		}
	}
	return "0"
}

// owned: each desktop on a satellite that is down is in the book of a master
// that has only its book to know it from: the claim was there before the start
// (S4, S5).
func (c *chaosCluster) owned(down *daemon) {
	c.t.Helper()
	var known []string
	for _, f := range c.table("users") {
		if len(f) >= 9 {
			known = append(known, f[8])
		}
	}
	n, lives := 0, c.lives()
	for _, line := range c.desktops() {
		runs := slices.ContainsFunc(lives, func(l *life) bool { return l.session == sessionOf(line) && l.host == down.name })
		if !strings.Contains(line, "snap"+down.name+"/") && !runs {
			continue
		}
		n++
		if !slices.Contains(known, sessionOf(line)) {
			c.t.Errorf("S5: session %s runs on %s, and the master has no record of it\n%s", sessionOf(line), down.name, c.timeline(sinceBoot()-10*time.Second, windowEnd))
		}
	}
	c.note("%d desktops on %s are in the master's book", n, down.name)
}

// pause waits for a random time: the instant of the next fault.
func (c *chaosCluster) pause(least, most time.Duration) {
	time.Sleep(least + time.Duration(c.rnd.Int64N(int64(most-least))))
}

// longest keeps the longest and the sum of times.
type longest struct {
	max, sum time.Duration
	n        int
}

// add takes a time in; one beyond all patience is a failure, and so is a mean of
// several beyond a third of it, since a machine's pauses hit few of them.
func (l *longest) add(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	l.max, l.sum, l.n = max(l.max, took), l.sum+took, l.n+1
	if mean := l.sum / time.Duration(l.n); took > patience*limit || l.n >= 5 && mean > patience*limit/3 {
		t.Errorf("%s %v (mean %v), promised are %v", what, took, mean, limit)
	}
}

func (l *longest) String() string {
	if l.n == 0 {
		return "never"
	}
	return fmt.Sprintf("in %v (mean; longest %v, of %d)", (l.sum / time.Duration(l.n)).Round(time.Millisecond), l.max.Round(time.Millisecond), l.n)
}

// open is what the daemons have open and use, while nobody does anything.
func (c *chaosCluster) open() map[string]int {
	c.t.Helper()
	goroutines, err := strconv.Atoi(metric(c.real, "go_goroutines"))
	check(c.t, err)
	out := map[string]int{"goroutines of the master": goroutines}
	for _, d := range append([]*daemon{c.m}, c.sats...) {
		out["files of "+d.name] = d.files()
		out["MiB of "+d.name] = d.memory("VmRSS") >> 20
	}
	return out
}

// sameOpen: when all sessions have ended there is nothing more open than before
// all of it (S18). The runtime gives memory back late.
func (c *chaosCluster) sameOpen(before map[string]int) {
	c.t.Helper()
	for _, f := range c.table("users") {
		if f[0][0] == '#' {
			continue
		}
		if code, text, err := c.asked("abortuser", f[0]); err != nil || code/100 != 2 {
			c.t.Fatalf("abortuser %s: %d %s %v", f[0], code, text, err)
		}
	}
	c.settled(knownWithin)
	c.verify()
	var now map[string]int
	defer func() { c.t.Logf("open at first: %v; at the end: %v", before, now) }()
	c.until("S18: as little open as before", func() bool {
		now = c.open()
		for what, n := range now {
			room := 4
			if strings.HasPrefix(what, "MiB") {
				room = before[what]/20 + 48
			}
			if n > before[what]+room {
				c.note("%s: %d, before %d", what, n, before[what])
				return false
			}
		}
		return true
	})
}

// chaosSatelliteKills: kill -9 of satellites with running desktops, and while
// desktops start (S7, V-40, V-95). At last the master is away: nobody new gets
// in, and who has a desktop gets it (S4, V-08).
func chaosSatelliteKills(t *testing.T, p plan) {
	const users = 8
	c := newChaos(t, p, 2, users+1, nil)
	l := c.newLoad(users, 0)
	before := c.open()
	l.start(2)
	c.until("some desktops", func() bool { return len(c.desktops()) >= users/2 })
	var adopted longest
	for k := 0; k < p.satelliteKills && !stopChaos.Load(); k++ {
		c.pause(300*time.Millisecond, 1200*time.Millisecond)
		d := c.sats[c.rnd.IntN(len(c.sats))]
		c.note("kill -9 of %s", d.name)
		d.kill()
		ran := c.running(d)
		if k%4 == 3 {
			c.pause(0, 4*time.Second) // longer than the master's patience with silence
		}
		began := time.Now()
		d.start()
		c.until("the desktops of "+d.name, func() bool { return c.listed(ran) })
		adopted.add(t, "desktops are adopted after", time.Since(began), adoptWithin)
		c.note("%s has its %d desktops again", d.name, len(ran))
		c.verify()
		c.survived("kill-satellite")
	}
	l.end()
	known := c.settled(knownWithin)
	c.verify()
	t.Logf("after a kill: desktops adopted %v; at the end all known after %v", &adopted, known)
	c.withoutMaster(users + 1)
	c.sameOpen(before)
}

// running is the sessions that run on a satellite, by PID.
func (c *chaosCluster) running(d *daemon) map[int]string {
	on := map[string]bool{}
	for _, l := range c.lives() {
		on[l.session] = on[l.session] || l.host == d.name
	}
	out := map[int]string{}
	for pid, line := range c.desktops() {
		if id := sessionOf(line); on[id] {
			out[pid] = id
		}
	}
	return out
}

// listed tells whether the master lists sessions as running, but for those that
// have ended meanwhile, rightly or not.
func (c *chaosCluster) listed(sessions map[int]string) bool {
	rows := c.table("users")
	there := c.desktops()
	for pid, id := range sessions {
		if there[pid] == "" {
			continue
		}
		if !slices.ContainsFunc(rows, func(f []string) bool { return len(f) >= 9 && f[8] == id && f[5] != "lost" && f[5] != "starting" }) {
			return false
		}
	}
	return true
}

// unreachable is the refusal of who waits 5 s for a master in vain, or longer.
var unreachable = regexp.MustCompile(`cannot be reached since ([5-9]|[1-9]\d+) s, so no new desktop is started here`)

// withoutMaster: nobody new gets in, running desktops go on (V-08, S4), and
// when the master is back it knows all of them (V-72).
func (c *chaosCluster) withoutMaster(newcomer int) {
	c.t.Helper()
	before := c.desktops()
	c.note("kill -9 of the master, which stays away")
	c.m.kill()
	type answer struct {
		out  string
		code int
	}
	refused := make(chan answer, 1)
	go func() {
		out, code := c.try("win4", "--satellite", c.path("sat1"), "--user", "u"+strconv.Itoa(newcomer))
		refused <- answer{out, code}
	}()
	lives := c.lives()
	for _, line := range before {
		i := slices.IndexFunc(lives, func(l *life) bool { return l.session == sessionOf(line) })
		if out := c.run(0, "win4", "--satellite", c.path(lives[i].host), "--user", lives[i].user); !strings.Contains(out, "was there already") {
			c.t.Errorf("%s without a master: %s", lives[i].user, out)
		}
	}
	if a := <-refused; a.code != 1 || !unreachable.MatchString(a.out) {
		c.t.Errorf("a new login without a master: %d, %s", a.code, a.out)
	}
	c.m.start()
	c.until("an answer of the master", func() bool { return answers(c.path("sock")) })
	c.settled(knownWithin)
	c.verify()
	if now := c.desktops(); len(now) != len(before) {
		c.t.Errorf("%d desktops, before %d", len(now), len(before))
	}
	if got := c.admin("--codes", "hello"); !strings.Contains(got, fmt.Sprintf(" servers=2 online=2 users=%d reservations=0 ", len(before))) {
		c.t.Errorf("hello: %s", got)
	}
}

// asked is the end of a session by the test's own administrator.
func (c *chaosCluster) asked(command, user string) (int, string, error) {
	m, err := monitor.Dial(c.path("sock"))
	if err != nil {
		return 0, "", err
	}
	defer m.Close()
	return c.wish(m, command, user)
}

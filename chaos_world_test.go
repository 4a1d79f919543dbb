package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/monitor"
)

var countsFile = flag.String("chaos.counts", "", "a file to which each fault that was survived is added, as a line with its kind")

// chaosCluster is a cluster whose computers are network name spaces, joined by a
// bridge in one more: nothing of this computer's own network is touched. It is
// looked at from outside the programs only.
type chaosCluster struct {
	*real
	plan    plan
	socket  string     // of the master that rules
	rnd     *rand.Rand // of the test's own goroutine
	prefix  string     // of the names of the name spaces
	m       *daemon
	sats    []*daemon
	masters []*daemon      // all that ever were
	names   map[int]string // of the servers, by number

	mu      sync.Mutex // guards what follows
	line    []one      // what was done, in order
	wishes  []*wish
	windows []*window
	killed  map[int]bool             // by the test
	seen    map[string]time.Duration // when the desktop of a session was surely there, though it did not say so
}

const (
	chaosPort   = "8442"
	chaosMaster = "10.77.0.1" // satellite n is 10.77.0.10+n
)

var worlds atomic.Int64

// newChaos makes a cluster of a master and satellites, with users u1, u2, ...,
// and starts it. Settings that begin with "m:" are the master's, others the
// satellites'.
func newChaos(t *testing.T, p plan, sats, users int, v values) *chaosCluster {
	t.Helper()
	c := prepareChaos(t, p, users)
	c.m = c.host(&daemon{r: c.real, name: "master", settings: c.path("m")}, "m", chaosMaster)
	c.masters = []*daemon{c.m}
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(v))) { // the lease before what must be longer
		if strings.HasPrefix(k, "m:") {
			c.run(0, "verdecmd", "settings", "set", "--settings", c.path("m"), k[2:], v[k])
		}
	}
	c.m.start()
	c.until("the master's socket", c.ready)
	for n := 1; n <= sats; n++ {
		c.addSatellite(n, v)
	}
	for n := 1; n <= sats; n++ {
		c.until("a satellite", func() bool { return c.up(n) })
	}
	c.number()
	return c
}

// prepareChaos makes the network and the files.
func prepareChaos(t *testing.T, p plan, users int) *chaosCluster {
	t.Helper()
	sweep()
	var names []string
	for i := range users {
		names = append(names, "u"+strconv.Itoa(i+1))
	}
	c := &chaosCluster{plan: p, rnd: rand.New(rand.NewPCG(p.seed, 1)), killed: map[int]bool{}, seen: map[string]time.Duration{},
		prefix: fmt.Sprintf("vchaos-%d-%d-", os.Getpid(), worlds.Add(1))}
	t.Cleanup(func() { // after the processes have ended
		spaces, _ := filepath.Glob("/run/netns/" + c.prefix + "*")
		for _, s := range spaces {
			_ = exec.Command("ip", "netns", "del", filepath.Base(s)).Run()
		}
	})
	c.real = newRealOf(t, net.JoinHostPort(chaosMaster, chaosPort), names)
	c.socket = c.path("sock")
	c.real.dial = c.dialInside
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was done (seed %d):\n%s", p.seed, c.timeline(0, windowEnd))
		}
	})
	c.ip("netns add " + c.prefix + "sw")
	c.ip("-n " + c.prefix + "sw link add br0 type bridge")
	c.ip("-n " + c.prefix + "sw link set br0 up")
	t.Logf("seed %d", p.seed)
	return c
}

// sweep removes the networks of tests that were killed.
func sweep() {
	spaces, _ := filepath.Glob("/run/netns/vchaos-*")
	for _, s := range spaces {
		f := strings.Split(filepath.Base(s), "-")
		if _, err := os.Stat("/proc/" + f[1]); err != nil {
			_ = exec.Command("ip", "netns", "del", filepath.Base(s)).Run()
		}
	}
}

func (c *chaosCluster) ip(args string) {
	c.t.Helper()
	c.run(0, append([]string{"ip"}, strings.Fields(args)...)...)
}

// host puts a daemon on a computer of its own.
func (c *chaosCluster) host(d *daemon, name, address string) *daemon {
	c.t.Helper()
	space := c.prefix + name
	c.ip("netns add " + space)
	c.ip(fmt.Sprintf("-n %ssw link add name to-%s type veth peer name eth0 netns %s", c.prefix, name, space))
	c.ip(fmt.Sprintf("-n %ssw link set to-%s master br0 up", c.prefix, name))
	c.ip(fmt.Sprintf("-n %s addr add %s/24 dev eth0", space, address))
	c.ip(fmt.Sprintf("-n %s link set eth0 up", space))
	c.ip(fmt.Sprintf("-n %s link set lo up", space))
	d.enter = []string{"nsenter", "--net=/run/netns/" + space}
	d.space, d.ip = space, address
	return d
}

// addSatellite starts the nth satellite.
func (c *chaosCluster) addSatellite(n int, v values) *daemon {
	c.t.Helper()
	address := fmt.Sprintf("10.77.0.%d", 10+n)
	own := values{"WIN4_VERDE_PUBADDR": address, "WIN4_PEER_LISTEN": ""} // the address towards the master
	for k, x := range v {
		if !strings.HasPrefix(k, "m:") {
			own[k] = x
		}
	}
	d := c.configure(n, own, "")
	c.host(d, d.name, address)
	d.start()
	c.sats = append(c.sats, d)
	return d
}

// number notes the names of the servers.
func (c *chaosCluster) number() {
	c.names = map[int]string{}
	for _, f := range c.table("servers") {
		id, _ := strconv.Atoi(f[0])
		c.names[id] = f[1]
	}
}

// dialInside makes a connection from the master's computer.
func (c *chaosCluster) dialInside(ctx context.Context, address string) (net.Conn, error) {
	return dialFrom(ctx, c.m.space, address)
}

// dialFrom makes a connection from a network name space.
func dialFrom(ctx context.Context, space, address string) (net.Conn, error) {
	return within(space, func() (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp4", address)
	})
}

// within does something in a network name space: what is opened there stays there.
func within[T any](space string, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var r result
		in, err := os.Open("/run/netns/" + space)
		if err == nil {
			err = unix.Setns(int(in.Fd()), unix.CLONE_NEWNET)
			in.Close()
		}
		if r.err = err; err == nil {
			r.v, r.err = f()
		}
		done <- r
	}()
	r := <-done
	return r.v, r.err
}

// note adds to the timeline.
func (c *chaosCluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, one{sinceBoot(), fmt.Sprintf(format, args...)})
}

// survived notes a fault that is over, and that nothing was broken by it.
func (c *chaosCluster) survived(kind string) {
	if c.t.Failed() || *countsFile == "" {
		return
	}
	check(c.t, appendTo(*countsFile, kind+"\n"))
}

// appendTo adds to a file, which is made where it is not there.
func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

// timeline is all that is known of a time: what the test did, what the desktops
// told, what the masters granted.
func (c *chaosCluster) timeline(from, to time.Duration) string {
	c.mu.Lock()
	all := slices.Clone(c.line)
	c.mu.Unlock()
	lives, _ := readLives(c.path("witness/log"))
	for _, l := range lives {
		all = append(all, one{l.start, "witness: start of the " + l.String()}, one{l.last, "witness: last sign of the " + l.String()})
		for _, t := range l.told {
			all = append(all, one{t.at, fmt.Sprintf("witness: session %s of %s: %s", l.session, l.user, t.what)})
		}
	}
	slices.SortStableFunc(all, func(a, b one) int { return int(min(max(a.at-b.at, -1), 1)) })
	var b strings.Builder
	for _, x := range all {
		if from <= x.at && x.at <= to {
			fmt.Fprintf(&b, "%s %s\n", clock(x.at), x.what)
		}
	}
	return b.String()
}

// claims is what all masters say to have granted.
func (c *chaosCluster) claims() map[string]claim {
	out := map[string]claim{}
	boot := time.Now().Add(-sinceBoot())
	for _, m := range c.masters {
		for line := range strings.Lines(m.log.String()) {
			var e struct {
				Message, User, Session string
				Server                 int
				Time                   time.Time
			}
			if json.Unmarshal([]byte(line), &e) == nil && e.Message == "reservation claimed" {
				out[e.Session] = claim{e.User, e.Session, c.names[e.Server], e.Time.Sub(boot)}
			}
		}
	}
	return out
}

// claimsOf is claims, with those of all these desktops if they come: a line that
// a master has written is here a moment later.
func (c *chaosCluster) claimsOf(lives []*life) map[string]claim {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out := c.claims()
		missing := slices.ContainsFunc(lives, func(l *life) bool { return out[l.session].session == "" })
		if !missing || time.Now().After(end) {
			return out
		}
	}
}

// lives reads the witness.
func (c *chaosCluster) lives() []*life {
	c.t.Helper()
	lives, err := readLives(c.path("witness/log"))
	check(c.t, err)
	return lives
}

// verify runs all checkers over all that was so far. The clients of the load
// may go on meanwhile; what they do is younger than what is looked at.
func (c *chaosCluster) verify() {
	c.t.Helper()
	asOf, alive := sinceBoot(), map[int]bool{}
	for pid := range c.desktops() {
		alive[pid] = true
	}
	lives := c.lives()
	for _, l := range lives {
		if l.start >= asOf {
			alive[l.pid] = true
		}
	}
	c.mu.Lock()
	var wishes []wish
	for _, w := range c.wishes {
		wishes = append(wishes, *w)
	}
	var windows []window
	for _, w := range c.windows {
		windows = append(windows, *w)
	}
	for _, l := range lives {
		l.last = max(l.last, c.seen[l.session])
	}
	killed := map[int]bool{}
	for pid := range c.killed {
		killed[pid] = true
	}
	c.mu.Unlock()
	all := judge(lives, c.claimsOf(lives), wishes, killed, alive, windows)
	for _, v := range all {
		c.t.Errorf("%v\naround it:\n%s", v, c.timeline(v.at-5*time.Second, v.at+3*time.Second))
	}
	if len(all) > 0 {
		c.t.FailNow()
	}
}

// table reads a list of the master; nil while there is no master.
func (c *chaosCluster) table(args ...string) [][]string {
	return c.tableOf(c.socket, args...)
}

func (c *chaosCluster) tableOf(socket string, args ...string) [][]string {
	out, code := c.try(append([]string{"verdecmon", "-s", socket}, args...)...)
	if code != 0 {
		return nil
	}
	var rows [][]string
	for line := range strings.Lines(out) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// up tells whether the nth satellite is connected.
func (c *chaosCluster) up(n int) bool {
	return slices.ContainsFunc(c.table("servers"), func(f []string) bool { return len(f) > 4 && f[1] == "sat"+strconv.Itoa(n) && f[4] == "up" })
}

// known tells whether all satellites are connected and the master's sessions
// are the desktops that are there; else what is amiss.
func (c *chaosCluster) known() string {
	for n := range c.sats {
		if !c.up(n + 1) {
			return c.sats[n].name + " is not connected"
		}
	}
	there := map[string]string{}
	for _, line := range c.desktops() {
		there[sessionOf(line)] = "a desktop that the master does not know"
	}
	for _, f := range c.table("users") {
		if len(f) < 9 || f[0][0] == '#' {
			continue
		}
		switch id := f[8]; {
		case there[id] == "":
			return fmt.Sprintf("session %s of %s, %s: no desktop", id, f[0], f[5])
		case f[5] != "running":
			return fmt.Sprintf("session %s of %s is %s", id, f[0], f[5])
		default:
			delete(there, id)
		}
	}
	for id, what := range there {
		return "session " + id + ": " + what
	}
	return ""
}

// sessionOf is the session of a desktop's command line: its name is in it.
func sessionOf(line string) string {
	_, rest, _ := strings.Cut(line, "\x00-name\x00guest=")
	id, _, _ := strings.Cut(rest, "\x00")
	return id
}

// settled waits until everything is as it should be (LV1), and returns how long
// it took. limit is promised. Nobody may log in or be logged off meanwhile.
func (c *chaosCluster) settled(limit time.Duration) time.Duration {
	c.t.Helper()
	began := time.Now()
	amiss := ""
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		if amiss = c.known(); amiss == "" {
			return time.Since(began)
		}
		if time.Since(began) > patience*limit {
			c.t.Fatalf("LV1: after %v: %s\n%s", patience*limit, amiss, c.timeline(sinceBoot()-2*limit, windowEnd))
		}
	}
}

// end is a desktop's death by the test's own hand.
func (c *chaosCluster) end(pid int) {
	c.mu.Lock()
	c.killed[pid] = true
	c.mu.Unlock()
	check(c.t, syscall.Kill(pid, syscall.SIGKILL))
}

// answers tells whether a master answers at a socket.
func answers(socket string) bool {
	m, err := monitor.Dial(socket)
	if err != nil {
		return false
	}
	defer m.Close()
	code, _, err := tell(m, "ping")
	return err == nil && code/100 == 2
}

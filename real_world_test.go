package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"verdecmd/monitor"
)

// realUsers are the accounts of a real cluster; bad ones begin with x.
var realUsers = []string{"alice", "bob", "carol", "dave", "erin", "frank", "xlink", "xreplica"}

const firstRealUID = 31000

// real is a cluster of real programs: master and satellites as processes of
// their own with real sockets and files. Desktops are processes that run as
// their users, of fakeQEMU unless a test says otherwise.
type real struct {
	t       *testing.T
	dir     string                                          // short, and open to all users
	address string                                          // of the master
	port    string                                          // the same's
	dial    func(context.Context, string) (net.Conn, error) // to the master; nil: as usual
	mu      sync.Mutex                                      // guards all
	all     []*daemon
}

// daemon is a master or a satellite.
type daemon struct {
	r        *real
	name     string
	settings string
	before   string   // shell commands in a mount name space of its own; empty: none
	net      bool     // in a network name space of its own, too
	enter    []string // the program that leads to the name spaces of its own computer; empty: it has none
	space    string   // the network name space of that computer, and the address in it
	ip       string
	cmd      *exec.Cmd
	log      logBuffer
}

// mostLog is how much of the end of a daemon's log a failure shows, in bytes.
const mostLog = 64 << 10

// logBuffer takes what a daemon logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// values are settings by name. None of these tests has a DISPLAY (V-06).
type values map[string]string

// newReal makes keys, accounts and homes. It starts nothing.
func newReal(t *testing.T) *real {
	t.Helper()
	return newRealOf(t, "127.0.0.1:"+freePort(t), realUsers)
}

// newRealOf is newReal with another address of the master and other users.
func newRealOf(t *testing.T, address string, users []string) *real {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: desktops run as their users, disks are mounted") // CI is root
	}
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	r := &real{t: t, dir: dir, address: address, port: address[strings.LastIndexByte(address, ':')+1:]}
	t.Cleanup(r.stop)
	bin, err := exec.LookPath("fakeqemu")
	if err != nil {
		t.Fatal(err)
	}
	// By a process of its own: what another goroutine starts meanwhile would hold
	// the file open for writing, and nobody could execute it.
	r.run(0, "cp", bin, r.path("fakeqemu"))
	check(t, os.Chmod(dir, 0o755), os.Mkdir(r.path("witness"), 0o755), os.Chmod(r.path("witness"), 0o777|os.ModeSticky),
		os.WriteFile(r.path("witness/log"), nil, 0o666), os.Chmod(r.path("witness/log"), 0o666),
		os.Chmod(r.path("fakeqemu"), 0o755), os.MkdirAll(r.path("pub/win4"), 0o755),
		os.WriteFile(r.path("pub/win4/kernel"), nil, 0o644),
		os.WriteFile(r.path("pub/win4/desktop.conf"), []byte("WIN4_MEMORY=64\nWIN4_DISK=\nWIN4_KERNEL=kernel\n"), 0o644))
	var passwd strings.Builder
	for i, u := range users {
		home, uid := r.path("home/"+u), firstRealUID+i
		link := home + "/win4"
		if u == "xreplica" {
			link += ".replica"
		}
		check(t, os.MkdirAll(home, 0o700), os.Symlink(r.path("pub/win4"), link), os.Chown(home, uid, uid))
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:/bin/sh\n", u, uid, uid, home)
	}
	check(t, os.Chmod(r.path("home"), 0o755), os.Chmod(r.path("pub"), 0o755), os.WriteFile(r.path("passwd"), []byte(passwd.String()), 0o644))
	r.write("m", values{"WIN4_VERDE_CLUSTER_MASTER": "yes", "VERDECMD_SOCKET": r.path("sock"), "WIN4_STATE_DIR": r.path("master"),
		"WIN4_VERDE_LISTEN": address, "WIN4_PASSWD_FILE": r.path("passwd"), "WIN4_VERDE_STATS_INTERVAL": "1"})
	r.run(0, "verdecmd", "init", "--settings", r.path("m"))
	return r
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *real) path(name string) string { return filepath.Join(r.dir, name) }

// write writes a settings file.
func (r *real) write(name string, v values) {
	r.t.Helper()
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintf(&text, "%s=%q\n", k, v[k])
	}
	check(r.t, os.WriteFile(r.path(name), []byte(text.String()), 0o644))
}

// run executes a program and returns what it said, both outputs together. It
// must end with this code; -1: with any.
func (r *real) run(code int, args ...string) string {
	r.t.Helper()
	out, got := r.try(args...)
	if code >= 0 && got != code {
		r.t.Fatalf("%s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, out)
	}
	return out
}

// try is run for other goroutines than the test's own.
func (r *real) try(args ...string) (out string, code int) {
	raw, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		code = 1
		if e, ok := err.(*exec.ExitError); ok {
			code = e.ExitCode()
		}
	}
	return string(raw), code
}

// admin is a command of the administrator that succeeds.
func (r *real) admin(args ...string) string {
	r.t.Helper()
	return r.run(0, append([]string{"verdecmon", "-s", r.path("sock")}, args...)...)
}

// value is one value of a detail reply.
func (r *real) value(key string, args ...string) string {
	r.t.Helper()
	for line := range strings.Lines(r.admin(args...)) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok && k == key {
			return v
		}
	}
	r.t.Fatalf("%v: no %s", args, key)
	return ""
}

// win4 logs in a user on the nth satellite, again where that is refused for a
// moment only.
func (r *real) win4(code, n int, user string) (out string) {
	r.t.Helper()
	got := 0
	for end := time.Now().Add(mostWait); ; time.Sleep(100 * time.Millisecond) {
		out, got = r.try("win4", "--satellite", r.path("sat"+strconv.Itoa(n)), "--user", user)
		if got != 1 || !momentary(out) || time.Now().After(end) {
			break
		}
	}
	if got != code {
		r.t.Fatalf("win4 of %s on satellite %d: exit code %d, want %d: %s", user, n, got, code, out)
	}
	return out
}

// momentary tells whether a login was refused for what a busy machine makes of a
// cluster for a moment: a report is late, a link is made anew, or the user is
// told to come again.
func momentary(out string) bool {
	return slices.ContainsFunc([]string{"load report too old", "link down", "log in again", "try again in"}, func(s string) bool { return strings.Contains(out, s) })
}

// events waits until the master tells of these events, and returns all that it
// keeps.
func (r *real) events(what string, has func(out string) bool, args ...string) (out string) {
	r.t.Helper()
	came := false
	defer func() {
		if !came {
			r.t.Logf("the events are:\n%s", out)
		}
	}()
	r.until(what, func() bool { // it ends by its time limit, which a slow master may pass
		out = r.run(-1, append([]string{"verdecmon", "-s", r.path("sock"), "-t", "2", "events", "on", "since=1"}, args...)...)
		came = has(out)
		return came
	})
	return out
}

// master starts the master with further settings.
func (r *real) master(v values, before string) *daemon {
	r.t.Helper()
	for k, x := range v {
		r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), k, x)
	}
	d := &daemon{r: r, name: "master", settings: r.path("m"), before: before}
	d.start()
	r.until("the master's socket", func() bool { return r.ready() })
	return d
}

func (r *real) ready() bool {
	c, err := monitor.Dial(r.path("sock"))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// satellite starts the nth satellite with further settings, and waits until
// the master has it.
func (r *real) satellite(n int, v values, before string) *daemon {
	r.t.Helper()
	d := r.satelliteAlone(n, v, before)
	// When its own port is open late it tells that by a link anew.
	r.until("the port of "+d.name, func() bool { return strings.Contains(d.log.String(), "waiting for other satellites") })
	r.until("satellite "+d.name, func() bool {
		return strings.Contains(r.run(-1, "verdecmon", "-s", r.path("sock"), "servers"), "\t"+d.name+"\t") && r.link(n) == "up"
	})
	return d
}

func (r *real) link(n int) string { return r.value("link", "server", strconv.Itoa(n)) }

func (r *real) satelliteAlone(n int, v values, before string) *daemon {
	r.t.Helper()
	d := r.configure(n, v, before)
	d.start()
	return d
}

// configure makes the nth satellite and starts nothing.
func (r *real) configure(n int, v values, before string) *daemon {
	r.t.Helper()
	name := "sat" + strconv.Itoa(n)
	all := values{"WIN4_VERDE_CMADDR": r.address, "WIN4_VERDE_PUBADDR": "127.0.0.1", "WIN4_PEER_LISTEN": "127.0.0.1:" + freePort(r.t), "WIN4_STATE_DIR": r.path("s" + name),
		"WIN4_VERDE_PKI_DIR": r.path("k" + name), "WIN4_SNAP_DIR": r.path("snap" + name), "WIN4_SNAP_RESERVE": "1",
		"WIN4_VERDE_SAT_SOCKET": r.path(name), "WIN4_PASSWD_FILE": r.path("passwd"), "WIN4_QEMU": r.path("fakeqemu"), "WIN4_ACCEL": "tcg",
		"WIN4_VERDE_MASTER_LOST": "5", "WIN4_VERDE_HUNG_AFTER": "2"}
	for k, x := range v {
		if all[k] = x; x == "" {
			delete(all, k)
		}
	}
	if _, err := os.Stat(r.path("k" + name)); err != nil {
		r.run(0, "verdecmd", "enrol", name, "--settings", r.path("m"), "--out", r.path("k"+name))
	}
	r.write("c"+name, all)
	return &daemon{r: r, name: name, settings: r.path("c" + name), before: before}
}

// start starts the program, or starts it again.
func (d *daemon) start() {
	d.r.t.Helper()
	role := "satellite"
	if d.name == "master" {
		role = "master"
	}
	args := []string{"verdecmd", role, "--settings", d.settings}
	if d.before != "" {
		space := []string{"unshare", "--mount", "--propagation", "private"}
		if d.net {
			space = append(space, "--net")
		}
		args = append(space, "sh", "-e", "-c", d.before+"\nexec "+strings.Join(args, " "))
	}
	args = append(slices.Clone(d.enter), args...)
	d.cmd = exec.Command(args[0], args[1:]...)
	d.cmd.Stderr = &d.log
	check(d.r.t, d.cmd.Start())
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	if !slices.Contains(d.r.all, d) {
		d.r.all = append(d.r.all, d)
	}
}

// kill ends it as a crash would.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// inside is a path as the daemon sees it in its mount name space.
func (d *daemon) inside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, path)
}

// memory is a figure of /proc/PID/status in bytes.
func (d *daemon) memory(field string) int {
	d.r.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	check(d.r.t, err)
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); w[0] == field+":" {
			n, err := strconv.Atoi(w[1])
			check(d.r.t, err)
			return n << 10
		}
	}
	d.r.t.Fatalf("no %s in the status of %s", field, d.name)
	return 0
}

// files counts the open files of the daemon.
func (d *daemon) files() int {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	check(d.r.t, err)
	return len(names)
}

// mostWait is how long something may take on a machine that is slow and busy.
const mostWait = 3 * time.Minute

func (r *real) until(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(mostWait); !ok(); <-tick.C {
		if time.Now().After(end) {
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// desktops are the processes of the desktops, by PID: whatever has a path of
// this cluster's images in its command line and no daemon's role.
func (r *real) desktops() map[int]string {
	out := map[int]string{}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, err := os.ReadFile(p)
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		if err == nil && strings.Contains(string(line), r.dir+"/") && strings.Contains(string(line), "\x00-uuid\x00") {
			out[pid] = string(line)
		}
	}
	return out
}

// stop ends all that was started, and looks at what the witness saw (S1).
func (r *real) stop() {
	for _, d := range r.all {
		d.kill()
		if r.t.Failed() {
			text := d.log.String()
			r.t.Logf("log of %s:\n%s", d.name, text[max(0, len(text)-mostLog):])
		}
	}
	for pid := range r.desktops() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	lives, err := readLives(r.path("witness/log"))
	if err != nil {
		r.t.Error(err)
	}
	for _, v := range oneDesktopEach(lives) {
		r.t.Error(v)
	}
	_ = os.RemoveAll(r.dir)
}

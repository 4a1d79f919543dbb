package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/packaging/guest/guesttest"
)

// V-23, V-37 without WIN4_SNAP_DIR, V-80, V-06: one computer is master and
// satellite with one settings file and everything below one WIN4_STATE_DIR; a
// user logs in and gets a real desktop, which lives in the home.
func TestRealAllInOne(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	host, err := os.Hostname()
	check(t, err)
	r.write("m", values{"WIN4_VERDE_CLUSTER_MASTER": "yes", "WIN4_STATE_DIR": r.path("state"), "VERDECMD_SOCKET": r.path("sock"),
		"WIN4_VERDE_SAT_SOCKET": r.path("sat1"), "WIN4_VERDE_LISTEN": "127.0.0.1:" + r.port, "WIN4_PASSWD_FILE": r.path("passwd"), "WIN4_ACCEL": "tcg"})
	r.run(0, "verdecmd", "init", "--settings", r.path("m"))
	r.run(0, "verdecmd", "enrol", host, "--settings", r.path("m"))
	for _, f := range []string{"vmlinux", "initrd", "disk.qcow2", "desktop.conf"} {
		b, err := os.ReadFile(filepath.Join(guesttest.Dir(t), f))
		check(t, err, os.WriteFile(r.path("pub/win4/"+f), b, 0o644))
	}
	r.master(nil, "")
	d := &daemon{r: r, name: host, settings: r.path("m")}
	d.start()
	r.until("the local satellite", func() bool { return strings.Contains(r.admin("servers"), "\t"+host+"\t") && r.link(1) == "up" })
	if kind := r.value("snapkind", "server", "1"); kind != "network" {
		t.Errorf("snapkind is %s, want network", kind)
	}
	r.until("the warning in the log", func() bool { return strings.Contains(d.log.String(), "WIN4_SNAP_DIR is not set") })

	// V-36 in the home: a link of the user's leads root nowhere.
	check(t, os.Mkdir(r.path("precious"), 0o777), os.Chmod(r.path("precious"), 0o777), os.Symlink(r.path("precious"), r.path("home/bob/.win4.snap")))
	if out := r.win4(1, 1, "bob"); !strings.Contains(out, "remove it, the next login makes one") {
		t.Errorf("a link in the place of .win4.snap: %s", out)
	}
	if names, _ := os.ReadDir(r.path("precious")); len(names) > 0 {
		t.Errorf("the satellite followed the user's link: %v", names)
	}

	r.win4(0, 1, "alice")
	r.until("the desktop", func() bool { return r.value("state", "user", "alice") == "running" })
	own := r.path("home/alice/.win4.snap/" + r.value("session", "user", "alice"))
	info, err := os.Stat(own)
	check(t, err)
	if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != fs.ModeDir|0o700 || uid != firstRealUID {
		t.Errorf("%s: mode %v, owner %d", own, info.Mode(), uid)
	}
	began := time.Now()
	r.admin("abortuser", "alice")
	// Force comes after a second; the rest is what the programs take here.
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("abortuser took %v, want less than 8 s", took)
	}
	if _, err := os.Stat(own); err == nil || len(r.desktops()) > 0 {
		t.Errorf("after the abort: %s is there (%v), %d processes run", own, err, len(r.desktops()))
	}
}

// V-19: a computer that cannot run desktops says so, gets none, and a login
// explains. V-49: the cluster knows one desktop of a user, by its name. V-98:
// another version is registered, gets nothing, and the reason is shown.
func TestRealUnfit(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	// An empty file in the place of the device, where there is one at all.
	r.satellite(1, values{"WIN4_ACCEL": "kvm"}, "test ! -e /dev/kvm || mount --bind "+r.path("passwd")+" /dev/kvm")
	const fix = "without it desktops run slowly, allow that by WIN4_ACCEL=auto"
	if got := r.value("problems", "server", "1"); !strings.Contains(got, fix) {
		t.Errorf("problems: %s", got)
	}
	if got := r.value("why", "server", "1"); !strings.Contains(got, fix) {
		t.Errorf("why: %s", got)
	}
	if out := r.win4(1, 1, "alice"); !strings.Contains(out, "server 1 (sat1) cannot run desktops") || !strings.Contains(out, fix) {
		t.Errorf("win4: %s", out)
	}
	if out := r.win4(1, 1, "xreplica"); !strings.Contains(out, "xreplica has no desktop") {
		t.Errorf("a user who has win4.replica and no win4: %s", out)
	}
	if _, err := os.Stat(r.path("home/xreplica/win4.replica")); err != nil {
		t.Errorf("win4.replica was touched: %v", err)
	}

	old := r.puppet(t, 2, func(l *puppet) { l.protocol, l.version = 99, "99.1" })
	defer old.end()
	r.until("the other version", func() bool { return strings.Contains(r.admin("servers"), "\tsat2\t") && r.link(2) == "up" })
	const reason = "its software 99.1 speaks another version of the link's protocol than the master; install the same version on both"
	if got := r.value("why", "server", "2"); !strings.Contains(got, reason) {
		t.Errorf("why: %s", got)
	}
	if out := r.win4(1, 1, "alice"); !strings.Contains(out, reason) || len(r.desktops()) > 0 {
		t.Errorf("win4: %s", out)
	}
}

// V-10: the interval between reports changes while everything runs, by setting
// and by SIGHUP: reports are counted.
func TestRealInterval(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(values{"WIN4_VERDE_STATS_INTERVAL": "60"}, "")
	l := r.puppet(t, 1, nil)
	defer l.end()
	r.until("the link", func() bool { return strings.Contains(r.admin("servers"), "\tsat1\t") })
	during := func(d time.Duration) int {
		before := l.reports.Load()
		time.Sleep(d) // what is measured is time
		return int(l.reports.Load() - before)
	}
	if n := during(1500 * time.Millisecond); n > 1 {
		t.Errorf("%d reports in 1.5 s at one a minute", n)
	}
	r.admin("setting", "WIN4_VERDE_STATS_INTERVAL", "1")
	began, before := time.Now(), l.reports.Load()
	r.until("four more reports", func() bool { return l.reports.Load() >= before+4 })
	if took := time.Since(began); took < 2*time.Second || took > time.Minute {
		t.Errorf("four reports took %v at one a second", took)
	}
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_STATS_INTERVAL", "60")
	check(t, m.cmd.Process.Signal(syscall.SIGHUP))
	r.until("the settings", func() bool { return strings.Contains(m.log.String(), "settings read again") })
	r.until("one report a minute again", func() bool { return during(2500*time.Millisecond) <= 1 }) // the satellite hears of it a moment later
}

// V-34: the master is found by its name, also when the name has got another
// address meanwhile, and behind the second of two addresses.
func TestRealName(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	hosts := func(ip string) { check(t, os.WriteFile(r.path("hosts"), []byte(ip+" master.test\n"), 0o644)) }
	hosts("127.0.0.1")
	r.satellite(1, values{"WIN4_VERDE_CMADDR": "master.test:" + r.port}, "mount --bind "+r.path("hosts")+" /etc/hosts")
	r.satellite(2, values{"WIN4_VERDE_CMADDR": "127.0.0.4:" + r.port + ",127.0.0.1:" + r.port}, "")
	m.kill()
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_LISTEN", "127.0.0.4:"+r.port)
	m.start()
	r.until("the master's socket", r.ready)
	hosts("127.0.0.4")
	for n := 1; n <= 2; n++ {
		r.until(fmt.Sprintf("satellite %d at the new address", n), func() bool { return r.link(n) == "up" })
	}
}

// V-37 on tmpfs, V-38: the kind of the snap directory is shown; where it gets
// full an event tells so and logins go elsewhere, until there is space again.
func TestRealSnapFull(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	check(t, os.Mkdir(r.path("snapsat1"), 0o711))
	s := r.satellite(1, values{"WIN4_SNAP_RESERVE": "16"}, "mount -t tmpfs -o size=48m,mode=711 none "+r.path("snapsat1"))
	r.satellite(2, nil, "")
	if got := r.value("snapkind", "server", "1"); got != "tmpfs" {
		t.Errorf("kind of the snap directory: got %s, want tmpfs", got)
	}
	r.until("the warning of the tmpfs", func() bool { return strings.Contains(s.log.String(), "not on a local disk") })
	r.admin("offlineserver", "2")
	r.win4(0, 1, "alice") // it can be used
	r.admin("onlineserver", "2")

	filler := s.inside(r.path("snapsat1/filler"))
	check(t, os.WriteFile(filler, make([]byte, 40<<20), 0o600))
	r.until("the full disk", func() bool { return strings.Contains(r.value("why", "server", "1"), "WIN4_SNAP_RESERVE") })
	for _, u := range []string{"bob", "carol", "dave"} {
		if out := r.win4(3, 1, u); !strings.Contains(out, "referred 2 sat2") {
			t.Errorf("%s: %s", u, out)
		}
	}
	if out := r.win4(0, 1, "alice"); !strings.Contains(out, "was there already") {
		t.Errorf("the desktop that runs there: %s", out)
	}
	r.events("an event that tells of the space", func(out string) bool { return strings.Contains(out, "type=server.nospace ") })
	check(t, os.Remove(filler))
	r.until("space", func() bool { return r.value("score", "server", "1") != "-" })
}

// V-05: who may not do something is told what is missing; root's commands by
// somebody else, the monitor, and a login in another's name.
func TestRealRefusals(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	r.satellite(1, nil, "")
	for _, name := range []string{"verdecmd", "verdecmon", "win4"} { // where others may execute it
		check(t, os.Link(r.path("fakeqemu"), r.path(name)))
	}
	as := []string{"setpriv", "--reuid=31001", "--regid=31001", "--clear-groups"}
	tests := map[string]struct {
		args []string
		code int
		want string
	}{
		"monitor":  {[]string{"verdecmon", "-s", r.path("sock"), "servers"}, 4, "you may not use " + r.path("sock") + " (owner root:root). Try as root, or see VERDECMD_CONN_GID."},
		"settings": {[]string{"verdecmd", "settings", "set", "--settings", r.path("m"), "VERDECMD_LOGLEVEL", "debug"}, 1, "permission denied"},
		"init":     {[]string{"verdecmd", "init", "--settings", r.path("m")}, 1, "permission denied"},
		"enrol":    {[]string{"verdecmd", "enrol", "x", "--settings", r.path("m")}, 1, "permission denied"},
		"master":   {[]string{"verdecmd", "master", "--settings", r.path("m")}, 1, "permission denied"},
		"win4":     {[]string{"win4", "--satellite", r.path("sat1"), "--user", "alice"}, 1, `UID 31001 may not log in as "alice": only the satellite's own user (UID 0) may name another`},
	}
	for name, tt := range tests {
		if out := r.run(tt.code, append(append(as, r.path(tt.args[0])), tt.args[1:]...)...); !strings.Contains(out, tt.want) {
			t.Errorf("%s: got %q, want %q", name, out, tt.want)
		} else if tt.want == "permission denied" && !strings.Contains(out, "root") {
			t.Errorf("%s: got %q, want it to say that root may", name, out)
		}
	}
}

// V-09, S3: places that nobody claims are given back in their time, are not
// counted twice when asked for again, and do not come back with the master.
func TestRealReservations(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(values{"WIN4_VERDE_RESERVATION_TIMEOUT": "30"}, "")
	r.satellite(1, nil, "")
	l := r.puppet(t, 2, nil)
	defer l.end()
	r.until("the second server", func() bool { return strings.Count(r.admin("servers"), "\tup\t") == 2 })
	r.admin("offlineserver", "1")
	held := func() string { return metric(r, "verdecmd_reservations") }
	ask := func() {
		for _, u := range realUsers[:6] {
			if out := r.win4(3, 1, u); !strings.Contains(out, "referred 2 sat2") {
				t.Errorf("%s: %s", u, out)
			}
		}
	}
	began := time.Now()
	ask()
	ask()
	if n := held(); n != "6" {
		t.Errorf("%s places held, want 6", n)
	}
	asked := time.Now()
	r.until("the end of all places", func() bool { return held() == "0" })
	if time.Since(began) < 30*time.Second || time.Since(asked) > 45*time.Second {
		t.Errorf("they were held for %v to %v, want 30 s", time.Since(asked), time.Since(began))
	}
	if got := r.value("reserved", "server", "2"); got != "0" {
		t.Errorf("the server still counts %s", got)
	}
	ask()
	m.kill()
	m.start()
	r.until("the socket", r.ready)
	if n := held(); n != "0" {
		t.Errorf("%s places are back after a restart", n)
	}
}

// V-14, V-66: by itself the master listens on no address that others reach, on
// one port in all, and administrators have no TCP port.
func TestRealPorts(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.run(0, "verdecmd", "settings", "unset", "--settings", r.path("m"), "WIN4_VERDE_LISTEN")
	d := &daemon{r: r, name: "master", settings: r.path("m"), net: true, before: "ip link set lo up"}
	d.start()
	r.until("the socket", r.ready)
	open := d.listening()
	if want := "[tcp 127.0.0.1:8442]"; fmt.Sprint(open) != want {
		t.Errorf("open ports: %v, want %s", open, want)
	}
	r.until("the master's word about it", func() bool { return strings.Contains(d.log.String(), "only satellites on this computer can connect") })
}

// listening are the open ports of the network name space that a daemon is in.
func (d *daemon) listening() (open []string) {
	d.r.t.Helper()
	for _, f := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", d.cmd.Process.Pid, f))
		check(d.r.t, err)
		for line := range strings.Lines(string(b)) {
			w := strings.Fields(line)
			if w[0] == "sl" || w[3] != "0A" && f[0] == 't' {
				continue
			}
			host, port, _ := strings.Cut(w[1], ":")
			raw, err := hex.DecodeString(host)
			check(d.r.t, err)
			for i := 0; i+4 <= len(raw); i += 4 { // each word as the processor has it
				binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
			}
			n, err := strconv.ParseUint(port, 16, 16)
			check(d.r.t, err)
			open = append(open, fmt.Sprintf("%s %s", f, net.JoinHostPort(net.IP(raw).String(), strconv.FormatUint(n, 10))))
		}
	}
	return open
}

// TestWitness: what S1 and S2 rely on sees two desktops of one user.
func TestWitness(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	defer func() { check(t, os.Truncate(r.path("witness/log"), 0)) }() // when all have ended: nobody writes into it any more
	for i, user := range []string{"alice", "bob", "alice"} {
		dir := r.path(fmt.Sprintf("snapsat%d/s%d", i, i))
		check(t, os.MkdirAll(dir, 0o755))
		cmd := exec.Command(r.path("fakeqemu"), "-uuid", r.dir, "-fw_cfg", "name=opt/org.verdecmd/user,string="+user,
			"-chardev", "socket,id=qmp,path="+dir+"/qmp", "-chardev", "socket,id=ga,path="+dir+"/ga", "-chardev", "socket,id=rescue,path="+dir+"/rescue")
		cmd.Dir = dir
		check(t, cmd.Start())
		defer func() { cmd.Process.Kill(); cmd.Wait() }()
		r.until("its socket", func() bool { _, err := os.Stat(dir + "/qmp"); return err == nil })
		seen := ""
		r.until("heartbeats", func() bool {
			lives, err := readLives(r.path("witness/log"))
			check(t, err)
			seen = fmt.Sprint(oneDesktopEach(lives))
			return len(lives) == i+1 && (i < 2 || strings.Contains(seen, "S1") && strings.Contains(seen, "S2"))
		})
		if got := strings.Count(seen, "alice"); got != 3*(i/2) { // two sessions are named for S1, one for S2
			t.Errorf("after desktop %d of %s the witness says %q", i, user, seen)
		}
	}
}

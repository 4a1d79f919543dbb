package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

// unit is a systemd unit of ours: the values of its keys.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	text, err := os.ReadFile("packaging/systemd/" + name)
	check(t, err)
	u := unit{}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			u[k] = append(u[k], v)
		}
	}
	return u
}

// restricted is shell commands after which a program has no more than under the
// unit, as far as that goes without systemd: capabilities, and what of the file
// system can be seen and written to. dir stands for ReadWritePaths.
func (u unit) restricted(dir, notify string) string {
	var caps []string
	for c := range strings.FieldsSeq(strings.Join(u["CapabilityBoundingSet"], " ")) {
		caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
	}
	has := func(key, value string) bool { return slices.Contains(u[key], value) }
	do := []string{"export NOTIFY_SOCKET=" + notify, "umask " + u["UMask"][0],
		fmt.Sprintf("mount --bind %s %[1]s", dir)}
	readOnly := func(dir string) { do = append(do, "mount --bind "+dir+" "+dir, "mount -o remount,bind,ro "+dir) }
	switch {
	case has("ProtectSystem", "strict"):
		do = append(do, "mount -o remount,bind,ro /")
	case has("ProtectSystem", "full"):
		for _, dir := range []string{"/usr", "/etc"} {
			readOnly(dir)
		}
	}
	if has("ProtectHome", "yes") {
		for _, dir := range []string{"/home", "/root"} {
			do = append(do, "mount -t tmpfs -o ro,mode=0 tmpfs "+dir)
		}
	}
	if has("ProtectProc", "invisible") {
		do = append(do, "mount -t proc -o hidepid=invisible proc /proc")
	}
	if has("ProtectKernelTunables", "yes") {
		do = append(do, "mount -o remount,bind,ro /sys")
		readOnly("/proc/sys")
	}
	// What follows is "exec" and the program: the shell's own.
	return strings.Join(do, "\n") + "\nexec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all," + strings.Join(caps, ",") + ` sh -c '"$@"' sh \`
}

// manager stands for systemd: it hears what programs tell it.
type manager struct {
	conn *net.UnixConn
}

func newManager(t *testing.T, path string) manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return manager{conn}
}

// hears returns the next message.
func (m manager) hears(t *testing.T) string {
	t.Helper()
	check(t, m.conn.SetReadDeadline(time.Now().Add(mostWait)))
	b := make([]byte, 100)
	n, err := m.conn.Read(b)
	check(t, err)
	return string(b[:n])
}

// S7, V-27, RELIABILITY 1.2: both programs do all their work with what their
// units leave them, tell the service manager when they are ready, and desktops
// outlive the satellite.
func TestRealUnits(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	notify := newManager(t, r.path("notify"))
	says := func(want string) {
		t.Helper()
		if got := notify.hears(t); got != want {
			t.Errorf("got %q, want %s", got, want)
		}
	}
	m := r.master(values{"VERDECMD_CONN_UID": "31000", "VERDECMD_CONN_GID": "31001"}, readUnit(t, "verdecmd.service").restricted(r.dir, notify.conn.LocalAddr().String()))
	says("READY=1")
	info, err := os.Stat(r.path("sock"))
	check(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 31000 || st.Gid != 31001 || st.Mode&0o7777 != 0o1770 {
		t.Errorf("the socket belongs to %d, %d with mode %o", st.Uid, st.Gid, st.Mode)
	}
	sat := r.satellite(1, values{"WIN4_VERDE_MASTER_LOST": "10"}, readUnit(t, "verdecmd-satellite.service").restricted(r.dir, notify.conn.LocalAddr().String()))
	says("READY=1")
	for d, file := range map[*daemon]string{m: "verdecmd.service", sat: "verdecmd-satellite.service"} {
		if got, want := capabilities(t, d.cmd.Process.Pid), readUnit(t, file).capabilities(t)&capabilities(t, os.Getpid()); got != want {
			t.Errorf("%s has capabilities %#x, want %#x", d.name, got, want)
		}
	}
	r.win4(0, 1, "alice")
	for pid := range r.desktops() {
		if bound, privs := capabilities(t, pid), statusLine(t, pid, "NoNewPrivs"); bound != 0 || privs != "1" {
			t.Errorf("a desktop has capabilities %#x, NoNewPrivs %s", bound, privs)
		}
	}

	// Both write keys: another authority, and certificates from it.
	before, _ := r.rootOf(r.path("ksat1"), wire.Satellite)
	r.admin("rotateca")
	r.until("the new authority alone", func() bool {
		after, roots := r.rootOf(r.path("ksat1"), wire.Satellite)
		return after != before && roots == 1
	})

	// What systemctl reload, restart and stop do.
	check(t, m.cmd.Process.Signal(syscall.SIGHUP))
	r.until("the settings to be read", func() bool { return strings.Contains(m.log.String(), "settings read again") })
	check(t, sat.cmd.Process.Signal(syscall.SIGTERM), sat.cmd.Wait())
	says("STOPPING=1")
	if n := len(r.desktops()); n != 1 {
		t.Errorf("%d desktops without the satellite's program, want 1", n)
	}
	sat.start()
	says("READY=1")
	r.until("the satellite", func() bool { return r.link(1) == "up" })
	r.until("alice's desktop", func() bool { return r.value("state", "user", "alice") == "running" })
	r.admin("abortuser", "alice")
	r.until("the end of the desktop", func() bool { return len(r.desktops()) == 0 })
	check(t, m.cmd.Process.Signal(syscall.SIGTERM), m.cmd.Wait())
	says("STOPPING=1")

	// Where it is not the master it is done at once, and that is no failure.
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_CLUSTER_MASTER", "no")
	r.run(0, "env", "NOTIFY_SOCKET="+notify.conn.LocalAddr().String(), "verdecmd", "master", "--service", "--settings", r.path("m"))
	says("READY=1")
	says("STOPPING=1")

	// A directory that the unit does not name is told with its cure.
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_CLUSTER_MASTER", "yes")
	out := r.run(1, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		fmt.Sprintf("mount --bind %s %[1]s && mount -o remount,bind,ro %[1]s && INVOCATION_ID=1 exec verdecmd master --settings %s", r.dir, r.path("m")))
	if !strings.Contains(out, "read-only file system; the unit protects all directories but those in its ReadWritePaths") {
		t.Errorf("got %s", out)
	}
}

// capabilities are those that a process can ever have, as bits.
func capabilities(t *testing.T, pid int) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(statusLine(t, pid, "CapBnd"), 16, 64)
	check(t, err)
	return n
}

// capabilities are those of CapabilityBoundingSet.
func (u unit) capabilities(t *testing.T) (bits uint64) {
	t.Helper()
	numbers := map[string]int{"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "NET_ADMIN": 12,
		"SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24}
	for c := range strings.FieldsSeq(strings.Join(u["CapabilityBoundingSet"], " ")) {
		n, ok := numbers[strings.TrimPrefix(c, "CAP_")]
		if !ok {
			t.Fatalf("this test does not know %s", c)
		}
		bits |= 1 << n
	}
	return bits
}

// statusLine is a line of /proc/PID/status without its name.
func statusLine(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	t.Fatalf("no %s in the status of process %d", name, pid)
	return ""
}

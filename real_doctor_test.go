package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// document is what "doctor --json" writes, as somebody else's program reads it.
type document struct {
	Findings []struct {
		Check, Level, Measured, Wanted, Fix string
		Hard                                bool
	}
	Survey struct {
		Hostname string
		Accounts []struct{ Name string }
	}
}

// doctor runs the checks with these settings, in a mount name space in which the
// commands have been executed. The exit code must be this one.
func (r *real) doctor(code int, settings, before string, args ...string) document {
	r.t.Helper()
	out, got, stderr := r.examined(settings, before, args...)
	if got != code {
		r.t.Fatalf("doctor: exit code %d, want %d\n%s%s", got, code, out, stderr)
	}
	var d document
	if err := json.Unmarshal(out, &d); err != nil {
		r.t.Fatalf("doctor --json: %v: %s", err, out)
	}
	return d
}

// examined is what doctor writes. It runs a few times where a busy machine has
// not answered within the seconds that a check has.
func (r *real) examined(settings, before string, args ...string) (out []byte, code int, stderr string) {
	r.t.Helper()
	line := "exec verdecmd doctor --json --settings " + r.path(settings) + " " + strings.Join(args, " ")
	for range 5 {
		var said strings.Builder
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", before+"\n"+line)
		cmd.Stderr = &said
		out, _ = cmd.Output() // a check that fails is a code
		code, stderr = cmd.ProcessState.ExitCode(), said.String()
		if !strings.Contains(string(out), "no answer within") && !strings.Contains(stderr, "handing the result in") {
			break
		}
	}
	return out, code, stderr
}

// finds tells where a document does not say this about a check.
func (r *real) finds(d document, check, level string, hard bool, has string) {
	r.t.Helper()
	for _, f := range d.Findings {
		if f.Check == check && (f.Level != level || f.Hard != hard || !strings.Contains(f.Measured, has)) {
			r.t.Errorf("%s: got %+v, want %s, hard %v, with %q", check, f, level, hard, has)
		}
		if f.Check == check {
			return
		}
	}
	r.t.Errorf("nothing about %s: %+v", check, d)
}

// checked waits until the master keeps this about a check of a server's host.
func (r *real) checked(server, check, level, hard, has string) {
	r.t.Helper()
	last := ""
	r.until("check "+check+" of server "+server, func() bool {
		for line := range strings.Lines(r.admin("checks", server)) {
			f := strings.Split(line, "\t")
			if f[0] != check {
				continue
			}
			last = line
			if f[1] == level && f[2] == hard && strings.Contains(line, has) {
				return true
			}
		}
		return false
	})
	if r.t.Failed() {
		r.t.Log(last)
	}
}

// passwd writes the accounts of a host into a file, where some users have
// another number than they should, and returns the command by which they are
// the system's own.
func (r *real) passwd(name string, other map[string]int) (before string) {
	r.t.Helper()
	system, err := os.ReadFile("/etc/passwd")
	check(r.t, err)
	text := string(system)
	for i, u := range realUsers {
		uid := firstRealUID + i
		if o := other[u]; o != 0 {
			uid = o
		}
		text += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", u, uid, firstRealUID+i, r.path("home/"+u))
	}
	check(r.t, os.WriteFile(r.path(name), []byte(text), 0o644))
	return "mount --bind " + r.path(name) + " /etc/passwd\n"
}

// Issue 5, preflight; V-20, V-21, V-43, F-06, F-07, V-32: three hosts, of which
// one has other homes and another number of alice, and one another number of
// bob than the homes of all have, compared by the real programs through the
// system's accounts. Who is wrong gets no logins and says why; who is referred
// to a host with another number is refused with both values; a workstation that
// does not join is compared by a file.
func TestRealDoctor(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	nss := values{"WIN4_PASSWD_FILE": ""} // the system's accounts
	good := r.passwd("passwd1", nil)
	// Homes of another file system, where alice has another number, too.
	check(t, os.MkdirAll(r.path("home2/alice"), 0o755), os.Symlink(r.path("pub/win4"), r.path("home2/alice/win4")), os.Chmod(r.path("home2"), 0o755), os.Chown(r.path("home2/alice"), 31900, 31000))
	other := r.passwd("passwd2", map[string]int{"alice": 31900}) + "mount --bind " + r.path("home2") + " " + r.path("home") + "\n"
	wrong := r.passwd("passwd3", map[string]int{"bob": 31999})

	r.satellite(1, nss, good)
	r.checked("1", "locks", "pass", "no", r.path("home"))
	r.checked("1", "accounts", "pass", "no", "7 users with desktops")
	r.satellite(2, nss, other)
	r.checked("2", "accounts", "fail", "no", "alice is 31900:31000 here and 31000:31000 on sat1")
	r.checked("2", "homes", "fail", "no", "/home2 (")
	r.checked("2", "locks", "fail", "no", "sat1 does not find the file that is locked here")
	r.satellite(3, nss, wrong)
	r.checked("3", "accounts", "fail", "yes", "bob has UID 31999 here, and "+r.path("home/bob")+" belongs to 31001")

	// The hard one keeps logins away, and everybody who is asked says so.
	const why = "its check accounts fails: bob has UID 31999 here"
	if got := r.value("why", "server", "3"); !strings.Contains(got, why) || !strings.Contains(got, "checks 3") {
		t.Errorf("why: got %q", got)
	}
	if got := r.value("checks", "server", "3"); !strings.HasSuffix(got, " fail") || strings.Contains(got, " 0 fail") {
		t.Errorf("checks of server 3: got %q", got)
	}
	r.admin("offlineserver", "1")
	r.admin("offlineserver", "2")
	if out := r.win4(1, 1, "bob"); !strings.Contains(out, why) {
		t.Errorf("a login where only server 3 is online: got %s", out)
	}

	// V-20 at login: sat1 knows alice by one number, sat2, where the place is, by
	// another one.
	r.admin("onlineserver", "2")
	if out := r.win4(3, 1, "alice"); !strings.Contains(out, "referred 2 sat2 ") {
		t.Errorf("alice at sat1: got %s", out)
	}
	if out := r.win4(1, 2, "alice"); !strings.Contains(out, "alice has UID 31000 in the cluster and 31900 here") {
		t.Errorf("alice at sat2: got %s", out)
	}
	if n := len(r.desktops()); n != 0 {
		t.Errorf("%d desktops run", n)
	}

	// Put right, the host is checked by hand and gets logins again; a restart of
	// the master forgets nothing of it.
	d := r.doctor(1, "csat3", good)
	r.finds(d, "accounts", "fail", false, "alice is 31000:31000 here and 31900:31000 on sat2")
	r.finds(d, "locks", "fail", false, "sat2 does not find the file")
	if got := r.value("why", "server", "3"); strings.Contains(got, "check") {
		t.Errorf("why, when it is right: got %q", got)
	}
	// F-07: the bridge of the settings is missing. V-32: keys that others read.
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("csat3"), "WIN4_NETWORK", "bridge:vdnone0")
	check(t, os.Chmod(r.path("ksat3/identity.pem"), 0o640))
	d = r.doctor(1, "csat3", good)
	r.finds(d, "bridges", "fail", true, "bridges: ")
	r.finds(d, "keys", "fail", false, "identity.pem has mode 0640")
	r.finds(d, "master", "fail", false, "is open to others: chmod")
	check(t, os.Chmod(r.path("ksat3/identity.pem"), 0o600))
	r.doctor(1, "csat3", good)
	if got := r.value("why", "server", "3"); !strings.Contains(got, "its check bridges fails") || !strings.Contains(got, "the bridge vdnone0 of WIN4_NETWORK") {
		t.Errorf("why, without the bridge: got %q", got)
	}

	// V-43: a workstation has no certificate and is in no list.
	r.write("w", values{"WIN4_STATE_DIR": r.path("workstation"), "WIN4_ACCEL": "tcg", "WIN4_QEMU": r.path("fakeqemu")})
	raw, _, _ := r.examined("csat1", good)
	check(t, os.WriteFile(r.path("sat1.json"), raw, 0o644))
	against := "--against " + r.path("sat1.json")
	d = r.doctor(0, "w", good, against)
	r.finds(d, "accounts", "pass", false, "7 users")
	r.finds(d, "homes", "pass", false, "")
	r.finds(d, "locks", "pass", false, "they exclude")
	r.finds(d, "settings", "pass", false, "3 settings compared")
	r.finds(d, "master", "warn", false, "has none")
	d = r.doctor(1, "w", wrong, against)
	r.finds(d, "accounts", "fail", false, "bob has UID 31999 here")
	d = r.doctor(1, "w", other, against)
	r.finds(d, "homes", "fail", false, "/home2 (")
	if out := r.admin("servers"); strings.Count(out, "\n") != 4 { // head and three
		t.Errorf("servers: got %s", out)
	}
	if out := r.run(1, "verdecmd", "doctor", "--settings", r.path("w"), "--against", r.path("m")); !strings.Contains(out, "not a result of the checks") {
		t.Errorf("against a file that is none: got %s", out)
	}
	r.until("the end of all locks", func() bool { // the satellites may be making their checks just now
		left, _ := filepath.Glob(r.path("home*/.verdecmd-lock-*"))
		return len(left) == 0
	})
}

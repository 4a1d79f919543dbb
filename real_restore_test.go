package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// S19, RELIABILITY 4.4.10: the master's database is damaged. It does not start,
// says the way back in one line, and goes it when told to: desktops run on,
// what has begun since the copy is adopted, what has ended since is released,
// and no number is given twice.
func TestRealRestore(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	r.satellite(1, nil, "")
	r.satellite(2, nil, "")
	r.admin("offlineserver", "2")
	for _, u := range []string{"alice", "bob", "dave"} {
		r.win4(0, 1, u)
	}
	r.admin("onlineserver", "2")
	r.until("the copy that each master makes first", func() bool { return len(r.copies()) > 0 })
	made := time.Now().UTC().Add(-3 * time.Hour) // so it says
	copied := r.path("master/master/copies/verdecmd-" + made.Format("20060102T150405Z") + ".db")
	r.admin("backup", copied)
	for _, c := range r.copies() { // only this one is to be found
		if c != copied {
			check(t, os.Remove(c))
		}
	}

	// All that the copy does not know.
	session := func(u string) string { return r.value("session", "user", u) }
	server := func(u string) string { return r.value("server", "user", u) }
	r.admin("abortuser", "dave")
	r.admin("abortuser", "alice")
	r.admin("offlineserver", "1")
	r.win4(0, 2, "alice")
	r.admin("onlineserver", "1")
	r.admin("offlineserver", "2")
	r.win4(0, 1, "carol")
	for _, u := range []string{"alice", "bob", "carol"} {
		r.until(u+"'s desktop", func() bool { return r.value("state", "user", u) == "running" })
	}
	before := map[string]string{"alice": session("alice"), "bob": session("bob"), "carol": session("carol")}
	pids := r.desktops()

	restore := func(code int, args ...string) string {
		t.Helper()
		return r.run(code, append([]string{"verdecmd", "master", "--settings", r.path("m")}, args...)...)
	}
	if out := restore(1, "--restore"); !strings.Contains(out, "another master runs already") {
		t.Errorf("while a master runs: %s", out)
	}
	m.kill()
	db := r.path("master/master/verdecmd.db")
	if out := restore(1, "--restore"); !strings.Contains(out, "is not damaged; nothing was done") {
		t.Errorf("a good database: %s", out)
	}
	all, err := os.ReadFile(db)
	check(t, err)
	for at := 8192; at+300 < len(all); at += 4096 {
		copy(all[at+200:], strings.Repeat("U", 64))
	}
	check(t, os.WriteFile(db, all, 0o600))
	out := restore(1)
	line := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	for _, want := range []string{db + " is damaged", copied + ", 3 hours old", `"verdecmd master --restore"`, "verdecmd master --settings " + r.path("m") + " --restore"} {
		if !strings.Contains(line, want) {
			t.Errorf("the line %q does not say %q", line, want)
		}
	}
	if now, _ := os.ReadFile(db); string(now) != string(all) {
		t.Error("the damaged file was changed")
	}

	m.before, m.settings = "true", r.path("m")+" --restore" // the shell takes it apart
	m.start()
	r.until("the master's socket", r.ready)
	m.before, m.settings = "", r.path("m")
	kept, _ := filepath.Glob(db + ".damaged-*")
	if len(kept) != 1 {
		t.Fatalf("the damaged file is not kept: %v", kept)
	}
	if text, _ := os.ReadFile(kept[0]); string(text) != string(all) {
		t.Error("the kept file is another one")
	}
	r.until("a log that says what was done and how old the copy was", func() bool {
		return strings.Contains(m.log.String(), "restored from a copy") && strings.Contains(m.log.String(), "3 hours")
	})
	told := regexp.MustCompile("type=master.restored path=" + regexp.QuoteMeta(copied) + ` age=1[01]\d\d\d `) // 3 hours, and what this has taken
	r.events("the event that tells of it", told.MatchString)

	r.until("the links", func() bool { return r.link(1) == "up" && r.link(2) == "up" })
	where := map[string]string{"alice": "2", "bob": "1", "carol": "1"}
	for u, id := range before {
		r.until(u+"'s session", func() bool {
			out, code := r.try("verdecmon", "-s", r.path("sock"), "user", u)
			return code == 0 && strings.Contains(out, id)
		})
		if got := server(u); got != where[u] {
			t.Errorf("%s is on server %s, want on %s", u, got, where[u])
		}
		r.until(u+"'s desktop", func() bool { return r.value("state", "user", u) == "running" })
	}
	r.until("the end of dave's", func() bool { return !strings.Contains(r.admin("users"), "dave") })
	if now := r.desktops(); fmt.Sprint(now) != fmt.Sprint(pids) {
		t.Errorf("desktops were %v and are %v", pids, now)
	}
	if got := r.value("state", "server", "2"); got != "online" { // the copy is older
		t.Errorf("server 2 is %s", got)
	}
	r.admin("offlineserver", "2")
	r.win4(0, 1, "dave")
	if n, err := strconv.Atoi(strings.TrimPrefix(session("dave"), "s")); err != nil || n < 1<<30 {
		t.Errorf("the new session is %s: its number may have been given before", session("dave"))
	}

	m.kill()
	m.start()
	r.until("the links", func() bool { return r.ready() && r.link(1) == "up" && r.link(2) == "up" })
	linked := func(out string) bool { return strings.Contains(out, "type=server.up server=1 ") }
	if out := r.events("what this master has told", linked); strings.Contains(out, "master.restored") {
		t.Error("the event is told again")
	}
}

// copies are the hot copies of the master's database.
func (r *real) copies() []string {
	names, err := filepath.Glob(r.path("master/master/copies/*.db"))
	check(r.t, err)
	return names
}

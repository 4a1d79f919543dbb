package monitor

import (
	"strings"
	"testing"
	"time"
)

// Issue 5, preflight: what a host has found out is shown to everybody who may
// look, what fails first.
func TestChecks(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.ask("level viewer")
	a := s.want("checks 2", "210 ok count=2 server=2 pass=1 warn=0 fail=1 at=2026-11-21T08:15:02Z version=1.0.0")
	want := []string{"#check\tlevel\thard\tmeasured\twanted\tfix", `bridges	fail	yes	bridges: none	the bridge br0	make\tit`, "clock\tpass\tno\t+0.001 s\twithin 1s\t-"}
	if strings.Join(a.rows, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(a.rows, "\n"), strings.Join(want, "\n"))
	}
	s.want("checks 1", "210 ok count=0 server=1")
	s.want("checks 9", `550 not-found kind=server id=9 msg="no server has this ID"`)
	s.ask("verbose on")
	a = s.ask("checks 2")
	people := []string{"fail  bridges  bridges: none", "               keeps new desktops away from this server", "               wanted: the bridge br0", `               fix: make\tit`, "pass  clock    +0.001 s"}
	if !strings.HasPrefix(a.end, "1 pass, 0 warn, 1 fail, 3 min ago") || strings.Join(a.rows, "\n") != strings.Join(people, "\n") {
		t.Errorf("for people: got %q\n%s", a.end, strings.Join(a.rows, "\n"))
	}
	if a := s.ask("checks 1"); !strings.Contains(a.end, "verdecmd doctor") {
		t.Errorf("never checked: got %q", a.end)
	}
}

// "server ID" shows a summary.
func TestChecksOfServer(t *testing.T) {
	f := newFake()
	f.servers[0].Checks = Checks{Pass: 14, Warn: 2, Fail: 1, At: fakeStart, Age: 3 * time.Minute}
	s := serve(t, f, nil).dial(t)
	rows := strings.Join(s.ask("server 1").rows, "\n")
	if !strings.Contains(rows, "\nchecks\t14 pass, 2 warn, 1 fail\nchecked\t2026-11-21T08:15:02Z") {
		t.Errorf("got\n%s", rows)
	}
	if rows := strings.Join(s.ask("server 2").rows, "\n"); !strings.Contains(rows, "\nchecks\t-\nchecked\t-") {
		t.Errorf("never checked: got\n%s", rows)
	}
	s.ask("verbose on")
	if rows := strings.Join(s.ask("server 1").rows, "\n"); !strings.Contains(rows, "14 pass, 2 warn, 1 fail (3 min ago)") {
		t.Errorf("for people: got\n%s", rows)
	}
}

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alarmed is the row of the active alarm of a kind and object as a map by column;
// nil: there is none.
func (r *real) alarmed(kind, object string) map[string]string {
	r.t.Helper()
	return r.alarmIn(kind, object, "alarms")
}

func (r *real) alarmIn(kind, object string, command ...string) map[string]string {
	r.t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.admin(command...), "\n"), "\n")
	head := strings.Split(strings.TrimPrefix(lines[0], "#"), "\t")
	for _, line := range lines[1:] {
		cells, row := strings.Split(line, "\t"), map[string]string{}
		for i, name := range head {
			row[name] = cells[i]
		}
		if row["kind"] == kind && row["object"] == object {
			return row
		}
	}
	return nil
}

func (r *real) untilAlarm(kind, object string) (row map[string]string) {
	r.t.Helper()
	r.until("the alarm "+kind+" "+object, func() bool { row = r.alarmed(kind, object); return row != nil })
	return row
}

func (r *real) untilNoAlarm(kind, object string) {
	r.t.Helper()
	r.until("the end of the alarm "+kind+" "+object, func() bool { return r.alarmed(kind, object) == nil })
}

// S11, V-11, V-84, issue 5 item 8, by the real programs: a desktop that hangs, a
// clock that is wrong, a wrong manager's password, a host that dies. The master
// is killed again and again: what was shown and what was acknowledged stays, what
// is over goes, and who has commanded what is known.
func TestRealAlarms(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	again := func() {
		t.Helper()
		m.kill()
		m.start()
		r.until("the master", r.ready)
	}
	seq := regexp.MustCompile(`seq=(\d+)`).FindStringSubmatch(<-r.netcat("alarms\n"))[1]
	one := r.satellite(1, nil, "")
	// An hour, and some seconds that a report may be on its way.
	two := r.puppet(t, 2, func(l *puppet) { l.ahead, l.memory = time.Hour+20*time.Second, 1 })
	defer func() { two.end() }()
	r.win4(0, 1, "alice")
	r.until("the desktop", func() bool { return r.value("state", "user", "alice") == "running" })
	check(t, syscall.Kill(r.pidOf("alice"), syscall.SIGSTOP))

	r.password("the right password")
	wrong := r.path("wrong")
	check(t, os.WriteFile(wrong, []byte("not the password\n"), 0o600))
	fingerprint := regexp.MustCompile(`([0-9a-f]{4} ){15}[0-9a-f]{4}`).FindString(r.run(0, "verdecmd", "fingerprint", "--settings", r.path("m")))
	third := r.newcomer(3)
	for range 2 {
		third.register(1, "--yes", "--manager", r.address, "--ca-sha256", fingerprint, "--password-file", wrong)
	}

	hung := r.untilAlarm("desktop-hung", "alice")
	clock := r.untilAlarm("server-clock", "2")
	guess := r.untilAlarm("password-wrong", "127.0.0.1")
	if hung["severity"] != "warning" || !strings.Contains(clock["text"], "is 1h0m0s ahead of the master's") || guess["severity"] != "warning" {
		t.Errorf("alarms: %v, %v, %v", hung, clock, guess)
	}
	r.until("the count", func() bool { return r.alarmed("password-wrong", "127.0.0.1")["count"] == "2" })
	r.admin("ackalarm", hung["id"], "note=he knows")
	again()
	if got := r.alarmed("desktop-hung", "alice"); got["id"] != hung["id"] || got["since"] != hung["since"] || got["acked"] != "yes" || got["ackedby"] != "root" {
		t.Errorf("after kill -9 of the master: %v, and before %v", got, hung)
	}
	if note := r.value("note", "alarm", hung["id"]); note != "he knows" {
		t.Errorf("the note is %q", note)
	}

	// The host dies, and all that it ran; the master right after it has told.
	died := time.Now()
	one.kill()
	for pid := range r.desktops() {
		check(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	c := exec.Command("verdecmon", "-s", r.path("sock"), "-t", "60", "events", "on", "types=alarm.raised")
	out, err := c.StdoutPipe()
	check(t, err, c.Start())
	event := ""
	for lines := bufio.NewScanner(out); !strings.Contains(event, "kind=server-lost") && lines.Scan(); {
		event = lines.Text() // a slow disk has alarms, too
	}
	took := time.Since(died)
	m.kill()
	_ = c.Process.Kill()
	_ = c.Wait()
	if !strings.Contains(event, "type=alarm.raised") || !strings.Contains(event, "severity=critical kind=server-lost object=1") {
		t.Errorf("told: %s", event)
	}
	if took < 13*time.Second || took > 30*time.Second {
		t.Errorf("told after %v, want about 15 s", took)
	}
	m.start()
	r.until("the master", r.ready)
	lost := r.alarmed("server-lost", "1")
	if lost == nil || lost["severity"] != "critical" || lost["acked"] != "no" || !strings.Contains(lost["text"], "the session there is unknown") {
		t.Fatalf("after the kill: %v", lost)
	}
	list := <-r.netcat("alarms severity=critical\n")
	n := strings.Count(list, "\tcritical\t")
	if !strings.Contains(list, "210-"+lost["id"]+"\tcritical\tserver-lost\t1\t") || !regexp.MustCompile(fmt.Sprintf(`(?m)^210 ok count=%d active=%[1]d seq=\d+$`, n)).MatchString(list) {
		t.Errorf("nc: %s", list)
	}
	r.until("the count of one critical alarm and three warnings", func() bool {
		list := r.admin("alarms") // beside them those of a master whose disk is slow
		critical, warning := 1+strings.Count(list, "\tcritical\tmaster-"), 3+strings.Count(list, "\twarning\tmaster-")
		metrics := r.admin("metrics")
		return strings.Contains(<-r.netcat("hello\n"), fmt.Sprintf(" alarms=%d ", critical+warning)) &&
			strings.Contains(metrics, fmt.Sprintf("verdecmd_alarms{severity=\"critical\"} %d\n", critical)) &&
			strings.Contains(metrics, fmt.Sprintf("verdecmd_alarms{severity=\"warning\"} %d\n", warning))
	})

	// What an administrator has cleared and what lasts comes back; what is over
	// goes by itself. This master must have heard of the clock before that.
	r.events("the clock", func(out string) bool { return strings.Contains(out, "type=server.skew server=2 ") }, "types=server.skew")
	r.admin("clearalarm", clock["id"])
	if r.alarmed("server-clock", "2") != nil {
		t.Error("it is there after clearalarm")
	}
	cleared := time.Now()
	one.start()
	r.untilNoAlarm("server-lost", "1")
	r.untilNoAlarm("desktop-hung", "alice") // it is gone with its host
	again()
	if over := r.alarmIn("server-lost", "1", "alarms", "all"); over["id"] != lost["id"] || over["cleared"] == "-" {
		t.Errorf("alarms all: %v", over)
	}
	if back := r.untilAlarm("server-clock", "2"); back["id"] == clock["id"] || time.Since(cleared) > 90*time.Second {
		t.Errorf("back after %v: %v", time.Since(cleared), back)
	}
	two.end()
	two = r.puppet(t, 2, func(l *puppet) { l.memory = 1 })
	r.untilNoAlarm("server-clock", "2")

	// The audit has it all, over three kills, without the secrets.
	rows := r.admin("audit")
	for _, want := range []string{"\troot\t0\t", "\tadmin\tmanagerpassword ***\t200\t", "\tackalarm " + hung["id"] + ` note="he knows"` + "\t200\t", "\tclearalarm " + clock["id"] + "\t200\t"} {
		if !strings.Contains(rows, want) {
			t.Errorf("the audit has no %q:\n%s", want, rows)
		}
	}
	if strings.Contains(rows, "right password") || strings.Contains(m.log.String(), "right password") {
		t.Error("the password is in the audit or in the log")
	}
	if n := strings.Count(r.admin("audit", "command=clearalarm", "since=10m"), "\n"); n != 2 {
		t.Errorf("%d lines about clearalarm, want a header and one", n)
	}
	if seq == "0" {
		t.Error("lists have no seq")
	}
}

// PROTOCOL 8, V-85, V-86, S5: who may what by name, number and group, by the
// system's accounts: of the account, of the process, of nobody; each refusal is
// in the audit, over kill -9, before it is answered.
func TestRealLevels(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	const sock, ops, admins = 31600, 31500, 31501
	group, err := os.ReadFile("/etc/group")
	check(t, err, os.WriteFile(r.path("group"), append(group, fmt.Sprintf("verdesock:x:%d:\nverdeops:x:%d:alice\nverdeadmins:x:%d:\n", sock, ops, admins)...), 0o644))
	before := r.passwd("system", nil) + "mount --bind " + r.path("group") + " /etc/group\n"
	m := r.master(values{"VERDECMD_CONN_GID": "verdesock", "VERDECMD_CONN_ADMINS": "@verdeadmins", "VERDECMD_CONN_OPERATORS": fmt.Sprintf("@verdeops %d", firstRealUID+3),
		"VERDECMD_CONN_VIEWERS": "carol", "VERDECMD_CONN_LEVEL": "viewer"}, before)
	r.satellite(1, nil, "")
	// as sends lines as a user whose process has these groups beside the one that
	// opens the socket, and returns the codes of the replies.
	as := func(user string, lines string, groups ...int) (codes string) {
		t.Helper()
		uid := firstRealUID + slices.Index(realUsers, user)
		c := exec.Command("setpriv", "--reuid", fmt.Sprint(uid), "--regid", fmt.Sprint(uid), "--groups", strings.Trim(strings.ReplaceAll(fmt.Sprint(append(groups, sock)), " ", ","), "[]"),
			"nc", "-N", "-U", r.path("sock"))
		c.Stdin = strings.NewReader(lines)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Join(regexp.MustCompile(`(?m)^\d{3} (ok level=\w+)?`).FindAllString(string(out), -1), "")
	}
	const lines = "level\nofflineserver 1\nonlineserver 1\nfenceserver 1\nlevel admin\n"
	for _, test := range []struct {
		user   string
		groups []int
		want   string
	}{
		{"alice", nil, "212 ok level=operator200 200 530 530 "},
		{"bob", []int{admins}, "212 ok level=admin200 200 554 212 ok level=admin"},
		{"bob", nil, "212 ok level=viewer530 530 530 530 "},
		{"carol", nil, "212 ok level=viewer530 530 530 530 "},
		{"dave", nil, "212 ok level=operator200 200 530 530 "},
		{"erin", nil, "212 ok level=viewer530 530 530 530 "},
	} {
		if got := as(test.user, lines, test.groups...); got != test.want {
			t.Errorf("%s %v:\n got %s\nwant %s", test.user, test.groups, got, test.want)
		}
	}
	m.kill()
	m.start()
	r.until("the master", r.ready)
	rows := r.admin("audit")
	if n := strings.Count(rows, "\t530\t"); n != 2*2+3*4 { // what raises the level, too
		t.Errorf("%d refusals are in the audit:\n%s", n, rows)
	}
	for _, want := range []string{"\talice\t31000\t", "\toperator\tfenceserver 1\t530\t", "\tadmin\tfenceserver 1\t554\t", "\tviewer\tofflineserver 1\t530\t"} {
		if !strings.Contains(rows, want) {
			t.Errorf("the audit has no %q:\n%s", want, rows)
		}
	}
	if n := strings.Count(r.admin("audit", "user=carol"), "\n"); n != 5 {
		t.Errorf("%d lines about carol", n)
	}

	// A mistake: everybody but root may only look, and the log says so.
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "VERDECMD_CONN_ADMINS", "@verdeadmins @nosuchgroup")
	check(t, m.cmd.Process.Signal(syscall.SIGHUP))
	r.until("the mistake", func() bool { return as("bob", "level\n", admins) == "212 ok level=viewer" })
	r.until("what is wrong in the log", func() bool {
		return strings.Contains(m.log.String(), `VERDECMD_CONN_ADMINS: \"@nosuchgroup\" is not known: group \"nosuchgroup\": unknown group","time"`) &&
			strings.Contains(m.log.String(), "everybody but root may only look")
	})
	if out := <-r.netcat("level\n"); !strings.Contains(out, "level=admin uid=0") {
		t.Errorf("root: %s", out)
	}
}

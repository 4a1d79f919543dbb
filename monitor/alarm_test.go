package monitor

import (
	"slices"
	"strings"
	"testing"
)

// PROTOCOL 12.6.
func TestAlarms(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	const header = "#id\tseverity\tkind\tobject\tsince\tlast\tcount\tacked\tackedby\ttext\tcleared"
	lost := "7\tcritical\tserver-lost\t3\t2026-11-21T08:15:02Z\t2026-11-21T08:15:02Z\t1\tno\t-\tServer 3 (sat3) is lost: without a link for more than 15 s.\t-"
	hung := "5\twarning\tdesktop-hung\tbob\t2026-11-21T08:15:02Z\t2026-11-21T08:16:02Z\t3\tyes\talice\tThe desktop of bob on server 1 hangs.\t2026-11-21T09:15:02Z"
	for _, test := range []struct {
		line, end string
		rows      []string
	}{
		{"alarms", "210 ok count=1 active=1 seq=4712", []string{header, lost}},
		{"alarms all", "210 ok count=2 active=1 seq=4712", []string{header, lost, hung}},
		{"alarms severity=critical", "210 ok count=1 active=1 seq=4712", []string{header, lost}},
		{"alarms severity=warning", "210 ok count=0 active=0 seq=4712", []string{header}},
		{"alarms all severity=warning", "210 ok count=1 active=0 seq=4712", []string{header, hung}},
	} {
		if a := s.want(test.line, test.end); !slices.Equal(a.rows, test.rows) {
			t.Errorf("%s:\n got %q\nwant %q", test.line, a.rows, test.rows)
		}
	}
	s.want("alarms severity=loud", `501 bad-arguments usage="alarms [all] [severity=LEVEL]"`)
	s.want("alarm 9", `550 not-found kind=alarm id=9 msg="no alarm has this number"`)
	s.want("alarm x", `501 bad-arguments usage="alarm ID" msg="\"x\" is not a number"`)
	a := s.want("alarm 5", "211 ok seq=4712")
	for _, row := range []string{"id\t5", "state\tcleared", "count\t3", "acked\t2026-11-21T08:16:02Z", "ackedby\talice", "note\trestarted", "cleared\t2026-11-21T09:15:02Z", "clearedby\t-", "help\t-"} {
		if !slices.Contains(a.rows, row) {
			t.Errorf("alarm 5: no %q in %q", row, a.rows)
		}
	}

	s.want("complete alarm ", "213 ok count=1 more=no")
	if a := s.ask("complete ackalarm "); !slices.Contains(a.rows, "7\tcritical server-lost 3") || !slices.ContainsFunc(a.rows, func(r string) bool { return strings.HasPrefix(r, "all\t") }) {
		t.Errorf("completion of ackalarm: %q", a.rows)
	}
	s.want("ackalarm 9", `550 not-found kind=alarm id=9 msg="no alarm has this number"`)
	s.want("ackalarm some", `501 bad-arguments usage="ackalarm ID|all [note=TEXT]" msg="\"some\" is neither the number of an alarm nor all"`)
	s.want("ackalarm 7 note="+strings.Repeat("x", 256), "553 bad-value key=note value="+strings.Repeat("x", 256)+` msg="the text is longer than 255 characters"`)
	s.want("ackalarm 7 note=\"a new disk\"", "200 ok acked=1")
	s.want("ackalarm 7", "204 unchanged acked=0")
	s.want("ackalarm 7 note=\"it has come\"", "200 ok acked=1")
	s.want("ackalarm 7 note=\"a new disk\"", "200 ok acked=1")
	s.want("ackalarm all note=all", "204 unchanged acked=0")
	s.want("ackalarm all", "204 unchanged acked=0")
	s.want("ackalarm 5", "204 unchanged acked=0")
	if a, _ := f.Alarm(7); a.AckedBy != "root" || a.Note != "a new disk" {
		t.Errorf("alarm 7 is %+v", a)
	}
	s.want("clearalarm 9", `550 not-found kind=alarm id=9 msg="no alarm has this number"`)
	s.want("clearalarm 7", "200 ok alarm=7")
	s.want("clearalarm 7", "204 unchanged alarm=7")
	s.want("alarms", "210 ok count=0 active=0 seq=4712")
	if a := s.ask("hello"); !strings.Contains(a.end, " alarms=0 ") {
		t.Errorf("hello: %s", a.end)
	}
	f.mu.Lock()
	f.waiting = 2
	f.mu.Unlock()
	s.want("alarms", "210 ok count=0 active=0 seq=4712 waiting=2")
}

// The same for people: what is wrong, what helps, what to do.
func TestAlarmsInText(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.ask("verbose on")
	a := s.want("alarms all", "210 1 active alarm, 1 critical; 1 cleared.")
	want := []string{
		"ID  SEVERITY  KIND          OBJECT  SINCE             COUNT  STATE    BY     TEXT",
		" 7  critical  server-lost   3       2026-11-21 08:15      1  active   -      Server 3 (sat3) is lost: without a link for more than 15 s.",
		" 5  warning   desktop-hung  bob     2026-11-21 08:15      3  cleared  alice  The desktop of bob on server 1 hangs.",
	}
	if !slices.Equal(a.rows, want) {
		t.Errorf("\n got %q\nwant %q", a.rows, want)
	}
	a = s.want("alarm 7", `211 Nobody has acknowledged it: "ackalarm 7" says that you know of it.`)
	want = []string{"Alarm 7 (critical): server-lost 3", "  What   Server 3 (sat3) is lost: without a link for more than 15 s.", "  Since  2026-11-21 08:15", "  Came   once", `  Help   "server 3" shows it`}
	if !slices.Equal(a.rows, want) {
		t.Errorf("\n got %q\nwant %q", a.rows, want)
	}
	if a := s.ask("hello"); !slices.Contains(a.rows, `1 critical alarm that nobody has acknowledged: "alarms severity=critical".`) {
		t.Errorf("hello: %q", a.rows)
	}
	s.want("ackalarm all", "200 1 alarm acknowledged.")
	s.want("ackalarm all", "204 There is no alarm that nobody has acknowledged.")
	s.want("ackalarm 7", "204 Alarm 7 is acknowledged or cleared already.")
	s.want("alarm 7", "211 It stays until its cause is over.")
	s.want("clearalarm 7", "200 Alarm 7 is cleared.")
	s.want("clearalarm 7", "204 Alarm 7 is cleared already.")
	a = s.want("alarm 7", "211 It is over.")
	if !slices.Contains(a.rows, "  Cleared  2026-11-21 08:17, root") || !slices.Contains(a.rows, "  Known    2026-11-21 08:17 by root") {
		t.Errorf("alarm 7: %q", a.rows)
	}
	f.mu.Lock()
	f.waiting = 1
	f.mu.Unlock()
	s.want("alarms", "210 No alarms. The disk of the master has not taken 1 further change yet, see its log.")
	s.want("alarm 9", `550 No alarm has the number 9. Type "alarms all" to see the known ones.`)
}

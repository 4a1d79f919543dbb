package monitor

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// V-84, V-86: every command above viewer level and every refusal is kept with who
// has given it, at which level, and what came of it; looking is not.
func TestAuditKeeps(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	for _, line := range []string{"servers", "alarms", `offlineserver 2 reason="memory  exchange"`, "OFFLINESERVER 2", "offlineserver 99", "offlineserver", "setting VERDECMD_LOGOFF_WAIT",
		"setting VERDECMD_LOGOFF_WAIT 9", "nonsense 1", "ackalarm all", "level operator", "fenceserver 3", "level viewer", "onlineserver 2", "audit"} {
		s.ask(line)
	}
	ts.stop()
	var got []string
	for _, a := range f.audited {
		got = append(got, fmt.Sprintf("%s %s %d %s", a.Level, a.Command, a.Code, a.Line))
		if a.Caller.Name != "root" || a.Caller.UID != 0 || a.Caller.PID != os.Getpid() || time.Since(a.Time) > time.Minute || a.Took < 0 {
			t.Errorf("%+v", a)
		}
	}
	want := []string{
		`admin offlineserver 200 offlineserver 2 reason="memory  exchange"`,
		"admin offlineserver 204 OFFLINESERVER 2",
		"admin offlineserver 550 offlineserver 99",
		"admin offlineserver 501 offlineserver",
		"admin setting 200 setting VERDECMD_LOGOFF_WAIT 9",
		"admin ackalarm 200 ackalarm all",
		"operator fenceserver 530 fenceserver 3",
		"viewer onlineserver 530 onlineserver 2",
	}
	for i, w := range want {
		if i >= len(got) || got[i] != w {
			t.Errorf("%d: got %q\nwant %q", i, got, want)
			break
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d commands are kept, want %d: %q", len(got), len(want), got)
	}
}

// The reply leaves when the command has been kept, and not before.
func TestAuditBeforeReply(t *testing.T) {
	f := newFake()
	var mu sync.Mutex
	kept := 0
	gate := make(chan struct{})
	ts := serve(t, f, func(cfg *Config) {
		cfg.Audit = func(Audited) {
			<-gate
			mu.Lock()
			kept++
			mu.Unlock()
		}
	})
	s := ts.dial(t)
	s.send("offlineserver 2\n")
	s.nc.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if b, err := s.r.ReadByte(); err == nil {
		t.Errorf("%q came before the command was kept", b)
	}
	s.nc.SetReadDeadline(time.Time{})
	other := ts.dial(t)
	other.want("ping", "200 ok") // it holds nobody else up
	close(gate)
	if a := s.reply(); a.code != "200" {
		t.Errorf("got %s", a.code)
	}
	mu.Lock()
	defer mu.Unlock()
	if kept != 1 {
		t.Errorf("kept %d", kept)
	}
}

// PROTOCOL 8: no secret is in the audit or in the log, also where it was typed in
// the wrong place: the line after 331, a setting that is one, surplus words
// behind it, a token in any command, at any level.
func TestAuditHasNoSecrets(t *testing.T) {
	f := newFake()
	ts := serve(t, f, func(cfg *Config) {
		table := withSecret(f)
		table.byName["passwordfortest"].Hide = func(map[string]string) bool { return true }
		made := &Entry{Name: "tokenfortest", Group: general, Level: Admin, Summary: "test", Run: func(context.Context, *Call) (Reply, error) {
			return Reply{Code: 201, Pairs: []Pair{{"token", "vd1-planted-9"}}}, nil
		}}
		table.commands, table.byName[made.Name] = append(table.commands, made), made
		cfg.Table = table
	})
	s := ts.dial(t)
	s.send("passwordfortest\nplanted-1\n")
	s.line()
	s.reply()
	if a := s.ask("tokenfortest"); !strings.Contains(a.end, "vd1-planted-9") { // the only time that it is shown
		t.Errorf("the reply is %s", a.end)
	}
	for _, line := range []string{"passwordfortest planted-2", "setting VERDECMD_SECRET planted-3", "setting VERDECMD_SECRET planted-4 planted-5",
		"setting VERDECMD_SECRTE planted-10", "offlineserver vd1-0123-planted-6", "offlineserver 1 reason=vd1-0123-planted-7", `clearalarm "VD1-0123-planted-8"`} {
		s.ask(line)
	}
	s.ask("level viewer")
	s.ask("passwordfortest planted-2")
	s.ask("setting VERDECMD_SECRET planted-3")
	s.ask("setting VERDECMD_SECRET planted-4 planted-5")
	s.ask("offlineserver vd1-0123-planted-6")
	a := s.ask("audit count=100")
	ts.stop()
	for what, text := range map[string]string{"log": ts.log.String(), "audit": fmt.Sprintf("%+v", f.audited), "reply": strings.Join(a.rows, "\n")} {
		if strings.Contains(text, "planted") {
			t.Errorf("the %s has a secret:\n%s", what, text)
		}
	}
	var lines []string
	for _, a := range f.audited {
		lines = append(lines, a.Line)
	}
	want := []string{"passwordfortest ***", "tokenfortest", "passwordfortest ***", "setting ***", "setting ***", "offlineserver vd1-***", "offlineserver 1 reason=vd1-***", `clearalarm "vd1-***"`,
		"passwordfortest ***", "setting ***", "offlineserver vd1-***"}
	if !slices.Equal(lines, want) {
		t.Errorf("\n got %q\nwant %q", lines, want)
	}
}

// The command audit: columns, filters, formats.
func TestAuditCommand(t *testing.T) {
	f := newFake()
	at := time.Now()
	for i := range 150 {
		f.audit(Audited{Time: at.Add(-time.Hour), Caller: Caller{PID: 100 + i, UID: 0, Name: "root"}, Level: Admin, Command: "offlineserver", Line: "offlineserver 2", Code: 200, Took: 1234567 * time.Nanosecond})
	}
	f.audit(Audited{Time: at.Add(-time.Minute), Caller: Caller{PID: 9, UID: 1001, Name: "alice"}, Level: Viewer, Command: "onlineserver", Line: "onlineserver\t2", Code: 530})
	s := serve(t, f, func(cfg *Config) {
		cfg.Peer = func(net.Conn) (Caller, error) { return Caller{UID: 1001, PID: 1}, nil }
		cfg.Levels.Default = "viewer"
	}).dial(t)
	stamp := at.Add(-time.Minute).UTC().Format("2006-01-02T15:04:05Z")
	a := s.want("audit user=alice", "210 ok count=1")
	want := []string{"#id\ttime\tuser\tuid\tpid\tlevel\tcommand\tcode\tduration", "151\t" + stamp + `	alice	1001	9	viewer	onlineserver\t2	530	0`}
	if !slices.Equal(a.rows, want) {
		t.Errorf("\n got %q\nwant %q", a.rows, want)
	}
	s.want("audit user=1001", "210 ok count=1")
	s.want("audit", "210 ok count=100")
	s.want("audit count=120", "210 ok count=120")
	s.want("audit count=99999999999999999999", "210 ok count=151")
	s.want("audit command=ONLINEserver", "210 ok count=1")
	s.want("audit since=10m", "210 ok count=1")
	s.want("audit user=nobody", "210 ok count=0")
	s.want("audit count=none", `501 bad-arguments usage="audit [user=NAME] [command=NAME] [since=TIME] [count=N]" msg="\"none\" is not a number"`)
	if a := s.want("audit count=2", "210 ok count=2"); !strings.HasPrefix(a.rows[1], "150\t") || !strings.HasSuffix(a.rows[1], "\t200\t0.001") {
		t.Errorf("the newest two: %q", a.rows)
	}
	if a := s.ask("complete audit command="); !slices.ContainsFunc(a.rows, func(r string) bool { return strings.HasPrefix(r, "command=fenceserver\t") }) ||
		slices.ContainsFunc(a.rows, func(r string) bool { return strings.HasPrefix(r, "command=servers\t") }) {
		t.Errorf("completion: %q", a.rows)
	}
	s.ask("verbose on")
	if a := s.want("audit user=alice", "210 1 command."); !strings.HasPrefix(a.rows[0], "TIME ") || !strings.Contains(a.rows[1], `onlineserver\t2`) {
		t.Errorf("in text: %q", a.rows)
	}
	s.want("audit user=nobody", "210 No commands.")
}

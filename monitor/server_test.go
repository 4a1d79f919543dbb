package monitor

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("VERDECMON_TEST_MAIN") != "" {
		os.Exit(mainForTest())
	}
	if path, n, ok := strings.Cut(os.Getenv("VERDECMON_TEST_PING"), " "); ok {
		count, _ := strconv.Atoi(n)
		os.Exit(pingForTest(path, count))
	}
	goleak.VerifyTestMain(m)
}

// PROTOCOL 11, the transcripts; PROTOCOL 17, 8: twice is unchanged; V-72, V-74, V-76, V-77, V-78, V-79.
func TestTranscripts(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	s.want("hello", "220 ok proto=1 version=1.0.0 master=cm.example.com level=admin uptime=93612 servers=3 online=2 users=3 reservations=0 alarms=1 seq=4712")
	s.want("HELLO proto=2", "506 bad-version proto=2 speaks=1")
	s.want("verbose", "212 ok verbose=off")
	s.want("verbose maybe", `501 bad-arguments usage="verbose [on|off]"`)
	s.want("server 9", `550 not-found kind=server id=9 msg="no server has this ID"`)
	s.want("server sat1", `501 bad-arguments usage="server SERVER-ID" msg="\"sat1\" is not a server ID"`)
	s.want("user nobody-here", `550 not-found kind=user id=nobody-here msg="no such account"`)
	s.want("offlineserver 2", "200 ok server=2 state=offline sessions=1")
	s.want("offlineserver 2", "204 unchanged server=2 state=offline")
	s.want("onlineserver 2", "200 ok server=2 state=online sessions=1")
	s.want("onlineserver 2", "204 unchanged server=2 state=online")
	s.want("abortuser alice", "200 ok user=alice server=1 session=s40 how=abort elapsed=0 job=19")
	s.want("abortuser alice", `550 not-found kind=user id=alice msg="no such account"`)
	s.want("abortuser dave", "204 unchanged user=dave state=none")
	s.want("shutdownuser bob", "200 ok user=bob server=1 session=s41 how=shutdown elapsed=0 job=20")
	s.want("logoffuser carol nowait", "202 accepted user=carol job=21")
	s.want("waitjob 21", "200 ok user=carol server=2 session=s42 how=shutdown elapsed=0 job=21")
	s.want("format json", `212 {"status":"ok","format":"json"}`)
	s.want("server 9", `550 {"status":"not-found","kind":"server","id":"9","msg":"no server has this ID"}`)
	s.want("verbose on", "212 Verbose is on.")
	s.want("server 9", `550 No server has the ID 9. Type "servers" to see the known ones.`)
	s.want("server sat1", `501 "sat1" is not a server ID. Usage: server SERVER-ID. The IDs are shown by "servers".`)
	s.want("offlineserver 2", "200 Server 2 (sat2.example.com) is offline.")
	s.want("offlineserver 2", "204 Server 2 is offline already.")
	s.want("quit", "221 Bye.")
	s.wantEOF()
}

func TestListsAreAsInTheProtocol(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	a := s.want("servers link=up", "210 ok count=2 seq=4712")
	want := []string{
		"#id\tname\taddress\tstate\tlink\tusers\treserved\tcpu\tmemtotal\tmemfree\tage\tversion\tscore",
		"1\tsat1.example.com\t192.0.2.11\tonline\tup\t0\t0\t12.4\t8589934592\t6227702579\t1\t1.0.0\t214",
		"2\tsat2.example.com\t192.0.2.12\tonline\tup\t0\t0\t3.1\t8589934592\t7301444403\t2\t1.0.0\t96",
	}
	if got := strings.Join(a.rows, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("servers:\n got %s\nwant %s", got, strings.Join(want, "\n"))
	}
	s.ask("verbose on")
	a = s.want("servers link=up", "210 2 servers, 2 online.")
	want = []string{
		"ID  NAME              ADDRESS     STATE   LINK  USERS  RSVD  CPU  MEM FREE     SEEN",
		" 1  sat1.example.com  192.0.2.11  online  up        0     0  12%   5.8 GiB  1 s ago",
		" 2  sat2.example.com  192.0.2.12  online  up        0     0   3%   6.8 GiB  2 s ago",
	}
	if got := strings.Join(a.rows, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("servers in text:\n got %s\nwant %s", got, strings.Join(want, "\n"))
	}
	a = s.want("server 1", "211 Score 214.")
	if a.rows[0] != "Server 1: sat1.example.com (192.0.2.11)" || a.rows[1] != "  State      online, connected since 2026-11-21 08:15" {
		t.Errorf("server 1: got %q", a.rows[:2])
	}
}

// everyCommand are lines that reach every command of the table, with errors.
var everyCommand = []string{
	"help", "help offlineserver", "help nothing", "hello", "hello proto=9", "verbose", "format", "progress", "level", "events", "events on",
	"events off", "events off since=1", "ping", `ping "a b"`, "version", "complete ", "complete s", "complete user a", "complete events on types=",
	"servers", "servers state=online link=up", "servers state=none", "server 1", "server 3", "server 9", "server 99999999999999999999999", "server x",
	"offlineserver 2", "offlineserver 2", "onlineserver 2", "onlineserver 3", "fenceserver 1", "fenceserver 3", "placement", "placement alice",
	"placement nobody", "reservations", "cancelreservation r1", "cancelreservation r1", "reservations", "users", "users server=1 state=running image=win4",
	"user alice", "user 1001", "user dave", "user 4711", "user name=1001", "shutdownuser bob timeout=5", "shutdownuser dave", "logoffuser carol nowait",
	"abortuser alice force", "jobs", "jobs all", "job 19", "job 999", "waitjob 19", "waitjob 999", "canceljob 19", "canceljob 999",
	"tokens", "createtoken", "createtoken ttl=30m server=sat9 address=192.0.2.9", "createtoken server=sat3", "tokens", "deletetoken 1", "deletetoken 77", "deletetoken x",
	"replaceserver 1", "replaceserver 1 force", "replaceserver 3 ttl=60", "replaceserver 99", "revocations", "tokens",
	"managerpassword", "a long one", "managerpassword", "short", "managerpassword", "",
	"forgetserver 1", "forgetserver 3", "forgetserver 3", "settings", "setting VERDECMD_LOGOFF_WAIT", "setting VERDECMD_LOGOFF_WAIT 5", "setting NOTHING",
	"setting VERDECMD_LOGOFF_WAIT \"\"", "metrics", "backup /x/y", "backup /x/z nowait", "loglevel", "loglevel debug", "loglevel loud",
	"checks 1", "checks 2", "checks 9",
	"rotateca nowait", "rotateca skip=3", "rotateca abort",
	"alarms", "alarms all", "alarms severity=warning", "alarms severity=loud", "alarm 7", "alarm 9", "alarm x", "ackalarm 7 note=seen", "ackalarm 7", "ackalarm all",
	"ackalarm 9", "ackalarm some", "clearalarm 7", "clearalarm 7", "clearalarm 9", "alarms", "audit", "audit count=1", "audit user=root command=ackalarm since=1h", "audit since=0",
	"drainserver 1", "drainserver 1", "drainserver 2 method=live", "drainserver 2 nowait", "images", "nonsense", "srevers", "@x", "{}", "*3", "shutdownuser bob timeout=0", "shutdownuser bob timeout=1 timeout=2", "users",
}

// PROTOCOL 17, 3: all commands in tsv, json and text through one strict parser.
func TestFraming(t *testing.T) {
	for _, format := range []string{"tsv", "json", "text"} {
		t.Run(format, func(t *testing.T) {
			s := serve(t, newFake(), nil).dial(t)
			s.ask("format " + format)
			seen := map[string]bool{}
			for _, line := range everyCommand {
				a := s.ask(line)
				checkRows(t, format, a)
				seen[asciiLower(strings.Fields(line + " x")[0])] = true
				if a.code == "451" {
					t.Errorf("%s: %s %s", line, a.code, a.end)
				}
			}
			for _, cmd := range NewTable(newFake()).Commands() {
				if !seen[cmd.Name] && cmd.Name != "quit" {
					t.Errorf("%s was not tried", cmd.Name)
				}
			}
			a := s.ask("quit")
			checkRows(t, format, a)
			if a.code != "221" {
				t.Errorf("quit: got %s", a.code)
			}
			s.wantEOF()
		})
	}
}

// PROTOCOL 17, 4: each fault, then ping works.
func TestBadLines(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	words := strings.Repeat("a ", 257)
	tests := []struct{ name, line, code string }{
		{"longest line", "ping " + strings.Repeat("a", 255) + strings.Repeat(" ", maxLine-260) + "\r", "200"},
		{"too long", strings.Repeat("a", maxLine+1), "504"},
		{"much too long", strings.Repeat("x", 1<<20), "504"},
		{"nul", "ping \x00", "505"},
		{"escape", "ping \x1b[1m", "505"},
		{"delete", "ping \x7f", "505"},
		{"carriage return inside", "ping\rping", "505"},
		{"not utf-8", "ping \xff", "505"},
		{"c1", "ping \u009b1m", "505"},
		{"bad character in a comment", "# \x01", "505"},
		{"open double quote", `ping "a`, "503"},
		{"open single quote", `ping 'a`, "503"},
		{"unknown escape", `ping "\q"`, "503"},
		{"half escape", `ping "\x1"`, "503"},
		{"nul by escape", `ping "\x00"`, "505"},
		{"not utf-8 by escape", `ping "\xff"`, "505"},
		{"utf-8 by escape", `ping "\xc3\xa9"`, "200"},
		{"too many words", words, "501"},
		{"unknown", "serverz", "500"},
		{"reserved @", "@servers", "500"},
		{"reserved brace", "{servers}", "500"},
		{"reserved star", "*1", "500"},
		{"abbreviated", "serv", "500"},
		{"not built", "migrate alice", "502"},
		{"missing", "server", "501"},
		{"surplus", "server 1 2", "501"},
		{"unknown option", "servers x=1", "501"},
		{"doubled option", "servers state=online state=online", "501"},
		{"doubled flag", "logoffuser bob nowait nowait", "501"},
		{"long text", "offlineserver 1 reason=" + strings.Repeat("é", 256), "553"},
		{"text of 255 characters", "ping " + strings.Repeat("é", 255), "200"},
		{"quoted flag is a word", `jobs "all"`, "501"},
		{"after -- all is positional", "ping -- proto=1", "200"},
		{"-- for a flag", "jobs -- all", "501"},
		{"zero is no server ID", "server 0", "501"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.t = t
			if a := s.ask(test.line); a.code != test.code {
				t.Errorf("got %s %s, want %s", a.code, a.end, test.code)
			}
			s.want("ping", "200 ok")
		})
	}
	s.t = t
	s.want("offlinserver 2", `500 unknown-command command=offlinserver near=offlineserver msg="no such command"`)
	s.send("\n  \n# comment\n\t\r\n")
	s.want("ping only", "200 ok pong=only")
}

// PROTOCOL 17, 7: every command with every level; level cannot rise.
func TestLevels(t *testing.T) {
	for _, level := range []Level{Viewer, Operator, Admin} {
		t.Run(level.String(), func(t *testing.T) {
			ts := serve(t, newFake(), func(cfg *Config) {
				cfg.Peer = func(net.Conn) (Caller, error) { return Caller{UID: 4242}, nil }
				cfg.Levels.Default = level.String()
			})
			s := ts.dial(t)
			for _, cmd := range NewTable(newFake()).Commands() {
				line := cmd.Name
				for i := range cmd.Args {
					if a := &cmd.Args[i]; a.Kind == Positional && !a.Optional {
						line += " 1"
					}
				}
				if cmd.Name == "quit" || cmd.Name == "level" {
					continue
				}
				a := s.ask(line)
				if denied := a.code == "530"; denied != (cmd.Level > level) {
					t.Errorf("%s at %s: got %s %s", line, level, a.code, a.end)
				}
			}
			for _, to := range []Level{Admin, Operator, Viewer, Operator, Admin} {
				a := s.ask("level " + to.String())
				now := s.ask("level").end
				if a.code == "212" && !strings.HasPrefix(now, "ok level="+to.String()) || a.code != "212" && a.code != "530" {
					t.Errorf("level %s: %s %s, then %s", to, a.code, a.end, now)
				}
				if to > level && a.code != "530" {
					t.Errorf("rose from %s to %s", level, to)
				}
			}
			s.want("offlineserver 1", "530 denied needs=operator level=viewer")
			if help := s.ask("help"); strings.Contains(strings.Join(help.rows, "\n"), "offlineserver") {
				t.Error("help shows a viewer what only operators may do")
			}
		})
	}
}

func TestForceNeedsAdmin(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	s.ask("level operator")
	s.want("abortuser bob force", "530 denied needs=admin level=operator")
}

// PROTOCOL 17, 8 and 9: joining, progress, time limits, gone clients.
func TestJobs(t *testing.T) {
	f := newFake()
	f.boot = -1 // the guest ignores the request
	f.hold = make(chan struct{})
	ts := serve(t, f, func(cfg *Config) { cfg.Progress = 30 * time.Millisecond })
	one, two := ts.dial(t), ts.dial(t)
	one.send("logoffuser carol timeout=3\n")
	ts.begun(19)
	three := ts.dial(t)
	three.ask("format text")
	if a := three.ask("logoffuser carol nowait"); !strings.Contains(a.end, "Job 19 works on it already") {
		t.Errorf("joined without waiting, in words: %s", a.end)
	}
	three.ask("progress on")
	three.send("logoffuser carol\n")
	if code, _, text := three.line(); code != "150" || !strings.Contains(text, "Job 19 of ") || !strings.Contains(text, "waiting for its end") {
		t.Errorf("joined, in words: %s %s", code, text)
	}
	two.ask("progress on")
	two.send("logoffuser carol\n")
	two.line() // it has joined
	f.mu.Lock()
	close(f.hold)
	f.mu.Unlock()
	if a := two.reply(); untimed(a.code+" "+a.end) != untimed("200 ok user=carol server=2 session=s42 how=abort elapsed=3 job=19 joined=yes") {
		t.Errorf("joined: got %s %s", a.code, a.end)
	}
	three.reply()
	if a := one.reply(); a.code != "200" || !strings.Contains(a.end, "job=19") || strings.Contains(a.end, "joined") {
		t.Errorf("first logoffuser: %s %s", a.code, a.end)
	}
	f.mu.Lock()
	f.hold = nil
	f.mu.Unlock()
	one.want("shutdownuser bob timeout=0.1", `443 timed-out user=bob elapsed=0 job=20 msg="guest still running, the request stands"`)

	one.ask("progress on")
	f.mu.Lock()
	f.hold = make(chan struct{})
	f.mu.Unlock()
	one.send("logoffuser bob timeout=0.2\n")
	for _, want := range []string{"150 started job=21 user=bob limit=0", `110 progress job=21 elapsed=0 limit=0 msg="waiting for the guest"`} {
		code, _, data := one.line()
		if got := code + " " + data; untimed(got) != untimed(want) {
			t.Errorf("progress: got %q, want %q", got, want)
		}
	}
	f.mu.Lock()
	close(f.hold)
	f.hold = nil
	f.mu.Unlock()
	one.reply()

	// A client that is killed: the job ends all the same, and its place is free.
	two.send("logoffuser alice timeout=0.3\n")
	ts.begun(22)
	two.nc.Close()
	one.want("waitjob 22", "200 ok user=alice server=1 session=s40 how=abort elapsed=0 job=22")
}

// begun waits until there is the job id, be it ended already.
func (f *fakeMaster) begun(id uint64) {
	for {
		all, _ := f.Jobs(true)
		if slices.ContainsFunc(all, func(j Job) bool { return j.ID == id }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (f *fakeMaster) running() []Job {
	list, _ := f.Jobs(false)
	return list
}

func TestWaitJobGivesUp(t *testing.T) {
	f := newFake()
	f.boot = -1
	s := serve(t, f, nil).dial(t)
	s.ask("shutdownuser bob nowait timeout=60")
	s.want("waitjob 19 timeout=0.05", `443 timed-out job=19 elapsed=0 msg="the job goes on"`)
	s.want("canceljob 19", "200 ok job=19 state=cancelled")
	s.want("canceljob 19", "204 unchanged job=19 state=cancelled")
	s.want("waitjob 19", "444 cancelled job=19")
}

// PROTOCOL 17, 10: texts come back as they were, and nothing drives a terminal.
func TestRoundTrip(t *testing.T) {
	texts := []string{"-", "#x", "a\tb", "a\nb\r", `\x41`, `"quoted" 'too'`, "\x1b]0;evil\a", "\u009b31m", "日本語", "é", "\xff\xfe", " lead", "x=y", "\x7f", ""}
	f := newFake()
	f.servers = nil
	for i, text := range texts {
		f.servers = append(f.servers, Server{ID: uint64(i + 1), Name: text, Address: text, State: Online, Reason: text, Age: -1})
	}
	s := serve(t, f, nil).dial(t)
	for _, format := range []string{"tsv", "json", "text"} {
		s.ask("format " + format)
		a := s.ask("servers")
		checkRows(t, format, a)
		for i, text := range texts {
			detail := s.ask(fmt.Sprintf("server %d", i+1))
			checkRows(t, format, detail)
			var got string
			switch format {
			case "tsv":
				got = untsv(t, strings.Split(a.rows[i+1], "\t")[1])
			case "json":
				var row struct{ Name string }
				if err := json.Unmarshal([]byte(a.rows[i]), &row); err != nil {
					t.Fatal(err)
				}
				got = row.Name
				text = strings.ToValidUTF8(text, "\ufffd")
				if texts[i] == "\xff\xfe" {
					text = "\ufffd\ufffd"
				}
			default:
				continue
			}
			if got != text {
				t.Errorf("%s: got %q, want %q", format, got, text)
			}
		}
	}
	s.ask("verbose off")
	s.want(`ping "-"`, `200 ok pong="\x2d"`)
	s.want(`ping ""`, `200 ok pong=""`)
	s.want(`ping "a\tb\"\\\x1b"`, `200 ok pong="a\tb\"\\\x1b"`)
}

// untsv undoes the escapes of PROTOCOL 6.2.
func untsv(t *testing.T, s string) string {
	if s == "-" {
		return ""
	}
	var out []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		c, n, ok := unescape(s[i:])
		if !ok {
			t.Fatalf("bad escape in %q", s)
		}
		out = append(out, c)
		i += n
	}
	return string(out)
}

func TestLongValuesKeepTheLineShort(t *testing.T) {
	f := newFake()
	long := strings.Repeat("\x1b", 60000)
	f.servers[0] = Server{ID: 1, Name: long, Address: long, State: long, Link: long, Version: long, Reason: long, SnapDir: long, Problems: []string{long}, Why: long}
	s := serve(t, f, nil).dial(t)
	for _, format := range formatNames {
		s.ask("format " + format)
		checkRows(t, format, s.ask("servers"))
		checkRows(t, format, s.ask("server 1"))
	}
}

// V-28: a panic in a command is answered and logged; the master lives.
func TestPanic(t *testing.T) {
	f := newFake()
	f.panics["alice"] = true
	ts := serve(t, f, nil)
	s := ts.dial(t)
	a := s.ask("user alice")
	if a.code != "451" || !strings.Contains(a.end, "ref=") {
		t.Fatalf("got %s %s", a.code, a.end)
	}
	if ref := field(a.end, "ref"); !strings.Contains(ts.log.String(), ref) || !strings.Contains(ts.log.String(), "planted") {
		t.Errorf("the log does not have ref %s", ref)
	}
	s.want("ping", "200 ok")
}

// V-84: an audit line for every command above viewer level.
func TestAudit(t *testing.T) {
	ts := serve(t, newFake(), nil)
	s := ts.dial(t)
	s.ask("servers")
	s.ask(`offlineserver 2 reason="memory exchange"`)
	ts.stop()
	log := ts.log.String()
	if n := strings.Count(log, "admin command"); n != 1 {
		t.Errorf("%d audit lines, want 1:\n%s", n, log)
	}
	for _, want := range []string{fmt.Sprintf(`"pid":%d`, os.Getpid()), `"uid":0`, `"code":200`, `reason=\"memory exchange\"`, `"took":`} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in %s", want, log)
		}
	}
}

// PROTOCOL 17, 5: pipelining.
func TestPipeline(t *testing.T) {
	const n = 20000
	s := serve(t, newFake(), nil).dial(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "users\nping %d\n", i)
		}
		s.nc.Write([]byte(b.String()))
	})
	for i := range n {
		if a := s.reply(); a.code != "210" || len(a.rows) != 4 {
			t.Fatalf("users %d: %s %s", i, a.code, a.end)
		}
		if a := s.reply(); a.end != fmt.Sprintf("ok pong=%d", i) {
			t.Fatalf("ping %d: %s", i, a.end)
		}
	}
	wg.Wait()
}

// PROTOCOL 17, 5: a client that never reads is dropped while others are
// served, and costs bounded memory (S18).
func TestNeverReads(t *testing.T) {
	f := newFake()
	for i := range 2000 {
		f.servers = append(f.servers, Server{ID: uint64(10 + i), Name: "filler.example.com", State: Online, Link: LinkUp})
	}
	ts := serve(t, f, func(cfg *Config) { cfg.WriteTimeout = 300 * time.Millisecond })
	deaf, other := ts.dial(t), ts.dial(t)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			if _, err := deaf.nc.Write([]byte(strings.Repeat("servers\n", 1000))); err != nil {
				return
			}
		}
	}()
	for {
		other.want("ping", "200 ok")
		select {
		case <-gone:
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapAlloc > 64<<20 {
				t.Errorf("heap has %d MiB", m.HeapAlloc>>20)
			}
			return
		default:
		}
	}
}

func TestSlowReaderIsNotDropped(t *testing.T) {
	f := newFake()
	for i := range 5000 {
		f.servers = append(f.servers, Server{ID: uint64(10 + i), Name: "filler.example.com", State: Online, Link: LinkUp})
	}
	// It takes longer than that, and a slow machine pauses for less.
	ts := serve(t, f, func(cfg *Config) { cfg.WriteTimeout = 4 * time.Second })
	s := ts.dial(t)
	s.r = nil
	s.send("servers\nquit\n")
	buf := make([]byte, 1<<14)
	total, end := 0, ""
	for tick := time.NewTicker(250 * time.Millisecond); ; <-tick.C {
		s.nc.SetReadDeadline(time.Now().Add(mostWait))
		n, err := s.nc.Read(buf)
		total += n
		end += string(buf[:n])
		end = end[max(0, len(end)-8):]
		if end == "221 bye\n" {
			tick.Stop()
			return
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
}

package monitor

import (
	"context"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// PROTOCOL 12.2 and 12.9.
func TestOperation(t *testing.T) {
	ts := serve(t, newFake(), nil)
	s := ts.dial(t)
	s.want("forgetserver 1", `552 in-use server=1 by=link msg="server 1 is connected"`)
	s.want("forgetserver 3", "200 ok server=3 name=sat3")
	s.want("forgetserver 3", `550 not-found kind=server id=3 msg="no server has this ID"`)
	s.want("setting VERDECMD_LOGOFF_WAIT 5", "200 ok setting=VERDECMD_LOGOFF_WAIT value=5 restart=no")
	s.want("setting VERDECMD_LOGOFF_WAIT 5", "204 unchanged setting=VERDECMD_LOGOFF_WAIT value=5 restart=no")
	s.want(`setting VERDECMD_LOGOFF_WAIT ""`, `200 ok setting=VERDECMD_LOGOFF_WAIT value="" restart=no`)
	s.want("setting NOTHING", `550 not-found kind=setting id=NOTHING msg="no such setting"`)
	s.want("backup /x/y", "200 ok path=/x/y job=19")
	s.want("backup /x/z nowait", "202 accepted path=/x/z job=20")
	s.want("loglevel", "212 ok loglevel=info")
	s.want("loglevel debug", "212 ok loglevel=debug")
	a := s.want("settings", "210 ok count=2")
	if a.rows[0] != "#name\tvalue\tdefault\tsource\trestart\tpending" || a.rows[2] != "VERDECMD_SECRET\t***\t-\tdefault\tno\tno" {
		t.Errorf("settings: got %q", a.rows)
	}
}

// A value is for administrators; showing is for everybody. Secrets are in no log.
func TestSettingLevelsAndSecrets(t *testing.T) {
	ts := serve(t, newFake(), nil)
	s := ts.dial(t)
	s.want("setting VERDECMD_SECRET tell-nobody", "200 ok setting=VERDECMD_SECRET value=\"***\" restart=no")
	s.ask("level viewer")
	s.want("setting VERDECMD_LOGOFF_WAIT 5", "530 denied needs=admin level=viewer")
	if a := s.ask("setting VERDECMD_LOGOFF_WAIT"); a.code != "211" {
		t.Errorf("a viewer gets %s %s", a.code, a.end)
	}
	half := ts.dial(t)
	half.send("setting VERDECMD_LOGOFF_WAIT 7")
	half.nc.(*net.UnixConn).CloseWrite()
	if a := half.reply(); a.code != "503" {
		t.Errorf("a line that was cut off: got %s %s", a.code, a.end)
	}
	ts.stop()
	if log := ts.log.String(); strings.Contains(log, "tell-nobody") || strings.Count(log, `"line":"setting ***"`) != 1 || !strings.Contains(log, `"code":530`) {
		t.Errorf("the log is\n%s", log)
	}
}

// withSecret is a table with a command that asks for a secret, as
// managerpassword will.
func withSecret(b Backend) *Table {
	t := NewTable(b)
	cmd := &Entry{Name: "passwordfortest", Group: general, Level: Admin, Summary: "test", Run: func(_ context.Context, c *Call) (Reply, error) {
		secret, err := c.Secret("Type it.")
		if err != nil {
			return Reply{}, err
		}
		if secret == "" {
			return Reply{Code: 204}, nil
		}
		return Reply{Code: 200, Pairs: []Pair{{"length", len(secret)}}}, nil
	}}
	t.commands = append(t.commands, cmd)
	t.byName[cmd.Name] = cmd
	return t
}

// PROTOCOL 12.7: the line after 331 is taken as it is, and is in no log.
func TestSecret(t *testing.T) {
	f := newFake()
	ts := serve(t, f, func(cfg *Config) { cfg.Table = withSecret(f) })
	s := ts.dial(t)
	s.send("passwordfortest\n  # \"odd \\secret\x01\n" + "passwordfortest\r\n\r\npasswordfortest\n" + strings.Repeat("x", maxLine+1) + "\nping\n")
	for _, want := range []string{"331 secret-needed", "200 ok length=17", "331 secret-needed", "204 unchanged", "331 secret-needed",
		`504 line-too-long msg="the secret is longer than 8191 bytes"`, "200 ok"} {
		code, _, data := s.line()
		if got := code + " " + data; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, half := range []string{"passwordfortest\n", "passwordfortest\nhalf a secr"} {
		s := ts.dial(t)
		s.send(half)
		s.nc.(*net.UnixConn).CloseWrite()
		if code, _, _ := s.line(); code != "331" {
			t.Errorf("got %s, want 331", code)
		}
		if a := s.reply(); a.code != "444" {
			t.Errorf("end of the stream: got %s %s, want 444", a.code, a.end)
		}
		s.wantEOF()
	}
	ts.stop()
	if log := ts.log.String(); strings.Contains(log, "odd") || strings.Contains(log, "half") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

// A change of the Tuning counts at once, and a wrong one makes viewers.
func TestTuner(t *testing.T) {
	tuner := &Tuner{}
	ts := serve(t, newFake(), func(cfg *Config) {
		cfg.Tuner, cfg.Typing = tuner, time.Hour // nobody types
		cfg.Peer = func(net.Conn) (Caller, error) { return Caller{UID: 4242}, nil }
	})
	before := ts.dial(t)
	before.want("level", "212 ok level=admin uid=4242 pid=0")
	tuner.Set(Tuning{Levels: Levels{Operators: "4242", Default: "viewer"}, MaxConns: 16})
	before.want("level", "212 ok level=admin uid=4242 pid=0") // what was given stays
	ts.dial(t).want("level", "212 ok level=operator uid=4242 pid=0")
	tuner.Set(Tuning{Levels: Levels{Operators: "no-such-user"}})
	ts.dial(t).want("level", "212 ok level=viewer uid=4242 pid=0")
	if err := (Tuning{Levels: Levels{Operators: "no-such-user"}}).Check(LocalFiles{}); err == nil {
		t.Error("Check accepts a user that does not exist")
	}
	tuner.Set(Tuning{Levels: Levels{Default: "viewer"}, MaxConns: 16, Linger: 50 * time.Millisecond})
	one := ts.dial(t)
	one.want("ping", "200 ok")
	one.wantEOF() // by its linger
}

// PROTOCOL 12.9: metrics are what a strict reader of the text format takes.
func TestMetricsFormat(t *testing.T) {
	for _, format := range []string{"tsv", "json", "text"} {
		s := serve(t, newFake(), nil).dial(t)
		s.ask("format " + format)
		s.ask("servers")
		s.ask("abortuser alice")
		s.ask("nonsense")
		a := s.ask("metrics")
		if a.code != "216" {
			t.Fatalf("got %s %s", a.code, a.end)
		}
		got, err := parseMetrics(a.rows)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		for name, want := range map[string]float64{
			`verdecmd_servers`: 3,
			`verdecmd_commands_total{code="2xx",command="abortuser"}`:      1,
			`verdecmd_command_seconds_bucket{command="servers",le="+Inf"}`: 1,
			`verdecmd_command_seconds_count{command="servers"}`:            1,
			`verdecmd_bad_lines_total`:                                     1,
			`verdecmd_connections`:                                         1,
			`verdecmd_connections_total`:                                   1,
			`verdecmd_connections_refused_total`:                           0,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s: %s is %v, want %v", format, name, v, want)
			}
		}
	}
}

func TestMetricEscapes(t *testing.T) {
	m := Metric{"a_b", "one\ntwo \\", "gauge", []Sample{{Labels: []string{"x", "\"\\\n", "y", ""}, Value: 1e21}}}
	got, err := parseMetrics(m.lines(nil))
	if want := "a_b{x=\"\\\"\\\\\\n\",y=\"\"}"; err != nil || got[want] != 1e21 {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
}

var (
	helpLineForm = regexp.MustCompile(`^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)*)$`)
	typeLineForm = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)$`)
	sampleForm   = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)*)\})? (\S+)$`)
	labelForm    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"`)
)

// parseMetrics reads the text format of Prometheus, stricter than Prometheus:
// every family once, with HELP and TYPE, counters named so, histograms whole.
func parseMetrics(lines []string) (map[string]float64, error) {
	out := map[string]float64{}
	seen := map[string]bool{}
	family, kind, help := "", "", ""
	last := map[string]float64{} // of histograms: the bucket before
	for _, line := range lines {
		if m := helpLineForm.FindStringSubmatch(line); m != nil {
			if seen[m[1]] {
				return nil, fmt.Errorf("%s comes twice", m[1])
			}
			seen[m[1]], help = true, m[1]
			continue
		}
		if m := typeLineForm.FindStringSubmatch(line); m != nil {
			if m[1] != help {
				return nil, fmt.Errorf("TYPE of %s after HELP of %s", m[1], help)
			}
			family, kind = m[1], m[2]
			if kind == "counter" && !strings.HasSuffix(family, "_total") {
				return nil, fmt.Errorf("counter %s is not named so", family)
			}
			continue
		}
		m := sampleForm.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("not a sample: %q", line)
		}
		base := m[1]
		if kind == "histogram" {
			base = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(base, "")
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if base != family || err != nil {
			return nil, fmt.Errorf("%q in the family %s: %v", line, family, err)
		}
		labels := map[string]string{}
		var names []string
		for _, l := range labelForm.FindAllStringSubmatch(m[2], -1) {
			if _, twice := labels[l[1]]; twice {
				return nil, fmt.Errorf("%s twice in %q", l[1], line)
			}
			if l[1] == "user" {
				return nil, fmt.Errorf("%q tells of a user", line)
			}
			labels[l[1]] = l[2]
			names = append(names, l[1])
		}
		if strings.HasSuffix(m[1], "_bucket") {
			key := base + labels["command"]
			if v < last[key] {
				return nil, fmt.Errorf("%q: a bucket holds those before it", line)
			}
			last[key] = v
		}
		id := m[1]
		if len(names) > 0 {
			parts := []string{}
			for _, n := range sortedNames(names) {
				parts = append(parts, n+`="`+labels[n]+`"`)
			}
			id += "{" + strings.Join(parts, ",") + "}"
		}
		if _, twice := out[id]; twice {
			return nil, fmt.Errorf("%s comes twice", id)
		}
		out[id] = v
	}
	return out, nil
}

func sortedNames(names []string) []string {
	for i := range names {
		for j := i; j > 0 && names[j] < names[j-1]; j-- {
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	return names
}

// PROTOCOL 14.2: exit 7 where the connection ends without a word after the
// command was sent; 3 where nothing had been sent.
func TestOneShotLosesTheConnection(t *testing.T) {
	for _, test := range []struct {
		name  string
		lines int // answered before the end
		want  int
	}{
		{"before the first reply", 0, 3},
		{"after the greeting", 1, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := t.TempDir() + "/s"
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				s := newStrict(t, nc)
				for range test.lines {
					s.r.ReadString('\n')
					nc.Write([]byte("220 ok proto=1\n"))
				}
				s.r.ReadString('\n') // the command, or hello
				nc.Close()
			}()
			_, stderr, status := runMonitor(t, path, "", "-f", "tsv", "offlineserver", "2")
			if status != test.want || stderr == "" {
				t.Errorf("got %d %q, want %d", status, stderr, test.want)
			}
		})
	}
}

// PROTOCOL 14.3: Tab offers what a setting can be.
func TestSettingValues(t *testing.T) {
	table := NewTable(newFake())
	tests := map[string]struct {
		line string
		want []string
	}{
		"choice":       {"setting WIN4_VERDE_LOST_SESSIONS ", []string{"hold", "lease"}},
		"begun":        {"setting win4_verde_lost_sessions l", []string{"lease"}},
		"yes or no":    {"setting WIN4_VERDE_STANDALONE_LOGIN ", []string{"no", "yes"}},
		"number":       {"setting WIN4_VERDE_STATS_INTERVAL ", []string{"3"}},
		"no such":      {"setting WIN4_NONSENSE ", nil},
		"one too many": {"setting WIN4_VERDE_LOST_SESSIONS hold ", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range table.candidates(test.line, Admin) {
				got = append(got, c.Word)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%q: got %q, want %q", test.line, got, test.want)
			}
		})
	}
}

// PROTOCOL 14.4: without an answer within 300 ms, Tab completes the names of
// commands alone.
func TestTabWithoutAnswer(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := sit(t, ts.path, []string{"VERDECMON_HISTORY="})
	s.until(ready)
	f.mu.Lock()
	f.slow = make(chan struct{})
	f.mu.Unlock()
	s.typeKeys("user a\t")     // asks for accounts, and the master hangs
	s.typeKeys("\x15offl\t 2") // Ctrl-U; the master still hangs
	s.until("offlineserver ")
	close(f.slow)
	s.typeKeys("\r")
	s.until("is offline.")
	s.until(ready)

	// After watch and its time, and in every format of the person's.
	for _, format := range []string{"text", "tsv", "json"} {
		s.typeKeys("format " + format + "\r")
		s.until("format")
		s.until(ready)
		s.typeKeys("watch 2 serv")
		s.tab("watch 2 server")
		s.tab("list the servers") // both, with what they do
		s.typeKeys("\x15")
	}
}

// PROTOCOL 17, 11: events that come while Tab asks are in the person's
// format, and none is lost or told twice over a break of the connection.
func TestEventsWhileTabAsks(t *testing.T) {
	f := newFake()
	path := t.TempDir() + "/s"
	ts := serveAt(t, f, path, nil)
	s := sit(t, path, []string{"VERDECMON_HISTORY="})
	s.until(ready)
	s.typeKeys("events on types=session.*\r")
	s.until("Events are on: session.*.")
	s.until(ready)
	stop := make(chan struct{})
	told := make(chan int)
	go func() {
		for i := 1; ; i++ {
			f.emit("session.started", fmt.Sprintf("event-%d.", i))
			select {
			case <-stop:
				told <- i
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	for range 20 {
		s.typeKeys("users s\t\x15")
	}
	s.until("event-30.")
	ts.stop()
	s.until("trying again")
	ts = serveAt(t, f, path, nil)
	s.until("is back")
	close(stop)
	n := <-told
	f.emit("session.started", "the end.")
	s.until("the end.")
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	for i := 1; i <= n; i++ {
		if got := strings.Count(all, fmt.Sprintf(" event-%d.", i)); got != 1 {
			t.Errorf("event %d is shown %d times", i, got)
		}
	}
	if strings.Contains(all, "type=session") || strings.Contains(all, "event seq") {
		t.Errorf("an event came in another format:\n%s", all)
	}
	ts.stop()
}

// A secret typed at the terminal is asked twice, is not shown and is in no
// history (PROTOCOL 17, 13).
func TestConsoleSecret(t *testing.T) {
	f := newFake()
	ts := serve(t, f, func(cfg *Config) { cfg.Table = withSecret(f) })
	history := t.TempDir() + "/history"
	s := sit(t, ts.path, []string{"VERDECMON_HISTORY=" + history})
	s.until(ready)
	s.typeKeys("passwordfortest\r")
	s.until("Secret: ")
	s.typeKeys("xyzzy12\r")
	s.until("Again: ")
	s.typeKeys("xyzzy12\r")
	s.until("length=7")
	s.until(ready)
	s.typeKeys("passwordfortest\r")
	s.until("Secret: ")
	s.typeKeys("xyzzy12\r")
	s.until("Again: ")
	s.typeKeys("other\r")
	s.until("Not the same; nothing is changed.")
	s.until(ready)
	s.typeKeys("quit\r")
	s.exit()
	raw, err := os.ReadFile(history)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || strings.Contains(string(raw), "xyzzy") || strings.Contains(s.all, "xyzzy") {
		t.Errorf("the secret is in the history (%v) or on the screen:\n%s\n%s", err, raw, s.all)
	}
}

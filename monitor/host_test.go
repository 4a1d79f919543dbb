package monitor

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// PROTOCOL 12.7, F-09: the password is asked for by 331 and taken as it is; an
// empty line changes nothing; it is in no log, whatever becomes of it.
func TestManagerPassword(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	s.send("managerpassword\n # \"q9 quoted\" \nmanagerpassword\n\nmanagerpassword\nq9 tiny\nping\n")
	for _, want := range []string{"331 secret-needed", "200 ok", "331 secret-needed", "204 unchanged", "331 secret-needed",
		`553 bad-value key=password msg="the password has 7 characters, at least 8 are needed"`, "200 ok"} {
		code, _, data := s.line()
		if got := code + " " + data; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if f.managerPassword() != ` # "q9 quoted" ` {
		t.Errorf("the password is %q", f.managerPassword())
	}
	s.want("managerpassword q9now", `501 bad-arguments usage=managerpassword msg="\"q9now\" is too much"`)
	ts.stop()
	if log := ts.log.String(); strings.Contains(log, "q9") || !strings.Contains(log, "managerpassword") {
		t.Errorf("the log is\n%s", log)
	}
}

// PROTOCOL 12.7: tokens are made, listed without their secret, and deleted.
func TestTokens(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	s.want("tokens", "210 ok count=0")
	s.want("createtoken", "201 created id=1 token=vd1-fake-1-secret expires=2026-11-21T09:15:02Z")
	s.want("createtoken ttl=30m server=sat9 address=192.0.2.9", "201 created id=2 token=vd1-fake-2-secret expires=2026-11-21T08:45:02Z server=sat9 address=192.0.2.9")
	s.want("createtoken server=sat3", `551 exists kind=server id=3 msg="server 3 has the name already"`)
	f.mu.Lock()
	f.tokens[0].Uses, f.tokens[0].Used, f.tokens[0].UsedBy, f.tokens[0].From = 1, fakeStart.Add(time.Minute), "sat7", "192.0.2.7"
	f.mu.Unlock()
	a := s.ask("tokens")
	want := []string{"#id\tmade\tby\texpires\tuses\tserver\taddress\treplaces\tused\tusedby\tfrom",
		"1\t2026-11-21T08:15:02Z\troot\t2026-11-21T09:15:02Z\t1\t-\t-\t-\t2026-11-21T08:16:02Z\tsat7\t192.0.2.7",
		"2\t2026-11-21T08:15:02Z\troot\t2026-11-21T08:45:02Z\t0\tsat9\t192.0.2.9\t-\t-\t-\t-"}
	if strings.Join(a.rows, "\n") != strings.Join(want, "\n") {
		t.Errorf("tokens:\n%s\nwant\n%s", strings.Join(a.rows, "\n"), strings.Join(want, "\n"))
	}
	s.want("deletetoken 1", "200 ok id=1")
	s.want("deletetoken 1", `550 not-found kind=token id=1 msg="no token has the ID 1"`)
	s.want("verbose on", "212 Verbose is on.")
	if a := s.ask("createtoken server=sat8"); a.code != "201" || !strings.Contains(a.end, "lets in sat8 once") || !strings.HasSuffix(a.end, "vd1-fake-2-secret") {
		t.Errorf("createtoken: %s %s", a.code, a.end)
	}
	ts.stop()
	if log := ts.log.String(); strings.Contains(log, "vd1-") {
		t.Errorf("a token is in the log:\n%s", log)
	}
}

// PROTOCOL 12.7, F-12: a live server is replaced by force alone.
func TestReplaceServer(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.want("replaceserver 3", "201 created id=1 token=vd1-fake-1-secret expires=2026-11-21T09:15:02Z server=sat3 address=192.0.2.13 replaces=3")
	s.want("replaceserver 1", `554 precondition server=1 msg="server 1 is connected"`)
	s.want("replaceserver 1 force ttl=60", "201 created id=2 token=vd1-fake-2-secret expires=2026-11-21T08:16:02Z server=sat1.example.com address=192.0.2.11 replaces=1 sessions=2")
	s.want("replaceserver 9", `550 not-found kind=server id=9 msg="no server has this ID"`)
	a := s.want("revocations", "210 ok count=2")
	if len(a.rows) != 3 || !strings.HasPrefix(a.rows[1], "11111111-2222-3333-4444-555555555555\t-\t3\tsat3\tsuperseded\t2026-11-21T08:15:02Z\t") {
		t.Errorf("revocations: %q", a.rows)
	}
	f.mu.Lock()
	f.blind = fakeStart
	f.mu.Unlock()
	s.want("revocations", "210 ok count=2 unknownsince=2026-11-21T08:15:02Z")
	s.want("verbose on", "212 Verbose is on.")
	if a := s.ask("revocations"); !strings.Contains(a.end, "who was shut out after that is not known") {
		t.Errorf("revocations: %s", a.end)
	}
	if a := s.ask("server 1"); !strings.Contains(strings.Join(a.rows, "\n"), "0b5c6f0e-3a54-4d0a-9a7e-0f6b1f4f9a11, certificate until 2026-12-21") {
		t.Errorf("server 1: %q", a.rows)
	}
}

// PROTOCOL 8: who may look sees tokens and revocations; only an administrator
// makes or deletes them.
func TestHostLevels(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	s.ask("level operator")
	for line, code := range map[string]string{"tokens": "210", "revocations": "210", "createtoken": "530", "deletetoken 1": "530", "replaceserver 3": "530", "managerpassword": "530"} {
		if a := s.ask(line); a.code != code {
			t.Errorf("%s: got %s %s, want %s", line, a.code, a.end, code)
		}
	}
	if len(f.tokens) > 0 || len(f.revoked) > 0 {
		t.Error("something was changed")
	}
}

// A stream that ends where the password should be changes nothing.
func TestManagerPasswordCutOff(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.send("managerpassword\nhalf a passw")
	s.nc.(*net.UnixConn).CloseWrite()
	if code, _, _ := s.line(); code != "331" {
		t.Errorf("got %s, want 331", code)
	}
	if a := s.reply(); a.code != "444" || f.managerPassword() != "" {
		t.Errorf("got %s %s, the password is %q", a.code, a.end, f.managerPassword())
	}
}

// PROTOCOL 14.4, 17.13: at the terminal the password is asked for twice, without
// echo, and is in no history.
func TestConsoleManagerPassword(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	history := t.TempDir() + "/history"
	s := sit(t, ts.path, []string{"VERDECMON_HISTORY=" + history})
	s.until(ready)
	s.typeKeys("managerpassword\r")
	s.until("8 to 128 characters")
	s.until("Secret: ")
	s.typeKeys("xyzzy-12\r")
	s.until("Again: ")
	s.typeKeys("xyzzy-12\r")
	s.until("The manager's password is set.")
	s.until(ready)
	s.typeKeys("managerpassword xyzzy-13\r") // it is too much, and shown by who types it
	s.until("is too much")
	s.until(ready)
	s.typeKeys("quit\r")
	s.exit()
	raw, err := os.ReadFile(history)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || strings.Contains(string(raw), "xyzzy") || strings.Contains(s.all, "xyzzy-12") || f.managerPassword() != "xyzzy-12" {
		t.Errorf("the password is %q, the history %q (%v), the screen:\n%s", f.managerPassword(), raw, err, s.all)
	}
}

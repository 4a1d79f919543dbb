package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// eventLine reads one event.
func (s *strict) eventLine() string {
	s.t.Helper()
	code, _, data := s.line()
	if code[0] != '6' {
		s.t.Fatalf("got %s %s, want an event", code, data)
	}
	return code + " " + data
}

func TestEventsInAllFormats(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.want("events", "212 ok events=off")
	s.want("events on types=session.*,server.up", `212 ok events=on types="session.*,server.up" seq=4712`)
	tests := map[string]string{
		"tsv":  `650 event seq=%d time=2026-11-21T08:15:02Z type=session.started user=alice uid=1001`,
		"json": `650 {"status":"event","seq":%d,"time":"2026-11-21T08:15:02Z","type":"session.started","user":"alice","uid":1001}`,
		"text": `650 08:15:02 alice logged in.`,
	}
	for _, format := range formatNames {
		s.ask("format " + format)
		f.emit("alarm.raised", "not asked for")
		f.emit("session.started", "alice logged in.", Pair{"user", "alice"}, Pair{"uid", 1001})
		want := tests[format]
		if strings.Contains(want, "%d") {
			want = fmt.Sprintf(want, f.Seq())
		}
		if got := s.eventLine(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", format, got, want)
		}
	}
	s.ask("verbose off")
	s.want("events off", "212 ok events=off")
	f.emit("session.started", "unseen")
	s.want("ping", "200 ok")
	for _, line := range []string{"events on types=Server", "events on types=a,", "events on since=99999999", "events on since=x"} {
		if a := s.ask(line); a.code != "553" {
			t.Errorf("%s: got %s", line, a.code)
		}
	}
}

// PROTOCOL 17, 11: since after a break: no loss, no double.
func TestEventsSince(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	first := ts.dial(t)
	first.ask("events on")
	last := ""
	for range 10 {
		f.emit("session.started", "x")
		last = field(first.eventLine(), "seq")
	}
	first.nc.Close()
	for range 5 {
		f.emit("session.ended", "x")
	}
	second := ts.dial(t)
	second.ask("events on since=" + last)
	for i := range 5 {
		var seq int
		fmt.Sscan(last, &seq)
		if got := field(second.eventLine(), "seq"); got != fmt.Sprint(seq+i+1) {
			t.Errorf("event %d: seq %s", i, got)
		}
	}
	f.mu.Lock()
	f.keep = 100
	f.mu.Unlock()
	for range 200 {
		f.emit("session.ended", "x")
	}
	third := ts.dial(t)
	third.ask("events on since=" + last)
	if got := third.eventLine(); !strings.HasPrefix(got, "651 lost from=") {
		t.Errorf("too old: got %s", got)
	}
	for range 100 {
		third.eventLine()
	}
}

// A slow reader gets 651 in place of what was dropped, and stays.
func TestSlowReaderLosesEvents(t *testing.T) {
	f := newFake()
	f.keep = 200000
	s := serve(t, f, func(cfg *Config) { cfg.WriteTimeout = time.Minute }).dial(t)
	s.ask("events on")
	f.emit("session.started", "x")
	s.eventLine() // what comes from now on may be dropped
	const n = 40000
	for range n {
		f.emit("session.started", "x", Pair{"user", "somebody-with-a-name"})
	}
	next, lost := uint64(4714), 0
	for next <= 4713+n {
		line := s.eventLine()
		var from, to, seq uint64
		if strings.HasPrefix(line, "651") {
			fmt.Sscanf(field(line, "from")+" "+field(line, "to"), "%d %d", &from, &to)
			if from != next {
				t.Fatalf("%s after %d", line, next-1)
			}
			next = to + 1
			lost++
			continue
		}
		fmt.Sscan(field(line, "seq"), &seq)
		if seq != next {
			t.Fatalf("%s after %d", line, next-1)
		}
		next++
	}
	if lost == 0 {
		t.Error("nothing was dropped: the test is too small")
	}
	s.want("ping", "200 ok")
}

// Events never stand inside a reply.
func TestEventsBetweenReplies(t *testing.T) {
	f := newFake()
	ts := serve(t, f, nil)
	s := ts.dial(t)
	s.ask("events on")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 3000 {
			f.emit("session.started", "x")
		}
	}()
	for range 300 {
		s.ask("servers")
	}
	<-done
	s.ask("events off")
}

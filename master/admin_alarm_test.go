package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"verdecmd/master/link"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// until waits for something that a running master is about to do.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// alarmed are the alarms that are shown, in short.
func (s *seated) alarmed(all bool) string {
	var out []string
	list, waiting, _ := s.Alarms(all)
	for _, a := range list {
		text := a.Severity + " " + a.Kind + " " + a.Object
		if !a.Active() {
			text += " cleared"
		}
		out = append(out, text)
	}
	if waiting > 0 {
		out = append(out, fmt.Sprintf("%d waiting", waiting))
	}
	return strings.Join(out, ", ")
}

// since returns the types of events about alarms after seq.
func (s *seated) since(seq uint64) (out []string) {
	events, _, _ := s.Since(seq)
	for _, e := range events {
		if strings.HasPrefix(e.Type, "alarm.") {
			out = append(out, fmt.Sprintf("%s %v", strings.TrimPrefix(e.Type, "alarm."), e.Pairs[2].Value))
		}
	}
	return out
}

// told waits until something about alarms has been told after seq, which must be
// this alone.
func (s *seated) told(t *testing.T, seq uint64, want string) {
	t.Helper()
	until(t, "what is told", func() bool { return len(s.since(seq)) > 0 })
	if got := s.since(seq); !slices.Equal(got, []string{want}) {
		t.Errorf("told %q", got)
	}
}

// start runs a master until stop is called: what it has in memory is gone then.
func (s *seated) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Master.Run(ctx) }()
	over := false
	stop = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	until(t, "the master", func() bool {
		cl, err := monitor.Dial(s.socket)
		if err != nil {
			return false
		}
		cl.Close()
		return true
	})
	return stop
}

// S11, V-38: what a satellite reports becomes an alarm, which a restart keeps, and
// the report to the next master ends it.
func TestAlarmsOverARestart(t *testing.T) {
	t.Parallel()
	db := store.NewMem()
	s := seat(t, db, 1, 0)
	stop := s.start(t)
	seq := s.Seq()
	report := func(s *seated, name string, free uint64) {
		t.Helper()
		server, attachment := s.attach(t, name, 0)
		l := load()
		l.SnapFree = free
		if err := s.Master.hub.Report(t.Context(), server, attachment, link.Report{Load: l}); err != nil {
			t.Fatal(err)
		}
	}
	report(s, "one", 0)
	until(t, "the alarm", func() bool { return s.alarmed(false) == "warning server-space 1" })
	s.told(t, seq, "raised server-space") // right after it is shown
	if o := s.Overview(); o.Alarms != 1 || o.Critical != 0 {
		t.Errorf("overview: %d alarms, %d critical", o.Alarms, o.Critical)
	}
	found := false
	for _, m := range s.Metrics() {
		for _, x := range m.Samples {
			found = found || m.Name == "verdecmd_alarms" && x.Labels[1] == monitor.Warning && x.Value == 1
		}
	}
	if !found {
		t.Error("the alarm is not in the metrics")
	}
	ctx := monitor.WithCaller(t.Context(), monitor.Caller{Name: "alice"})
	if n, err := s.AckAlarm(ctx, 0, "x"); n != 1 || err != nil {
		t.Errorf("ackalarm: %d, %v", n, err)
	}
	stop()

	s = seat(t, db, db.Restart(), 0)
	if a, ok := s.Alarm(1); !ok || a.AckedBy != "alice" || a.Note != "x" || !a.Active() {
		t.Errorf("after the restart: %+v", a)
	}
	stop = s.start(t)
	seq = s.Seq()
	report(s, "one", 1<<40)
	until(t, "its end", func() bool { return s.alarmed(false) == "" })
	s.told(t, seq, "cleared server-space")
	if ok, err := s.ClearAlarm(ctx, 1); ok || err != nil {
		t.Errorf("clearalarm of what is over: %v, %v", ok, err)
	}
	stop()
}

// S11, S20: the disk of the master is full: nothing is shown that it does not have,
// administrators are answered, and when there is space all of it comes.
func TestAlarmOfTheOwnDisk(t *testing.T) {
	t.Parallel()
	db := store.NewMem()
	s := seat(t, db, 1, 0)
	stop := s.start(t)
	server, _ := s.attach(t, "one", 0)
	c := s.dial(t)
	db.Fail(store.ErrNoSpace)
	for _, line := range []string{fmt.Sprintf("offlineserver %d", server), "loglevel error"} {
		if code, _, err := c.ask(line); err != nil || code != 452 && code != 212 {
			t.Errorf("%s: %d, %v", line, code, err)
		}
	}
	until(t, "what waits", func() bool { return strings.HasSuffix(s.alarmed(true), " waiting") })
	if got := s.alarmed(true); strings.Contains(got, "master-space") {
		t.Errorf("shown and not stored: %s", got)
	}
	db.Fail(nil)
	until(t, "the alarms", func() bool {
		return s.alarmed(true) == "critical master-space master cleared, critical master-audit master cleared" || s.alarmed(true) == "critical master-audit master cleared, critical master-space master cleared"
	})
	until(t, "the audit", func() bool {
		all, err := s.Audit(t.Context(), monitor.AuditFilter{})
		return err == nil && len(all) == 2 && all[0].Code == 452 && all[1].Line == "loglevel error"
	})
	stop()
}

// V-84: what administrators have done is on the disk before they are answered: a
// master that is killed right after has it.
func TestAuditOverAKill(t *testing.T) {
	t.Parallel()
	db := store.NewMem()
	s := seat(t, db, 1, 0)
	s.start(t)
	server, _ := s.attach(t, "one", 0)
	c := s.dial(t)
	var want []string
	for i := range 6 {
		line := fmt.Sprintf("%sserver %d", []string{"offline", "online"}[i%2], server)
		if code, _, err := c.ask(line); err != nil || code != 200 {
			t.Fatalf("%s: %d, %v", line, code, err)
		}
		want = append(want, line)
		// Another master on the same records sees what this one has stored.
		next := seat(t, db, 1, 0)
		all, err := next.Audit(t.Context(), monitor.AuditFilter{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range all {
			got = append(got, a.Line)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("after the answer to %q the disk has %q", line, got)
		}
	}
}

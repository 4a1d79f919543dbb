package monitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Drain empties a server after the time that guests take to shut down; negative:
// never.
func (f *fakeMaster) Drain(ctx context.Context, id uint64, method string, limit time.Duration) (Job, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.servers[slices.IndexFunc(f.servers, func(s Server) bool { return s.ID == id })]
	left := func() (names []string) {
		for _, x := range f.sessions {
			if x.Server == id {
				names = append(names, x.User+" ("+x.State+")")
			}
		}
		return names
	}
	total := len(left())
	for _, j := range f.jobs {
		if j.Action == "drainserver" && j.Object == fmt.Sprint(id) && !j.Finished() {
			if j.Limit != limit {
				return Job{}, false, Errorf(440, []Pair{{"job", j.ID}}, "job %d empties server %d already", j.ID, id)
			}
			return *j, true, nil
		}
	}
	if s.State == Offline && total == 0 {
		return Job{}, false, nil
	}
	f.nextJob++
	j := &Job{ID: f.nextJob, Action: "drainserver", Object: fmt.Sprint(id), State: "running", Started: fakeStart, Limit: limit, By: "root", Percent: 40,
		Message: fmt.Sprintf("%d of %d sessions left: %s", total, total+2, strings.Join(left(), ", "))}
	f.jobs[j.ID], f.done[j.ID] = j, make(chan struct{})
	s.State, s.Job, s.Waits = Draining, j.ID, j.Message
	f.emitLocked("server.draining", s.Name+" is draining", Pair{"server", id})
	took := f.boot
	if took < 0 {
		if took = limit; limit == 0 {
			return *j, false, nil
		}
	}
	f.after(took, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if j.Finished() {
			return
		}
		s.State, s.Job = Offline, 0
		if f.boot < 0 {
			j.Code, j.State, j.Text = 443, "failed", "server is offline, but not empty"
			j.Pairs = []Pair{{"server", id}, {"moved", 0}, {"ended", 0}, {"left", total}, {"state", Offline}, {"msg", strings.Join(left(), ", ")}}
		} else {
			f.sessions = slices.DeleteFunc(f.sessions, func(x Session) bool { return x.Server == id })
			j.Code, j.State, j.Text = 200, "done", "server is empty and offline"
			j.Pairs = []Pair{{"server", id}, {"moved", 0}, {"ended", total}, {"left", 0}}
		}
		close(f.done[j.ID])
	})
	return *j, false, nil
}

// PROTOCOL 12.2: drainserver, its replies and its refusals.
func TestDrainServer(t *testing.T) {
	f := newFake()
	s := serve(t, f, func(cfg *Config) { cfg.Progress = 20 * time.Millisecond }).dial(t)
	for _, method := range []string{"migrate", "live"} {
		s.want("drainserver 1 method="+method, `502 not-available command=drainserver method=`+method+
			` msg="sessions cannot be moved to other servers yet; method=logoff ends them, method=wait waits for their users"`)
	}
	if a := s.ask("drainserver 1 method=gently"); a.code != "501" || !strings.Contains(a.end, "usage=") {
		t.Errorf("an unknown method: %s %s", a.code, a.end)
	}
	s.want("drainserver 9", `550 not-found kind=server id=9 msg="no server has this ID"`)
	if a := s.ask("server 1"); !strings.Contains(strings.Join(a.rows, "\n"), "state\tonline") {
		t.Errorf("a refused command has done something: %q", a.rows)
	}
	s.want("drainserver 1 method=logoff", "200 ok server=1 moved=0 ended=2 left=0 job=19")
	s.want("drainserver 1", "204 unchanged server=1 state=offline left=0")
	if a := s.ask("users server=1"); len(a.rows) != 1 {
		t.Errorf("left on the server: %q", a.rows)
	}

	// One that lasts: the same again joins, another one is refused, the server's
	// detail shows it, and it can be cancelled (F-29).
	f.mu.Lock()
	f.boot = -1
	f.mu.Unlock()
	s.want("drainserver 2 nowait", "202 accepted server=2 job=20")
	s.want("drainserver 2 nowait", "202 accepted server=2 job=20 joined=yes")
	s.want("drainserver 2 nowait timeout=5", `440 busy job=20 msg="job 20 empties server 2 already"`)
	s.want("servers state=draining", "210 ok count=1 seq=4714")
	a := s.ask("server 2")
	for _, want := range []string{"state\tdraining", "job\t20", "waits\t1 of 3 sessions left: carol (running)"} {
		if !slices.Contains(a.rows, want) {
			t.Errorf("server 2: no %q in %q", want, a.rows)
		}
	}
	s.want("canceljob 20", "200 ok job=20 state=cancelled")

	s.want("drainserver 2 timeout=0.1", `443 timed-out server=2 moved=0 ended=0 left=1 state=offline job=21 msg="carol (running)"`)
	s.ask("offlineserver 3")
	s.want("drainserver 2 nowait", "202 accepted server=2 job=22 last=yes")
}

// What people read while a server is emptied.
func TestDrainServerForPeople(t *testing.T) {
	f := newFake()
	f.boot, f.hold = -1, make(chan struct{})
	s := serve(t, f, func(cfg *Config) { cfg.Progress = 50 * time.Millisecond }).dial(t)
	s.ask("verbose on")
	s.send("drainserver 1 timeout=1\n")
	line := func() string {
		t.Helper()
		s.nc.SetReadDeadline(time.Now().Add(mostWait))
		text, err := s.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(text, "\n")
	}
	if got, want := line(), "150 Emptying server 1 (sat1.example.com) of 2 sessions (job 19): waiting until the users have left, for 1 s at most."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := line(), "110 2 of 4 sessions left: alice (running), bob (running); 0 of 1 s."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	other := serve(t, f, nil).dial(t)
	other.ask("verbose on")
	prose := strings.Join(other.ask("server 1").rows, "\n")
	if want := `Emptied    by job 19: 2 of 4 sessions left: alice (running), bob (running); "canceljob 19" stops it`; !strings.Contains(prose, want) {
		t.Errorf("no %q in\n%s", want, prose)
	}
	if help := strings.Join(other.ask("job 19").rows, "\n"); !strings.Contains(help, `"canceljob 19" stops it and leaves the server offline, "onlineserver 1" lets logins in again`) {
		t.Errorf("job 19:\n%s", help)
	}
	close(f.hold)
	for got := ""; !strings.HasPrefix(got, "443 "); got = line() {
	}
}

// Completion of its words.
func TestDrainServerCompletes(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	for line, want := range map[string][]string{
		"complete drain":                     {"drainserver"},
		"complete drainserver ":              {"1", "2", "3"},
		"complete drainserver 1 method=":     {"method=wait", "method=logoff", "method=migrate", "method=live"},
		"complete drainserver 1 method=log":  {"method=logoff"},
		"complete drainserver 1 timeout=5 n": {"nowait"},
	} {
		a := s.ask(line)
		for _, w := range want {
			if !slices.ContainsFunc(a.rows, func(r string) bool { return r == w || strings.HasPrefix(r, w+"\t") }) {
				t.Errorf("%s: no %s in %q", line, w, a.rows)
			}
		}
	}
}

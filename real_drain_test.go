package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// F-29, S6, PROTOCOL 9 and 12.2: a server is emptied, by the real programs and
// seen through nc. From the answer on nobody new comes and places that are held
// are given up; who is there comes back to the desktop; what is left after the
// time is named; canceljob and onlineserver end it; a master that is killed goes
// on where it was, and a guest that does not answer is ended by force.
func TestRealDrain(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	patient := values{"WIN4_VERDE_HUNG_AFTER": "120"} // no desktop is to hang because the machine is busy
	r.satellite(1, patient, "")
	r.satellite(2, patient, "")
	r.admin("offlineserver", "2")
	for _, u := range []string{"alice", "bob", "carol"} {
		r.win4(0, 1, u)
	}
	if out := r.win4(3, 2, "erin"); !strings.Contains(out, "referred 1 sat1") {
		t.Errorf("erin before: %s", out)
	}
	r.admin("onlineserver", "2")
	for _, u := range []string{"alice", "bob", "carol"} {
		r.until(u+"'s desktop", func() bool { return r.value("state", "user", u) == "running" })
	}
	before := r.desktops()

	// Waiting in vain.
	waits := r.netcat("progress on\ndrainserver 1 timeout=30\n")
	r.until("the state", func() bool { return r.value("state", "server", "1") == "draining" })
	if out := r.admin("reservations"); strings.Contains(out, "erin") {
		t.Errorf("the place of erin is still held: %s", out)
	}
	if out := r.win4(3, 1, "erin"); !strings.Contains(out, "referred 2 sat2") {
		t.Errorf("a new login at the draining server: %s", out)
	}
	r.win4(0, 2, "erin")
	if out := r.win4(0, 1, "alice"); !strings.Contains(out, "was there already") {
		t.Errorf("alice comes back: %s", out)
	}
	if out := r.win4(3, 2, "alice"); !strings.Contains(out, "referred 1 sat1") {
		t.Errorf("alice comes back by another way: %s", out)
	}
	if got := r.value("waits", "server", "1"); got != "3 of 3 sessions left: alice (running), bob (running), carol (running)" {
		t.Errorf("server 1 waits for %q", got)
	}
	const names = "alice (running), bob (running), carol (running)"
	r.wantLines(<-waits, "150 started job=1 server=1 limit=30", `110 progress job=1 elapsed=N limit=30 msg="3 of 3 sessions left: `+names+`"`,
		`443 timed-out server=1 moved=0 ended=0 left=3 state=offline job=1 msg="server 1 (sat1) is offline, but not empty after N s: 3 of 3 sessions left: `+names+`"`)

	// An administrator thinks better of it.
	if out := r.admin("drainserver", "1", "nowait"); out != "" {
		t.Errorf("nowait: %s", out)
	}
	r.admin("drainserver", "1", "nowait")
	if out := r.run(6, "verdecmon", "-s", r.path("sock"), "drainserver", "1", "method=logoff"); !strings.Contains(out, "440 busy server=1 job=2 ") {
		t.Errorf("another method meanwhile: %s", out)
	}
	r.admin("canceljob", "2")
	r.until("the end of the job", func() bool { return r.value("code", "job", "2") == "444" })
	if got := r.value("state", "server", "1"); got != "offline" {
		t.Errorf("cancelled, server 1 is %s", got)
	}
	r.admin("onlineserver", "1")
	r.admin("drainserver", "1", "nowait")
	r.admin("onlineserver", "1")
	r.until("the end of the job", func() bool { return r.value("code", "job", "3") == "444" })
	if got := r.value("state", "server", "1"); got != "online" {
		t.Errorf("put online, server 1 is %s", got)
	}
	want := append(r.pids(before), r.pidOf("erin"))
	slices.Sort(want) // numbers begin anew
	if now := r.pids(r.desktops()); !slices.Equal(now, want) {
		t.Errorf("desktops were %v, are %v: with erin's, none may have ended", r.pids(before), now)
	}

	// Logging off; alice's guest hears nothing, and the master is killed meanwhile.
	check(t, syscall.Kill(r.pidOf("alice"), syscall.SIGSTOP))
	began := time.Now()
	cut := r.netcat("progress on\ndrainserver 1 method=logoff timeout=30\n")
	r.until("those who go", func() bool {
		out := r.admin("users", "server=1")
		return strings.Contains(out, "alice") && !strings.Contains(out, "bob") && !strings.Contains(out, "carol")
	})
	r.events("all states of server 1", eventsInOrder.MatchString, "types=server.*")
	m.kill()
	if out := <-cut; !strings.Contains(out, "\n150 started job=4 server=1 limit=30\n") || strings.Contains(out, "left=") {
		t.Errorf("whose master was killed got %q, want no end of the job", out)
	}
	m.start()
	r.until("the socket", r.ready)
	r.wantLines(<-r.netcat("waitjob 4\n"), "200 ok server=1 moved=0 ended=3 left=0 job=4")
	if d := time.Since(began); d < 30*time.Second || d > 75*time.Second {
		t.Errorf("it took %v, want the 30 s that alice's guest had, and little more", d)
	}
	if got := r.value("state", "server", "1"); got != "offline" {
		t.Errorf("at the end server 1 is %s", got)
	}
	if now := r.desktops(); len(now) != 1 || r.pidOf("erin") == 0 {
		t.Errorf("at the end the desktops are %v, want erin's alone", now)
	}
	r.wantLines(<-r.netcat("drainserver 1 method=logoff\n"), "204 unchanged server=1 state=offline left=0")
}

// eventsInOrder are those of the state of server 1, in TestRealDrain: two
// drainings, each with its end, then on again.
var eventsInOrder = regexp.MustCompile(`(?s)(type=server\.draining server=1 .*type=server\.offline server=1 .*){2}type=server\.online server=1 .*type=server\.draining server=1 .*type=server\.online server=1 .*type=server\.draining server=1 `)

// netcat sends lines by nc and returns all that comes back, when the master has
// closed.
func (r *real) netcat(lines string) <-chan string {
	out := make(chan string, 1)
	cmd := exec.Command("nc", "-N", "-U", r.path("sock"))
	cmd.Stdin = strings.NewReader(lines)
	go func() {
		b, err := cmd.CombinedOutput()
		if err != nil {
			b = append(b, err.Error()...)
		}
		out <- string(b)
	}()
	return out
}

// wantLines compares the replies to the last command of a netcat; N stands for
// the time that something took. What is told several times counts once.
func (r *real) wantLines(out string, want ...string) {
	r.t.Helper()
	got := strings.Split(strings.TrimSuffix(took.ReplaceAllString(out, "${1}N"), "\n"), "\n")
	got = slices.Compact(slices.DeleteFunc(got, func(l string) bool { return strings.HasPrefix(l, "212 ") }))
	if !slices.Equal(got, want) {
		r.t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

var took = regexp.MustCompile(`(elapsed=|after )\d+`)

// pids are the numbers of some desktops.
func (r *real) pids(desktops map[int]string) (out []int) {
	for pid := range desktops {
		out = append(out, pid)
	}
	slices.Sort(out)
	return out
}

// pidOf is the process of a user's desktop; 0: none.
func (r *real) pidOf(user string) int {
	for pid, line := range r.desktops() {
		if strings.Contains(line, "/user,string="+user+"\x00") {
			return pid
		}
	}
	return 0
}

package cluster

import (
	"strings"
	"testing"

	"verdecmd/master/placement"
)

// F-06, F-07: a host whose hard check fails gets no logins, and the refusal
// says why and what shows more; what runs there stays. It counts while the
// link is down and up again, until the host says otherwise or is another one.
func TestChecked(t *testing.T) {
	w := newWorld(t, 1)
	w.login("alice")
	const why = "its check bridges fails: no br0"
	w.c.Checked(1, uuid(1), []string{why, "and another one"})
	w.check()
	refused := func(when string) {
		t.Helper()
		_, err := w.refer("bob")
		if err == nil || !strings.Contains(err.Error(), "not able to run desktops") || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), `"checks 1" shows all checks`) {
			t.Errorf("%s: got %v", when, err)
		}
		if got := w.c.Why(w.now, 1, placement.Need{}); !strings.Contains(got, why) {
			t.Errorf("%s: why is %q", when, got)
		}
	}
	refused("while it fails")
	if x := w.c.Session("alice"); x == nil || x.Server != 1 {
		t.Errorf("the session that was there: got %+v", x)
	}
	if ref, err := w.refer("alice"); err != nil || ref.Session == nil {
		t.Errorf("who runs there comes back: got %+v, %v", ref, err)
	}
	w.detach(1)
	w.attach(1, running("s1", "alice"))
	refused("on a new link")
	w.c.Checked(1, "another machine", nil)
	refused("after a word of another machine")
	w.c.Checked(9, uuid(9), []string{why}) // nobody
	w.c.Checked(1, uuid(1), nil)
	w.check()
	if _, err := w.refer("bob"); err != nil {
		t.Errorf("when it passes: %v", err)
	}
	w.c.Checked(1, uuid(1), []string{why})
	r := w.c.Server(1).Record()
	r.UUID = "a new machine"
	w.c.Registered(w.now, r)
	w.check()
	if got := w.c.Why(w.now, 1, placement.Need{}); strings.Contains(got, why) {
		t.Errorf("the machine that has its place: %q", got)
	}
}

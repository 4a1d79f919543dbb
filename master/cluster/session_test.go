package cluster

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// S3, S4: a reservation becomes a session once, in time, where it was made.
func TestClaim(t *testing.T) {
	tests := map[string]struct {
		before   func(w *world)
		wantErr  error
		text     string
		sessions int
	}{
		"in time":                    {before: func(w *world) { w.refer("alice"); w.wait(30 * time.Second) }, sessions: 1},
		"at the deadline":            {before: func(w *world) { w.refer("alice"); w.wait(timeout) }, sessions: 1},
		"too late":                   {before: func(w *world) { w.refer("alice"); w.wait(timeout + 1) }, wantErr: ErrNoReservation, text: "r1 for alice expired 0s ago"},
		"too late and expired":       {before: func(w *world) { w.refer("alice"); w.wait(timeout + 1); w.c.Expire(w.now) }, wantErr: ErrNoReservation},
		"twice":                      {before: func(w *world) { w.refer("alice"); w.claim("alice", 1) }, wantErr: ErrNoReservation, text: "alice has session s1 on server 1", sessions: 1},
		"twice at once":              {before: func(w *world) { w.refer("alice"); w.begin("alice", 1) }, wantErr: ErrClaimed},
		"without a reservation":      {before: func(w *world) {}, wantErr: ErrNoReservation},
		"after it was cancelled":     {before: func(w *world) { w.refer("alice"); w.c.CancelReservation("all") }, wantErr: ErrNoReservation},
		"on the wrong server":        {before: func(w *world) { w.login("bob"); w.refer("alice") }, wantErr: ErrNoReservation, text: "the place of alice is on server 2", sessions: 1},
		"with a wrong number":        {before: func(w *world) { w.refer("alice"); w.uids["alice"] = 5 }, wantErr: ErrUIDDiffers, text: "alice has UID 1001 in the cluster and 5 here"},
		"with another's number":      {before: func(w *world) { w.login("bob"); w.uids["alice"] = 1002 }, wantErr: ErrUIDDiffers, text: "UID 1002 is bob in the cluster and alice here", sessions: 1},
		"on a server taken offline":  {before: func(w *world) { w.refer("alice"); w.offline(1) }, wantErr: ErrNoReservation},
		"on a link that is down":     {before: func(w *world) { w.refer("alice"); w.detach(1) }, wantErr: ErrStaleLink},
		"after a master's restart":   {before: func(w *world) { w.refer("alice"); w.restart(); w.attach(1) }, wantErr: ErrNoReservation},
		"after the link was renewed": {before: func(w *world) { w.refer("alice"); w.attach(1) }, sessions: 1},
		"after another claim failed": {before: func(w *world) { w.refer("alice"); c, _ := w.begin("alice", 1); w.c.Unclaimed(c) }, wantErr: ErrNoReservation},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			test.before(w)
			err := w.claim("alice", 1)
			if !errors.Is(err, test.wantErr) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got error %v, want %v with %q", err, test.wantErr, test.text)
			}
			if got, _ := w.c.Total(); got != test.sessions {
				t.Errorf("got %d sessions, want %d", got, test.sessions)
			}
		})
	}
}

// S4, S9: a claim counts on the live link of its server alone.
func TestClaimLinks(t *testing.T) {
	w := newWorld(t, 1)
	w.refer("alice")
	first := w.c.Server(1).Attachment
	w.attach(1)
	second := w.c.Server(1).Attachment
	if _, err := w.c.BeginClaim(w.now, 1, first, "alice", 1001); !errors.Is(err, ErrStaleLink) {
		t.Errorf("on the replaced link: got %v, want %v", err, ErrStaleLink)
	}
	if _, err := w.c.BeginClaim(w.now, 9, second, "alice", 1001); !errors.Is(err, ErrUnknownServer) {
		t.Errorf("of an unknown server: got %v, want %v", err, ErrUnknownServer)
	}
	w.restart()
	w.attach(1)
	w.refer("alice")
	if third := w.c.Server(1).Attachment; third == first || third == second {
		t.Errorf("a link of epoch 2 has the number of one of epoch 1: %d", third)
	}
	if _, err := w.c.BeginClaim(w.now, 1, second, "alice", 1001); !errors.Is(err, ErrStaleLink) {
		t.Errorf("on a link of the master before: got %v, want %v", err, ErrStaleLink)
	}
}

// S3, S6: what happens while a claim is being made durable.
func TestClaimMeanwhile(t *testing.T) {
	tests := map[string]struct {
		meanwhile func(w *world)
		want      bool // it becomes a session
	}{
		"nothing":                          {meanwhile: func(w *world) {}, want: true},
		"its deadline passes":              {meanwhile: func(w *world) { w.wait(time.Hour); w.c.Expire(w.now) }, want: true},
		"its server is taken offline":      {meanwhile: func(w *world) { w.offline(1) }},
		"offline and online again":         {meanwhile: func(w *world) { w.offline(1); r := w.c.Server(1).Record(); r.State = Online; w.c.StateSet(w.now, r) }},
		"its server is drained":            {meanwhile: func(w *world) { r := w.c.Server(1).Record(); r.State = Draining; w.c.StateSet(w.now, r) }},
		"its server's link ends":           {meanwhile: func(w *world) { w.detach(1) }},
		"its server's link is replaced":    {meanwhile: func(w *world) { w.attach(1) }},
		"the link ends and is new":         {meanwhile: func(w *world) { w.detach(1); w.attach(1) }},
		"another server is taken offline":  {meanwhile: func(w *world) { w.offline(2) }, want: true},
		"another server's link ends":       {meanwhile: func(w *world) { w.detach(2) }, want: true},
		"all reservations are cancelled":   {meanwhile: func(w *world) { w.c.CancelReservation("all") }, want: true},
		"its server reports no sessions":   {meanwhile: func(w *world) { w.report(1, []Reported{}) }, want: true},
		"an unknown session of hers shows": {meanwhile: func(w *world) { w.report(2, []Reported{running("s77", "alice")}) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.refer("alice")
			claim, err := w.begin("alice", 1)
			if err != nil {
				t.Fatal(err)
			}
			test.meanwhile(w)
			w.check()
			got := w.c.Claimed(w.now, claim)
			w.check()
			again := w.c.Claimed(w.now, claim)
			w.check()
			sessions, reservations := w.c.Total()
			if got != test.want || again != test.want || (sessions == 1) != test.want || reservations != 0 {
				t.Errorf("got %v (repeated: %v) with %d sessions and %d reservations, want %v", got, again, sessions, reservations, test.want)
			}
		})
	}
}

// Session numbers are never given twice, also over crashes and failed commits.
func TestNumbers(t *testing.T) {
	w := newWorld(t, 1)
	high, last := uint64(0), uint64(0)
	for i := range 350 {
		w.refer("alice")
		claim, err := w.begin("alice", 1)
		if err != nil {
			t.Fatal(err)
		}
		if claim.Number <= last {
			t.Fatalf("number %d after %d", claim.Number, last)
		}
		last = claim.Number
		if i%7 == 3 { // not durable: neither the session nor the mark
			w.c.Unclaimed(claim)
			continue
		}
		high = max(high, claim.HighWater)
		if claim.Number > high {
			t.Fatalf("session %d is durable and only numbers up to %d are set aside", claim.Number, high)
		}
		w.c.Claimed(w.now, claim)
		w.c.Released(Release{Session: claim.Session, How: "guest"})
		if i%50 == 49 {
			w.restart()
			w.attach(1)
		}
	}
	if high > last+2*idBlock*7 {
		t.Errorf("%d numbers set aside for %d used", high, last)
	}
}

// S1, S8: what the records say at a start is believed until a satellite tells.
func TestRestart(t *testing.T) {
	w := newWorld(t, 2)
	alice, bob := w.login("alice"), w.login("bob")
	w.report(1, []Reported{alice})
	w.report(2, []Reported{bob})
	w.restart()
	if got := w.c.Session("alice").State(); got != Lost {
		t.Errorf("unreported after a restart: got state %s, want %s", got, Lost)
	}
	w.wait(time.Hour)
	if gone, e := w.c.Expire(w.now); len(gone) > 0 || !reflect.DeepEqual(e, Effects{}) {
		t.Errorf("under hold, time alone did %+v", e)
	}
	e := w.attach(1, alice)
	if len(e.Changes) != 1 || e.Changes[0].From != Lost || e.Changes[0].Session.State() != Running || len(e.Release)+len(e.Abort) > 0 {
		t.Errorf("reported again: got %+v, want lost to running", e)
	}
	if ref, err := w.refer("alice"); err != nil || ref.Session == nil || ref.Server.ID != 1 {
		t.Errorf("got %+v, %v, want her session", ref, err)
	}
	if _, err := w.refer("bob"); !sameError(err, &LostError{}) {
		t.Errorf("bob, whose server is silent: got %v", err)
	}
	if ref, err := w.refer("carol"); err != nil || ref.Server.ID != 1 {
		t.Errorf("others log in at once: got %+v, %v", ref, err)
	}
	e = w.attach(2)
	if len(e.Release) != 1 || e.Release[0].How != "vanished" || e.Release[0].Condemn {
		t.Errorf("not in the hello: got %+v, want vanished", e)
	}
	if got := w.claim("carol", 1); got != nil || w.c.Session("carol").ID == "s1" || w.c.Session("carol").Epoch != 2 {
		t.Errorf("claim after a restart: %v, session %+v", got, w.c.Session("carol"))
	}
}

// V-91: what an administrator's word does, and what it does not.
func TestForceAndFence(t *testing.T) {
	affirm := func(w *world, force bool) []Release {
		if force {
			r, err := w.c.Force("alice")
			if err != nil {
				w.t.Fatal(err)
			}
			return []Release{r}
		}
		all, err := w.c.Fence(1)
		if err != nil || len(all) != 1 {
			w.t.Fatalf("fence: %v, %v", all, err)
		}
		return all
	}
	for name, force := range map[string]bool{"force": true, "fence": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			alice := w.login("alice")
			w.report(1, []Reported{alice})
			if _, err := w.c.Force("alice"); !errors.Is(err, ErrLinkUp) {
				t.Errorf("force with the link up: %v", err)
			}
			if _, err := w.c.Fence(1); !errors.Is(err, ErrLinkUp) {
				t.Errorf("fence with the link up: %v", err)
			}
			w.detach(1)
			for _, r := range affirm(w, force) {
				if !r.Condemn || r.Session.ID != "s1" || w.c.Session("alice") == nil {
					t.Errorf("deciding must change nothing yet: %+v", r)
				}
				if w.c.Released(r) {
					t.Error("an abort is ordered of a server that is down")
				}
				w.c.Released(r)
			}
			w.check()
			if ref, err := w.refer("alice"); err != nil || ref.Server.ID != 2 {
				t.Fatalf("after it: got %+v, %v, want server 2", ref, err)
			}
			if err := w.claim("alice", 2); err != nil {
				t.Fatal(err)
			}
			w.restart()
			w.attach(2, running("s2", "alice"))
			e := w.attach(1, alice)
			if !reflect.DeepEqual(e.Abort, []string{"s1"}) || len(e.Adopt)+len(e.Pardon) > 0 {
				t.Errorf("it shows up again: got %+v, want an abort of s1", e)
			}
			if e = w.report(1, nil); len(e.Abort) > 0 {
				t.Errorf("told again at once: %v", e.Abort)
			}
			w.wait(retold)
			if e = w.report(1, nil); len(e.Abort) != 1 {
				t.Errorf("not told again after %v", retold)
			}
			if e = w.report(2, nil, Ended{ID: "s1"}); len(e.Pardon) > 0 {
				t.Error("another server's word pardons")
			}
			if e = w.report(1, []Reported{}, Ended{ID: "s1", How: "abort"}); !reflect.DeepEqual(e.Pardon, []string{"s1"}) || len(w.c.Condemned()) > 0 {
				t.Errorf("its end: got %+v, want a pardon", e)
			}
			if x := w.c.Session("alice"); x == nil || x.ID != "s2" {
				t.Errorf("the new session is %+v", x)
			}
		})
	}
	t.Run("gone when its server comes back", func(t *testing.T) {
		w := newWorld(t, 1)
		w.login("alice")
		w.detach(1)
		w.c.Released(affirm(w, true)[0])
		if e := w.attach(1); !reflect.DeepEqual(e.Pardon, []string{"s1"}) {
			t.Errorf("got %+v, want a pardon", e)
		}
	})
	t.Run("its server comes back while it is recorded", func(t *testing.T) {
		w := newWorld(t, 2)
		alice := w.login("alice")
		w.detach(1)
		r := affirm(w, true)[0]
		w.attach(1, alice)
		if !w.c.Released(r) {
			t.Error("no abort is ordered of the server that is back")
		}
		if _, err := w.refer("alice"); !errors.Is(err, ErrSettling) {
			t.Errorf("while it still runs: got %v, want %v", err, ErrSettling)
		}
		w.report(1, []Reported{}, Ended{ID: "s1"})
		if _, err := w.refer("alice"); err != nil {
			t.Errorf("after its end: %v", err)
		}
	})
	t.Run("nothing to force", func(t *testing.T) {
		w := newWorld(t, 1)
		if _, err := w.c.Force("alice"); err == nil || err.Error() != "alice has no session" {
			t.Errorf("got %v", err)
		}
		if _, err := w.c.Fence(7); !errors.Is(err, ErrUnknownServer) {
			t.Errorf("got %v", err)
		}
	})
}

// V-91, S1: under lease, a session is released when its satellite has surely
// stopped it, and never before.
func TestLease(t *testing.T) {
	tests := map[string]struct {
		limits func(*Limits)
		before func(w *world) // leaves the clock where the last renewal was
		after  time.Duration
		want   bool
	}{
		"just before":            {before: func(w *world) { w.detach(1) }, after: replace - 1},
		"just then":              {before: func(w *world) { w.detach(1) }, after: replace, want: true},
		"link up but silent":     {before: func(w *world) {}, after: time.Hour},
		"renewed after the link": {before: func(w *world) { w.detach(1); w.wait(20 * time.Second); w.c.LeaseRenewed(w.now, 1) }, after: replace - 1},
		"back and away again": {before: func(w *world) {
			w.detach(1)
			w.wait(80 * time.Second)
			w.attach(1, running("s1", "alice"))
			w.detach(1)
		}, after: replace - 1},
		"counts from the restart": {limits: since(1), before: func(w *world) { w.detach(1); w.wait(80 * time.Second); w.restart() },
			after: replace - 1},
		"released after a restart":              {limits: since(1), before: func(w *world) { w.detach(1); w.restart() }, after: replace, want: true},
		"given out before leases, not seen yet": {limits: since(2), before: func(w *world) { w.detach(1); w.restart() }, after: time.Hour},
		"given out before leases, seen since": {limits: since(2), before: func(w *world) {
			w.restart()
			w.attach(1, running("s1", "alice"))
			w.detach(1)
		}, after: replace, want: true},
		"nothing known of earlier masters": {before: func(w *world) { w.detach(1); w.restart() }, after: time.Hour},
		"a setting cannot change it":       {before: func(w *world) { w.detach(1); l := w.c.limits; l.LeaseReplace = 1; w.c.SetLimits(l) }, after: replace - 1},
		"no time set":                      {limits: func(l *Limits) { l.LeaseReplace = 0 }, before: func(w *world) { w.detach(1) }, after: time.Hour},
		"hold":                             {limits: func(l *Limits) { l.Lost = Hold }, before: func(w *world) { w.detach(1) }, after: time.Hour},
		"hold cannot become lease": {limits: func(l *Limits) { l.Lost = Hold }, before: func(w *world) { w.detach(1); l := w.c.limits; l.Lost = Lease; w.c.SetLimits(l) },
			after: time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.limits == nil {
				test.limits = func(*Limits) {}
			}
			w := newWorld(t, 2, lease, test.limits)
			w.login("alice")
			test.before(w)
			w.wait(test.after)
			_, e := w.c.Expire(w.now)
			if got := len(e.Release) == 1; got != test.want {
				t.Fatalf("got %+v, want a release: %v", e, test.want)
			}
			if !test.want {
				return
			}
			if _, again := w.c.Expire(w.now); len(again.Release) > 0 {
				t.Error("it is released twice")
			}
			if r := e.Release[0]; r.How != "lease" || !r.Condemn || r.Why != "server 1 was silent for 90 s, its lease is over" {
				t.Errorf("got %+v", r)
			}
			w.settle(e)
			w.attach(2)
			if ref, err := w.refer("alice"); err != nil || ref.Server.ID != 2 {
				t.Errorf("the login after it: %+v, %v", ref, err)
			}
		})
	}
}

func since(epoch uint64) func(*Limits) { return func(l *Limits) { l.LeaseSince = epoch } }

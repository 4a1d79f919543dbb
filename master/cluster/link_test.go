package cluster

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"verdecmd/master/placement"
)

// What a satellite's word does to sessions. Alice has s1 on server 1, reported
// and running; bob has s2 on server 2, just claimed.
func TestReconcile(t *testing.T) {
	alice, bob := running("s1", "alice"), running("s2", "bob")
	carol := running("s9", "carol")
	tests := map[string]struct {
		do      func(w *world) Effects
		release string // ID and how
		adopt   string
		abort   string
		changes int
		users   string // who has a session afterwards, and where
	}{
		"hello with it":            {do: func(w *world) Effects { return w.attach(1, alice) }, users: "alice@1 bob@2"},
		"hello without it":         {do: func(w *world) Effects { return w.attach(1) }, release: "s1 vanished", users: "bob@2"},
		"hello that tells its end": {do: func(w *world) Effects { h := hello(1); h.Ended = []Ended{{ID: "s1", How: "guest"}}; return w.hello(h) }, release: "s1 guest", users: "bob@2"},
		"hello with it and its end": {do: func(w *world) Effects {
			h := hello(1, alice)
			h.Ended = []Ended{{ID: "s1", How: "guest"}}
			return w.hello(h)
		}, users: "alice@1 bob@2"},
		"hello without a claimed one":   {do: func(w *world) Effects { return w.attach(2) }, release: "s2 vanished", users: "alice@1"},
		"hello after the link was lost": {do: func(w *world) Effects { w.detach(1); return w.attach(1, alice) }, changes: 1, users: "alice@1 bob@2"},
		"report without a list":         {do: func(w *world) Effects { return w.report(1, nil) }, users: "alice@1 bob@2"},
		"report that tells its end":     {do: func(w *world) Effects { return w.report(1, nil, Ended{ID: "s1", How: "shutdown"}) }, release: "s1 shutdown", users: "bob@2"},
		"list and end in one report":    {do: func(w *world) Effects { return w.report(1, []Reported{}, Ended{ID: "s1", How: "crashed"}) }, release: "s1 crashed", users: "bob@2"},
		"list without it":               {do: func(w *world) Effects { return w.report(1, []Reported{}) }, release: "s1 vanished", users: "bob@2"},
		"older list without a claimed":  {do: func(w *world) Effects { return w.report(2, []Reported{}) }, users: "alice@1 bob@2"},
		"list with the claimed one":     {do: func(w *world) Effects { return w.report(2, []Reported{bob}) }, changes: 1, users: "alice@1 bob@2"},
		"list, then list without": {do: func(w *world) Effects { w.report(2, []Reported{bob}); return w.report(2, []Reported{}) },
			release: "s2 vanished", users: "alice@1"},
		"end told by another server": {do: func(w *world) Effects { return w.report(2, nil, Ended{ID: "s1", How: "guest"}) }, users: "alice@1 bob@2"},
		"end of an unknown one":      {do: func(w *world) Effects { return w.report(1, nil, Ended{ID: "s5", How: "guest"}) }, users: "alice@1 bob@2"},
		"unknown one is adopted":     {do: func(w *world) Effects { return w.report(1, []Reported{alice, carol}) }, adopt: "s9", users: "alice@1 bob@2 carol@1"},
		"unknown one in a hello":     {do: func(w *world) Effects { return w.attach(1, alice, carol, carol) }, adopt: "s9", users: "alice@1 bob@2 carol@1"},
		"unknown one of a user with a reservation": {do: func(w *world) Effects {
			w.refer("carol")
			e := w.report(2, []Reported{bob, carol})
			if len(e.Cancelled) != 1 || e.Cancelled[0].User != "carol" {
				w.t.Errorf("cancelled %+v, want carol's", e.Cancelled)
			}
			return e
		}, adopt: "s9", changes: 1, users: "alice@1 bob@2 carol@2"},
		"unknown one on two servers": {do: func(w *world) Effects {
			w.report(1, []Reported{alice, carol})
			return w.report(2, []Reported{running("s8", "carol")})
		},
			abort: "s8", users: "alice@1 bob@2 carol@1"},
		"a second one of a user":              {do: func(w *world) Effects { return w.report(2, []Reported{bob, running("s8", "alice")}) }, abort: "s8", changes: 1, users: "alice@1 bob@2"},
		"a second one on the same server":     {do: func(w *world) Effects { return w.report(1, []Reported{alice, running("s8", "alice")}) }, abort: "s8", users: "alice@1 bob@2"},
		"a copy on another server":            {do: func(w *world) Effects { return w.report(2, []Reported{bob, alice}) }, abort: "s1", changes: 1, users: "alice@1 bob@2"},
		"one with the number of another user": {do: func(w *world) Effects { x := carol; x.UID = 1001; return w.report(2, []Reported{bob, x}) }, abort: "s9", changes: 1, users: "alice@1 bob@2"},
		"a name that is none of ours": {do: func(w *world) Effects {
			return w.report(1, []Reported{alice, running("s18446744073709551615", "carol")})
		}, abort: "s18446744073709551615", users: "alice@1 bob@2"},
		"nothing on old evidence (S8): a second one while the first is lost": {do: func(w *world) Effects {
			w.detach(1)
			e := w.report(2, []Reported{bob, running("s8", "alice")})
			if _, err := w.refer("alice"); err == nil {
				w.t.Error("alice was let in")
			}
			return e
		}, changes: 1, users: "alice@1 bob@2"},
		"then the first is gone": {do: func(w *world) Effects {
			w.detach(1)
			w.report(2, []Reported{bob, running("s8", "alice")})
			w.attach(1)
			if _, err := w.refer("alice"); !errors.Is(err, ErrSettling) { // S1: not even for a moment
				w.t.Errorf("between end and adoption: got %v, want %v", err, ErrSettling)
			}
			return w.report(2, nil)
		}, adopt: "s8", users: "alice@2 bob@2"},
		"then the first is back": {do: func(w *world) Effects {
			w.detach(1)
			w.report(2, []Reported{bob, running("s8", "alice")})
			w.attach(1, alice)
			return w.report(2, nil)
		}, abort: "s8", users: "alice@1 bob@2"},
		"then the second is gone": {do: func(w *world) Effects {
			w.detach(1)
			w.report(2, []Reported{bob, running("s8", "alice")})
			w.report(2, []Reported{bob})
			w.attach(1)
			_, err := w.refer("alice")
			if err != nil {
				w.t.Error(err)
			}
			return w.report(2, nil)
		}, users: "bob@2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			w.login("alice")
			w.report(1, []Reported{alice})
			w.login("bob")
			e := test.do(w)
			w.check()
			var release []string
			for _, r := range e.Release {
				release = append(release, r.Session.ID+" "+r.How)
			}
			if got := strings.Join(release, ","); got != test.release {
				t.Errorf("got release %q, want %q", got, test.release)
			}
			if got := strings.Join(ids(e.Adopt), ","); got != test.adopt {
				t.Errorf("got adopt %q, want %q", got, test.adopt)
			}
			if got := strings.Join(e.Abort, ","); got != test.abort {
				t.Errorf("got abort %q, want %q", got, test.abort)
			}
			if len(e.Changes) != test.changes {
				t.Errorf("got changes %+v, want %d", e.Changes, test.changes)
			}
			var users []string
			for _, x := range w.c.Sessions() {
				users = append(users, fmt.Sprintf("%s@%d", x.User, x.Server))
			}
			if got := strings.Join(users, " "); got != test.users {
				t.Errorf("got sessions %q, want %q", got, test.users)
			}
		})
	}
}

// A session that ends while its adoption is being made durable is told, so that
// its record does not stay.
func TestAdoptedTooLate(t *testing.T) {
	w := newWorld(t, 1)
	x := running("s9", "carol")
	_, e, err := w.c.Attach(w.now, hello(1, x))
	if err != nil || len(e.Adopt) != 1 || e.Adopt[0].Epoch != 1 {
		t.Fatalf("got %+v, %v", e, err)
	}
	if ref, err := w.refer("carol"); err != nil || ref.Session == nil {
		t.Errorf("before it is durable: got %+v, %v, want the session", ref, err)
	}
	w.report(1, nil, Ended{ID: "s9", How: "guest"})
	if w.c.Adopted(e.Adopt[0]) {
		t.Error("the ended session is taken for adopted")
	}
	w.check()
	if claim, _ := w.begin("carol", 1); claim != nil {
		t.Error("a claim without a reservation")
	}
	w.refer("carol")
	if claim, err := w.begin("carol", 1); err != nil || claim.Number != 10 {
		t.Errorf("got %+v, %v, want number 10, after the adopted s9", claim, err)
	}
}

// A lost link makes sessions unknown and gives back what was only reserved.
func TestDetach(t *testing.T) {
	w := newWorld(t, 1)
	alice := w.login("alice")
	w.report(1, []Reported{alice})
	w.refer("bob")
	old := w.c.Server(1).Attachment
	lost, cancelled := w.detach(1)
	if len(lost) != 1 || lost[0].User != "alice" || lost[0].State() != Lost || len(cancelled) != 1 || cancelled[0].User != "bob" {
		t.Errorf("got lost %+v and cancelled %+v, want alice and bob", lost, cancelled)
	}
	if got := w.c.Link(w.c.Server(1), w.now); got != "down" {
		t.Errorf("got link %s, want down", got)
	}
	w.attach(1, alice)
	if _, _, closed := w.c.Detach(w.now, 1, old); closed {
		t.Error("the end of an old link closed the new one")
	}
	if _, err := w.c.Report(w.now, 1, old, idle(), []Reported{}, nil); !errors.Is(err, ErrStaleLink) || w.c.Session("alice") == nil {
		t.Errorf("a report of an old link: got %v, want %v and no effect", err, ErrStaleLink)
	}
	if got := w.c.Link(w.c.Server(1), w.now); got != "up" {
		t.Errorf("got link %s, want up", got)
	}
	w.wait(3*interval + 1)
	if got := w.c.Link(w.c.Server(1), w.now); got != "stale" {
		t.Errorf("got link %s, want stale", got)
	}
}

// Two machines with one identity: the first is kept, the newer one is refused.
func TestDuplicate(t *testing.T) {
	w := newWorld(t, 1)
	h := hello(1)
	h.Instance, h.Address = "clone", "192.0.2.66"
	if _, _, err := w.c.Attach(w.now, h); !errors.Is(err, ErrDuplicate) || !strings.Contains(err.Error(), "server 1 (sat1), at 192.0.2.1") {
		t.Errorf("got %v, want %v", err, ErrDuplicate)
	}
	w.detach(1)
	w.hello(h)
	if _, _, err := w.c.Attach(w.now, hello(9)); !errors.Is(err, ErrUnknownServer) {
		t.Errorf("got %v, want %v", err, ErrUnknownServer)
	}
}

// Numbers and identities of servers stay what they were.
func TestEnrol(t *testing.T) {
	w := newWorld(t, 2)
	a := w.c.Enrol("new", "a")
	if b := w.c.Enrol("new", "b"); b.ID != a.ID || b.Name != "b" || a.ID != 3 {
		t.Errorf("asked twice: got %+v and %+v, want number 3 for both", a, b)
	}
	if r := w.c.Enrol(uuid(2), "other"); r != w.c.Server(2).Record() {
		t.Errorf("a known one: got %+v, want its record", r)
	}
	if r := w.c.Enrol("newer", "c"); r.ID != 4 {
		t.Errorf("another: got %+v, want number 4", r)
	}
	w.c.Withdrawn("newer") // nobody has heard of number 4
	w.c.Withdrawn("nobody")
	if r := w.c.Enrol("newest", "d"); r.ID != 4 {
		t.Errorf("after one that was withdrawn: got %+v, want number 4", r)
	}
	w.c.Enrol("last", "e")
	w.c.Withdrawn("newest") // not the last one: its number is lost
	if r := w.c.Enrol("one more", "f"); r.ID != 6 {
		t.Errorf("after one in between: got %+v, want number 6", r)
	}
	a.UUID = "replaced"
	w.c.Registered(w.now, a)
	w.c.Certified(3, Certificate{Serial: "0a"})
	w.c.Certified(99, Certificate{Serial: "0b"}) // there is none
	w.c.Registered(w.now, a)
	if got := w.c.Server(3).Certificate.Serial; got != "0a" {
		t.Errorf("the certificate is %q, want 0a", got)
	}
	a.UUID = "again"
	w.c.Registered(w.now, a)
	if got := w.c.Server(3).Certificate.Serial; got != "" {
		t.Errorf("with a new identity the certificate is still %q", got)
	}
	w.check()
	if w.c.ServerByUUID("replaced") != nil || w.c.ServerByUUID("again") != w.c.Server(3) {
		t.Error("the old identity is still known, or the new one is not")
	}
}

// RELIABILITY 1.1 D: figures that cannot be true make a server unfit, and
// never attract logins.
func TestImpossibleReports(t *testing.T) {
	tests := map[string]struct {
		load  func(*Load)
		facts func(*Facts)
		want  string // in the text; empty: believed
	}{
		"idle":                    {},
		"busy by rounding":        {load: func(l *Load) { l.CPUBusy = 1.001 }},
		"no processors told":      {facts: func(f *Facts) { f.CPUs = 0 }},
		"busy is not a number":    {load: func(l *Load) { l.CPUBusy = math.NaN() }, want: "the busy share of its processors is NaN, and a share is 0 to 1"},
		"busy is negative":        {load: func(l *Load) { l.CPUBusy = -1e9 }, want: "is -1e+09"},
		"busy is infinite":        {load: func(l *Load) { l.CPUBusy = math.Inf(-1) }, want: "is -Inf"},
		"busy is a percentage":    {load: func(l *Load) { l.CPUBusy = 37 }, want: "is 37"},
		"load average":            {load: func(l *Load) { l.Load1 = math.NaN() }, want: "its load average is NaN"},
		"pressure":                {load: func(l *Load) { l.PressureIO = -0.5 }, want: "input and output pressure is -0.5"},
		"no memory":               {load: func(l *Load) { l.MemoryTotal = 0 }, want: "it has 0 bytes of memory"},
		"absurd memory":           {load: func(l *Load) { l.MemoryTotal, l.MemoryFree = math.MaxUint64, math.MaxUint64 }, want: "it has 18446744073709551615 bytes of memory"},
		"more free than there is": {load: func(l *Load) { l.MemoryFree = 9 * gib }, want: "9216 MiB of its 8192 MiB of memory are free"},
		"absurd disk":             {load: func(l *Load) { l.SnapFree = math.MaxUint64 }, want: "its snap directory has 18446744073709551615 bytes free"},
		"negative processors":     {facts: func(f *Facts) { f.CPUs = -4 }, want: "it has -4 processors"},
		"negative sessions":       {facts: func(f *Facts) { f.MaxSessions = -1 }, want: "it allows -1 sessions"},
		"absurd reserve":          {facts: func(f *Facts) { f.SnapReserve = math.MaxUint64 }, want: "its reserve in the snap directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			h := hello(1)
			if test.load != nil {
				test.load(&h.Load)
			}
			if test.facts != nil {
				test.facts(&h.Facts)
			}
			w.hello(h)
			s := w.c.Server(1)
			why := w.c.Why(w.now, 1, placement.Need{Memory: gib})
			if !strings.Contains(s.Suspect, test.want) || (s.Suspect != "") != (test.want != "") || (test.want != "") != strings.Contains(why, "cannot run desktops: "+s.Suspect) {
				t.Errorf("got suspect %q and %q, want %q", s.Suspect, why, test.want)
			}
			if s.Load.CPUBusy != s.Load.CPUBusy || s.Load.Load1 != s.Load.Load1 {
				t.Errorf("not a number is kept: %+v", s.Load)
			}
			if _, reason := w.c.Score(s, w.now, placement.Need{Memory: gib}); (reason == placement.Unfit) != (test.want != "") {
				t.Errorf("got %v, want unfit: %v", reason, test.want != "")
			}
			if ref, err := w.refer("alice"); err != nil || test.want != "" && ref.Server.ID != 2 {
				t.Errorf("got %+v, %v, want server 2 where 1 cannot be believed", ref, err)
			}
			w.report(1, nil) // an honest report heals it
			if s.Suspect != "" && test.facts == nil {
				t.Errorf("still %q", s.Suspect)
			}
		})
	}
}

// A satellite that lies about the size of a session harms nobody else.
func TestAbsurdAdoption(t *testing.T) {
	w := newWorld(t, 1)
	x := running("s9", "carol")
	x.Memory = math.MaxUint64
	w.report(1, []Reported{x})
	if got := w.c.Session("carol").Memory; got != 8*gib {
		t.Errorf("charged %d bytes, want all that the server has", got)
	}
	if _, err := w.refer("alice"); !sameError(err, &RefusedError{}) {
		t.Errorf("got %v, want a refusal", err)
	}
	w.report(1, []Reported{})
	if _, err := w.refer("alice"); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

// S6: offline and draining servers get nothing new, also after a restart; what
// runs goes on.
func TestOfflineServer(t *testing.T) {
	for _, state := range []State{Offline, Draining} {
		t.Run(string(state), func(t *testing.T) {
			w := newWorld(t, 1)
			alice := w.login("alice")
			w.refer("bob")
			w.refer("carol")
			claim, _ := w.begin("carol", 1)
			r := w.c.Server(1).Record()
			r.State = state
			cancelled := w.c.StateSet(w.now, r)
			w.check()
			if len(cancelled) != 1 || cancelled[0].User != "bob" {
				t.Errorf("cancelled %+v, want bob's", cancelled)
			}
			if w.c.Claimed(w.now, claim) {
				t.Error("carol's claim became a session after the server was offline")
			}
			w.restart()
			w.attach(1, alice)
			if _, err := w.refer("bob"); !sameError(err, &RefusedError{}) {
				t.Errorf("bob, after a restart: got %v", err)
			}
			if ref, err := w.refer("alice"); err != nil || ref.Session == nil {
				t.Errorf("alice: got %+v, %v, want her session", ref, err)
			}
			r.State = Online
			if got := w.c.StateSet(w.now, r); got != nil {
				t.Errorf("online cancelled %+v", got)
			}
			if _, err := w.refer("bob"); err != nil {
				t.Errorf("online again: %v", err)
			}
		})
	}
}

// A changed interval counts at once, and from the same moment in all places.
func TestInterval(t *testing.T) {
	w := newWorld(t, 1)
	l := limits
	l.Interval = 10 * time.Second
	w.c.SetLimits(l)
	w.wait(30 * time.Second)
	if _, reason := w.c.Score(w.c.Server(1), w.now, placement.Need{}); reason != placement.Eligible || w.c.Link(w.c.Server(1), w.now) != "up" {
		t.Errorf("got %v and link %s at 3 intervals, want eligible and up", reason, w.c.Link(w.c.Server(1), w.now))
	}
	w.wait(1)
	if _, reason := w.c.Score(w.c.Server(1), w.now, placement.Need{}); reason != placement.Stale || w.c.Link(w.c.Server(1), w.now) != "stale" {
		t.Errorf("got %v and link %s after them, want stale", reason, w.c.Link(w.c.Server(1), w.now))
	}
}

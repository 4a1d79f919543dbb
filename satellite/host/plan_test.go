package host

import (
	"errors"
	"math"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

// F-09: the manager's address first, then its password; RELIABILITY 4.1 step 3:
// nothing secret is asked for or sent before the fingerprint is certain.
func TestNext_F09(t *testing.T) {
	tests := map[string]struct {
		k    Known
		want Step
	}{
		"nothing is known":          {Known{}, AskManager},
		"a token, but not where":    {Known{Pinned: true, Secret: true}, AskManager},
		"the address":               {Known{Manager: true}, Look},
		"a password in a file":      {Known{Manager: true, Secret: true}, Look},
		"it was shown":              {Known{Manager: true, Shown: true}, Confirm},
		"shown, password in a file": {Known{Manager: true, Shown: true, Secret: true}, Confirm},
		"confirmed":                 {Known{Manager: true, Shown: true, Pinned: true}, AskSecret},
		"--ca-sha256":               {Known{Manager: true, Pinned: true}, AskSecret},
		"a token":                   {Known{Manager: true, Pinned: true, Secret: true}, Join},
	}
	for name, test := range tests {
		if got := Next(test.k); got != test.want {
			t.Errorf("%s: got step %d, want %d", name, got, test.want)
		}
	}
	for bits := range 16 {
		k := Known{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0}
		if s := Next(k); (s == AskSecret || s == Join) && !k.Pinned || s == Join && !k.Secret {
			t.Errorf("%+v: step %d", k, s)
		}
	}
}

// RELIABILITY 4.2: at a random point between half and four fifths of the life.
func TestRenewAt(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	until := from.Add(100 * time.Hour)
	for random, want := range map[float64]time.Duration{0: 50 * time.Hour, 0.5: 65 * time.Hour, 1: 80 * time.Hour, -1: 50 * time.Hour, 7: 80 * time.Hour} {
		if got := RenewAt(from, until, random).Sub(from); got.Round(time.Second) != want {
			t.Errorf("random %v: got %v, want %v", random, got, want)
		}
	}
}

// A clock that is ahead does not make a host ask again and again.
func TestNextRenewal(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	until := from.Add(100 * time.Hour)
	for now, want := range map[time.Duration]time.Duration{time.Hour: 50 * time.Hour, 44 * time.Hour: 50 * time.Hour, 48 * time.Hour: 53 * time.Hour, 90 * time.Hour: 95 * time.Hour} {
		if got := NextRenewal(from, until, from.Add(now), 0).Sub(from); got != want {
			t.Errorf("made after %v: got %v, want %v", now, got, want)
		}
	}
}

func TestDue(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(h int) time.Time { return from.Add(time.Duration(h) * time.Hour) }
	for hour, want := range map[int]Need{-1: Early, 0: Rest, 59: Rest, 60: Renew, 100: Renew, 101: Rejoin, 9000: Rejoin} {
		if got := Due(from, at(100), at(60), at(hour)); got != want {
			t.Errorf("after %d h: got %d, want %d", hour, got, want)
		}
	}
}

// Tries come less and less often, never at one instant, and slowly when an
// administrator must do something first.
func TestAgain(t *testing.T) {
	far := wire.Errorf(wire.Unreachable, "no master")
	no := wire.Errorf(wire.Denied, "no")
	tests := map[string]struct {
		need        Need
		try         int
		err         error
		least, most time.Duration
	}{
		"renew, at first":            {Renew, 1, far, 15 * time.Second, 30 * time.Second},
		"renew, later":               {Renew, 4, far, 2 * time.Minute, 4 * time.Minute},
		"renew, for long":            {Renew, 99999, far, 30 * time.Minute, time.Hour},
		"renew, refused":             {Renew, 1, no, 150 * time.Second, 5 * time.Minute},
		"rejoin, at first":           {Rejoin, 1, far, time.Second, 2 * time.Second},
		"rejoin, for long":           {Rejoin, 50, far, 30 * time.Second, time.Minute},
		"rejoin, refused":            {Rejoin, 1, no, 150 * time.Second, 5 * time.Minute},
		"a host that was enrolled":   {Renew, 1, wire.Errorf(wire.NotFound, "who?"), 15 * time.Second, 30 * time.Second},
		"rejoin, the master is busy": {Rejoin, 1, wire.Errorf(wire.TooOften, "later"), time.Second, 2 * time.Second},
		"a bug of the master's":      {Renew, 1, errors.New("x"), 15 * time.Second, 30 * time.Second},
		"no error":                   {Renew, 0, nil, 15 * time.Second, 30 * time.Second},
	}
	for name, test := range tests {
		least, most := Again(test.need, test.try, test.err, 0), Again(test.need, test.try, test.err, 1)
		if least != test.least || most != test.most {
			t.Errorf("%s: between %v and %v, want %v and %v", name, least, most, test.least, test.most)
		}
		if got := Again(test.need, test.try, test.err, math.Inf(1)); got != most {
			t.Errorf("%s: a wrong random number: %v", name, got)
		}
	}
}

// What was due while a whole cluster was off does not come in one instant; what
// has ended is not waited for.
func TestAtStart(t *testing.T) {
	for _, n := range []Need{Rest, Early, Rejoin} {
		if got := AtStart(n, 1); got != 0 {
			t.Errorf("need %d waits %v", n, got)
		}
	}
	for random, want := range map[float64]time.Duration{0: 0, 0.5: 5 * time.Second, 1: 10 * time.Second, 9: 10 * time.Second} {
		if got := AtStart(Renew, random); got != want {
			t.Errorf("random %v: got %v, want %v", random, got, want)
		}
	}
}

// Only where the master has certainly done nothing may the key be thrown away.
func TestSettled(t *testing.T) {
	for kind, want := range map[wire.Kind]bool{wire.Denied: true, wire.TooOften: true, wire.InUse: true, wire.BadRequest: true, wire.Unreachable: false, wire.Internal: false, wire.NotReady: false, wire.StaleLink: false} {
		if got := Settled(wire.Errorf(kind, "x")); got != want {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
	if Settled(errors.New("the connection broke")) {
		t.Error("an error without a kind says nothing about the master")
	}
}

func TestAhead(t *testing.T) {
	sent := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct{ took, master, want time.Duration }{
		"the same":             {time.Second, 500 * time.Millisecond, 0},
		"nearly":               {0, 5 * time.Second, 0},
		"ahead":                {2 * time.Second, 121 * time.Second, 2 * time.Minute},
		"behind":               {0, -time.Hour, -time.Hour},
		"the answer took long": {30 * time.Second, 30 * time.Second, 0},
	}
	for name, test := range tests {
		if got := Ahead(sent, sent.Add(test.took), sent.Add(test.master)); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestWord(t *testing.T) {
	entries := []string{"1 Manager", "2 Settings", "3 Show", "q Quit"}
	for answer, want := range map[string]int{"1": 0, "m": 0, "Manager": 0, " man ": 0, "2": 1, "se": 1, "s": -1, "sh": 2, "q": 3, "quit": 3, "Q": 3, "": -1, "4": -1, "x": -1, "managers": -1} {
		if got, ok := Word(answer, entries); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: got %d, %v; want %d", answer, got, ok, want)
		}
	}
}

func TestYes(t *testing.T) {
	tests := map[string]struct{ yes, ok bool }{"y": {true, true}, "YES": {true, true}, " y ": {true, true}, "n": {false, true}, "no": {false, true}, "": {false, true}, "j": {false, false}, "yy": {false, false}}
	for answer, want := range tests {
		if yes, ok := Yes(answer); yes != want.yes || ok != want.ok {
			t.Errorf("%q: got %v, %v; want %+v", answer, yes, ok, want)
		}
	}
}

package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/master/pki"
	"verdecmd/proto/wire"
)

// RELIABILITY 4.2: when the master makes its own certificate anew.
func TestOwnDue(t *testing.T) {
	from := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	at := func(days int) time.Time { return from.Add(time.Duration(days) * 24 * time.Hour) }
	tests := map[string]struct {
		now, authority int // days
		want           bool
	}{
		"fresh":                               {1, 3650, false},
		"before the last fifth":               {80, 3650, false},
		"in it":                               {81, 3650, true},
		"over":                                {400, 3650, true},
		"made while the clock was wrong":      {-1, 3650, true},
		"the authority ends at the same time": {90, 100, false},
		"over, and the authority too":         {101, 100, false},
		"it could be a little longer":         {90, 102, true},
	}
	for name, test := range tests {
		if got := ownDue(from, at(100), at(test.now), at(test.authority)); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// RELIABILITY 4.2: the master is always able to make its own certificate anew:
// the same identity with a new key, in one file. Without the authority's key, or
// with a wrong clock, it stays and it is said why.
func TestRenewOwn(t *testing.T) {
	dir := initTest(t)
	short := func(from, until time.Time) *wire.Credentials {
		a, err := pki.Issuer(dir)
		if err != nil {
			t.Fatal(err)
		}
		own, err := a.Issue(wire.Identity{Role: wire.Master, ID: wire.NewUUID(), Name: "cm.example.com"}, from, until.Sub(from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, wire.IdentityFile), own, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := wire.Load(dir, wire.Master)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := short(testNow.Add(-90*24*time.Hour), testNow.Add(-24*time.Hour))
	renewed, err := RenewOwn(dir, testNow)
	if !renewed || err != nil {
		t.Fatalf("one that has ended: %v, %v", renewed, err)
	}
	after, err := wire.Load(dir, wire.Master)
	if err != nil {
		t.Fatal(err)
	}
	after.Now = func() time.Time { return testNow.Add(9 * 365 * 24 * time.Hour) }
	if after.Identity.ID != before.Identity.ID || after.Identity.Name != "cm.example.com" || after.Serial() == before.Serial() || after.Check() != nil {
		t.Errorf("got %+v, %v", after.Identity, after.Check())
	}
	if st, err := os.Stat(filepath.Join(dir, wire.IdentityFile)); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if renewed, err := RenewOwn(dir, testNow); renewed || err != nil {
		t.Errorf("again: %v, %v", renewed, err)
	}
	if renewed, err := RenewOwn(dir, testNow.Add(11*365*24*time.Hour)); renewed || err != nil {
		t.Errorf("when the authority has ended no certificate is better: %v, %v", renewed, err)
	}
	short(testNow.Add(-90*24*time.Hour), testNow.Add(-24*time.Hour))
	if renewed, err := RenewOwn(dir, testNow.Add(11*365*24*time.Hour)); renewed || err == nil || !strings.Contains(err.Error(), "look at the clock") {
		t.Errorf("the clock is years ahead: %v, %v", renewed, err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if renewed, err := RenewOwn(dir, testNow); renewed || err == nil || !strings.Contains(err.Error(), "ca.key is missing") {
		t.Errorf("without the key: %v, %v", renewed, err)
	}
}

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
		now  int // days
		want bool
	}{
		"fresh":                          {1, false},
		"before the last fifth":          {79, false},
		"in it":                          {80, true},
		"over":                           {400, true},
		"made while the clock was wrong": {-1, true},
	}
	for name, test := range tests {
		if got := ownDue(at(test.now), from, at(100)); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// RELIABILITY 4.2: the master is always able to make its own certificate anew:
// the same identity with a new key, in one file, where that lasts longer. Without
// the authority's key, or with a wrong clock, it stays and it is said why; as long
// as none is due nobody misses the key.
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
	a, err := pki.Issuer(dir)
	if err != nil {
		t.Fatal(err)
	}
	for left, want := range map[time.Duration]bool{24 * time.Hour: false, 25 * time.Hour: true} {
		until := a.NotAfter.Add(-left)
		short(until.Add(-100*24*time.Hour), until)
		if renewed, err := RenewOwn(dir, until.Add(-time.Hour)); renewed != want || err != nil {
			t.Errorf("the authority lasts %v longer: %v, %v", left, renewed, err)
		}
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
	if renewed, err := RenewOwn(dir, testNow.Add(-80*24*time.Hour)); renewed || err != nil {
		t.Errorf("without the key, and none is due: %v, %v", renewed, err)
	}
}

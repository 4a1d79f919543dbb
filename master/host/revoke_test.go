package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/master/store"
	"verdecmd/proto/wire"
)

// S16: an identity whose server was forgotten is refused at once and by every
// later master, and what is open of it is cut.
func TestForgetRevokes(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	dir := t.TempDir()
	enrolled := filepath.Join(dir, enrolledDir)
	if _, _, err := remember(enrolled, "sat1"); err != nil {
		t.Fatal(err)
	}
	uuid, _ := os.ReadFile(filepath.Join(enrolled, "sat1"))
	id := strings.TrimSpace(string(uuid))
	var cut []string
	changed := 0
	r.cfg.Dir, r.cfg.Cut, r.cfg.Changed = dir, func(id string) { cut = append(cut, id) }, func() { changed++ }
	if err := r.Ensure(t.Context(), helloOf(id, "j"), "sat1"); err != nil {
		t.Fatal(err)
	}
	if _, gone := r.Revoked(id, "01"); gone || changed != 1 {
		t.Errorf("before: revoked %v, changed %d times", gone, changed)
	}
	s.Fail(store.ErrNoSpace)
	if err := r.Forget(t.Context(), 1); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("full disk: got %v", err)
	}
	if _, gone := r.Revoked(id, ""); gone || len(cut) > 0 || len(r.Members()) != 1 {
		t.Errorf("revoked %v, cut %v although nothing is stored", gone, cut)
	}
	s.Fail(nil)
	if err := r.Forget(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if len(cut) != 1 || cut[0] != id || changed != 2 || len(r.Members()) != 0 {
		t.Errorf("cut %v, changed %d times, members %v", cut, changed, r.Members())
	}
	if _, err := os.Stat(filepath.Join(enrolled, "sat1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name still has the revoked identity: %v", err)
	}
	for range 2 {
		why, gone := r.Revoked(id, "01")
		if !gone || !strings.Contains(why, Forgotten) || !strings.Contains(why, "verdecmd register") {
			t.Errorf("revoked %v: %q", gone, why)
		}
		if err := r.Ensure(t.Context(), helloOf(id, "j"), "sat1"); wire.KindOf(err) != wire.Revoked {
			t.Errorf("it connects: got %v", err)
		}
		s.Restart()
		r = start(t, s)
	}
	all := r.Revocations()
	if len(all) != 1 || all[0].Server != 1 || all[0].Name != "sat1" || all[0].Until.Before(time.Now().Add(satelliteLife)) {
		t.Errorf("revocations: %+v", all)
	}
}

// A revocation of one certificate leaves the others of the identity alone.
func TestRevokedSerial(t *testing.T) {
	r := start(t, store.NewMem())
	r.revoke(Revocation{ID: "u1", Serial: "0a", Why: "stolen", Server: 1, Name: "sat1"})
	for serial, want := range map[string]bool{"0a": true, "0b": false, "": false} {
		if why, got := r.Revoked("u1", serial); got != want || want && !strings.Contains(why, "stolen") {
			t.Errorf("serial %q: got %v %q", serial, got, why)
		}
	}
}

// How long a revocation is kept: until all certificates have surely ended.
func TestRevocationUntil(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	end := now.Add(30 * 24 * time.Hour)
	for name, test := range map[string]struct {
		p    proof
		want time.Time
	}{
		"joined over the network":      {proof{Joined: true, Until: end}, end.Add(revokedFor)},
		"enrolled, nobody knows when":  {proof{}, now.Add(satelliteLife + revokedFor)},
		"enrolled and renewed by wire": {proof{Until: end}, now.Add(satelliteLife + revokedFor)},
	} {
		if got := revocation(now, recordOf("u1"), test.p, Superseded); !got.Until.Equal(test.want) {
			t.Errorf("%s: until %v, want %v", name, got.Until, test.want)
		}
	}
}

// A revocation that cannot be read stops the master: better none than one that
// lets a stranger in.
func TestRestoreRevokedDamaged(t *testing.T) {
	for _, text := range []string{"{", "{}", `{"id":"u2","why":"forgotten"}`} {
		s := store.NewMem()
		if err := s.Commit(t.Context(), 1, nil, []store.Change{{Key: store.Key{Bucket: revoked, ID: "u1"}, Value: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.View(t.Context(), func(s store.Snapshot) error { _, _, err := restoreRevoked(s); return err }); err == nil || !strings.Contains(err.Error(), "revocation u1") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

// A machine that was shut out and comes back is refused, and told once of.
func TestRefuseIsTold(t *testing.T) {
	r := start(t, store.NewMem())
	r.revoke(Revocation{ID: "u1", Why: Superseded, Server: 1, Name: "sat1"})
	for range 3 {
		if why, gone := r.Refuse("u1", "0a"); !gone || !strings.HasPrefix(why, "superseded: ") {
			t.Errorf("got %v %q", gone, why)
		}
		if _, gone := r.Refuse("u2", "0b"); gone {
			t.Error("another machine is refused")
		}
	}
	if got := strings.Join(r.events, " "); got != "server.refused" {
		t.Errorf("events: %s", got)
	}
}

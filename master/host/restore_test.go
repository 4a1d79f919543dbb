package host

import (
	"strings"
	"testing"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// fromCopy makes what the store holds a copy that takes its place at now.
func (o *office) fromCopy(t *testing.T, made time.Time) {
	t.Helper()
	var changes []store.Change
	err := o.s.View(t.Context(), func(s store.Snapshot) (err error) {
		changes, err = FromCopy(s, made, o.now)
		return err
	})
	if err == nil {
		err = o.s.Commit(t.Context(), o.s.Epoch(), nil, changes)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.open(t)
}

// RELIABILITY 4.4, pitfall 10: after a restore of an old copy no number is given
// again, no token of that time counts, since it may have been used, and it is
// kept and shown since when revocations may be missing, until every certificate
// of that time has ended.
func TestRestoreOldCopy(t *testing.T) {
	o := newOffice(t)
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	gone := o.joined(t, asks(t, "sat2", o.token(t, monitor.TokenWish{})))
	if err := o.Forget(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	unused := o.token(t, monitor.TokenWish{})
	if since := o.UnknownSince(); !since.IsZero() {
		t.Errorf("before: unknown since %v", since)
	}
	made := o.now
	o.now = o.now.Add(10 * time.Minute)
	o.fromCopy(t, made)

	if _, err := o.Join(t.Context(), asks(t, "sat3", unused)); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "the database was restored") {
		t.Errorf("a token of that time: %v", err)
	}
	if len(o.Tokens()) != 0 {
		t.Errorf("tokens: %v", o.Tokens())
	}
	k, err := o.CreateToken(t.Context(), monitor.TokenWish{})
	if err != nil || k.ID != 1001 {
		t.Errorf("the next token has number %d, %v; want 1001", k.ID, err)
	}
	if next := o.joined(t, asks(t, "sat3", k.Secret)); next.Server != 1001 {
		t.Errorf("the next server has number %d, want 1001", next.Server)
	}
	for range 2 { // what is known still counts, also for later masters
		if _, out := o.Revoked(gone.UUID, ""); !out || len(o.Revocations()) != 1 {
			t.Errorf("revocations: %v", o.Revocations())
		}
		if err := o.Ensure(t.Context(), helloOf(j.UUID, "journal1"), "sat1"); err != nil {
			t.Error(err)
		}
		if since := o.UnknownSince(); !since.Equal(made) {
			t.Errorf("unknown since %v, want %v", since, made)
		}
		o.open(t)
	}

	// A copy of a copy: unknown since the first one.
	later := o.now.Add(time.Hour)
	o.now = later.Add(time.Minute)
	o.fromCopy(t, later)
	if since := o.UnknownSince(); !since.Equal(made) {
		t.Errorf("after another one: unknown since %v, want %v", since, made)
	}
	o.now = o.now.Add(satelliteLife + revokedFor + time.Second)
	if since := o.UnknownSince(); !since.IsZero() {
		t.Errorf("after a year: unknown since %v", since)
	}
	o.fromCopy(t, o.now.Add(-time.Minute))
	if since := o.UnknownSince(); !since.Equal(o.now.Add(-time.Minute)) {
		t.Errorf("the next time: unknown since %v", since)
	}
}

// RELIABILITY 4.2: a revocation is dropped, also on the disk, a week after the
// last certificate of the identity has ended, and not before.
func TestTidyRevocations(t *testing.T) {
	o := newOffice(t)
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	if err := o.Forget(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	changed := 0
	o.cfg.Changed = func() { changed++ }
	o.now = o.now.Add(joinedLife + revokedFor)
	for i, want := range []bool{true, false} {
		if err := o.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, gone := o.Revoked(j.UUID, ""); gone != want || changed != i {
			t.Errorf("after %v: revoked %v, want %v; changed %d times", o.now, gone, want, changed)
		}
		o.now = o.now.Add(time.Second)
	}
	o.open(t)
	if len(o.Revocations()) != 0 {
		t.Errorf("still stored: %v", o.Revocations())
	}
}

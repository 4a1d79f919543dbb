package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/pki"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// code is that of a reply or an error.
func code(err error) int {
	if e, ok := errors.AsType[*monitor.Error](err); ok {
		return e.Code
	}
	return 0
}

// rotate starts the change of the authority and returns its job.
func (r *rig) rotate(abort bool, skip ...uint64) monitor.Job {
	r.t.Helper()
	j, _, err := r.m.RotateCA(r.t.Context(), abort, skip, "root")
	if err != nil {
		r.t.Fatal(err)
	}
	return j
}

// job waits a little and returns the newest job.
func (r *rig) job() monitor.Job {
	r.t.Helper()
	r.pass(time.Second)
	all := r.jobs.List(true)
	if len(all) == 0 {
		r.t.Fatal("no job")
	}
	return all[len(all)-1]
}

// settled checks that there is one authority, and that all machines have
// certificates of it.
func (r *rig) settled(want string) {
	r.t.Helper()
	all, err := pki.Load(r.dir)
	if err != nil || len(all) != 1 || wire.RootName(all[0].DER()) != want || r.m.cfg.Credentials.OwnRoot() != want || len(r.m.cfg.Credentials.Roots()) != 1 {
		r.t.Errorf("the files name %d authorities, %v; the master's certificate is of %.8s; want %.8s alone", len(all), err, r.m.cfg.Credentials.OwnRoot(), want)
	}
	if b := r.bundle(); len(b.Roots) != 1 || wire.RootName(b.Roots[0]) != want {
		r.t.Errorf("the bundle names %d authorities", len(b.Roots))
	}
	keys, _ := filepath.Glob(filepath.Join(r.dir, "*.key"))
	if len(keys) != 1 {
		r.t.Errorf("keys: %v", keys)
	}
	for _, s := range r.sats {
		if s.up && !s.stuck && (s.cert != want || len(s.roots) != 1) {
			r.t.Errorf("sat%d has a certificate of %.8s and trusts %d authorities", s.id, s.cert, len(s.roots))
		}
	}
	var stored Rotation
	err = r.store.View(r.t.Context(), func(s store.Snapshot) error {
		b, _, err := s.Get(rotationKey)
		return errors.Join(err, json.Unmarshal(b, &stored))
	})
	if err != nil || stored.Stage != Settled || stored.Next != nil {
		r.t.Errorf("stored: %+v, %v", stored, err)
	}
}

func (r *rig) root() string { return wire.RootName(r.m.Authority().DER()) }

// RELIABILITY 4.2: the whole way, with a new start of the master in each stage
// and a satellite that joins on the way. Progress names who is missing, tokens
// are void at the switch since another authority issues, and in the end the old
// one is gone everywhere.
func TestRotate(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		one, two := r.join(), r.join()
		r.pass(2 * time.Second)
		old := r.root()
		two.stuck = true
		j := r.rotate(false)
		says := func(percent int, text string) {
			t.Helper()
			if got := r.job(); got.Finished() || got.Percent != percent || got.Message != text || got.ID != j.ID {
				t.Errorf("job %d, %d%%: %q (%d %s); want job %d, %d%%: %q", got.ID, got.Percent, got.Message, got.Code, got.Text, j.ID, percent, text)
			}
		}
		waits := fmt.Sprintf("1 of 2 servers trust the new authority; server 2 (sat2) has bundle %d, not yet %d", two.version, two.version+1)
		says(22, waits)
		if r.root() != old {
			t.Error("the new one issues already")
		}
		r.again()
		says(22, waits)
		two.up = false
		r.m.Closed(two.id, two.attachment)
		says(22, "1 of 2 servers trust the new authority; server 2 (sat2) is not connected")
		two.up, two.stuck = true, false
		two.open()
		says(45, "0 of 2 servers have certificates of the new authority; server 1 (sat1) has a certificate of the other authority still; server 2 (sat2) has a certificate of the other authority still")
		if r.root() == old || r.m.cfg.Credentials.OwnRoot() != r.root() || r.m.Authority().Fingerprint() == [32]byte{} {
			t.Error("the old one issues still")
		}
		next := r.root()
		r.again()
		three := r.join() // gets a certificate of the new one, and both to trust
		one.renew()
		says(45+66/2, "2 of 3 servers have certificates of the new authority; server 2 (sat2) has a certificate of the other authority still")
		if three.cert != next || len(three.roots) != 2 {
			t.Errorf("who joins gets a certificate of %.8s, and trusts %d", three.cert, len(three.roots))
		}
		r.again()
		two.renew()
		got := r.job()
		if got.Code != 200 || !strings.Contains(got.Text, "new authority, "+wire.FormatFingerprint(r.m.Authority().Fingerprint())) {
			t.Errorf("got %d %s", got.Code, got.Text)
		}
		r.settled(next)
		r.again()
		r.settled(next)
		if _, _, err := r.m.RotateCA(t.Context(), true, nil, "root"); code(err) != 554 {
			t.Errorf("taken back after the end: %v", err)
		}
		if len(r.cut) > 0 {
			t.Errorf("cut: %v", r.cut)
		}
	})
}

// Taken back, before anything was issued and after: by rotateca abort and by
// canceljob. In the end all is as before, also over restarts.
func TestRotateAbort(t *testing.T) {
	tests := map[string]struct {
		issued, cancel, restart bool
	}{
		"nothing was issued":              {},
		"nothing was issued, cancelled":   {cancel: true},
		"some have new certificates":      {issued: true},
		"some have them, restart":         {issued: true, restart: true},
		"some have them, cancelled":       {issued: true, cancel: true},
		"cancelled, then restart":         {issued: true, cancel: true, restart: true},
		"nothing was issued, and restart": {restart: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				one, two := r.join(), r.join()
				r.pass(2 * time.Second)
				old := r.root()
				two.stuck = !test.issued
				j := r.rotate(false)
				r.job()
				if test.issued {
					one.renew()
					if r.job(); one.cert == old {
						t.Fatal("no new certificate")
					}
				}
				if test.cancel {
					if _, asked, err := r.jobs.Cancel(t.Context(), j.ID); err != nil || !asked {
						t.Fatal(asked, err)
					}
				} else {
					r.rotate(true)
				}
				if test.issued {
					if got := r.job(); got.Finished() || !strings.HasPrefix(got.Message, "taking it back: 1 of 2 servers") {
						t.Errorf("got %q", got.Message)
					}
				}
				if test.restart {
					r.again()
					r.job()
				}
				two.stuck = false
				two.take()
				if test.issued {
					one.renew()
				}
				got := r.job()
				if got.Code != 444 {
					t.Errorf("got %d %s, want 444", got.Code, got.Text)
				}
				r.settled(old)
				for _, j := range r.jobs.List(false) {
					t.Errorf("job %d goes on: %s", j.ID, j.Message)
				}
			})
		})
	}
}

// A master that ends right after the change has, before the outcome of its job is
// stored: the next one tells how it ended.
func TestRotateToldByNext(t *testing.T) {
	for undo, want := range map[bool]string{true: "444 The change of the authority was taken back", false: "200 The cluster has a new authority"} {
		bubble(t, func(t *testing.T, r *rig) {
			one, two := r.join(), r.join()
			r.pass(2 * time.Second)
			two.up = false
			r.m.Closed(two.id, two.attachment)
			r.rotate(false, two.id)
			r.job()
			if undo {
				r.rotate(true)
			}
			r.store.tap = func(c store.Change) {
				var x Rotation
				if c.Key == rotationKey && json.Unmarshal(c.Value, &x) == nil && x.Stage == Settled {
					r.store.Fail(store.ErrNoSpace)
				}
			}
			one.renew()
			r.job()
			r.end()
			r.store.tap = nil
			r.store.Fail(nil)
			r.store.Restart()
			r.start()
			got := r.job()
			if text := fmt.Sprint(got.Code, " ", got.Text); !strings.HasPrefix(text, want) || !undo && !strings.HasSuffix(text, "1 servers were left out: register them again.") {
				t.Errorf("taken back: %v: got %s", undo, text)
			}
		})
	}
}

// A server that is away for good is left out by name: it is not waited for, its
// link is cut in the end, and the reply says that it must be registered again.
func TestRotateSkip(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		one, two, three := r.join(), r.join(), r.join()
		r.pass(2 * time.Second)
		two.up = false
		r.m.Closed(two.id, two.attachment)
		three.stuck = true
		if _, _, err := r.m.RotateCA(t.Context(), false, []uint64{9}, "root"); code(err) != 550 {
			t.Errorf("an unknown server: %v", err)
		}
		if r.m.now().Stage != Settled {
			t.Error("it was begun all the same")
		}
		first := r.rotate(false, 2)
		if got := r.job(); !strings.HasPrefix(got.Message, "1 of 2 servers trust the new authority, 1 left out; server 3 (sat3)") {
			t.Errorf("got %q", got.Message)
		}
		if again := r.rotate(false, 3); again.ID != first.ID {
			t.Errorf("another job: %d, %d", first.ID, again.ID)
		}
		r.job()
		one.renew()
		got := r.job()
		if got.Code != 200 || !strings.HasSuffix(got.Text, "2 servers were left out: register them again.") {
			t.Errorf("got %d %q", got.Code, got.Text)
		}
		r.settled(one.cert)
		if len(r.cut) != 1 || r.cut[0] != three.uuid {
			t.Errorf("cut %v, want the link of sat3 alone", r.cut)
		}
		for _, s := range []*sat{two, three} {
			s.up = false // they must be registered again
		}
	})
}

// RELIABILITY 4.2: whatever of a stage is done when the master is killed, the
// next one does the rest. What is stored comes first, then the files, one by
// one.
func TestRotateKilled(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		s := r.join()
		r.pass(2 * time.Second)
		old := r.m.Authority()
		next, err := wire.NewAuthorityOf(old.Cluster, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		from, to := wire.RootName(old.DER()), wire.RootName(next.DER())
		// killed ends the master, stores this and starts it again: no file was
		// written.
		killed := func(x Rotation) {
			t.Helper()
			r.end()
			r.store.Restart()
			row, err := json.Marshal(x)
			if err := errors.Join(err, r.store.Commit(t.Context(), r.store.Epoch(), nil, []store.Change{{Key: rotationKey, Value: row}})); err != nil {
				t.Fatal(err)
			}
			r.start()
			s.open()
			r.pass(time.Second)
		}
		// The key alone: nothing has begun, and nothing is in the way later.
		if err := pki.Keep(r.dir, next); err != nil {
			t.Fatal(err)
		}
		r.again()
		if r.root() != from {
			t.Fatal("a key alone has changed the authority")
		}
		x := Begin(from, to, next.DER(), nil)
		x.Since = r.version() + 1
		s.stuck = true
		killed(x)
		if b := r.bundle(); len(b.Roots) != 2 || wire.RootName(b.Roots[0]) != from || r.job().Finished() {
			t.Errorf("both: %d authorities", len(b.Roots))
		}
		s.stuck = false
		s.take() // and it goes on by itself
		if r.job(); r.root() != to {
			t.Fatal("the new one does not issue")
		}
		// Killed between ca.pem and the master's own certificate.
		own, err := pki.Own(old, r.m.cfg.Credentials.Identity, time.Now())
		if err := errors.Join(err, os.WriteFile(filepath.Join(r.dir, wire.IdentityFile), own, 0o600)); err != nil {
			t.Fatal(err)
		}
		r.again()
		if r.m.cfg.Credentials.OwnRoot() != to {
			t.Error("the master's own certificate is that of the old one still")
		}
		// Removing is stored, and no file is written yet.
		s.renew()
		s.stuck = true
		x.Stage, x.Since = Removing, r.version()+1
		killed(x)
		s.stuck = false
		s.take()
		if got := r.job(); got.Code != 200 {
			t.Errorf("got %d %s", got.Code, got.Message)
		}
		r.settled(to)
	})
}

// Pitfall 10: a copy of the database from before the change takes its place in
// the middle of it. The files count: the authority that issues ends up alone.
func TestRotateRestored(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		one, two := r.join(), r.join()
		r.pass(2 * time.Second)
		r.rotate(false)
		r.job()
		next := r.root()
		one.renew()
		r.restore()
		one.open()
		two.open()
		r.job()
		if _, _, err := r.m.RotateCA(t.Context(), true, nil, "root"); err != nil {
			t.Errorf("taken back once more: %v", err)
		}
		two.renew()
		r.job()
		r.settled(next)
	})
}

// Without the key of the authority the master works, and has no bundles.
func TestNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if err := os.Remove(filepath.Join(r.dir, pki.KeyFile)); err != nil {
			t.Fatal(err)
		}
		r.start()
		if r.m.Current() != nil || r.m.Authority() != nil {
			t.Error("there is a bundle")
		}
		if _, _, err := r.m.RotateCA(context.Background(), false, nil, "root"); code(err) != 554 {
			t.Errorf("got %v", err)
		}
		r.m.Changed()
		time.Sleep(time.Minute)
		r.end()
	})
}

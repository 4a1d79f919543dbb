package sim

import (
	"slices"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/guard"
)

// S9: neither a master nor an order of an older epoch is obeyed, also after a
// restart of the program.
func TestOldEpoch_S9(t *testing.T) {
	w := newWorld(t, 1)
	w.connect()
	w.die()
	w.boot()
	w.epoch = 6
	w.connect()
	if w.up {
		t.Error("a master of epoch 6 is welcome after one of epoch 7")
	}
	w.epoch = 7
	w.connect()
	w.sent = nil
	w.down(order(1, 6, "s1", pb.SessionOrder_ABORT))
	if len(w.sent) != 1 || wire.Kind(w.sent[0].GetResult().GetError().GetKind()) != wire.OldEpoch {
		t.Errorf("an order of epoch 6: got %v", w.sent)
	}
}

// leased is a satellite with a lease of 30 s, of which 4 are over, and one
// desktop.
func leased(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 1)
	w.lease = 30 * time.Second
	w.connect()
	w.tick(time.Second) // the guardian looks
	w.login("alice")
	w.answer(true, nil)
	w.answer(true, nil)
	w.tick(3 * time.Second) // a slow disk has had its time
	w.come("s1")
	if w.desks["s1"] == nil {
		t.Fatalf("no desktop: %v", w.ends)
	}
	return w
}

// S1: a desktop ends with the lease, also one that was found again.
func TestLease_S1(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := leased(t)
		w.hangUp()
		if restart {
			w.die()
			w.boot()
			w.find("s1", nil)
		}
		w.tick(26 * time.Second) // exactly the lease, from the hello on
		if slices.Contains(w.trace, "quit s1") {
			t.Errorf("restart %v: ended before the end of the lease", restart)
		}
		w.tick(time.Second)
		if !slices.Contains(w.trace, "quit s1") {
			t.Errorf("restart %v: not ended after the lease", restart)
		}
		w.tick(5 * time.Second)
		if !slices.Contains(w.trace, "kill s1") {
			t.Errorf("restart %v: not killed", restart)
		}
	}
}

// S1: a program that dies and stays away leaves its desktops to the guardian,
// which lets them live as long as the lease, and leaves when all is done.
func TestGuardian_S1(t *testing.T) {
	w := leased(t)
	w.die()
	w.tick(26*time.Second + guard.After)
	if w.desks["s1"] == nil || len(w.guards) != 1 {
		t.Errorf("while the program may be about to end it: desktops %v, %d guardians", w.desks, len(w.guards))
	}
	w.tick(time.Second)
	if w.desks["s1"] != nil {
		t.Error("the desktop outlives the lease")
	}
	w.tick(time.Second)
	w.tick(2 * time.Minute)
	if len(w.guards) != 0 {
		t.Error("the guardian stays with nothing to guard")
	}
}

// S1: under a lease nothing starts while no guardian is awake; one that is
// killed or frozen is replaced, also by the next start of the program, and there
// is no moment without one.
func TestGuardianReplaced_S1(t *testing.T) {
	w := leased(t)
	first := w.guards[0]
	first.frozen = true
	w.tick(5 * time.Second)
	id := w.login("bob")
	w.answer(true, nil)
	if len(w.open) != 0 {
		t.Error("a place is claimed while the guardian does not stir")
	}
	w.tick(6 * time.Second)
	if len(w.guards) != 1 || w.guards[0] == first {
		t.Errorf("the frozen guardian was not replaced: %v", w.Guards(""))
	}
	for range 3 { // the new one shows itself; bob's login is tried again
		w.tick(time.Second)
		w.answer(true, nil)
	}
	w.tick(3 * time.Second)
	w.come("s2")
	if o := w.ends[id]; o.Session != "s2" {
		t.Errorf("bob: got %+v, want s2", o)
	}

	old := w.guards[0]
	w.die()
	w.boot()
	w.do(w.sat.Tick)
	if len(w.guards) != 2 {
		t.Errorf("before the new guardian has shown itself: %d guardians, want the old one, too", len(w.guards))
	}
	w.tick(time.Second)
	if len(w.guards) != 1 || w.guards[0] == old {
		t.Errorf("the guardian of the earlier program was not dismissed: %v", w.Guards(""))
	}
	w.EndGuard(w.guards[0].pid)
	w.tick(time.Second)
	if len(w.guards) != 1 {
		t.Error("the guardian that was killed was not replaced")
	}
	w.lease = 0
	w.hangUp()
	w.connect()
	if len(w.guards) != 0 {
		t.Error("there is a guardian, and no lease")
	}
}

// S1: a program that was stopped in the middle of a login does not start the
// desktop when its lease is over.
func TestStoppedInALogin_S1(t *testing.T) {
	w := leased(t)
	id := w.login("bob")
	w.answer(true, nil)
	w.pass(26 * time.Second) // nobody looks
	w.pass(time.Second)
	w.answer(true, nil)
	w.tick(3 * time.Second)
	if slices.Contains(w.trace, "start s2") || w.link != 0 || kindOf(w.ends[id]) != wire.NotReady || slices.Contains(w.noted(), "s2") {
		t.Errorf("got %+v, link %d, journal %v: want nothing started, the link ended, and nothing in the journal", w.ends[id], w.link, w.noted())
	}
}

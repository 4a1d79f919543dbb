package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"verdecmd/master/placement"
)

// Row D, V-9: a satellite that asks for places in a loop cannot take them all;
// what is claimed, given up or on itself is not counted, and others are served.
func TestGreedy(t *testing.T) {
	w := newWorld(t, 3)
	for id := uint64(1); id <= 3; id++ {
		h := hello(id)
		h.Load.MemoryTotal, h.Load.MemoryFree, h.Load.SnapFree = 64*gib, 64*gib, 1<<50
		w.hello(h)
	}
	n := 0
	ask := func(from uint64) (Referral, error) {
		n++
		defer w.check()
		return w.c.Refer(w.now, Login{User: fmt.Sprint("user", n), UID: uint32(5000 + n), Need: placement.Need{Memory: gib}, From: from})
	}
	held, own, err := 0, 0, error(nil)
	var last Referral
	for {
		var ref Referral
		if ref, err = ask(1); err != nil {
			break
		}
		if ref.Server.ID == 1 {
			own++
		} else {
			held++
			last = ref
		}
	}
	var refused *RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), fmt.Sprintf("server 1 (sat1) has asked for %d places on other servers", held)) {
		t.Fatalf("after %d places the refusal is %v", held, err)
	}
	if most := int(3 * 64 * gib / 2 / (gib + placement.Overhead)); held != most || own == 0 {
		t.Errorf("it holds %d places on others and %d on itself, want %d", held, own, most)
	}
	if _, err := ask(2); err != nil {
		t.Errorf("another server asks: %v", err)
	}
	// One is claimed: one more may be asked for.
	w.uids[last.Reservation.User] = last.Reservation.UID
	if err := w.claim(last.Reservation.User, last.Server.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(1); err != nil {
		t.Errorf("after a claim: %v", err)
	}
	w.wait(w.c.limits.ReservationTimeout + time.Second)
	w.c.Expire(w.now)
	w.check()
	w.reportAll()
	if len(w.c.asked) > 0 {
		t.Errorf("after their time it still counts %v", w.c.asked)
	}
	if _, err := ask(1); err != nil {
		t.Errorf("after their time: %v", err)
	}
}

// Two machines with one identity: while the second tries, neither gets new
// sessions, and what runs goes on; when it has gone for good, all is as before.
func TestTwin(t *testing.T) {
	w := newWorld(t, 1)
	x := w.login("alice")
	w.report(1, []Reported{x})
	twin := hello(1)
	twin.Instance = "second"
	if _, _, err := w.c.Attach(w.now, twin); !errors.Is(err, ErrDuplicate) {
		t.Fatalf("the second machine: %v", err)
	}
	w.check()
	if _, err := w.refer("bob"); err == nil || !strings.Contains(err.Error(), "two machines have copies of one certificate") {
		t.Errorf("a login meanwhile: %v", err)
	}
	if ref, err := w.refer("alice"); err != nil || ref.Session == nil {
		t.Errorf("who has a session: %v, %v", ref, err)
	}
	w.wait(twinGone)
	w.report(1, nil)
	if _, err := w.refer("bob"); err == nil {
		t.Error("a login just before it counts as gone succeeded")
	}
	w.wait(time.Second)
	w.report(1, nil)
	if _, err := w.refer("bob"); err != nil {
		t.Errorf("a login after it has gone: %v", err)
	}
	// The first one ends and the second is let in: there is one again.
	w.c.Attach(w.now, twin)
	w.detach(1)
	w.hello(func() Hello { h := twin; h.Sessions = []Reported{x}; return h }())
	if _, err := w.refer("bob"); err != nil {
		t.Errorf("a login with the second alone: %v", err)
	}
}

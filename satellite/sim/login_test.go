package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/session"
)

// What a login comes to, by the real rules.
func TestLogin(t *testing.T) {
	tests := map[string]struct {
		play func(w *world) uint64
		want string
	}{
		"a new desktop": {func(w *world) uint64 {
			id := w.granted("alice")
			w.come("s1")
			return id
		}, "s1"},
		"sent elsewhere": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			w.answer(false, nil)
			return id
		}, "server 2"},
		"the desktop that is there": {func(w *world) uint64 {
			w.granted("alice")
			w.come("s1")
			return w.login("alice")
		}, "s1 existing"},
		"no desktop": {func(w *world) uint64 { return w.login("nobody") },
			"not-found: nobody has no desktop that could be started"},
		"no master for long": {func(w *world) uint64 {
			id := w.login("alice")
			w.tick(14 * time.Second)
			if len(w.ends) != 0 {
				w.t.Errorf("before MasterLost: got %v", w.ends)
			}
			w.tick(time.Second)
			return id
		}, "unreachable: the cluster master (master) cannot be reached since 15 s"},
		"a master that comes in time": {func(w *world) uint64 {
			id := w.login("alice")
			w.tick(14 * time.Second)
			w.connect()
			w.answer(false, nil)
			return id
		}, "server 2"},
		"refused by the master": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			w.answer(true, wire.Errorf(wire.NoCapacity, "no place"))
			return id
		}, "no-capacity: no place"},
		"a master that still learns": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			for range 20 {
				w.answer(true, wire.Errorf(wire.NotReady, "wait"))
				w.tick(250 * time.Millisecond)
			}
			if len(w.ends) != 0 {
				w.t.Errorf("after 20 tries: got %v", w.ends)
			}
			w.answer(true, wire.Errorf(wire.NotReady, "wait"))
			return id
		}, "not-ready: wait"},
		"a full disk": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			w.answer(true, nil)
			w.full = true
			w.answer(true, nil)
			if w.link != 0 {
				w.t.Error("the link stays: the master would believe in a session")
			}
			return id
		}, "internal: the session cannot be noted, so it is not started: no space left"},
		"no answer to a claim": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			w.answer(true, nil)
			w.tick(10 * time.Second)
			if w.link != 0 {
				w.t.Error("the link stays, and what came of the claim is not known")
			}
			w.tick(5 * time.Second)
			w.tick(15 * time.Second)
			return id
		}, "unreachable: the cluster master (master) cannot be reached"},
		"one at a time": {func(w *world) uint64 {
			w.connect()
			w.login("alice")
			id := w.login("alice")
			if len(w.open) != 1 {
				w.t.Errorf("%d calls at once for one user", len(w.open))
			}
			w.answer(true, wire.Errorf(wire.NoCapacity, "no place"))
			w.tick(session.RefusedPause - 1)
			if len(w.open) != 0 {
				w.t.Error("no pause after a refusal")
			}
			w.tick(1)
			w.answer(false, nil)
			return id
		}, "server 2"},
		"a desktop that is ending is waited for": {func(w *world) uint64 {
			w.granted("alice")
			w.come("s1")
			w.down(order(1, w.epoch, "s1", pb.SessionOrder_ABORT))
			id := w.login("alice")
			if len(w.open) != 0 {
				w.t.Error("the master is asked while the desktop ends")
			}
			w.end("s1", false)
			w.answer(false, nil)
			return id
		}, "server 2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			id := tt.play(w)
			o, ok := w.ends[id]
			got := "no answer"
			switch {
			case !ok:
			case o.Err != nil:
				got = fmt.Sprintf("%s: %v", kindOf(o), o.Err)
			case o.Server != 0:
				got = fmt.Sprintf("server %d", o.Server)
			case o.Existing:
				got = o.Session + " existing"
			default:
				got = o.Session
			}
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

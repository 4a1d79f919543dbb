package sim

import (
	"slices"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
)

// play is a story that bytes tell.
func (w *world) play(story []byte) {
	users := []string{"alice", "bob", "carol", "nobody"}
	for i := 0; i+1 < len(story); i += 2 {
		op, x := story[i], story[i+1]
		ids := w.noted()
		id := "s0"
		if len(ids) > 0 {
			id = ids[int(x)%len(ids)]
		}
		switch {
		case op < 40:
			w.login(users[int(x)%len(users)])
		case op < 90:
			w.answer(x%8 != 0, nil)
		case op < 100:
			w.answer(true, wire.Errorf([]wire.Kind{wire.NotReady, wire.NoCapacity, wire.StaleLink, wire.LostSession, wire.Internal}[x%5], "no"))
		case op < 130:
			w.come(id)
		case op < 138:
			w.do(func() { w.sat.Stopping(id) })
		case op < 146:
			w.end(id, x%2 == 0)
		case op < 156:
			w.find(id, [...]error{nil, nil, simulated.ErrNoReply}[x%3])
		case op < 186:
			w.tick(time.Duration(x) * 20 * time.Millisecond)
		case op < 206:
			if w.link == 0 && w.sat != nil {
				w.connect()
			}
		case op < 214:
			w.hangUp()
		case op < 222:
			if w.up && w.link != 0 {
				w.down(order(uint64(i), w.epoch-uint64(x%8/7), id, pb.SessionOrder_Action(x%5)))
			}
		case op < 225:
			w.fuse = 1 + int(x%8)
		case op < 237:
			w.boot()
		case op < 240:
			w.full = x%3 == 0
		case op < 243:
			if x%4 == 0 {
				w.epoch++
			}
			w.lease = time.Duration(x%2) * 20 * time.Second
		case op < 249:
			w.do(func() { w.sat.Pinged(id, [...]error{nil, simulated.ErrNoReply, simulated.ErrHalted}[x%3]) })
		default:
			w.report()
		}
		w.check()
	}
}

// report is a load report, with a lease for an answer.
func (w *world) report() {
	if !w.up || w.link == 0 {
		return
	}
	w.do(func() {
		r := w.sat.Report(w.link)
		if r == nil {
			w.t.Error("no report on a link that is welcomed")
			return
		}
		w.down(&pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: r.Seq}}})
	})
}

// check: S7, whatever has happened, what runs is in journal and inventory.
func (w *world) check() {
	if w.sat == nil || w.fuse > 0 {
		return
	}
	here := w.sat.Sessions()
	for id := range w.desks {
		if !slices.Contains(here, id) {
			w.t.Fatalf("S7: %s runs and is not in the inventory %v", id, here)
		}
		if !slices.Contains(w.noted(), id) {
			w.t.Fatalf("S7: %s runs and is not in the journal", id)
		}
	}
}

// calm brings a story to its end: every login of a living program is answered.
func (w *world) calm() {
	w.full, w.fuse = false, 0
	w.boot()
	for range 400 {
		if w.link == 0 {
			w.connect()
		}
		w.answer(false, nil)
		for _, id := range w.noted() {
			w.find(id, nil)
			w.come(id)
			w.end(id, true)
		}
		w.tick(time.Second)
	}
	for id := range w.begun {
		if _, ok := w.ends[id]; !ok {
			w.t.Fatalf("LV2: login %d of %s was never answered", id, w.users[id])
		}
	}
	if got := append(w.noted(), w.sat.Sessions()...); len(got) != 0 {
		w.t.Errorf("left over at the end: %v", got)
	}
}

// FuzzStory: whatever happens, in whatever order, the satellite keeps S7 and S9,
// answers each login once, and does the same again when it is told the same.
func FuzzStory(f *testing.F) {
	f.Add([]byte{190, 0, 0, 0, 50, 1, 50, 1, 180, 30, 110, 0, 223, 3, 140, 1, 230, 0, 150, 0})                          // a crash
	f.Add([]byte{0, 0, 241, 1, 190, 0, 50, 1, 50, 1, 110, 0, 210, 0, 180, 255, 180, 255, 180, 255, 180, 255, 180, 255}) // a lease
	f.Add([]byte{190, 0, 0, 0, 50, 1, 238, 0, 50, 1, 238, 1, 190, 0, 95, 0, 180, 3, 95, 2, 210, 0})                     // a full disk
	f.Fuzz(func(t *testing.T, story []byte) {
		if len(story) > 2000 {
			return
		}
		stories(t, story, 1)
	})
}

func stories(t *testing.T, story []byte, seed uint64) {
	t.Helper()
	a := newWorld(t, seed)
	a.play(story)
	a.calm()
	b := newWorld(t, seed)
	b.play(story)
	b.calm()
	if !slices.Equal(a.trace, b.trace) {
		i := 0
		for i < min(len(a.trace), len(b.trace)) && a.trace[i] == b.trace[i] {
			i++
		}
		t.Fatalf("the same story twice differs at %d: %v, %v", i, a.trace[i:min(i+3, len(a.trace))], b.trace[i:min(i+3, len(b.trace))])
	}
}

// The same as FuzzStory, with stories that are long and the same in every run.
func TestStories(t *testing.T) {
	for seed := range uint64(150) {
		c := newComputer(t, seed)
		story := make([]byte, 2*250)
		for i := range story {
			story[i] = byte(c.rnd.Uint32())
		}
		stories(t, story, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
	"verdecmd/satellite/guard"
	"verdecmd/satellite/session"
)

// world is a computer with its satellite and, played by the test, a master.
type world struct {
	*computer
	sat    simulated.Satellite // nil: not running
	serial uint64              // of links, of one start of the program
	epoch  uint64
	lease  time.Duration
	ids    uint64
	logins uint64
	up     bool // the link is welcomed
	users  map[uint64]string
	begun  map[uint64]bool // logins of this start of the program
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{computer: newComputer(t, seed), epoch: 7, users: map[uint64]string{}}
	w.boot()
	return w
}

// do lets the program do something; it may die in it.
func (w *world) do(f func()) {
	if w.sat == nil {
		return
	}
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case crash:
			w.die()
		default:
			panic(r)
		}
	}()
	f()
}

func (w *world) die() {
	w.sat, w.up, w.link, w.fuse, w.dead = nil, false, 0, 0, true
	clear(w.open)
	for _, id := range slices.Sorted(maps.Keys(w.desks)) { // a start dies with its program, before or after there is a process
		if d := w.desks[id]; d.pid == 0 {
			if w.rnd.IntN(2) == 0 {
				delete(w.desks, id)
			} else {
				w.pid++
				d.pid = w.pid
			}
		}
	}
}

func (w *world) boot() {
	if w.sat != nil {
		return
	}
	w.serial, w.begun, w.dead = 0, map[uint64]bool{}, false
	w.programs++
	w.sat = New(simulated.Config{Name: "sat1", Facts: &pb.HostFacts{}, Instance: "i", Host: w.computer, MasterLost: 15 * time.Second})
	w.do(func() {
		if err := w.sat.Begin(); err != nil && !w.full {
			w.t.Errorf("begin: %v", err)
		} else if err != nil {
			w.die()
		}
	})
}

// connect opens a link and welcomes it.
func (w *world) connect() {
	w.serial++
	w.up = false
	w.do(func() {
		h := w.sat.Open(w.serial)
		w.link = w.serial
		var here []string
		for _, s := range h.Report.Sessions.Sessions {
			here = append(here, s.Id)
		}
		for id := range w.desks {
			if !slices.Contains(here, id) {
				w.t.Errorf("S7: %s runs and is not in the hello: %v", id, here)
			}
		}
		for n := range w.ids { // what the hello does not have the master gives to others
			if id := fmt.Sprintf("s%d", n+1); !slices.Contains(here, id) {
				w.void[id] = true
			}
		}
		w.down(&pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Epoch: w.epoch, ServerId: 1, Attachment: w.serial, Pace: &pb.Pace{}, LeaseSelfMs: uint32(w.lease.Milliseconds())}}})
		w.up = w.link != 0
	})
}

func (w *world) down(d *pb.Down) {
	w.do(func() {
		if err := w.sat.Receive(w.link, d); err != nil {
			w.link, w.up = 0, false
		}
	})
}

func (w *world) hangUp() {
	if old := w.link; old != 0 {
		w.link, w.up = 0, false
		w.do(func() { w.sat.Closed(old) })
	}
}

func (w *world) login(user string) uint64 {
	if w.sat == nil {
		return 0
	}
	w.logins++
	id := w.logins
	w.users[id], w.begun[id] = user, true
	w.do(func() { w.sat.Login(id, user, 1000+uint32(user[0])) })
	return id
}

// answer answers the oldest call of the master, if any.
func (w *world) answer(here bool, fail error) {
	for _, id := range slices.Sorted(maps.Keys(w.open)) {
		r := w.open[id]
		delete(w.open, id)
		if w.on[id] != w.link {
			w.do(func() { w.sat.Answered(id, nil, fail) }) // late: nobody waits
			continue
		}
		w.do(func() {
			switch r.(type) {
			case *pb.ReferRequest:
				reply := &pb.ReferReply{ServerId: 1}
				if !here {
					reply.ServerId = 2
				}
				w.sat.Answered(id, reply, fail)
			case *pb.ClaimRequest:
				w.ids++
				w.sat.Answered(id, &pb.ClaimReply{Session: fmt.Sprintf("s%d", w.ids), Epoch: w.epoch}, fail)
			}
		})
		return
	}
}

// come brings the desktop of a session one step on.
func (w *world) come(id string) {
	d := w.desks[id]
	if d == nil {
		return
	}
	if d.pid == 0 {
		w.pid++
		d.pid = w.pid
		w.do(func() { w.sat.Started(id, d.pid, nil) })
	}
	w.do(func() { w.sat.Ready(id) })
}

// end ends a desktop.
func (w *world) end(id string, guest bool) {
	if w.desks[id] == nil {
		return
	}
	starting := w.desks[id].pid == 0
	delete(w.desks, id)
	w.do(func() {
		if starting {
			w.sat.Started(id, 0, errors.New("it did not start"))
		} else {
			w.sat.Exited(id, guest)
		}
	})
}

// find answers what the program asked with Find.
func (w *world) find(id string, err error) {
	w.do(func() {
		if d := w.desks[id]; d == nil {
			w.sat.Found(id, 0, simulated.ErrGone)
		} else {
			w.sat.Found(id, d.pid, err)
		}
	})
}

func (w *world) tick(d time.Duration) {
	w.pass(d)
	w.do(w.watch)
	if w.sat == nil {
		w.fuse = 0
		w.watch()
	}
	w.do(func() {
		w.sat.Tick()
		if at := w.sat.Wake(); !at.IsZero() && !at.After(w.clock.Mono) {
			w.t.Errorf("after a tick another one is due %v ago", w.clock.Mono.Sub(at))
		}
	})
}

// sessions is the journal and the desktops that run, for comparison.
func (w *world) noted() (out []string) {
	for _, f := range w.Files() {
		if name, ok := strings.CutPrefix(f, entries); ok {
			out = append(out, strings.TrimSuffix(name, ".json"))
		}
	}
	return out
}

func kindOf(o simulated.Outcome) wire.Kind { return wire.KindOf(o.Err) }

// What a login comes to, by the real rules.
func TestLogin(t *testing.T) {
	tests := map[string]struct {
		play func(w *world) uint64
		want string
	}{
		"a new desktop": {func(w *world) uint64 {
			w.connect()
			id := w.login("alice")
			w.answer(true, nil)
			w.answer(true, nil)
			w.tick(3 * time.Second) // a slow disk has had its time
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
			w.connect()
			w.login("alice")
			w.answer(true, nil)
			w.answer(true, nil)
			w.tick(3 * time.Second)
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
			w.connect()
			w.login("alice")
			w.answer(true, nil)
			w.answer(true, nil)
			w.tick(3 * time.Second)
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

func order(id, epoch uint64, session string, a pb.SessionOrder_Action) *pb.Down {
	return &pb.Down{Kind: &pb.Down_Order{Order: &pb.Order{Id: id, Epoch: epoch, Kind: &pb.Order_Session{Session: &pb.SessionOrder{Session: session, Action: a}}}}}
}

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

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

func order(id, epoch uint64, session string, a pb.SessionOrder_Action) *pb.Down {
	return &pb.Down{Kind: &pb.Down_Order{Order: &pb.Order{Id: id, Epoch: epoch, Kind: &pb.Order_Session{Session: &pb.SessionOrder{Session: session, Action: a}}}}}
}

// granted connects and lets a user log in whose place is here; a disk that is
// slow has had its time.
func (w *world) granted(user string) (login uint64) {
	w.connect()
	login = w.login(user)
	w.answer(true, nil)
	w.answer(true, nil)
	w.tick(3 * time.Second)
	return login
}

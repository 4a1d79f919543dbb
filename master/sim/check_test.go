package sim

import (
	"context"
	"testing"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
)

// calm is a world without steps in which everything is up: two hosts, a master
// with epoch 2.
func calm(t *testing.T) *world {
	t.Helper()
	w := newWorld(Config{Satellite: newHonest("")}, plan{seed: 1, satellites: 2, users: 6, interval: 3 * time.Second, reservation: time.Minute,
		startTimeout: time.Minute, masterRate: 1})
	w.startMaster()
	for _, c := range w.computers {
		c.powerOn()
	}
	w.until(10 * time.Second)
	if w.bad != nil || len(w.master().cluster.Servers()) != 2 {
		t.Fatalf("the world is not calm: %v", w.bad)
	}
	return w
}

// until lets time pass.
func (w *world) until(at time.Duration) {
	for len(w.queue.all) > 0 && w.queue.all[0].at <= at {
		e := w.queue.pop()
		w.time = e.at
		e.do()
	}
	w.time = at
}

// forge makes a desktop run of which nobody knows why.
func (c *computer) forge(session, user string) *process {
	x := &process{c: c, pid: 999, session: session, uuid: "forged", user: user, began: c.w.time, ready: true, dice: 1}
	c.procs = append(c.procs, x)
	c.w.began(x)
	return x
}

// comes lets a user get a desktop in the ordinary way.
func (w *world) comes(t *testing.T, user int) *process {
	t.Helper()
	u := w.users[user]
	w.login(&visit{user: u, uid: u.uid, dice: 5, done: func(bool, error) {}})
	w.until(w.time + 20*time.Second)
	x := w.runs(u.name)
	if x == nil || w.bad != nil {
		t.Fatalf("%s has no desktop: %v", u.name, w.bad)
	}
	return x
}

// Each checker finds what it is there for. The name of a row is the promise.
func TestCheckers(t *testing.T) {
	tests := map[string]struct {
		want string
		do   func(t *testing.T, w *world)
	}{
		"nothing is wrong": {"", func(t *testing.T, w *world) {
			w.comes(t, 3)
			w.until(time.Minute)
			w.booksAgree("end")
		}},
		"S1: two desktops of one user": {"S1", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			other := w.computers[0]
			if x.c == other {
				other = w.computers[1]
			}
			other.forge("s77", x.user)
		}},
		"S1: also while the host of one stands still": {"S1", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			x.c.suspend()
			w.computers[1-int(x.c.number)].forge("s77", x.user)
		}},
		"S3: a reservation that nobody ends": {"S3", func(_ *testing.T, w *world) {
			m := w.master()
			m.cluster.Refer(m.now(), cluster.Login{User: "x", UID: 1, Need: placement.Need{Memory: 1 << 30}})
			m.audit.made["r1"] = m.now()
			w.time += 2 * time.Second
			m.audit.look()
		}},
		"S3: a reservation that has ended twice": {"S3", func(_ *testing.T, w *world) {
			w.master().event("reservation.expired", "", monitor.Pair{Key: "reservation", Value: "r9"})
		}},
		"S3: session and reservation": {"S3", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			m := w.master()
			m.cluster.Refer(m.now(), cluster.Login{User: "u5", UID: 1, Need: placement.Need{Memory: 1 << 30}})
			w.granted(m, x.c, &grant{user: "u5", c: x.c, reservation: "r1"}, &pb.ClaimReply{Session: "s88", Epoch: m.id})
		}},
		"S4: a session without a reservation": {"S4", func(_ *testing.T, w *world) {
			w.granted(w.master(), w.computers[0], &grant{user: "u4", c: w.computers[0]}, &pb.ClaimReply{Session: "s88"})
		}},
		"S4: a number that is given twice": {"S4", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.granted(w.master(), x.c, &grant{user: "u4", c: x.c, reservation: "r1"}, &pb.ClaimReply{Session: x.session})
		}},
		"S4: a start without a claim": {"S4", func(_ *testing.T, w *world) {
			w.startsOne(w.computers[0].program, "s88", "u4")
		}},
		"S4: a second start": {"S4", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.startsOne(x.c.program, x.session, x.user)
		}},
		"S5: a state that was acknowledged is gone": {"S5", func(_ *testing.T, w *world) {
			w.setState(w.master(), 1, cluster.Offline, 1)
			w.until(w.time + time.Second)
			w.forgetRecord("servers", "1", `{"id":1,"uuid":"`+w.hostOf[1].uuid+`","name":"`+w.hostOf[1].name+`","state":"online"}`)
		}},
		"S5: half of a change": {"S5", func(_ *testing.T, w *world) {
			w.setState(w.master(), 1, cluster.Offline, 1)
			w.until(w.time + time.Second)
			w.forgetRecord("servers", "1", `{"id":1,"uuid":"`+w.hostOf[1].uuid+`","name":"`+w.hostOf[1].name+`","state":"offline","reason":"op2"}`)
		}},
		"S5: a server is gone": {"S5", func(_ *testing.T, w *world) { w.forgetRecord("servers", "1", "") }},
		"S5: a session that was given is gone": {"S5", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.forgetRecord("sessions", x.user, "")
		}},
		"S5: a session that was released is back": {"S5", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.released([]string{x.session})
			w.master().crash("test")
			w.until(w.time + 10*time.Second)
		}},
		"S5: a server number is given twice": {"S5", func(_ *testing.T, w *world) { w.known(w.master(), w.computers[0], w.computers[1].server(w.master())) }},
		"S6: a session on a server that is offline": {"S6", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			m := w.master()
			id := x.c.server(m)
			w.states[id].of = []wanted{{cluster.Offline, ""}}
			delete(w.grants, x.session)
			w.granted(m, x.c, &grant{user: x.user, c: x.c, reservation: "r1"}, &pb.ClaimReply{Session: x.session})
		}},
		"S6: a server that is empty and where a desktop runs": {"S6", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.emptied(x.c.server(w.master()))
		}},
		"S7: an end that nobody has ordered": {"S7", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			x.c.program.Kill(x.session)
		}},
		"S7: the desktop of somebody else": {"S7", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			x.c.program.procs["s88"] = x
			x.c.forced["s88"] = true
			x.c.program.Kill("s88")
		}},
		"S7: another pid than the one that was told": {"S7", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			x.pid++
			w.booksAgree("end")
		}},
		"S8: a master ends a desktop that nobody wants ended": {"S8", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.ordered(w.master(), x.c, &pb.SessionOrder{Session: x.session, Action: pb.SessionOrder_ABORT})
		}},
		"S8: a start on an answer of an earlier link": {"S8", func(_ *testing.T, w *world) {
			p := w.computers[0].program
			p.told["s88"] = &grant{session: "s88", user: "u4", c: p.c, epoch: 2, cable: p.latest - 1}
			w.startsOne(p, "s88", "u4")
		}},
		"S9: a start by an old master": {"S9", func(_ *testing.T, w *world) {
			p := w.computers[0].program
			p.told["s88"] = &grant{session: "s88", user: "u4", c: p.c, epoch: 1, cable: p.latest}
			w.startsOne(p, "s88", "u4")
		}},
		"S9: an order of an old master": {"S9", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			x.c.forced[x.session] = true
			x.c.program.order = &pb.Order{Epoch: 1}
			x.c.program.Quit(x.session)
		}},
		"S9: a welcome of an old master": {"S9", func(_ *testing.T, w *world) {
			p := w.computers[0].program
			p.c.epoch = 3
			p.receive(p.cable, &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Epoch: 2, Pace: &pb.Pace{IntervalMs: 1000}}}})
		}},
		"S9: a commit of an old master": {"S9", func(_ *testing.T, w *world) {
			w.newest++
			w.changed(w.master(), []store.Change{{Key: store.Key{Bucket: "sessions", ID: "x"}}}, true)
		}},
		"S11: a session has gone and nobody was told": {"S11", func(_ *testing.T, w *world) {
			a := &w.master().audit
			a.sessions["s88"] = true
			a.look()
		}},
		"S11: a link has gone and nobody was told": {"S11", func(_ *testing.T, w *world) {
			a := &w.master().audit
			a.look()
			a.links[1]++
			a.look()
		}},
		"LV1: a satellite is not connected": {"LV1", func(_ *testing.T, w *world) {
			w.computers[0].powerOff()
			w.until(time.Minute)
			w.allKnown()
		}},
		"LV1: a desktop that the master does not know": {"LV1", func(_ *testing.T, w *world) {
			w.computers[0].forge("s88", "u4")
			w.until(time.Minute)
			w.allKnown()
		}},
		"LV2: a login that does not come through": {"LV2", func(_ *testing.T, w *world) {
			for _, c := range w.computers {
				c.failing = 1 << 20
				for i := range 2 {
					c.cut[i]++
				}
			}
			w.prompt(4, 5*time.Second, nil)
			w.until(w.time + 6*time.Second)
		}},
		"LV3: a guest that outlives its log-off": {"LV3", func(t *testing.T, w *world) {
			x := w.comes(t, 3)
			w.confirmed(x.c, x.session, monitor.Logoff, 5*time.Second)
			w.until(w.time + 20*time.Second)
		}},
		"panic: a fault of the program": {"panic", func(_ *testing.T, w *world) {
			w.queue.push(w.time, func() { panic("test") })
			w.happen()
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := calm(t)
			defer func() {
				for _, m := range w.masters {
					m.kill()
				}
			}()
			tt.do(t, w)
			switch {
			case tt.want == "" && w.bad != nil:
				t.Errorf("got %v", w.bad)
			case tt.want != "" && (w.bad == nil || w.bad.Check != tt.want):
				t.Errorf("got %v, want %s", w.bad, tt.want)
			}
		})
	}
}

// forgetRecord changes the store behind the master's back and starts it anew.
func (w *world) forgetRecord(bucket, id, value string) {
	var b []byte
	if value != "" {
		b = []byte(value)
	}
	if err := w.store.Commit(context.Background(), w.store.Epoch(), nil, []store.Change{{Key: store.Key{Bucket: bucket, ID: id}, Value: b}}); err != nil {
		panic(err)
	}
	w.master().crash("test")
	w.until(w.time + 10*time.Second)
}

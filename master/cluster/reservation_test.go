package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"verdecmd/master/placement"
)

// V-91, V-92, S3: where a login goes.
func TestRefer(t *testing.T) {
	type want struct {
		server    uint64
		session   string
		res       string
		made      bool
		cancelled string
	}
	tests := map[string]struct {
		servers int
		before  func(w *world)
		want    want
		err     error
	}{
		"the least loaded server":   {servers: 2, before: func(w *world) { w.login("bob") }, want: want{server: 2, res: "r2", made: true}},
		"the lower ID decides ties": {servers: 3, want: want{server: 1, res: "r1", made: true}},
		"an existing session first, whatever the load": {servers: 2, before: func(w *world) { w.login("alice") },
			want: want{server: 1, session: "s1"}},
		"an existing session on an offline server": {servers: 2, before: func(w *world) { w.login("alice"); w.offline(1) },
			want: want{server: 1, session: "s1"}},
		"an existing session on a stale server": {servers: 2, before: func(w *world) { w.login("alice"); w.wait(time.Hour) },
			want: want{server: 1, session: "s1"}},
		"the same reservation again": {servers: 2, before: func(w *world) { w.refer("alice") }, want: want{server: 1, res: "r1"}},
		"the same reservation again at its deadline": {servers: 2, before: func(w *world) { w.refer("alice"); w.wait(timeout); w.reportAll() },
			want: want{server: 1, res: "r1"}},
		"the same while it is being claimed": {servers: 2, before: func(w *world) { w.refer("alice"); w.begin("alice", 1) },
			want: want{server: 1, res: "r1"}},
		"the same while it is being claimed, even after its deadline": {servers: 2, before: func(w *world) {
			w.refer("alice")
			w.begin("alice", 1)
			w.wait(time.Hour)
			w.reportAll()
		}, want: want{server: 1, res: "r1"}},
		"a new one after the deadline": {servers: 1, before: func(w *world) { w.refer("alice"); w.wait(timeout + 1); w.reportAll() },
			want: want{server: 1, res: "r2", made: true, cancelled: "r1"}},
		"a new one when its server was taken offline": {servers: 2, before: func(w *world) { w.refer("alice"); w.offline(1) },
			want: want{server: 2, res: "r2", made: true}},
		"a new one when its server is silent": {servers: 2, before: func(w *world) { w.refer("alice"); w.wait(4 * interval); w.report(2, nil) },
			want: want{server: 2, res: "r2", made: true, cancelled: "r1"}},
		"a new one when its server's link is down": {servers: 2, before: func(w *world) { w.refer("alice"); w.detach(1) },
			want: want{server: 2, res: "r2", made: true}},
		"a new one when its server became unfit": {servers: 2, before: func(w *world) {
			w.refer("alice")
			h := hello(1)
			h.Facts.Problems = []string{"no qemu"}
			w.hello(h)
		}, want: want{server: 2, res: "r2", made: true, cancelled: "r1"}},
		"a new one when its server's host fails a check": {servers: 2, before: func(w *world) { w.refer("alice"); w.c.Checked(1, uuid(1), []string{"no bridge"}) },
			want: want{server: 2, res: "r2", made: true, cancelled: "r1"}},
		"an old one is cancelled also when nobody takes the session": {servers: 1, before: func(w *world) { w.refer("alice"); w.wait(4 * interval) },
			want: want{cancelled: "r1"}, err: &RefusedError{}},
		"not while the claim on a lost server is being undone": {servers: 2, before: func(w *world) { w.refer("alice"); w.begin("alice", 1); w.detach(1) }, err: ErrSettling},
		"not where the session is lost":                        {servers: 2, before: func(w *world) { w.login("alice"); w.detach(1) }, err: &LostError{}},
		"not where the session is lost since a restart":        {servers: 2, before: func(w *world) { w.login("alice"); w.restart(); w.attach(2) }, err: &LostError{}},
		"not while the end of the session is being recorded": {servers: 2, before: func(w *world) {
			w.login("alice")
			w.c.Report(w.now, 1, w.c.Server(1).Attachment, idle(), nil, []Ended{{ID: "s1", How: "guest"}})
		}, err: ErrSettling},
		"not with another number than in the session": {servers: 2, before: func(w *world) {
			w.login("alice")
			w.c.Session("alice").UID = 7
			delete(w.c.byUID, 1001)
			w.c.byUID[7] = "alice"
		}, err: ErrUIDDiffers},
		"not with the number of another user's session": {servers: 2, before: func(w *world) { twin(w); w.login("bob") }, err: ErrUIDDiffers},
		"not with the number of another's reservation":  {servers: 2, before: func(w *world) { twin(w); w.refer("bob") }, err: ErrUIDDiffers},
		"with a number that another gave up": {servers: 2, before: func(w *world) { twin(w); w.refer("bob"); w.c.CancelReservation("all") },
			want: want{server: 1, res: "r2", made: true}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.servers)
			if test.before != nil {
				test.before(w)
			}
			ref, err := w.refer("alice")
			if !sameError(err, test.err) {
				t.Fatalf("got error %v, want %v", err, test.err)
			}
			got := want{made: ref.Made}
			if ref.Server != nil {
				got.server = ref.Server.ID
			}
			if ref.Session != nil {
				got.session = ref.Session.ID
			}
			if ref.Reservation != nil {
				got.res = ref.Reservation.ID
			}
			if ref.Cancelled != nil {
				got.cancelled = ref.Cancelled.ID
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// twin gives bob the number of alice.
func twin(w *world) { w.uids["bob"] = w.uids["alice"] }

// sameError compares by errors.Is, or by type for error types.
func sameError(got, want error) bool {
	switch want.(type) {
	case *LostError:
		var e *LostError
		return errors.As(got, &e)
	case *RefusedError:
		var e *RefusedError
		return errors.As(got, &e)
	}
	return errors.Is(got, want)
}

// V-09, S3: what becomes of reservations that nobody claims.
func TestExpire(t *testing.T) {
	tests := map[string]struct {
		do   func(w *world)
		want int // reservations left
	}{
		"before the deadline":               {do: func(w *world) { w.wait(timeout - 1); w.c.Expire(w.now) }, want: 1},
		"at the deadline it can be claimed": {do: func(w *world) { w.wait(timeout); w.c.Expire(w.now) }, want: 1},
		"after the deadline":                {do: func(w *world) { w.wait(timeout + 1); w.c.Expire(w.now) }},
		"twice":                             {do: func(w *world) { w.wait(timeout + 1); w.c.Expire(w.now); w.c.Expire(w.now) }},
		"not while it is being claimed":     {do: func(w *world) { w.begin("alice", 1); w.wait(time.Hour); w.c.Expire(w.now) }, want: 1},
		"a longer time does not apply to it": {do: func(w *world) {
			l := limits
			l.ReservationTimeout = time.Hour
			w.c.SetLimits(l)
			w.wait(timeout + 1)
			w.c.Expire(w.now)
		}},
		"cancelled by its ID":                 {do: func(w *world) { w.c.CancelReservation("r1") }},
		"not cancelled by another ID":         {do: func(w *world) { w.c.CancelReservation("r2") }, want: 1},
		"cancelled with all":                  {do: func(w *world) { w.c.CancelReservation("all") }},
		"not cancelled while being claimed":   {do: func(w *world) { w.begin("alice", 1); w.c.CancelReservation("all") }, want: 1},
		"cancelled with its server's link":    {do: func(w *world) { w.detach(1) }},
		"not revived by a master's restart":   {do: func(w *world) { w.restart() }},
		"kept when its server's link is new":  {do: func(w *world) { w.attach(1) }, want: 1},
		"cancelled with an offline server":    {do: func(w *world) { w.offline(1) }},
		"cancelled when its claim went wrong": {do: func(w *world) { c, _ := w.begin("alice", 1); w.c.Unclaimed(c); w.c.Unclaimed(c) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			w.refer("alice")
			test.do(w)
			w.check()
			sessions, got := w.c.Total()
			if _, reserved := w.c.Counts(1); got != test.want || reserved != test.want || sessions != 0 {
				t.Errorf("got %d reservations, %d on the server, %d sessions, want %d reservations alone", got, reserved, sessions, test.want)
			}
		})
	}
}

// V-09: a hundred logins that nobody completes leave nothing behind.
func TestHundredLoginsNeverCompleted(t *testing.T) {
	w := newWorld(t, 20)
	before := fmt.Sprint(w.c.Placement(w.now, placement.Need{Memory: gib}))
	for i := range 100 {
		l := Login{User: fmt.Sprint("user", i), UID: uint32(2000 + i), Need: placement.Need{Memory: gib, Snap: gib}}
		if _, err := w.c.Refer(w.now, l); err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	w.check()
	if got := fmt.Sprint(w.c.Placement(w.now, placement.Need{Memory: gib})); got == before {
		t.Error("100 reservations did not change the load")
	}
	w.wait(timeout + 1)
	if gone, _ := w.c.Expire(w.now); len(gone) != 100 {
		t.Errorf("%d reservations expired, want 100", len(gone))
	}
	w.reportAll()
	w.check()
	if got := fmt.Sprint(w.c.Placement(w.now, placement.Need{Memory: gib})); got != before {
		t.Errorf("the load is\n%s, want that of before:\n%s", got, before)
	}
}

// Refusals explain themselves: who, how much, and which command helps.
func TestRefusals(t *testing.T) {
	big := placement.Need{Memory: 16 * gib}
	tests := map[string]struct {
		servers int
		before  func(w *world)
		need    placement.Need
		want    string
	}{
		"no server at all": {want: `no server has connected to the master yet; "servers" shows those that have`},
		"one offline": {servers: 1, before: func(w *world) { w.offline(1) },
			want: `the only server cannot take the session: 1 offline; server 1 (sat1) is offline (memory exchange); "onlineserver 1" changes that`},
		"no link": {servers: 1, before: func(w *world) { w.detach(1); w.wait(40 * time.Second) },
			want: `the only server cannot take the session: 1 link down; server 1 (sat1) has had no link for 40 s; check its host and its network`},
		"never connected": {servers: 1, before: func(w *world) { w.restart(); w.wait(7 * time.Second) },
			want: `the only server cannot take the session: 1 link down; server 1 (sat1) has not connected since the master started 7 s ago; check its host and its network`},
		"stale": {servers: 1, before: func(w *world) { w.wait(10 * time.Second) },
			want: `the only server cannot take the session: 1 load report too old; server 1 (sat1) reported last 10 s ago, more than 3 intervals of 3s; "server 1" shows when it reports again`},
		"not enough memory": {servers: 1, need: big,
			want: `the only server cannot take the session: 1 not enough memory; server 1 (sat1) has 8192 MiB of memory free, 16512 MiB wanted (16384 MiB for the guest, 128 MiB beside it); "users server=1" shows who runs there`},
		"all memory promised": {servers: 1, before: func(w *world) {
			h := hello(1)
			h.Load.MemoryTotal, h.Load.MemoryFree = 2*gib, 2*gib
			w.hello(h)
			x := w.login("bob")
			e, _ := w.c.Report(w.now, 1, w.c.Server(1).Attachment, h.Load, []Reported{x}, nil)
			w.settle(e)
		}, want: `the only server cannot take the session: 1 not enough memory; server 1 (sat1) has promised 1152 MiB of its 2048 MiB of memory, 1152 MiB wanted (1024 MiB for the guest, 128 MiB beside it); "users server=1" shows to whom`},
		"a need that no number holds": {servers: 1, need: placement.Need{Memory: ^uint64(0)}, want: "not enough memory; server 1 (sat1) has 8192 MiB of memory free"},
		"full": {servers: 1, before: func(w *world) {
			h := hello(1)
			h.Facts.MaxSessions = 1
			w.hello(h)
			w.refer("bob")
		}, want: `server 1 (sat1) has 1 of 1 sessions and reservations (WIN4_VERDE_MAX_SESSIONS); "users server=1" shows them`},
		"reserve of the snap directory reached (V-38)": {servers: 1, before: func(w *world) {
			h := hello(1)
			h.Load.SnapFree = gib
			w.hello(h)
		}, want: `1 not enough space for snapshots; server 1 (sat1) has 1024 MiB free in /snap and wants the reserve of 1024 MiB; free space there or lower WIN4_SNAP_RESERVE`},
		"an avoided feature (V-07)": {servers: 1, before: func(w *world) {
			h := hello(1)
			h.Facts.Features = []string{"svm", "kvm"} // not sorted: satellites may say what they like
			w.hello(h)
		}, need: placement.Need{Avoid: []string{"svm"}}, want: "server 1 (sat1) has the features kvm svm; the image requires none and avoids svm"},
		"another version (V-98)": {servers: 1, before: func(w *world) {
			h := hello(1)
			h.Mismatch = "its software 0.9 does not fit"
			w.hello(h)
		}, want: "server 1 (sat1) cannot run desktops: its software 0.9 does not fit"},
		"counts of many": {servers: 5, before: func(w *world) {
			w.offline(1)
			w.offline(4)
			w.detach(2)
			w.detach(3)
			w.detach(5)
			w.wait(20 * time.Second)
		},
			want: `none of 5 servers can take the session: 2 offline, 3 link down; server 1 (sat1) is offline (memory exchange); "onlineserver 1" changes that; ` +
				`server 2 (sat2) has had no link for 20 s; check its host and its network; "placement alice" shows the other 3`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.servers)
			if test.before != nil {
				test.before(w)
			}
			if test.need.Memory == 0 {
				test.need.Memory = gib
			}
			_, err := w.c.Refer(w.now, Login{User: "alice", UID: 1001, Need: test.need})
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			w.check()
		})
	}
}

// V-91: what a user hears whose session is on a silent server.
func TestLostTexts(t *testing.T) {
	tests := map[string]struct {
		limits func(*Limits)
		before func(w *world)
		want   string
	}{
		"silent": {before: func(w *world) { w.detach(1); w.wait(75 * time.Second) },
			want: `alice has session s1 on server 1 (sat1), which has been silent for 75 s; the desktop may still run there, so no second one is started. ` +
				`If that host is powered off, an administrator says so with "fenceserver 1", or for this user alone with "abortuser alice force"`},
		"in the resync window": {before: func(w *world) { w.restart(); w.wait(5 * time.Second) },
			want: `the master has just started and server 1 (sat1), where alice has session s1, has not reported yet; try again in 10 s`},
		"after the resync window": {before: func(w *world) { w.restart(); w.wait(20 * time.Second) },
			want: `alice has session s1 on server 1 (sat1), which has not connected since the master started 20 s ago; the desktop may still run there`},
		"link lost again in the resync window": {before: func(w *world) {
			w.restart()
			w.attach(1, running("s1", "alice"))
			w.detach(1)
			w.wait(2 * time.Second)
		}, want: "which has been silent for 2 s"},
		"lease": {limits: lease, before: func(w *world) { w.detach(1); w.wait(75 * time.Second) },
			want: `"abortuser alice force"; else the session counts as ended in 15 s, when the server has surely stopped it`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.limits == nil {
				test.limits = func(*Limits) {}
			}
			w := newWorld(t, 1, test.limits)
			w.login("alice")
			test.before(w)
			_, err := w.refer("alice")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}

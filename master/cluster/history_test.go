package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"verdecmd/master/placement"
)

// history is a random history of a small cluster: a real Cluster in the
// middle, models of the satellites and of the store around it. The satellites
// are the witness: what runs on them is true whatever the master believes.
type history struct {
	t     *rapid.T
	now   time.Time
	c     *Cluster
	store durable
	sats  []*satellite

	claims  []*Claim // being made durable
	replies []*Claim // answered, not yet at their satellite
	queue   []change // decided, not yet durable
	places  map[string]place
	old     []link          // replaced links
	stored  map[string]bool // all session IDs that ever were
	effects *tally
}

// durable is what survives the master.
type durable struct {
	epoch, highWater, lastServer uint64
	sessions                     map[string]Session // by user
	condemned                    map[string]uint64
	servers                      map[uint64]ServerRecord
}

type satellite struct {
	id       uint64
	on       bool
	instance int
	link     uint64 // 0: none that it knows of
	running  map[string]Reported
	ended    []Ended
	changed  bool // since its last list
	renewed  time.Time
}

// change is a decision on its way to the store.
type change struct {
	release *Release
	pardon  string
}

// place is a reservation as the user knows it.
type place struct {
	id      string
	server  uint64
	expires time.Time
	used    bool
}

type link struct{ server, attachment uint64 }

// tally counts what histories did: a test without load proves nothing.
type tally struct{ starts, releases, refusals, voids, restarts, expired, leases, forced int }

const leaseSelf = 60 * time.Second // replace is safely above it

// weight makes the steps that get somewhere more frequent than those that
// destroy. Others have 1.
var weight = map[string]int{
	"refer": 6, "claim": 8, "commit claim": 12, "reply": 12, "report": 12, "attach": 12, "online all": 3,
	"a moment": 6, "store": 8, "boot": 4, "guest ends": 8, "login": 16, "power on": 5, "all well": 12,
}

// S1, S3, S4, S6, S8, S9: random histories of logins, claims, commits that fail
// or whose outcome is not known, reports, ends, lost and replaced links,
// restarts of everything, power cuts, offline servers and time-outs.
func TestHistories(t *testing.T) {
	var total tally
	history := func(t *rapid.T) {
		h := newHistory(t, &total)
		actions := h.actions()
		var names []string
		for _, name := range slices.Sorted(maps.Keys(actions)) {
			names = append(names, slices.Repeat([]string{name}, max(1, weight[name]))...)
		}
		for range 200 {
			actions[pick(t, names, "action")]()
			h.check()
		}
		h.heal()
	}
	for range 5 {
		rapid.Check(t, history)
	}
	t.Logf("%+v", total)
	if total.starts < 500 || min(total.releases, total.refusals, total.voids, total.restarts, total.expired, total.forced, total.leases) < 1 { // the rarest come a few times
		t.Errorf("the histories did too little: %+v", total)
	}
}

func newHistory(t *rapid.T, total *tally) *history {
	h := &history{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), stored: map[string]bool{}, effects: total,
		store: durable{sessions: map[string]Session{}, condemned: map[string]uint64{}, servers: map[uint64]ServerRecord{}}}
	l := limits
	l.LeaseSince = 1
	if rapid.Bool().Draw(t, "lease") {
		l.Lost = Lease
	}
	h.start(l)
	for i := range rapid.IntRange(2, 3).Draw(t, "satellites") {
		s := &satellite{id: uint64(i + 1), on: true, running: map[string]Reported{}}
		h.sats = append(h.sats, s)
		r := h.c.Enrol(uuid(s.id), "sat")
		h.store.servers[r.ID], h.store.lastServer = r, r.ID
		h.c.Registered(h.now, r)
		h.attach(s)
	}
	return h
}

// start is a master's start from what is durable.
func (h *history) start(l Limits) {
	h.store.epoch++
	h.c = New(l, h.now)
	h.c.Restored(h.store.epoch, h.store.highWater, h.store.lastServer)
	for _, r := range h.store.servers {
		h.c.Registered(h.now, r)
	}
	for _, x := range h.store.sessions {
		h.c.Owned(h.now, x)
	}
	for id, server := range h.store.condemned {
		h.c.CondemnedRestored(id, server)
	}
	h.claims, h.queue, h.places = nil, nil, map[string]place{}
}

func (h *history) user() string {
	return pick(h.t, []string{"alice", "bob", "carol", "dave"}, "user")
}

func (h *history) sat() *satellite { return pick(h.t, h.sats, "satellite") }

// coins are even, where rapid's own numbers favour the first values: a history
// must get somewhere before it may be shrunk.
var coins = rapid.SliceOfN(rapid.Bool(), 10, 10)

// pick draws one of a list, each as likely as the others.
func pick[V any](t *rapid.T, from []V, label string) V {
	n := 0
	for _, c := range coins.Draw(t, label) {
		n *= 2
		if c {
			n++
		}
	}
	return from[n%len(from)]
}

// chance is true once in n times.
func chance(t *rapid.T, n int, label string) bool {
	return pick(t, append(make([]bool, n-1), true), label)
}

// span draws a time up to most.
func span(t *rapid.T, most time.Duration) time.Duration {
	n := time.Duration(rapid.Int64Range(0, 16).Draw(t, "sixteenths"))
	return n*most/16 + time.Duration(rapid.IntRange(0, 2).Draw(t, "and"))
}

// take draws one of a list and removes it; ok is false where it is empty.
func take[V any](t *rapid.T, from *[]V) (v V, ok bool) {
	if len(*from) == 0 {
		return v, false
	}
	all := make([]int, len(*from))
	for i := range all {
		all[i] = i
	}
	i := pick(t, all, "which")
	v = (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return v, true
}

func (h *history) actions() map[string]func() {
	return map[string]func(){
		"refer": func() { h.refer(h.user()) },
		"login": func() {
			user := h.user()
			h.refer(user)
			h.claim(user, 0)
			h.commit("stored")
			h.reply()
		},
		"claim": func() { h.claim(h.user(), 0) },
		"all well": func() {
			for _, s := range h.sats {
				h.attach(s)
				h.report(s)
			}
		},
		"claim astray": func() { h.claim(h.user(), h.sat().id) },
		"claim on an old link": func() {
			if len(h.old) > 0 {
				l := pick(h.t, h.old, "link")
				user := h.user()
				if _, err := h.c.BeginClaim(h.now, l.server, l.attachment, user, uids[user]); !errors.Is(err, ErrStaleLink) {
					h.t.Fatalf("S9: a claim on an old link: %v", err)
				}
			}
		},
		"commit claim": func() { h.commit("stored") },
		"fail claim":   func() { h.commit("failed") },
		"doubt claim":  func() { h.commit("unknown") },
		"reply":        h.reply,
		"boot": func() {
			s := h.sat()
			for id, x := range s.running {
				x.Seen.State, s.changed = Running, true
				s.running[id] = x
			}
		},
		"guest ends": func() {
			s := h.sat()
			if all := slices.Sorted(maps.Keys(s.running)); s.on && len(all) > 0 {
				h.stop(s, pick(h.t, all, "session"), "guest")
			}
		},
		"report": func() { h.report(h.sat()) },
		"attach": func() { h.attach(h.sat()) },
		"link lost": func() { // both ends notice
			s := h.sat()
			h.detach(s.id)
			h.cut(s)
		},
		"satellite notices": func() { h.cut(h.sat()) }, // the master does not yet
		"master notices":    func() { h.detach(h.sat().id) },
		"satellite restarts": func() {
			s := h.sat()
			h.cut(s)
			s.instance++
			s.ended = nil // it remembers what runs, not what it had not told
		},
		"power cut": func() {
			s := h.sat()
			h.cut(s)
			s.on, s.running, s.ended, s.changed = false, map[string]Reported{}, nil, true
			s.instance++
		},
		"power on": func() { h.sat().on = true },
		"force": func() {
			user := h.user()
			if r, err := h.c.Force(user); err == nil && !h.sats[r.Session.Server-1].on {
				h.effects.forced++
				h.queue = append(h.queue, change{release: &r})
			}
		},
		"fence": func() {
			s := h.sat()
			if all, err := h.c.Fence(s.id); err == nil && !s.on {
				for _, r := range all {
					h.effects.forced++
					h.queue = append(h.queue, change{release: &r})
				}
			}
		},
		"store":       h.settle,
		"offline":     func() { h.setState(h.sat().id, Offline) },
		"online":      func() { h.setState(h.sat().id, Online) },
		"online all":  func() { h.onlineAll() },
		"unfit":       func() { id := h.sat().id; h.c.Checked(id, uuid(id), []string{"a check fails"}) },
		"fit":         func() { id := h.sat().id; h.c.Checked(id, uuid(id), nil) },
		"a moment":    func() { h.wait(span(h.t, 2*interval)) },
		"a long time": func() { h.wait(span(h.t, 2*replace)) },
		"cancel":      func() { h.c.CancelReservation("all") },
		"master dies": func() {
			h.effects.restarts++
			for _, s := range h.sats {
				h.cut(s)
			}
			for _, s := range h.c.Servers() {
				if s.Attachment != 0 {
					h.old = append(h.old, link{s.ID, s.Attachment})
				}
			}
			h.start(h.c.Limits())
		},
	}
}

func (h *history) refer(user string) {
	ref, err := h.c.Refer(h.now, Login{User: user, UID: uids[user], Need: placement.Need{Memory: gib}})
	if err != nil {
		h.effects.refusals++
		if err.Error() == "" {
			h.t.Fatal("a refusal says nothing")
		}
		return
	}
	switch {
	case ref.Session != nil:
		if ref.Session.Server != ref.Server.ID || !ref.Session.Reported {
			h.t.Fatalf("referred to %d for %+v", ref.Server.ID, ref.Session)
		}
	case ref.Made:
		if h.store.servers[ref.Server.ID].State != Online {
			h.t.Fatalf("S6: reserved on server %d, which is offline", ref.Server.ID)
		}
		h.places[user] = place{id: ref.Reservation.ID, server: ref.Server.ID, expires: h.now.Add(timeout)}
	case h.places[user].id != ref.Reservation.ID:
		h.t.Fatalf("another reservation than %+v: %+v", h.places[user], ref.Reservation)
	}
}

// claim asks on the server of the user's place, or on the one given.
func (h *history) claim(user string, server uint64) {
	p, ok := h.places[user]
	if server == 0 {
		if !ok {
			return
		}
		server = p.server
	}
	s := h.sats[server-1]
	claim, err := h.c.BeginClaim(h.now, server, s.link, user, uids[user])
	if err != nil {
		return
	}
	if !ok || p.used || p.server != server || h.now.After(p.expires) {
		h.t.Fatalf("S4: %s claimed on server %d at %v with the place %+v", user, server, h.now, p)
	}
	p.used = true
	h.places[user] = p
	h.claims = append(h.claims, claim)
}

// commit ends the storing of a claim.
func (h *history) commit(how string) {
	claim, ok := take(h.t, &h.claims)
	if !ok {
		return
	}
	x := claim.Session
	_, taken := h.store.sessions[x.User]
	if taken { // the guard of the store
		how = "failed"
	}
	if how != "failed" {
		if h.stored[x.ID] {
			h.t.Fatalf("the session number %d is given twice", claim.Number)
		}
		h.stored[x.ID] = true
		h.store.sessions[x.User] = Session{ID: x.ID, User: x.User, UID: x.UID, Server: x.Server, Memory: x.Memory, Epoch: x.Epoch}
		h.store.highWater = max(h.store.highWater, claim.HighWater)
	}
	undo := change{release: &Release{Session: x, How: "failed"}}
	switch {
	case how == "failed":
		h.c.Unclaimed(claim)
	case how == "unknown":
		h.c.Unclaimed(claim)
		h.queue = append(h.queue, undo)
	case h.c.Claimed(h.now, claim):
		if h.store.servers[x.Server].State != Online {
			h.t.Fatalf("S6: session %s on server %d, which is offline", x.ID, x.Server)
		}
		h.replies = append(h.replies, claim)
	default:
		h.effects.voids++
		h.queue = append(h.queue, undo)
	}
}

// reply brings an answer to its satellite. It counts only on the link on which
// was asked; a satellite that misses one closes that link.
func (h *history) reply() {
	claim, ok := take(h.t, &h.replies)
	if !ok {
		return
	}
	s, x := h.sats[claim.Session.Server-1], claim.Session
	switch {
	case s.link != claim.Attachment:
	case chance(h.t, 10, "lost"):
		h.cut(s)
	default:
		h.effects.starts++
		s.running[x.ID] = Reported{ID: x.ID, User: x.User, UID: x.UID, Memory: x.Memory, Seen: Seen{State: Starting}}
		s.changed = true
	}
}

func (h *history) stop(s *satellite, id, how string) {
	s.ended = append(s.ended, Ended{ID: id, User: s.running[id].User, How: how})
	delete(s.running, id)
	s.changed = true
}

func (s *satellite) list() []Reported { return slices.Collect(maps.Values(s.running)) }

func (h *history) report(s *satellite) {
	if s.link == 0 {
		return
	}
	var list []Reported
	if s.changed {
		list = append([]Reported{}, s.list()...)
	}
	e, err := h.c.Report(h.now, s.id, s.link, idle(), list, s.ended)
	if err != nil { // the master has noticed what the satellite has not
		if !errors.Is(err, ErrStaleLink) {
			h.t.Fatal(err)
		}
		h.cut(s)
		return
	}
	h.c.LeaseRenewed(h.now, s.id)
	s.changed, s.ended, s.renewed = false, nil, h.now
	h.take(e)
}

func (h *history) attach(s *satellite) {
	if !s.on || s.link != 0 {
		return
	}
	m := hello(s.id, s.list()...)
	m.Instance, m.Ended = fmt.Sprint(s.instance), s.ended
	if h.c.Server(s.id).Attachment != 0 {
		h.old = append(h.old, link{s.id, h.c.Server(s.id).Attachment})
	}
	n, e, err := h.c.Attach(h.now, m)
	if err != nil {
		if !errors.Is(err, ErrDuplicate) {
			h.t.Fatal(err)
		}
		h.old = h.old[:len(h.old)-1]
		return
	}
	s.link, s.changed, s.ended, s.renewed = n, false, nil, h.now
	h.take(e)
}

// cut ends a link for its satellite.
func (h *history) cut(s *satellite) { s.link = 0 }

func (h *history) detach(id uint64) {
	if at := h.c.Server(id).Attachment; at != 0 {
		h.c.Detach(h.now, id, at)
		h.old = append(h.old, link{id, at})
	}
}

// take takes decisions over. All satellites are honest and the store forgets
// nothing, so nothing may be adopted, aborted or released while it runs.
func (h *history) take(e Effects) {
	if len(e.Adopt)+len(e.Abort)+len(e.Cancelled) > 0 {
		h.t.Fatalf("S8: an honest satellite is told to abort, or is not believed: %+v", e)
	}
	for _, r := range e.Release {
		h.effects.releases++
		if r.How == "lease" {
			h.effects.leases++
		}
		for _, s := range h.sats {
			if _, runs := s.running[r.Session.ID]; runs {
				h.t.Fatalf("S8: %s of %s is released as %s (%s) and runs on %d", r.Session.ID, r.Session.User, r.How, r.Why, s.id)
			}
		}
		h.queue = append(h.queue, change{release: &r})
	}
	for _, id := range e.Pardon {
		h.queue = append(h.queue, change{pardon: id})
	}
}

// settle makes one decision durable, or tries and fails.
func (h *history) settle() {
	if chance(h.t, 5, "disk full") {
		return
	}
	if ch, ok := take(h.t, &h.queue); ok {
		h.apply(ch)
	}
}

func (h *history) apply(ch change) {
	if ch.pardon != "" {
		delete(h.store.condemned, ch.pardon)
		h.c.Pardoned(ch.pardon)
		return
	}
	r := *ch.release
	if x, ok := h.store.sessions[r.Session.User]; ok && x.ID == r.Session.ID {
		delete(h.store.sessions, x.User)
		if r.Condemn {
			h.store.condemned[x.ID] = x.Server
		}
	}
	h.c.Released(r)
}

func (h *history) setState(id uint64, state State) {
	r := h.store.servers[id]
	r.State = state
	h.store.servers[id] = r
	h.c.StateSet(h.now, r)
	if _, reserved := h.c.Counts(id); state != Online && reserved > len(h.claims) {
		h.t.Fatalf("S6: %d reservations on the offline server %d", reserved, id)
	}
}

func (h *history) onlineAll() {
	for _, s := range h.sats {
		h.setState(s.id, Online)
		h.c.Checked(s.id, uuid(s.id), nil)
	}
}

// wait lets time pass. Satellites under a lease stop their desktops in time.
func (h *history) wait(d time.Duration) {
	h.now = h.now.Add(d)
	for _, s := range h.sats {
		if h.c.Limits().Lost == Lease && s.on && h.now.Sub(s.renewed) >= leaseSelf {
			for id := range s.running {
				h.stop(s, id, "abort")
			}
		}
	}
	gone, e := h.c.Expire(h.now)
	h.effects.expired += len(gone)
	h.take(e)
	for _, r := range h.c.Reservations() {
		if !r.Connecting && h.now.After(r.Made.Add(timeout)) {
			h.t.Fatalf("S3: %s outlived its time", r.ID)
		}
	}
}

// check holds after every step.
func (h *history) check() {
	if err := h.c.Check(); err != nil {
		h.t.Fatalf("S3: the books are wrong: %v", err)
	}
	where := map[string]string{}
	for _, s := range h.sats {
		for id, x := range s.running {
			if other := where[x.User]; other != "" {
				h.t.Fatalf("S1: %s has %s and %s", x.User, other, id)
			}
			where[x.User] = id
			if own := h.store.sessions[x.User]; own.ID != id {
				h.t.Fatalf("%s runs and the record of %s says %q", id, x.User, own.ID)
			}
			if x := h.c.Session(x.User); x == nil || x.ID != id {
				h.t.Fatalf("%s runs and the master knows %+v", id, x)
			}
		}
	}
}

// heal mends everything; then the master must know the truth and nothing else
// (LV1), and everybody can log in (LV2).
func (h *history) heal() {
	for len(h.claims) > 0 {
		h.commit("failed")
	}
	h.replies = nil
	h.onlineAll()
	for _, s := range h.sats {
		h.detach(s.id)
		h.cut(s)
		s.on = true
		h.attach(s)
	}
	for _, ch := range h.queue {
		h.apply(ch)
	}
	h.queue = nil
	h.wait(timeout + 1)
	for _, s := range h.sats {
		h.report(s)
	}
	for _, ch := range h.queue {
		h.apply(ch)
	}
	h.check()
	running := 0
	for _, s := range h.sats {
		running += len(s.running)
		if sessions, reserved := h.c.Counts(s.id); sessions != len(s.running) || reserved != 0 {
			h.t.Fatalf("S3: %d sessions and %d reservations on server %d, where %d run", sessions, reserved, s.id, len(s.running))
		}
	}
	for _, x := range h.c.Sessions() {
		if x.State() == Lost {
			h.t.Fatalf("LV1: %s is lost", x.ID)
		}
	}
	if len(h.store.sessions) != running || len(h.c.Condemned())+len(h.store.condemned) > 0 {
		h.t.Fatalf("the store has the sessions %v and condemns %v, %d run", h.store.sessions, h.store.condemned, running)
	}
	for user := range uids {
		if _, err := h.c.Refer(h.now, Login{User: user, UID: uids[user], Need: placement.Need{Memory: gib}}); err != nil {
			h.t.Fatalf("LV2: %s: %v", user, err)
		}
	}
}

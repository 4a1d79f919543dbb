package session

import (
	"errors"
	"strings"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/link"
)

// Each step of a login and what comes of it. A step's name is the rule.
func TestLoginSteps(t *testing.T) {
	now := time.Unix(1000, 0)
	granted := Granted{Dir: func(id string) string { return "/snap/" + id }, UUID: "u", Now: now, Wall: now}
	here := link.Referral{ReferReply: &pb.ReferReply{ServerId: 1}, Here: true}
	there := link.Referral{ReferReply: &pb.ReferReply{ServerId: 2, Session: "s9"}}
	settling := link.Referral{ReferReply: &pb.ReferReply{ServerId: 1, Session: "s9"}, Here: true}
	row := func(p desktop.Phase) *pb.Session { return &pb.Session{Id: "s1", State: string(p)} }
	claimed := func(l *Login) { l.Claimed(&pb.ClaimReply{Session: "s1", Epoch: 3}, 7, granted, nil) }
	tests := map[string]struct {
		step func(l *Login) Step
		want Do
		kind wire.Kind // of a refusal
	}{
		"nothing here: what does it need":       {func(l *Login) Step { return l.Look(nil) }, Resolve, ""},
		"it runs: here it is":                   {func(l *Login) Step { return l.Look(row(desktop.PhaseRunning)) }, Answer, ""},
		"it shuts down: still the user's":       {func(l *Login) Step { return l.Look(row(desktop.PhaseStopping)) }, Answer, ""},
		"it starts: wait":                       {func(l *Login) Step { return l.Look(row(desktop.PhaseStarting)) }, Await, ""},
		"it is being ended: wait for the end":   {func(l *Login) Step { return l.Look(row(desktop.PhaseAborting)) }, AwaitEnd, ""},
		"it has failed: say so":                 {func(l *Login) Step { return l.Look(row(desktop.PhaseFailed)) }, Refuse, wire.Internal},
		"no desktop in the home":                {func(l *Login) Step { return l.Resolved(desktop.Image{}, desktop.ErrNoImage) }, Refuse, wire.NotFound},
		"a master: ask it":                      {func(l *Login) Step { return l.Linked(true, 0, "") }, Refer, ""},
		"no master for a moment: wait":          {func(l *Login) Step { return l.Linked(false, 14*time.Second, "") }, Wait, ""},
		"no master for long: refused":           {func(l *Login) Step { return l.Linked(false, 15*time.Second, "") }, Refuse, wire.Unreachable},
		"no master, and allowed without one":    {func(l *Login) Step { l.rules.Standalone = true; return l.Linked(false, 15*time.Second, "") }, Alone, ""},
		"elsewhere: go there":                   {func(l *Login) Step { return l.Referred(there, nil) }, Answer, ""},
		"here, but that session has just ended": {func(l *Login) Step { return l.Referred(settling, nil) }, Pause, ""},
		"here: first make sure of its end":      {func(l *Login) Step { return l.Referred(here, nil) }, Secure, ""},
		"S1: nobody guards it, try again":       {func(l *Login) Step { return l.Secured(errors.New("asleep")) }, Pause, ""},
		"S1: nobody guards it for long":         {func(l *Login) Step { l.try = settleTries; return l.Secured(errors.New("asleep")) }, Refuse, wire.NotReady},
		"guarded: claim it":                     {func(l *Login) Step { return l.Secured(nil) }, Claim, ""},
		"no place: refused at once":             {func(l *Login) Step { return l.Referred(here, wire.Errorf(wire.NoCapacity, "full")) }, Refuse, wire.NoCapacity},
		"the link changed: again":               {func(l *Login) Step { return l.Claimed(nil, 0, granted, wire.Errorf(wire.StaleLink, "old")) }, Pause, ""},
		"granted: into the journal":             {func(l *Login) Step { return l.Claimed(&pb.ClaimReply{Session: "s1"}, 7, granted, nil) }, Note, ""},
		"S7: not noted: not started":            {func(l *Login) Step { claimed(l); return l.Noted(errors.New("full")) }, Break, wire.Internal},
		"noted: into the inventory":             {func(l *Login) Step { claimed(l); return l.Noted(nil) }, Accept, ""},
		"in the inventory: start":               {func(l *Login) Step { claimed(l); return l.Accepted(nil) }, Start, ""},
		"granted over an old link: forget it":   {func(l *Login) Step { claimed(l); return l.Accepted(errOldLink) }, Forget, ""},
		"forgotten: again":                      {func(l *Login) Step { return l.Forgotten(errOldLink) }, Pause, ""},
		"S1: the lease is over: forget it":      {func(l *Login) Step { claimed(l); return l.Accepted(errLeaseOver) }, Forget, ""},
		"S1: the master must learn of that":     {func(l *Login) Step { return l.Forgotten(errLeaseOver) }, Break, wire.NotReady},
		"ended while the user waited":           {func(l *Login) Step { return l.Over(&pb.Ended{How: "abort"}) }, Refuse, wire.NotReady},
		"it did not start":                      {func(l *Login) Step { return l.Over(&pb.Ended{How: "failed", Why: "why"}) }, Refuse, wire.Internal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, err := NewLogin(Rules{MasterLost: 15 * time.Second}, desktop.User{Name: "alice", UID: 1001}, "local")
			if err != nil {
				t.Fatal(err)
			}
			got := tt.step(l)
			if got.Do != tt.want || wire.KindOf(got.Err) != tt.kind && (got.Do == Refuse || got.Do == Break) {
				t.Errorf("got step %d, %v; want %d, %s", got.Do, got.Err, tt.want, tt.kind)
			}
		})
	}
}

// What a satellite takes into its inventory, and what it obeys.
func TestAccept(t *testing.T) {
	row := &pb.Session{Id: "s1", User: "alice", Uid: 1}
	tests := map[string]struct {
		link  uint64
		lease Lease
		want  error
	}{
		"granted on this link":       {link: 2},
		"S8: on the link before":     {link: 1, want: errOldLink},
		"without a master":           {link: 0},
		"under a lease":              {link: 2, lease: Lease{At: time.Hour - time.Minute, Self: time.Minute}},
		"S1: when the lease is over": {link: 2, lease: Lease{At: time.Hour - time.Minute - 1, Self: time.Minute}, want: errLeaseOver},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := NewInventory(0)
			v.Hello(2)
			v.Renew(tt.lease)
			if err := v.Accept(row, tt.link, time.Hour); err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if is := v.Of("alice", 1) != nil; is != (tt.want == nil) || (v.Find("s1") == nil) != is {
				t.Errorf("in the inventory: %v", v.Sessions())
			}
		})
	}
	// Another user of the same name is not the same.
	v := NewInventory(0)
	v.Adopt(row)
	if v.Of("alice", 2) != nil || v.Of("alic", 1) != nil {
		t.Error("somebody else has alice's session")
	}
}

// A lease is over when its time is, suspended time included, and has an end
// that a guard can count with.
func TestLeaseOver_S1(t *testing.T) {
	tests := map[string]struct {
		lease      Lease
		booted     time.Duration
		over, kill bool
		end        time.Duration
	}{
		"none":         {Lease{}, time.Hour, false, false, 0},
		"goes on":      {Lease{time.Hour, time.Minute}, time.Hour + time.Minute, false, false, time.Hour + time.Minute},
		"over":         {Lease{time.Hour, time.Minute}, time.Hour + time.Minute + 1, true, false, time.Hour + time.Minute},
		"no more time": {Lease{time.Hour, time.Minute}, time.Hour + time.Minute + leaseKill + 1, true, true, time.Hour + time.Minute},
	}
	for name, tt := range tests {
		if over, kill := tt.lease.Over(tt.booted); over != tt.over || kill != tt.kill || tt.lease.End() != tt.end {
			t.Errorf("%s: got %v, %v, end %v; want %v, %v, %v", name, over, kill, tt.lease.End(), tt.over, tt.kill, tt.end)
		}
	}
	// After a restart of the computer the time of the last renewal means nothing.
	if l, err := DecodeLease([]byte(`{"At":3600000000000,"Self":60000000000}`), time.Minute); err != nil || l.At != 0 {
		t.Errorf("got %+v, %v", l, err)
	}
	if _, err := DecodeEntry("s1.json", []byte(`{"Spec":{"Session":"s2"}}`)); err == nil || !strings.Contains(err.Error(), `session "s2"`) {
		t.Errorf("got %v", err)
	}
}

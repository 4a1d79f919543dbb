package host

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// checking is a register with the checks of its servers. Its clock is moved by
// hand.
type checking struct {
	*register
	*Checks
	now    time.Time
	events []string
}

// startChecks starts them as a master does, with n servers sat1, sat2, ... whose
// identities are u1, u2, ...
func startChecks(t *testing.T, s *store.Mem, n int) *checking {
	t.Helper()
	k := &checking{register: start(t, s), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	k.Checks = NewChecks(ChecksConfig{State: k.register.cfg.State, Store: s, Epoch: s.Epoch(), Version: "1.0", Settings: map[string]string{"A": "1"},
		Log: zerolog.Nop(), Now: func() time.Time { return k.now },
		Event: func(typ, _ string, _ ...monitor.Pair) { k.events = append(k.events, typ) }})
	for i := range n {
		if err := k.Ensure(t.Context(), helloOf(fmt.Sprint("u", i+1), "j"), fmt.Sprint("sat", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Checks.Restore(t.Context(), k.c); err != nil {
		t.Fatal(err)
	}
	return k
}

// wait lets time pass, so that nobody has asked too often.
func (k *checking) wait() { k.now = k.now.Add(time.Minute) }

// why is what keeps desktops away from server 1.
func (k *checking) why() string { return strings.Join(k.c.Server(1).Hard, "; ") }

var bad = finding{Check: "bridges", Level: "fail", Measured: "bridges: none", Wanted: "br0", Fix: "make it", Hard: true}

func good(check string) finding {
	return finding{Check: check, Level: "pass", Measured: "x", Wanted: "x"}
}

// Issue 5, preflight: the master keeps the last result of each host durably and
// honours the hard ones; the same result again costs the disk nothing.
func TestChecksAreKept(t *testing.T) {
	s := store.NewMem()
	k := startChecks(t, s, 2)
	if c, ok := k.Of(1); !ok || !c.At.IsZero() || c.Rows != nil {
		t.Errorf("never checked: got %+v, %v", c, ok)
	}
	if _, ok := k.Of(9); ok {
		t.Error("an unknown server has checks")
	}
	at, err := k.keep(t.Context(), "u1", []finding{good("clock"), bad, {Check: "speed", Level: "warn"}}, "1.0")
	if err != nil || !at.Equal(k.now) {
		t.Fatalf("got %v, %v", at, err)
	}
	if !strings.Contains(k.why(), "its check bridges fails: bridges: none, wanted: br0") {
		t.Errorf("why is %q", k.why())
	}
	for when := range 2 {
		if when == 1 {
			s.Restart()
			now := k.now
			k = startChecks(t, s, 0)
			k.now = now
		}
		c, ok := k.Of(1)
		if !ok || c.Pass != 1 || c.Warn != 1 || c.Fail != 1 || !c.At.Equal(at) || c.Version != "1.0" || len(c.Rows) != 3 || c.Rows[0].Name != "bridges" || c.Rows[1].Name != "speed" {
			t.Errorf("restarts %d: got %+v, %v", when, c, ok)
		}
		if !strings.Contains(k.why(), "its check bridges fails") {
			t.Errorf("restarts %d: why is %q", when, k.why())
		}
	}
	k.wait()
	s.Fail(store.ErrNoSpace)
	if again, err := k.keep(t.Context(), "u1", []finding{good("clock"), bad, {Check: "speed", Level: "warn"}}, "1.0"); err != nil || !again.Equal(at) {
		t.Errorf("the same again: got %v, %v, want %v", again, err, at)
	}
	if c, _ := k.Of(1); !c.At.Equal(k.now) || c.Age != 0 {
		t.Errorf("after it came again: it is of %v, now is %v", c.At, k.now)
	}
	if _, err := k.keep(t.Context(), "u1", []finding{good("bridges")}, "1.0"); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("a full disk: got %v", err)
	}
	if !strings.Contains(k.why(), "its check bridges fails") {
		t.Errorf("what is not on the disk counts: %q", k.why())
	}
	s.Fail(nil)
	if _, err := k.keep(t.Context(), "u1", []finding{good("bridges")}, "1.0"); err != nil || strings.Contains(k.why(), "check") {
		t.Errorf("it passes: got %v, %q", err, k.why())
	}
	if got := strings.Join(k.events, " "); got != "server.fit" { // of this start
		t.Errorf("events: %s", got)
	}
}

// What is not a result, and who is not a server, is refused; what is shown is
// text within bounds (S21).
func TestChecksRefused(t *testing.T) {
	k := startChecks(t, store.NewMem(), 1)
	many := slices.Repeat([]finding{good("clock")}, maxFindings+1)
	for name, f := range map[string][]finding{"many": many, "level": {{Check: "clock", Level: "good"}}, "name": {{Check: "Clock\x1b", Level: "pass"}}} {
		if _, err := k.keep(t.Context(), "u1", f, "1.0"); wire.KindOf(err) != wire.BadRequest {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := k.keep(t.Context(), "u7", nil, "1.0"); wire.KindOf(err) != wire.NotReady {
		t.Errorf("unknown: got %v", err)
	}
	if _, err := k.compare("u7", nil); wire.KindOf(err) != wire.NotReady {
		t.Errorf("unknown: got %v", err)
	}
	k.wait()
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = k.compare("u1", nil)
	}
	if wire.KindOf(err) != wire.TooOften {
		t.Errorf("a hundred times: got %v", err)
	}
	k.wait()
	if _, err := k.compare("u1", nil); err != nil {
		t.Errorf("a minute later: %v", err)
	}
	if r, err := k.Service().Compare(t.Context(), &pb.CompareRequest{}); err == nil {
		t.Errorf("without a certificate: got %v", r)
	}
	if r, err := k.Service().Checked(t.Context(), &pb.CheckedRequest{}); err == nil {
		t.Errorf("without a certificate: got %v", r)
	}
}

// A host is compared with the newest of the others, and what one says of itself
// takes no more than its place: names are the master's.
func TestCompare(t *testing.T) {
	k := startChecks(t, store.NewMem(), mostSurveys+10)
	wild := &pb.Survey{Hostname: "I am sat2", ServerId: 2, Version: strings.Repeat("v", 4000), Settings: map[string]string{}, PublicAddress: "\x1b[2J"}
	for i := range mostList + 100 {
		wild.Accounts = append(wild.Accounts, &pb.Account{Name: fmt.Sprint("user", i), Home: "/h"})
		wild.Bridges = append(wild.Bridges, &pb.Bridge{Name: "b", Subnets: slices.Repeat([]string{"s"}, 100)})
		wild.Settings[fmt.Sprint(i)] = "x"
	}
	for i := range mostSurveys + 10 {
		if _, err := k.compare(fmt.Sprint("u", i+1), &pb.Survey{Hostname: "x", Accounts: []*pb.Account{{Name: "alice", Uid: uint32(i)}}}); err != nil {
			t.Fatal(err)
		}
		k.now = k.now.Add(time.Second)
	}
	r, err := k.compare("u1", nil)
	if err != nil || len(r.Others) != mostSurveys || r.Others[0].Hostname != fmt.Sprint("sat", mostSurveys+10) || r.Others[0].ServerId != mostSurveys+10 ||
		r.Others[0].Accounts[0].Uid != mostSurveys+9 || r.Others[0].TakenUnixMs == 0 || r.NowUnixMs != k.now.UnixMilli() || r.Version != "1.0" || r.Settings["A"] != "1" ||
		len(r.Members) != mostSurveys+10 || r.Members[0].Id != "u1" || r.Members[0].Name != "sat1" || r.CheckedUnixMs != 0 {
		t.Errorf("got %d others, the first %v, %d members, %v", len(r.Others), r.Others[0], len(r.Members), err)
	}
	if _, err := k.compare("u3", wild); err != nil {
		t.Fatal(err)
	}
	r, err = k.compare("u1", nil)
	if err != nil {
		t.Fatal(err)
	}
	w := r.Others[0]
	if w.Hostname != "sat3" || w.ServerId != 3 || len(w.Accounts) != mostList || len(w.Bridges) != mostList || len(w.Settings) > maxTexts || len(w.Version) > maxCheckText || w.PublicAddress != "?[2J" {
		t.Errorf("got %s %d, %d accounts, %d bridges, version of %d bytes, address %q", w.Hostname, w.ServerId, len(w.Accounts), len(w.Bridges), len(w.Version), w.PublicAddress)
	}
	if n := proto.Size(r); n > wire.MaxSend {
		t.Errorf("the answer has %d bytes", n)
	}
}

// One survey, or many, as large as can be hide no other one: what fits beside
// them is told, and the asker's own takes nobody's place.
func TestCompareLarge(t *testing.T) {
	const large, small = 14, 30
	k := startChecks(t, store.NewMem(), large+small)
	wild := &pb.Survey{}
	for range mostList {
		wild.Accounts = append(wild.Accounts, &pb.Account{Name: "x", Home: strings.Repeat("/h", 400)})
		wild.Bridges = append(wild.Bridges, &pb.Bridge{Name: "b", Subnets: slices.Repeat([]string{"s"}, 100)})
	}
	for i := range large + small { // the large ones are newer
		s := wild
		if i < small {
			s = &pb.Survey{Accounts: []*pb.Account{{Name: "alice"}}}
		}
		if _, err := k.compare(fmt.Sprint("u", i+1), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, asker := range []int{1, large + small} {
		r, err := k.compare(fmt.Sprint("u", asker), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := map[bool]int{}
		size := 0
		for _, s := range r.Others {
			got[proto.Size(s) > 1000]++
			size = max(size, proto.Size(s))
		}
		want := small
		if asker <= small {
			want--
		}
		if got[false] != want || got[true] != mostAnswer/size || size > mostSurvey || size < mostSurvey/4 || proto.Size(r) > mostAnswer+64<<10 {
			t.Errorf("server %d gets %d small surveys, want %d, and %d of up to %d bytes; in all %d bytes", asker, got[false], want, got[true], size, proto.Size(r))
		}
	}
}

// A machine that has taken a server's place is not what the one before was, and
// a server that is forgotten leaves nothing.
func TestChecksOfReplaced(t *testing.T) {
	s := store.NewMem()
	k := startChecks(t, s, 2)
	if _, err := k.keep(t.Context(), "u1", []finding{bad}, "1.0"); err != nil {
		t.Fatal(err)
	}
	k.cfg.State(func(c *cluster.Cluster) {
		r := c.Server(1).Record()
		r.UUID = "new"
		c.Registered(k.now, r)
	})
	if c, ok := k.Of(1); !ok || len(c.Rows) != 0 {
		t.Errorf("the new machine: got %+v", c)
	}
	if r, err := k.compare("new", nil); err != nil || r.CheckedUnixMs != 0 {
		t.Errorf("got %v, %v", r, err)
	}
	if err := k.register.Forget(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	k.Checks.Forget(1)
	k.Checks.mu.Lock()
	if n := len(k.kept) + len(k.often); n != 0 {
		t.Errorf("%d things are remembered", n)
	}
	k.Checks.mu.Unlock()
	err := s.View(t.Context(), func(v store.Snapshot) error {
		if _, ok, err := v.Get(checksKey(1)); ok || err != nil {
			t.Errorf("a record is left: %v, %v", ok, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// FuzzChecks: what the database holds of checks is refused with the server's
// number, or it can be shown.
func FuzzChecks(f *testing.F) {
	f.Add("1", []byte(`{"server":1,"uuid":"u1","at":"2026-01-01T00:00:00Z","version":"1","findings":[{"check":"bridges","level":"fail","measured":"none","wanted":"br0","hard":true}]}`))
	f.Add("1", []byte(`{"server":2}`))
	f.Add("x", []byte(`[]`))
	f.Fuzz(func(t *testing.T, id string, record []byte) {
		s := store.NewMem()
		if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{{Key: store.Key{Bucket: checked, ID: id}, Value: record}}) != nil {
			return
		}
		c := cluster.New(cluster.Limits{Interval: time.Second}, time.Now())
		c.Registered(time.Now(), cluster.ServerRecord{ID: 1, UUID: "u1", Name: "sat1", State: cluster.Online})
		k := NewChecks(ChecksConfig{State: func(f func(*cluster.Cluster)) { f(c) }, Store: s, Epoch: s.Epoch()})
		if err := k.Restore(t.Context(), c); err != nil {
			return
		}
		if got, ok := k.Of(1); !ok || got.Pass+got.Warn+got.Fail != len(got.Rows) || len(got.Rows) > maxFindings {
			t.Errorf("got %+v", got)
		}
	})
}

package link

import (
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// S9: what a first message must be, and of which epoch.
func TestWelcomed_S9(t *testing.T) {
	welcome := func(epoch uint64, p *pb.Pace) *pb.Down {
		return &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Epoch: epoch, Pace: p}}}
	}
	tests := map[string]struct {
		d    *pb.Down
		want wire.Kind
	}{
		"the epoch that was seen": {welcome(5, &pb.Pace{}), ""},
		"a newer one":             {welcome(6, &pb.Pace{}), ""},
		"an older one":            {welcome(4, &pb.Pace{}), wire.OldEpoch},
		"without a pace":          {welcome(5, nil), wire.Internal},
		"something else":          {&pb.Down{Kind: &pb.Down_Pace{Pace: &pb.Pace{}}}, wire.Internal},
		"nothing":                 {&pb.Down{}, wire.Internal},
	}
	for name, tt := range tests {
		if w, err := Welcomed(tt.d, 5); wire.KindOf(err) != tt.want || (w == nil) != (err != nil) {
			t.Errorf("%s: got %v, %v; want %q", name, w, err, tt.want)
		}
	}
}

// What goes up: news at once, the sessions with news and with every fifth
// report, and nothing when nothing is new and none is due.
func TestReports(t *testing.T) {
	e := NewEnd(&pb.Welcome{Epoch: 5}, 3)
	all := &pb.Sessions{}
	if r := e.Report(News{Version: 3, Sessions: all}, false, 0); r != nil {
		t.Errorf("nothing new, none due: got %v", r)
	}
	for seq := uint64(1); seq <= 11; seq++ {
		r := e.Report(News{Version: 3, Sessions: all}, true, 0)
		if full := seq%5 == 1; r.Seq != seq || (r.Sessions != nil) != full {
			t.Errorf("report %d: got %v, with sessions: want %v", seq, r, full)
		}
	}
	if r := e.Report(News{Version: 4, Sessions: all}, false, 0); r == nil || r.Sessions == nil || e.Told() != 4 {
		t.Errorf("something new: got %v, told %d", r, e.Told())
	}
}

// S1: a lease counts from the moment at which the report was sent that it
// answers, once, and an answer to a later report overtakes those before.
func TestLeased_S1(t *testing.T) {
	e := NewEnd(&pb.Welcome{Epoch: 5, LeaseSelfMs: 60000}, 0)
	for i := range 4 {
		e.Report(News{}, true, time.Duration(i+1)*time.Second)
	}
	for _, step := range []struct {
		report uint64
		from   time.Duration
		ok     bool
	}{{2, 2 * time.Second, true}, {2, 0, false}, {1, 0, false}, {4, 4 * time.Second, true}, {3, 0, false}, {9, 0, false}} {
		from, self, ok := e.Leased(&pb.Lease{Report: step.report})
		if from != step.from || ok != step.ok || self != time.Minute {
			t.Errorf("lease for report %d: got %v, %v, %v; want %v, %v", step.report, from, self, ok, step.from, step.ok)
		}
	}
}

// S8: only a refusal that is known to have changed nothing leaves the link.
func TestClaimUnknown_S8(t *testing.T) {
	for kind, want := range map[wire.Kind]bool{wire.NoReservation: false, wire.InUse: false, wire.NoCapacity: false, wire.NotReady: false,
		wire.Unreachable: true, wire.Internal: true, wire.StaleLink: true, wire.OldEpoch: true} {
		if got := ClaimUnknown(wire.Errorf(kind, "x")); got != want {
			t.Errorf("%s: got %v, want %v", kind, got, want)
		}
	}
	if ClaimUnknown(nil) {
		t.Error("a claim that succeeded is not known")
	}
}

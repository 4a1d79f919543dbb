package link

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// host counts what it is ordered.
type host struct {
	Host
	epoch  uint64
	orders int
}

func (h *host) Epoch() uint64 { return h.epoch }
func (h *host) Order(o *pb.SessionOrder) error {
	h.orders++
	if o.Session == "unknown" {
		return wire.Errorf(wire.NotFound, "no such session")
	}
	return nil
}

func order(id, epoch uint64, session string) *pb.Order {
	return &pb.Order{Id: id, Epoch: epoch, Kind: &pb.Order_Session{Session: &pb.SessionOrder{Session: session, Action: pb.SessionOrder_ABORT}}}
}

// DESIGN 4: the same id is answered with the same result and carried out once.
// S9: orders of another epoch than the link's are refused.
func TestOrders(t *testing.T) {
	h := &host{epoch: 5}
	l := New(Config{Host: h, Log: zerolog.Nop()})
	r := &reporter{link: l, end: NewEnd(&pb.Welcome{Epoch: 5}, 1)}
	steps := []struct {
		name   string
		order  *pb.Order
		orders int // carried out so far
		want   wire.Kind
	}{
		{"first", order(1, 5, "s1"), 1, ""},
		{"again", order(1, 5, "s1"), 1, ""},
		{"another", order(2, 5, "unknown"), 2, wire.NotFound},
		{"another again", order(2, 5, "unknown"), 2, wire.NotFound},
		{"old epoch", order(3, 4, "s1"), 2, wire.OldEpoch},
		{"epoch that nobody has told", order(4, 6, "s1"), 2, wire.OldEpoch},
		{"unknown kind", &pb.Order{Id: 5, Epoch: 5}, 2, wire.BadRequest},
	}
	for _, x := range steps {
		got := r.obey(x.order)
		if got.Order != x.order.Id || wire.Kind(got.GetError().GetKind()) != x.want || h.orders != x.orders {
			t.Errorf("%s: got %v after %d orders, want kind %q after %d", x.name, got, h.orders, x.want, x.orders)
		}
	}
	// A newer master has been seen over another link meanwhile.
	h.epoch = 6
	if got := r.obey(order(9, 5, "s1")); wire.Kind(got.GetError().GetKind()) != wire.OldEpoch {
		t.Errorf("after a newer epoch: got %v", got)
	}
	// What is remembered is bounded.
	h.epoch = 5
	for id := range uint64(3 * maxResults) {
		r.obey(order(100+id, 5, "s1"))
		if len(r.end.done) > maxResults {
			t.Fatalf("%d results are kept", len(r.end.done))
		}
	}
}

// Without a link every call says so at once.
func TestCallsWithoutALink(t *testing.T) {
	l := New(Config{Host: &host{}, Log: zerolog.Nop()})
	if _, err := l.Refer(context.Background(), &pb.ReferRequest{}); err != ErrDown {
		t.Errorf("refer: got %v", err)
	}
	if _, _, err := l.Claim(context.Background(), "alice", 1); err != ErrDown {
		t.Errorf("claim: got %v", err)
	}
	l.Break()
	if up, down, why, changed := l.Status(); up || down.IsZero() || why == "" || changed == nil {
		t.Errorf("status: %v %v %q %v", up, down, why, changed)
	}
}

// V-10: whatever the master prescribes, reports come neither in a flood nor never.
func TestPace(t *testing.T) {
	for name, p := range map[string]*pb.Pace{"zero": {}, "huge": {IntervalMs: 1 << 31, SlotMs: 1 << 31}, "slot beyond": {IntervalMs: 3000, SlotMs: 9000}, "as usual": {IntervalMs: 3000, SlotMs: 1500}} {
		interval, next := wire.Slot(p)
		if interval < 100*time.Millisecond || interval > time.Hour || next <= 0 || next > interval+interval/50 {
			t.Errorf("%s: every %v, first in %v", name, interval, next)
		}
	}
}

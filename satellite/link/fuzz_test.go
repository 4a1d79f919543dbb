package link

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// downStream is a link whose master sends what it is given, and then ends.
type downStream struct {
	pb.Link_AttachClient
	in []*pb.Down
}

func (s *downStream) Recv() (*pb.Down, error) {
	if len(s.in) == 0 {
		return nil, io.EOF
	}
	d := s.in[0]
	s.in = s.in[1:]
	return d, nil
}

// ordered notes what a master makes a satellite do.
type ordered struct {
	Host
	epoch  uint64
	orders []*pb.SessionOrder
	leases []time.Duration
}

func (h *ordered) Epoch() uint64 { return h.epoch }
func (h *ordered) Order(o *pb.SessionOrder) error {
	h.orders = append(h.orders, o)
	if o.GetSession() == "" {
		return errors.New("\x1b[2J no such session \xff")
	}
	return nil
}
func (h *ordered) Lease(from, _ time.Duration) { h.leases = append(h.leases, from) }

func packed(f *testing.F, all ...*pb.Down) (out []byte) {
	for _, m := range all {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	return out
}

// FuzzDown: a master may send anything that can be decoded, in any order: an
// order is carried out once at most and only with the epoch that the link was
// welcomed with and none higher has been seen; a lease counts only for a report
// that was sent, once; reports come neither in a flood nor never; each order has
// an answer that can be sent (S9, S21, V-10).
func FuzzDown(f *testing.F) {
	welcome := &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Epoch: 5, ServerId: 2, Attachment: 7, Version: "1.0", Pace: &pb.Pace{IntervalMs: 3000, SlotMs: 1200}, LeaseSelfMs: 60000}}}
	lease := func(n uint64) *pb.Down { return &pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: n}}} }
	send := func(o *pb.Order) *pb.Down { return &pb.Down{Kind: &pb.Down_Order{Order: o}} }
	f.Add(packed(f, welcome, send(order(1, 5, "s1")), send(order(1, 5, "s1")), lease(1), lease(1), lease(2)), uint64(5))
	f.Add(packed(f, welcome, send(order(1, 4, "s1")), send(order(2, 6, "s1")), send(&pb.Order{Id: 3, Epoch: 5}), lease(1<<63)), uint64(4))
	f.Add(packed(f, &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{}}}), uint64(0))
	f.Add(packed(f, welcome, &pb.Down{}, &pb.Down{Kind: &pb.Down_Pace{Pace: &pb.Pace{IntervalMs: 1<<32 - 1, SlotMs: 1<<32 - 1}}}, send(order(9, 5, ""))), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seen uint64) {
		var in []*pb.Down
		for len(b) >= 2 && len(in) < 32 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			m := &pb.Down{}
			if proto.Unmarshal(b[2:2+n], m) == nil {
				in = append(in, m)
			}
			b = b[2+n:]
		}
		if len(in) == 0 {
			return
		}
		w, err := Welcomed(in[0], seen)
		if err != nil {
			if in[0].GetWelcome().GetPace() != nil && in[0].GetWelcome().Epoch >= seen {
				t.Errorf("%v is no welcome: %v", in[0], err)
			}
			return
		}
		in = in[1:]
		h := &ordered{epoch: w.Epoch}
		r := &reporter{link: New(Config{Host: h, Log: zerolog.Nop()}), stream: &downStream{in: in}, end: NewEnd(w, 0),
			results: make(chan *pb.Result, maxResults), pace: make(chan *pb.Pace, len(in)+1)}
		for i := range 3 { // reports 1 to 3 are on their way
			r.end.Report(News{Version: uint64(i + 1)}, true, time.Duration(i+1)*time.Second)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := r.receive(&conn{ctx: ctx}); err != nil {
			t.Fatalf("ended with %v", err)
		}
		asked, good := 0, map[uint64]bool{}
		for _, d := range in {
			if o := d.GetOrder(); o != nil {
				asked++
				if s, ok := o.Kind.(*pb.Order_Session); ok && s != nil && o.Epoch == w.Epoch {
					good[o.Id] = true
				}
			}
			if p := d.GetPace(); p != nil {
				if interval, next := wire.Slot(p); interval < 100*time.Millisecond || interval > time.Hour || next <= 0 || next > 2*interval {
					t.Errorf("%v: every %v, first in %v", p, interval, next)
				}
			}
		}
		if len(h.orders) > len(good) {
			t.Errorf("%d orders are carried out of %d good ones", len(h.orders), len(good))
		}
		if len(r.results) != asked {
			t.Errorf("%d answers to %d orders", len(r.results), asked)
		}
		for range len(r.results) {
			res := <-r.results
			if _, err := proto.Marshal(res); err != nil || !utf8.ValidString(res.GetError().GetText()) {
				t.Errorf("answer %v: %v", res, err)
			}
			if res.Error == nil && !good[res.Order] {
				t.Errorf("order %d is not answered with an error", res.Order)
			}
		}
		for i, from := range h.leases {
			if w.LeaseSelfMs == 0 || from < time.Second || from > 3*time.Second || i > 0 && from <= h.leases[i-1] {
				t.Errorf("leases from %v", h.leases)
			}
		}
	})
}

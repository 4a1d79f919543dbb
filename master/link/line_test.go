package link

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	pb "verdecmd/proto"
)

// stuckStream takes messages in order, and none while it is stuck.
type stuckStream struct {
	pb.Link_AttachServer
	free chan struct{} // closed: it takes messages
	sent chan uint64
}

func (s *stuckStream) Send(d *pb.Down) error {
	<-s.free
	s.sent <- d.GetLease().GetReport()
	return nil
}

// A satellite that does not read holds up nobody: what waits for it is bounded,
// and then its link ends. One that reads again in time gets all, in order.
func TestLineQueue(t *testing.T) {
	lease := func(n uint64) *pb.Down {
		return &pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: n}}}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &stuckStream{free: make(chan struct{}), sent: make(chan uint64, 3*mostOut)}
		ctx, end := context.WithCancel(t.Context())
		l := &line{stream: s, done: ctx.Done(), end: end}
		var want []uint64
		for n := range uint64(mostOut) {
			if !l.post(lease(n)) {
				t.Fatalf("message %d was refused", n)
			}
			want = append(want, n)
		}
		synctest.Wait() // one of them is being sent
		close(s.free)
		synctest.Wait()
		if !l.post(lease(1000)) {
			t.Error("a message after all were read was refused")
		}
		synctest.Wait()
		close(s.sent)
		var got []uint64
		for n := range s.sent {
			got = append(got, n)
		}
		if want = append(want, 1000); !slices.Equal(got, want) || ctx.Err() != nil {
			t.Errorf("got %v, ended: %v; want %v and no end", got, ctx.Err(), want)
		}
		if l.out != nil || l.sending {
			t.Errorf("a quiet line holds %v, sending: %v", l.out, l.sending)
		}
		end()
	})
	synctest.Test(t, func(t *testing.T) {
		s := &stuckStream{free: make(chan struct{}), sent: make(chan uint64, 3*mostOut)}
		ctx, end := context.WithCancel(t.Context())
		l := &line{stream: s, done: ctx.Done(), end: end}
		refused := 0
		for n := range uint64(2 * mostOut) {
			if !l.post(lease(n)) {
				refused++
			}
			synctest.Wait()
		}
		if refused != mostOut-1 || ctx.Err() == nil {
			t.Errorf("got %d refused, ended: %v; want %d and the end of the link", refused, ctx.Err(), mostOut-1)
		}
		close(s.free)
	})
}

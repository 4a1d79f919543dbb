package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	pb "verdecmd/proto"
)

// follower notes what the links tell of trust bundles.
type follower struct {
	mu      sync.Mutex
	current uint64
	notes   []string
}

func (f *follower) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

func (f *follower) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.notes, ", ")
	f.notes = nil
	return s
}

func (f *follower) Opened(_ context.Context, server, _ uint64, _ string, h *pb.Hello) bool {
	if h.TrustVersion == nil {
		f.note("%d takes none", server)
		return false
	}
	f.note("%d has %d", server, *h.TrustVersion)
	return *h.TrustVersion < f.current
}
func (f *follower) Closed(server, _ uint64) { f.note("%d is gone", server) }
func (f *follower) Acked(server, _, version uint64, why string) {
	f.note("%d takes %d %s", server, version, why)
}

func (f *follower) parts(version uint64, n int) (out []*pb.TrustPart) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.current = version
	for i := range n {
		out = append(out, &pb.TrustPart{Version: version, Index: uint32(i), Count: uint32(n), Data: make([]byte, 100)})
	}
	return out
}

func newTrustRig(t *testing.T) (*rig, *follower) {
	f := &follower{}
	r := newRig(t, Times{})
	r.server.cfg.Trust = f
	return r, f
}

// hold opens the link of a satellite that holds a bundle; -1: it knows of none.
func (r *rig) hold(name string, version int) *peer {
	p := r.dial(r.creds(name))
	h := goodHello()
	if version >= 0 {
		v := uint64(version)
		h.TrustVersion = &v
	}
	p.send(&pb.Up{Kind: &pb.Up_Hello{Hello: h}})
	if w := p.recv(); w.GetWelcome() == nil {
		r.t.Fatalf("got %v, want a welcome", w)
	}
	return p
}

func (p *peer) recv() *pb.Down {
	p.t.Helper()
	d, err := p.stream.Recv()
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

// bundle reads the pieces of a bundle.
func (p *peer) bundle() (out []string) {
	p.t.Helper()
	for {
		d := p.recv().GetTrust()
		if d == nil {
			p.t.Fatal("no piece of a bundle")
		}
		out = append(out, fmt.Sprintf("%d:%d/%d", d.Version, d.Index, d.Count))
		if d.Index == d.Count-1 {
			return out
		}
	}
}

// Issue 5, item 3: a bundle goes to every satellite that takes bundles and holds
// an older one, in pieces and in order, when its link opens and when there is a
// newer one; what a satellite says comes back.
func TestTrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newTrustRig(t)
		r.server.Trust(f.parts(2, 2))
		one, two, old := r.hold("sat1", 0), r.hold("sat2", 2), r.hold("sat3", -1)
		if got, want := one.bundle(), []string{"2:0/2", "2:1/2"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		one.send(&pb.Up{Kind: &pb.Up_TrustAck{TrustAck: &pb.TrustAck{Version: 2}}})
		synctest.Wait()
		notes := strings.Split(f.take(), ", ")
		slices.Sort(notes)
		if got, want := strings.Join(notes, ", "), "1 has 0, 1 takes 2 , 2 has 2, 3 takes none"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r.server.Trust(f.parts(3, 1))
		for _, p := range []*peer{one, two} {
			if got := p.bundle(); !slices.Equal(got, []string{"3:0/1"}) {
				t.Errorf("got %v", got)
			}
		}
		two.send(&pb.Up{Kind: &pb.Up_TrustAck{TrustAck: &pb.TrustAck{Version: 2, Error: "no"}}})
		synctest.Wait()
		if got := f.take(); got != "2 takes 2 no" {
			t.Errorf("got %q", got)
		}
		// To the third one nothing was sent: the next message is a pace.
		r.server.SetTimes(Times{Interval: 5 * time.Second})
		if d := old.recv(); d.GetPace() == nil {
			t.Errorf("an older satellite got %v", d)
		}
		one.cc.Close()
		synctest.Wait()
		if got := f.take(); got != "1 is gone" {
			t.Errorf("got %q", got)
		}
		two.cc.Close()
		old.cc.Close()
		r.grpc.Stop()
	})
}

// partStream takes pieces and other messages, none while it is stuck.
type partStream struct {
	pb.Link_AttachServer
	free chan struct{}
	mu   sync.Mutex
	got  []string
}

func (s *partStream) Send(d *pb.Down) error {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := d.GetTrust(); p != nil {
		s.got = append(s.got, fmt.Sprintf("%d:%d", p.Version, p.Index))
	} else {
		s.got = append(s.got, fmt.Sprint(d.GetLease().GetReport()))
	}
	return nil
}

func (s *partStream) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, " ")
}

// Pitfall 12: the bundle of a large cluster holds up neither orders nor other
// satellites: orders go first, a newer bundle takes the place of one that is on
// its way, and 40 satellites that read nothing keep no other one waiting for
// long.
func TestTrustHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &follower{}
		s := New(Config{Trust: f, Times: Times{Interval: time.Second}, Log: zerolog.Nop()})
		ctx, end := context.WithCancel(t.Context())
		defer end()
		add := func(id uint64, free chan struct{}) *partStream {
			stream := &partStream{free: free}
			s.lines[id] = &line{server: id, stream: stream, done: ctx.Done(), end: end, takes: true}
			return stream
		}
		open, stuck := make(chan struct{}), make(chan struct{})
		close(open)
		var slow []*partStream
		for id := range uint64(40) {
			slow = append(slow, add(id, stuck))
		}
		quick := add(100, open)
		started := time.Now()
		s.Trust(f.parts(2, 4))
		synctest.Wait()
		for id := range slow {
			s.lines[uint64(id)].post(&pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: 9}}})
		}
		for quick.all() == "" {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
		}
		if waited := time.Since(started); waited > 2*spreadWait {
			t.Errorf("who reads has waited %v for those who do not", waited)
		}
		if got := quick.all(); got != "2:0 2:1 2:2 2:3" {
			t.Errorf("got %q", got)
		}
		s.Trust(f.parts(3, 2))
		time.Sleep(time.Minute)
		close(stuck)
		time.Sleep(time.Minute)
		begun := 0
		for id, x := range slow {
			got := x.all()
			if !strings.HasSuffix(got, "3:0 3:1") || strings.Contains(got, "2:3") || strings.Count(got, "3:") != 2 {
				t.Errorf("satellite %d got %q, want no end of the old bundle and all of the new one", id, got)
			}
			if strings.HasPrefix(got, "2:0 9 ") {
				begun++
			} else if !strings.HasPrefix(got, "9 ") {
				t.Errorf("satellite %d got %q, want what was posted before the rest", id, got)
			}
		}
		if begun == 0 {
			t.Error("no bundle was on its way when something was posted")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.spreading != 0 || len(s.spread) != 0 {
			t.Errorf("%d at work, %d waiting", s.spreading, len(s.spread))
		}
	})
}

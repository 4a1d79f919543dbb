package link

import (
	"context"
	"time"

	pb "verdecmd/proto"
)

// Trust is who follows the trust bundle.
type Trust interface {
	// Opened notes a link with its hello, and tells whether it is to be sent the
	// bundle that was handed to Server.Trust last.
	Opened(ctx context.Context, server, attachment uint64, uuid string, h *pb.Hello) (send bool)
	Closed(server, attachment uint64)
	// Acked notes which bundle is in force there, and why no newer one.
	Acked(server, attachment, version uint64, why string)
}

// A bundle of 10,000 servers has a megabyte, and goes to each of them: it is
// sent to so many at once, and the next ones do not wait longer than that for
// who reads slowly or not at all.
const (
	spreaders  = 32
	spreadWait = 2 * time.Second
)

// Trust sends a bundle to all satellites that take bundles, and to those that
// need it when their links open. One that is on its way is dropped for it.
func (s *Server) Trust(parts []*pb.TrustPart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts, s.spread = parts, s.spread[:0:0]
	for _, l := range s.lines {
		if l.takes {
			s.spread = append(s.spread, l)
		}
	}
	s.spreadMore()
}

// opened tells that the link of a satellite is open.
func (s *Server) opened(ctx context.Context, l *line, h *pb.Hello) {
	if s.cfg.Trust == nil || !s.cfg.Trust.Opened(ctx, l.server, l.attachment, l.uuid, h) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spread = append(s.spread, l)
	s.spreadMore()
}

// spreadMore starts who sends what is to be sent. s.mu is held.
func (s *Server) spreadMore() {
	for ; s.spreading < min(spreaders, len(s.spread)); s.spreading++ {
		go s.spreader()
	}
}

// spreader sends the newest bundle to one line after the other, until none is
// left.
func (s *Server) spreader() {
	timer := time.NewTimer(spreadWait)
	defer timer.Stop()
	for {
		s.mu.Lock()
		if len(s.spread) == 0 {
			s.spreading--
			s.mu.Unlock()
			return
		}
		l, parts := s.spread[0], s.parts
		s.spread = s.spread[1:]
		s.mu.Unlock()
		timer.Reset(spreadWait)
		select {
		case <-l.give(parts):
		case <-l.done:
		case <-timer.C: // it goes on by itself
		}
	}
}

// give lets a bundle be sent in the place of any other one, behind everything
// else. The channel is closed when all of it has been sent, or is not wanted any
// more.
func (l *line) give(parts []*pb.TrustPart) <-chan struct{} {
	sent := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sent != nil {
		close(l.sent)
	}
	l.parts, l.sent = parts, sent
	l.start()
	return sent
}

// next is what is to be sent now; nil: nothing. l.mu is held.
func (l *line) next() *pb.Down {
	if len(l.out) > 0 {
		d := l.out[0]
		l.out = l.out[1:]
		return d
	}
	if len(l.parts) > 0 {
		p := l.parts[0]
		l.parts = l.parts[1:]
		return &pb.Down{Kind: &pb.Down_Trust{Trust: p}}
	}
	if l.sent != nil {
		close(l.sent)
		l.parts, l.sent = nil, nil
	}
	l.out = nil
	return nil
}

package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

// What happens to calls and messages rather than to bytes: they are late, they
// come twice. The witness looks on here: it sees what a satellite was told.

// path is the way to the master as it is now.
func (s *simSat) path() (repeat bool, late time.Duration) {
	s.w.net.mu.Lock()
	defer s.w.net.mu.Unlock()
	p := s.w.net.path(s.name, "master")
	return p.repeat, p.late
}

// unary carries a call of a satellite.
func (s *simSat) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	repeat, late := s.path()
	pause := func() error {
		select {
		case <-time.After(late):
			return nil
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if late > 0 {
		if err := pause(); err != nil {
			return err
		}
	}
	sent := time.Now()
	err := call(ctx, method, req, reply, cc, opts...)
	if repeat && strings.HasSuffix(method, "/Refer") {
		_ = call(ctx, method, req, &pb.ReferReply{}, cc, opts...)
	} else if repeat {
		_ = call(ctx, method, req, &pb.ClaimReply{}, cc, opts...)
	}
	if late > 0 && err == nil {
		err = pause()
	}
	if err == nil {
		switch r := reply.(type) {
		case *pb.ReferReply:
			s.w.sawReferral(req.(*pb.ReferRequest).User, r, sent)
		case *pb.ClaimReply:
			s.w.sawClaim(s, req.(*pb.ClaimRequest).User, r, sent)
		}
	}
	return err
}

// stream carries a link.
func (s *simSat) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cs, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &simStream{ClientStream: cs, sat: s, sent: map[uint64]time.Time{}}, nil
}

// simStream is a link on which messages come twice when they are told to.
type simStream struct {
	grpc.ClientStream
	sat   *simSat
	again *pb.Down // comes once more

	sent  map[uint64]time.Time // reports by number, 0: the hello; guarded by simWorld.mu
	epoch uint64               // of the welcome
}

func (c *simStream) SendMsg(m any) error {
	up := m.(*pb.Up)
	c.sat.w.mu.Lock()
	if r := up.GetReport(); r != nil {
		c.sent[r.Seq] = time.Now()
	} else if up.GetHello() != nil {
		c.sent[0] = time.Now()
	}
	c.sat.w.mu.Unlock()
	if repeat, _ := c.sat.path(); repeat && up.GetHello() == nil {
		if err := c.ClientStream.SendMsg(m); err != nil {
			return err
		}
	}
	return c.ClientStream.SendMsg(m)
}

func (c *simStream) RecvMsg(m any) error {
	down := m.(*pb.Down)
	if c.again != nil {
		proto.Merge(down, c.again)
		c.again = nil
		return nil
	}
	if err := c.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	if repeat, _ := c.sat.path(); repeat && down.GetWelcome() == nil {
		c.again = proto.Clone(down).(*pb.Down)
	}
	c.sat.w.sawDown(c, down)
	return nil
}

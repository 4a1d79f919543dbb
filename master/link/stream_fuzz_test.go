package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// upStream is a link whose satellite sends what it is given, and then ends.
type upStream struct {
	pb.Link_AttachServer
	ctx context.Context
	in  []*pb.Up

	mu   sync.Mutex
	sent []*pb.Down // guarded by mu
}

func (s *upStream) Context() context.Context     { return s.ctx }
func (s *upStream) SetHeader(metadata.MD) error  { return nil }
func (s *upStream) SendHeader(metadata.MD) error { return nil }
func (s *upStream) Send(d *pb.Down) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = append(s.sent, d)
	return nil
}

func (s *upStream) Recv() (*pb.Up, error) {
	if len(s.in) == 0 {
		return nil, io.EOF
	}
	up := s.in[0]
	s.in = s.in[1:]
	return up, nil
}

// messages takes length-prefixed messages apart, those that can be decoded.
func messages(b []byte) (out []*pb.Up) {
	for len(b) >= 2 && len(out) < 16 {
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		m := &pb.Up{}
		if proto.Unmarshal(b[2:2+n], m) == nil {
			out = append(out, m)
		}
		b = b[2+n:]
	}
	return out
}

func packed(f *testing.F, all ...*pb.Up) (out []byte) {
	for _, m := range all {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	return out
}

// withPeer is the context of a call from the satellite "the-uuid".
func withPeer(ctx context.Context) context.Context {
	const id = "6ba7b811-9dad-11d1-80b4-00c04fd430c8"
	u := &url.URL{Scheme: "verde", Host: id, Path: "/satellite/" + id}
	cert := &x509.Certificate{URIs: []*url.URL{u}, DNSNames: []string{"sat1"}}
	return grpcpeer.NewContext(ctx, &grpcpeer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}}})
}

// FuzzLink: a satellite that sends anything that can be decoded, in any order,
// gets its link ended with an error of a known kind or is served; nothing is
// reported before it was admitted, and when the link has ended nothing of it is
// left (S21).
func FuzzLink(f *testing.F) {
	hello := &pb.Up{Kind: &pb.Up_Hello{Hello: goodHello()}}
	report := &pb.Up{Kind: &pb.Up_Report{Report: oddReport}}
	result := &pb.Up{Kind: &pb.Up_Result{Result: &pb.Result{Order: 1, Error: &pb.ErrorDetail{Kind: "x", Text: "\x1b"}}}}
	f.Add(packed(f, hello, report, result, &pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{Seq: 2}}}), true)
	f.Add(packed(f, report, hello), false)
	f.Add(packed(f, hello, hello), true)
	f.Add(packed(f, hello, result, result, &pb.Up{}), false)
	newer := goodHello()
	newer.EpochSeen = 6
	f.Add(packed(f, &pb.Up{Kind: &pb.Up_Hello{Hello: newer}}), true)
	f.Fuzz(func(t *testing.T, b []byte, lease bool) {
		in := messages(b)
		h := &hub{}
		times := Times{Interval: 3 * time.Second}
		if lease {
			times.LeaseSelf = time.Minute
		}
		s := New(Config{Hub: h, Epoch: 5, Version: "1.0", Times: times, Log: zerolog.Nop()})
		ctx, cancel := context.WithCancel(withPeer(t.Context()))
		defer cancel()
		stream := &upStream{ctx: ctx, in: in}
		began := time.Now()
		err := s.Attach(stream)
		if took := time.Since(began); took > time.Minute { // it waits for nothing
			t.Errorf("took %v", took)
		}
		var e *wire.Error
		if err != nil && !errors.Is(err, io.EOF) && (!errors.As(wire.FromStatus(err), &e) || e.Text == "") {
			t.Errorf("ended with %v", err)
		}
		var welcomed bool
		if len(in) > 0 && in[0].GetHello() != nil {
			m := in[0].GetHello()
			_, herr := FromHello(wire.Identity{ID: "the-uuid"}, m)
			welcomed = herr == nil && m.EpochSeen <= 5
		}
		if told := h.take(); (told == "") == welcomed {
			t.Errorf("a hello that is good (%v) led to %q", welcomed, told)
		}
		s.mu.Lock()
		left := len(s.lines) + len(s.byUUID)
		s.mu.Unlock()
		if left != 0 {
			t.Errorf("%d entries are left of the link", left)
		}
		stream.mu.Lock()
		defer stream.mu.Unlock()
		for _, d := range stream.sent {
			if _, err := proto.Marshal(d); err != nil {
				t.Errorf("answered %v: %v", d, err)
			}
		}
	})
}

// FuzzRefer: a login and a claim with any decodable values are refused by name
// or reach the rules within bounds.
func FuzzRefer(f *testing.F) {
	seed(f, &pb.ReferRequest{User: "alice", Uid: 1001, Need: &pb.Need{MemoryBytes: 1 << 30, Cpus: 2, Image: "win4/7", Requires: []string{"kvm"}}, Client: "local", Attachment: 1})
	seed(f, &pb.ReferRequest{User: "alice", Need: &pb.Need{MemoryBytes: 1 << 63}})
	seed(f, &pb.ReferRequest{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &pb.ReferRequest{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		l, err := FromRefer(m)
		if err != nil {
			if wire.KindOf(err) != wire.BadRequest || len(err.Error()) > 2*maxText {
				t.Errorf("got %v", err)
			}
			return
		}
		if l.User == "" || !utf8.ValidString(l.User) || len(l.Client) > maxText || l.Need.Memory == 0 || l.Need.Memory > maxMemory {
			t.Errorf("got %+v", l)
		}
		for _, list := range [][]string{l.Need.Requires, l.Need.Avoid} {
			if len(list) > 16 {
				t.Errorf("%d features", len(list))
			}
		}
		s := New(Config{Hub: &hub{}, Epoch: 5, Log: zerolog.Nop()})
		if _, err := s.Refer(withPeer(t.Context()), m); wire.KindOf(wire.FromStatus(err)) != wire.StaleLink {
			t.Errorf("a login without a link: got %v", err)
		}
		if _, err := s.Claim(withPeer(t.Context()), &pb.ClaimRequest{User: m.User, Attachment: m.Attachment}); wire.KindOf(wire.FromStatus(err)) != wire.StaleLink {
			t.Errorf("a claim without a link: got %v", err)
		}
	})
}

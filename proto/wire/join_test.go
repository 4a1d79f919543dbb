package wire

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
)

// enrolling answers who asks to join with what it is called by.
type enrolling struct {
	pb.UnimplementedEnrolmentServer
}

func (enrolling) Join(ctx context.Context, r *pb.JoinRequest) (*pb.JoinReply, error) {
	return &pb.JoinReply{Name: r.Name + " from " + PeerAddress(ctx)}, nil
}

func (enrolling) Rejoin(ctx context.Context, _ *pb.RenewRequest) (*pb.JoinReply, error) {
	id, err := PeerIdentity(ctx)
	return &pb.JoinReply{Id: id.ID}, err
}

func (enrolling) Renew(ctx context.Context, _ *pb.RenewRequest) (*pb.JoinReply, error) {
	id, err := PeerIdentity(ctx)
	return &pb.JoinReply{Id: id.ID}, err
}

// joinPort is a master's port with both services.
func joinPort(t *testing.T, c *Credentials, peer bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := ServerOptions(c, nil)
	if peer {
		options = PeerServerOptions(c, nil)
	}
	s := grpc.NewServer(options...)
	pb.RegisterLinkServer(s, fakeLink{})
	pb.RegisterEnrolmentServer(s, enrolling{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(Limit(l, Bounds{Total: 100, PerAddress: 100})) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

// calls are the calls of a client, each with what came of it in one word.
func calls(t *testing.T, addr string, opts ...grpc.DialOption) map[string]string {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	link, host := pb.NewLinkClient(cc), pb.NewEnrolmentClient(cc)
	word := func(err error) string {
		if err == nil {
			return "done"
		}
		return string(KindOf(FromStatus(err)))
	}
	out := map[string]string{}
	_, err = link.Refer(ctx, &pb.ReferRequest{User: "alice"})
	out["refer"] = word(err)
	_, err = host.Join(ctx, &pb.JoinRequest{Name: "sat9"})
	out["join"] = word(err)
	_, err = host.Rejoin(ctx, &pb.RenewRequest{})
	out["rejoin"] = word(err)
	_, err = host.Renew(ctx, &pb.RenewRequest{})
	out["renew"] = word(err)
	return out
}

// RELIABILITY 4.4, pitfalls 6 and 13: what a connection has proved decides what
// it may call, and nothing else does. S16: a revoked identity may call nothing.
func TestAdmission(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, err := NewAuthority(now.Add(-1000 * day))
	if err != nil {
		t.Fatal(err)
	}
	master := machine(t, a, Master, now)
	gone := machine(t, a, Satellite, now)
	master.SetRevoked(func(id, _ string) (string, bool) { return "superseded", id == gone.Identity.ID })
	addr := joinPort(t, master, false)
	old := machine(t, a, Satellite, now.Add(-400*day))   // ended 35 days ago
	older := machine(t, a, Satellite, now.Add(-800*day)) // ended over a year ago
	const no, out = string(Denied), string(Unreachable)
	tests := map[string]struct {
		opts                       []grpc.DialOption
		refer, join, rejoin, renew string
	}{
		"a satellite":                     {DialOptions(machine(t, a, Satellite, now)), "done", no, no, "done"},
		"nobody":                          {JoinDialOptions(a.Fingerprint(), time.Now), no, "done", no, no},
		"expired, as usual":               {DialOptions(old), out, out, out, out},
		"expired, to rejoin":              {RejoinDialOptions(old), no, no, "done", no},
		"expired for too long":            {RejoinDialOptions(older), out, out, out, out},
		"valid, to rejoin":                {RejoinDialOptions(machine(t, a, Satellite, now)), no, no, "done", no},
		"revoked":                         {DialOptions(gone), string(Revoked), no, no, string(Revoked)},
		"revoked, to rejoin":              {RejoinDialOptions(gone), no, no, string(Revoked), no},
		"a master's certificate":          {DialOptions(machine(t, a, Master, now)), out, out, out, out},
		"a master's, to rejoin":           {RejoinDialOptions(machine(t, a, Master, now)), out, out, out, out},
		"another cluster's, to rejoin":    {RejoinDialOptions(machine(t, authority(t), Satellite, now)), out, out, out, out},
		"a satellite that calls a peer's": {PeerDialOptions(machine(t, a, Satellite, now), ""), out, out, out, out},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := calls(t, addr, test.opts...)
			want := map[string]string{"refer": test.refer, "join": test.join, "rejoin": test.rejoin, "renew": test.renew}
			for call := range want {
				if got[call] != want[call] {
					t.Errorf("%s: got %s, want %s", call, got[call], want[call])
				}
			}
		})
	}
}

// S16: an identity that is revoked while its connection is open gets nothing
// over it any more, at the master and at a peer.
func TestRevokedMeanwhile(t *testing.T) {
	a := authority(t)
	for name, peer := range map[string]bool{"at the master": false, "at a peer": true} {
		t.Run(name, func(t *testing.T) {
			role := Master
			if peer {
				role = Satellite
			}
			server := machine(t, a, role, time.Now())
			var revoked atomic.Bool
			server.SetRevoked(func(string, string) (string, bool) { return "superseded by another machine", revoked.Load() })
			addr := joinPort(t, server, peer)
			sat := machine(t, a, Satellite, time.Now())
			opts := DialOptions(sat)
			if peer {
				opts = PeerDialOptions(sat, server.Identity.ID)
			}
			c := dial(t, addr, opts...)
			if _, err := c.Refer(t.Context(), &pb.ReferRequest{User: "alice"}); err != nil {
				t.Fatal(err)
			}
			revoked.Store(true)
			_, err := c.Refer(t.Context(), &pb.ReferRequest{User: "alice"})
			if err = FromStatus(err); KindOf(err) != Revoked || err.Error() != "superseded by another machine" {
				t.Errorf("got %s %v", KindOf(err), err)
			}
		})
	}
}

// A satellite talks to the peer that it means, and to none that is revoked.
func TestPeerIsWho(t *testing.T) {
	a := authority(t)
	server, sat := machine(t, a, Satellite, time.Now()), machine(t, a, Satellite, time.Now())
	addr := joinPort(t, server, true)
	call := func(id string) error {
		_, err := dial(t, addr, PeerDialOptions(sat, id)...).Refer(t.Context(), &pb.ReferRequest{User: "alice"})
		return FromStatus(err)
	}
	if err := errorsJoin(call(server.Identity.ID), call("")); err != nil {
		t.Error(err)
	}
	if err := call(NewUUID()); err == nil || !strings.Contains(err.Error(), "answers where") {
		t.Errorf("another peer than meant: %v", err)
	}
	sat.SetRevoked(func(id, serial string) (string, bool) {
		return "forgotten", id == server.Identity.ID && serial == server.Serial()
	})
	if err := call(server.Identity.ID); err == nil || !strings.Contains(err.Error(), "is of the cluster no more: forgotten") {
		t.Errorf("a revoked peer: %v", err)
	}
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// RELIABILITY 4.1: the fingerprint is seen, or compared, before anything is
// sent. Who listens in between with an authority of his own gets nothing, and
// who has another cluster's fingerprint is told both.
func TestLook(t *testing.T) {
	t.Parallel()
	a, other := authority(t), authority(t)
	addr := joinPort(t, machine(t, a, Master, time.Now()), false)
	shown, err := Look(t.Context(), addr)
	if err != nil || shown.Cluster != a.Cluster || shown.Fingerprint != a.Fingerprint() || shown.Name != "master.example" {
		t.Fatalf("got %+v, %v", shown, err)
	}
	got := calls(t, addr, JoinDialOptions(other.Fingerprint(), time.Now)...)
	if got["join"] != string(Unreachable) {
		t.Errorf("join with another fingerprint: %v", got)
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, JoinDialOptions(other.Fingerprint(), time.Now)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	_, err = pb.NewEnrolmentClient(cc).Join(t.Context(), &pb.JoinRequest{})
	for _, want := range []string{FormatFingerprint(a.Fingerprint()), FormatFingerprint(other.Fingerprint()), "nothing was sent"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// A satellite's certificate is no master's, whoever shows it; and a master
	// whose certificate is over says both times.
	sat := joinPort(t, machine(t, a, Satellite, time.Now()), false)
	if _, err := Look(t.Context(), sat); err == nil || !strings.Contains(err.Error(), "shows the certificate of a satellite where a master is wanted") {
		t.Errorf("a satellite in the master's place: %v", err)
	}
	late := joinPort(t, machine(t, a, Master, time.Now().Add(-366*day)), false)
	if _, err := Look(t.Context(), late); err == nil || !strings.Contains(err.Error(), "24h0m0s too late") {
		t.Errorf("a master whose certificate is over: %v", err)
	}
	if _, err := Look(t.Context(), "127.0.0.1:1"); KindOf(err) != Unreachable || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("nobody there: %v", err)
	}
}

// What a stranger sees of the master is public: its certificate and its
// authority's, and he has to go after a while.
func TestStrangerSeesLittle(t *testing.T) {
	a := authority(t)
	addr := joinPort(t, machine(t, a, Master, time.Now()), false)
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: JoinServerName, NextProtos: alpn})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n := len(c.ConnectionState().PeerCertificates); n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn}); err == nil {
		// TLS 1.3: the refusal comes with the first read.
		c, _ := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: alpn})
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(soon))
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("without a certificate and without asking to join: %v", err)
		}
	}
}

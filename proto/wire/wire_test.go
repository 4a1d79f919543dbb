package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "verdecmd/proto"
)

const day = 24 * time.Hour

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func machine(t testing.TB, a *Authority, role Role, now time.Time) *Credentials {
	t.Helper()
	c, err := a.Credentials(role, string(role)+".example", now, 365*day)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fakeLink answers Refer in the way that the user's name says.
type fakeLink struct {
	pb.UnimplementedLinkServer
}

func (fakeLink) Refer(ctx context.Context, r *pb.ReferRequest) (*pb.ReferReply, error) {
	switch r.User {
	case "panic":
		panic("no")
	case "full":
		return nil, fmt.Errorf("reserve: %w", Errorf(NoCapacity, "none of 3 servers"))
	}
	id, err := PeerIdentity(ctx)
	return &pb.ReferReply{Name: id.String()}, err
}

func (fakeLink) Attach(s grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	panic("in a stream")
}

// reports collects what a server would log.
type reports struct {
	mu  sync.Mutex // guards all
	all []Report
}

func (r *reports) add(x Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

func (r *reports) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s strings.Builder
	for _, x := range r.all {
		fmt.Fprintf(&s, "%s: %v\n", x.What, x.Err)
	}
	return s.String()
}

// serve runs a master's port on loopback until the test ends.
func serve(t *testing.T, c *Credentials, total, perAddress int) (addr string, log *reports) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = &reports{}
	s := grpc.NewServer(ServerOptions(c, log.add)...)
	pb.RegisterLinkServer(s, fakeLink{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(LimitListener(l, total, perAddress)) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), log
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) pb.LinkClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewLinkClient(cc)
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	a, other := authority(t), authority(t)
	old := machine(t, a, Satellite, now.Add(-400*day))
	young := machine(t, a, Satellite, now.Add(2*time.Hour))
	imposter := machine(t, other, Satellite, now) // says that it is of cluster a
	imposter.own = forged(t, other, a.Cluster, now)

	tests := map[string]struct {
		server, client *Credentials
		wantClient     string // in the client's error, empty: the call succeeds
		wantServer     string // in the server's log
	}{
		"a satellite": {server: machine(t, a, Master, now), client: machine(t, a, Satellite, now)},
		"satellite of another cluster": {server: machine(t, a, Master, now), client: machine(t, other, Satellite, now),
			wantClient: "belongs to cluster " + a.Cluster + ", this machine to " + other.Cluster},
		"satellite of another cluster that does not look": {server: machine(t, a, Master, now), client: blind(machine(t, other, Satellite, now)),
			wantClient: "its log says why", wantServer: "belongs to cluster " + other.Cluster},
		"forged by another authority": {server: machine(t, a, Master, now), client: blind(imposter),
			wantClient: "its log says why", wantServer: "is not from this cluster's authority"},
		"a master as a satellite": {server: machine(t, a, Master, now), client: machine(t, a, Master, now),
			wantClient: "its log says why", wantServer: "shows the certificate of a master where a satellite is wanted"},
		"a satellite as the master": {server: machine(t, a, Satellite, now), client: machine(t, a, Satellite, now),
			wantClient: "shows the certificate of a satellite where a master is wanted"},
		"expired": {server: machine(t, a, Master, now), client: old,
			wantClient: "its log says why", wantServer: "35 days"},
		"not yet valid": {server: machine(t, a, Master, now), client: young,
			wantClient: "its log says why", wantServer: "too early: set the clock"},
		"expired master": {server: machine(t, a, Master, now.Add(-366*day-time.Hour)), client: machine(t, a, Satellite, now),
			wantClient: "25h0m0s too late"},
	}
	tests["expired"] = func() (x struct {
		server, client         *Credentials
		wantClient, wantServer string
	}) {
		x.server, x.client, x.wantClient, x.wantServer = machine(t, a, Master, now), old, "its log says why", "840h0m0s too late"
		return x
	}()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, log := serve(t, test.server, 100, 100)
			c := dial(t, addr, DialOptions(test.client)...)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			r, err := c.Refer(ctx, &pb.ReferRequest{User: "alice"})
			err = FromStatus(err)
			if test.wantClient == "" {
				if err != nil || r.GetName() != test.client.Identity.String() {
					t.Errorf("got %v, %v, want the call to come from %s", r, err, test.client.Identity)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wantClient) || KindOf(err) != Unreachable {
				t.Errorf("client: got %v (%s), want %q", err, KindOf(err), test.wantClient)
			}
			if got := log.text(); !strings.Contains(got, test.wantServer) {
				t.Errorf("server: got %q, want %q", got, test.wantServer)
			}
		})
	}
}

// blind makes a client that checks nothing, as an attacker's would.
func blind(c *Credentials) *Credentials {
	c.blind = true
	return c
}

// forged makes a certificate that names cluster and is signed by a.
func forged(t *testing.T, a *Authority, cluster string, now time.Time) tls.Certificate {
	t.Helper()
	honest := a.Cluster
	a.Cluster = cluster
	defer func() { a.Cluster = honest }()
	b, err := a.Issue(Identity{Role: Satellite, ID: NewUUID(), Name: "x"}, now, day)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.X509KeyPair(b, b)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

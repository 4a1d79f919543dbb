package link

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	pb "verdecmd/proto"
)

// slow is a master behind a slow network. It answers no hello without a peer
// address.
type slow struct {
	pb.UnimplementedLinkServer
	pipe *bufconn.Listener
	open chan struct{} // nobody gets through before it is closed

	mu    sync.Mutex // guards what follows
	dials int
	told  []string // peer addresses
	peer  string   // of the host
}

func (s *slow) dial(ctx context.Context, _ string) (net.Conn, error) {
	s.mu.Lock()
	s.dials++
	s.mu.Unlock()
	select {
	case <-s.open:
		return s.pipe.DialContext(ctx)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *slow) Attach(stream pb.Link_AttachServer) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	peer := up.GetHello().GetPeerAddress()
	s.mu.Lock()
	s.told = append(s.told, peer)
	s.mu.Unlock()
	if peer != "" {
		err = stream.Send(&pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Pace: &pb.Pace{IntervalMs: 3000}}}})
	}
	<-stream.Context().Done()
	return err
}

// becomes changes the address that the host tells.
func (s *slow) becomes(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peer = peer
}

func (s *slow) address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// want tells what has come by now.
func (s *slow) want(t *testing.T, when string, dials int, told ...string) {
	t.Helper()
	time.Sleep(4 * time.Second) // more than the delays of a few connections, less than anybody's patience
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dials != dials || !slices.Equal(s.told, told) {
		t.Errorf("%s: dialled %d times, told %q; want %d, %q", when, s.dials, s.told, dials, told)
	}
}

// resting is a host in which nothing happens.
type resting struct{ greeter }

func (resting) News(uint64) News                   { return News{} }
func (resting) Changed() <-chan struct{}           { return nil }
func (resting) Obey(uint64) error                  { return nil }
func (resting) Lease(time.Duration, time.Duration) {}

// RELIABILITY 4.2: whatever moment it is at which a host gets another certificate
// or address, the master is told: certificate and hello are fixed long before the
// welcome comes.
func TestBreakWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &slow{pipe: bufconn.Listen(1 << 16), open: make(chan struct{})}
		s := grpc.NewServer(grpc.Creds(insecure.NewCredentials()))
		pb.RegisterLinkServer(s, m)
		served := make(chan error, 1)
		go func() { served <- s.Serve(m.pipe) }()
		var log bytes.Buffer
		l := New(Config{Masters: []string{"m:1"}, Host: resting{}, Peer: m.address, Log: zerolog.New(&log), Jitter: func() float64 { return 1 },
			Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(m.dial)}})
		l.Restate() // before it runs there is nothing to do
		l.Break()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		m.want(t, "at first", 1)
		l.Restate()
		m.want(t, "there is no hello yet that could be wrong", 1)
		l.Break()
		m.want(t, "another certificate", 2)
		close(m.open)
		m.want(t, "the hello", 2, "")
		m.becomes("192.0.2.1:8444")
		l.Restate()
		m.want(t, "an address, while the welcome is awaited", 3, "", "192.0.2.1:8444")
		if up, _, why, _ := l.Status(); !up {
			t.Errorf("no link: %s", why)
		}
		m.becomes("192.0.2.2:8444")
		l.Restate()
		m.want(t, "another one", 4, "", "192.0.2.1:8444", "192.0.2.2:8444")
		l.Break()
		m.want(t, "a certificate again", 5, "", "192.0.2.1:8444", "192.0.2.2:8444", "192.0.2.2:8444")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Stop()
		<-served
		if strings.Contains(log.String(), "warn") || strings.Count(log.String(), "made anew") != 4 {
			t.Errorf("the log: %s", log.String())
		}
	})
}

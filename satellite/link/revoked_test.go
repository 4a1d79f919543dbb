package link

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// refuser is a master that refuses every link.
type refuser struct {
	pb.UnimplementedLinkServer
	mu    sync.Mutex // guards what follows
	err   error
	asked int
}

func (r *refuser) Attach(pb.Link_AttachServer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return r.err
}

func (r *refuser) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// greeter is a host that has nothing.
type greeter struct{ Host }

func (greeter) Hello(uint64) News     { return News{Sessions: &pb.Sessions{}} }
func (greeter) Journal() string       { return "j" }
func (greeter) Epoch() uint64         { return 0 }
func (greeter) Sample() *pb.Load      { return &pb.Load{} }
func (greeter) Uptime() time.Duration { return 0 }

// S16: only the word of a master ends the tries, of that one kind and told once.
// A code of gRPC alone, which anything between could have sent, does not.
func TestRevoked_S16(t *testing.T) {
	tests := map[string]struct {
		err  error
		want string // empty: it goes on trying
	}{
		"revoked":              {wire.ToStatus(wire.Errorf(wire.Revoked, "superseded: server 1 has another machine")), "superseded: server 1 has another machine"},
		"denied":               {wire.ToStatus(wire.Errorf(wire.Denied, "not now")), ""},
		"in use":               {wire.ToStatus(wire.Errorf(wire.InUse, "another journal")), ""},
		"the code without why": {status.Error(codes.Unauthenticated, "superseded"), ""},
		"unreachable":          {status.Error(codes.Unavailable, "revoked"), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pipe := bufconn.Listen(1 << 16)
				s := grpc.NewServer(grpc.Creds(insecure.NewCredentials()))
				m := &refuser{err: tt.err}
				pb.RegisterLinkServer(s, m)
				served := make(chan error, 1)
				go func() { served <- s.Serve(pipe) }()
				var told []string
				var log bytes.Buffer
				l := New(Config{Masters: []string{"m:1"}, Host: greeter{}, Log: zerolog.New(&log), Jitter: func() float64 { return 1 },
					Revoked: func(why string) { told = append(told, why) },
					Dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
						grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) })}})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- l.Run(ctx) }()
				time.Sleep(time.Minute)
				synctest.Wait()
				n := m.times()
				if tt.want != "" && (n != 1 || len(done) != 1 || len(told) != 1 || told[0] != tt.want) {
					t.Errorf("asked %d times, told %q", n, told)
				}
				if tt.want == "" && (n < 5 || len(told) != 0) {
					t.Errorf("asked %d times, told %q", n, told)
				}
				if _, _, why, _ := l.Status(); !strings.HasPrefix(why, "m:1: ") || strings.Contains(log.String(), "no link to the master") != (tt.want == "") {
					t.Errorf("status %q; log:\n%s", why, log.String())
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				s.Stop()
				if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
					t.Error(err)
				}
			})
		})
	}
}

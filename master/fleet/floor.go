package fleet

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"verdecmd/master/link"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// floorSpec is what the process of the floor is told.
type floorSpec struct {
	Dir, Addr string
	Interval  time.Duration
	TLS       bool
}

// floor is what the master cannot be cheaper than: gRPC as it comes, the same
// messages in the same slots, a bare record in a bbolt file for a claim, and no
// rules, no books, no seals, no log and no events.
type floor struct {
	pb.UnimplementedLinkServer
	interval time.Duration
	late     link.Lateness
	records  chan chan error

	servers, sessions atomic.Uint64
}

// serveFloor is the process of the floor: it ends with its input.
func serveFloor(ctx context.Context, text string) error {
	var spec floorSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return fmt.Errorf("--serve-floor: %w", err)
	}
	l, err := net.Listen("tcp", spec.Addr)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(filepath.Join(spec.Dir, "floor.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	f := &floor{interval: spec.Interval, records: make(chan chan error, 1024)}
	go f.write(db)
	// Without this the pings that satellites send while they are silent would
	// end their connections.
	options := []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.KeepaliveTime / 2, PermitWithoutStream: true})}
	if spec.TLS {
		creds, err := wire.Load(filepath.Join(spec.Dir, "pki"), wire.Master)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(creds.ServerTLS())))
	}
	server := grpc.NewServer(options...)
	pb.RegisterLinkServer(server, f)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			if json.NewEncoder(os.Stdout).Encode(f.late.Now()) != nil {
				break
			}
		}
		server.Stop()
	}()
	if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Attach takes in reports and counts them.
func (f *floor) Attach(stream pb.Link_AttachServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetHello() == nil {
		return status.Error(codes.InvalidArgument, "no hello")
	}
	id := f.servers.Add(1)
	times := link.Times{Interval: f.interval}
	if err := stream.Send(&pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{Epoch: 1, ServerId: id, Attachment: id, Pace: link.PaceAt(times, id, time.Now())}}}); err != nil {
		return err
	}
	var due link.Due
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		f.late.Add(due.Arrived(time.Now(), f.interval))
	}
}

// Refer answers with the next server of the row.
func (f *floor) Refer(_ context.Context, r *pb.ReferRequest) (*pb.ReferReply, error) {
	n := f.servers.Load()
	id := uint64(r.Uid)%n + 1
	return &pb.ReferReply{ServerId: id, Name: "satellite", Address: "satellite.example.com", Reservation: "r1", RemainingS: 60}, nil
}

// Claim writes one record of the size that the master's have.
func (f *floor) Claim(context.Context, *pb.ClaimRequest) (*pb.ClaimReply, error) {
	done := make(chan error, 1)
	f.records <- done
	if err := <-done; err != nil {
		return nil, err
	}
	return &pb.ClaimReply{Session: fmt.Sprintf("s%d", f.sessions.Add(1)), Epoch: 1, MemoryBytes: memory}, nil
}

// write takes all that waits into one transaction.
func (f *floor) write(db *bbolt.DB) {
	var key [8]byte
	value := make([]byte, 160)
	n := uint64(time.Now().UnixNano())
	for first := range f.records {
		group := []chan error{first}
	more:
		for len(group) < 4096 {
			select {
			case r := <-f.records:
				group = append(group, r)
			default:
				break more
			}
		}
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("sessions"))
			if err != nil {
				return err
			}
			for range group {
				n++
				binary.BigEndian.PutUint64(key[:], n)
				if err := b.Put(append([]byte(nil), key[:]...), value); err != nil {
					return err
				}
			}
			return nil
		})
		for _, r := range group {
			r <- err
		}
	}
}

package host

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// peerServer is the port for satellites of another one, as far as locks go.
type peerServer struct {
	pb.UnimplementedPeerServer
	locks *LockTrial
}

func (p *peerServer) TryLock(ctx context.Context, r *pb.TryLockRequest) (*pb.TryLockReply, error) {
	return p.locks.Try(ctx, r), nil
}

// peer starts another satellite of the site's cluster whose homes are in dir, and
// lets the master tell of it.
func (s *site) peer(t *testing.T, id uint64, name, dir string) {
	t.Helper()
	creds, err := s.authority.Credentials(wire.Satellite, name, time.Now(), time.Hour)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := grpc.NewServer(wire.PeerServerOptions(creds, func(wire.Report) {})...)
	pb.RegisterPeerServer(server, &peerServer{locks: &LockTrial{roots: func() []string { return []string{dir} }, free: make(chan struct{}, 1)}})
	go server.Serve(l)
	t.Cleanup(server.Stop)
	s.tell(id, name, creds.Identity.ID, l.Addr().String())
}

// tell lets the master tell of a satellite.
func (s *site) tell(id uint64, name, uuid, address string) {
	s.master.mu.Lock()
	defer s.master.mu.Unlock()
	s.master.members = append(s.master.members, &pb.Member{ServerId: id, Id: uuid, Name: name, Address: "192.0.2.9"})
	s.master.others = append(s.master.others, &pb.Survey{Hostname: name, ServerId: id, Version: "1.0", Arch: "x86_64", BootId: "other", PeerAddress: address})
}

// V-22: another host is asked for a lock that is held here. It must be refused;
// that it does not find the file tells that its homes are others.
func TestLocksBetweenHosts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	finding := func() Finding { t.Helper(); return s.answered(t, checkLocks)[checkLocks] }
	home := filepath.Join(s.dir, "home")
	s.peer(t, 11, "sat11", home)
	if f := finding(); f.Level != Pass || !strings.Contains(f.Measured, "also from 1 other host") {
		t.Errorf("one that is refused: got %+v", f)
	}
	s.tell(12, "sat12", "somebody", "127.0.0.1:1")
	if f := finding(); f.Level != Pass {
		t.Errorf("one of two answers: got %+v", f)
	}
	s.peer(t, 13, "sat13", t.TempDir())
	if f := finding(); f.Level != Fail || f.Hard || !strings.Contains(f.Measured, "sat13 does not find the file") {
		t.Errorf("homes of its own: got %+v", f)
	}

	// A satellite that is not who the master says is asked for nothing.
	s = newSite(t)
	s.peer(t, 11, "sat11", filepath.Join(s.dir, "home"))
	s.master.members[len(s.master.members)-1].Id = wire.NewUUID()
	if f := finding(); f.Level != Warn || !strings.Contains(f.Measured, "between hosts it could not be tried: sat11: ") {
		t.Errorf("another identity: got %+v", f)
	}
	// Nor is a dead one waited for.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	s = newSite(t)
	s.tell(11, "sat11", wire.NewUUID(), l.Addr().String())
	if f := s.doctor(t)[checkLocks]; f.Level != Warn || !strings.Contains(f.Measured, "sat11: no answer within 5 s") {
		t.Errorf("no answer: got %+v", f)
	}
}

// V-22: a file system of another host that lets everybody have the lock.
func TestLocksBetweenHostsDoNotExclude(t *testing.T) {
	t.Parallel()
	m := fit()
	m.Locks.Peers = []PeerLock{{Name: "sat2", Found: true}, {Name: "sat3", Found: true, Excludes: true}}
	for _, f := range Check(m, []Survey{twin()}) {
		if f.Check == checkLocks && (f.Level != Fail || f.Hard || !strings.Contains(f.Fix, "o2cb")) {
			t.Errorf("got %+v", f)
		}
	}
}

package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// As the real satellite has it, see satellite/link.
const (
	everyFull  = 5
	firstDelay = time.Second
	delayGrow  = 1.6
	maxDelay   = 5 * time.Second

	boots      = time.Second // a simulated desktop
	memory     = 512 << 20   // of each desktop
	fleetLate  = 50 * time.Millisecond
	callWithin = 20 * time.Second
)

// satellite is one simulated satellite: a connection with a certificate of its
// own, and the sessions that run there.
type satellite struct {
	fleet *fleet
	name  string
	dial  []grpc.DialOption
	// instance and journal are as of one program that runs on.
	instance, journal string

	mu       sync.Mutex // guards what follows
	link     *uplink    // nil: down
	sessions map[string]*pb.Session
	ended    []*pb.Ended // not told yet
	news     bool
	wake     chan struct{} // has room for one
}

// uplink is one attachment that has been welcomed.
type uplink struct {
	client     pb.LinkClient
	server     uint64
	attachment uint64
}

func newSatellite(f *fleet, i int, creds *wire.Credentials) *satellite {
	s := &satellite{fleet: f, name: fmt.Sprintf("sat%05d", i+1), instance: wire.NewUUID(), journal: wire.NewUUID(),
		sessions: map[string]*pb.Session{}, wake: make(chan struct{}, 1)}
	// Each has an address of its own, as satellites have: the master bounds
	// what one address may do, and a port is used once for each address.
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(1+i/60000), byte(i/250%240), byte(i%250+1))}}
	s.dial = append(wire.DialOptions(creds), grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		return from.DialContext(ctx, "tcp", addr)
	}), grpc.WithSharedWriteBuffer(true), grpc.WithReadBufferSize(0))
	if f.plain {
		s.dial = append(s.dial, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return s
}

// run connects, and connects again as the real one does, until ctx ends.
func (s *satellite) run(ctx context.Context) {
	delay := firstDelay
	for ctx.Err() == nil {
		welcomed, err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !welcomed {
			s.fleet.failed(err)
		}
		if welcomed {
			delay = firstDelay
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rand.Float64() * float64(delay))):
		}
		for s.fleet.held.Load() && wait(ctx, 20*time.Millisecond) == nil {
		}
		delay = min(maxDelay, time.Duration(float64(delay)*delayGrow))
	}
}

// once is the whole life of one connection.
func (s *satellite) once(ctx context.Context) (welcomed bool, err error) {
	leave, ok := s.fleet.enter(ctx)
	if !ok {
		return false, ctx.Err()
	}
	defer leave()
	ctx, end := context.WithCancel(ctx)
	defer end()
	cc, err := grpc.NewClient("passthrough:///"+s.fleet.addr, s.dial...)
	if err != nil {
		return false, err
	}
	defer cc.Close()
	client := pb.NewLinkClient(cc)
	stream, err := client.Attach(ctx)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.ended, s.news = nil, false
	list := s.list()
	s.mu.Unlock()
	hello := &pb.Hello{Protocol: wire.Protocol, Version: "fleet", Address: s.name + ".example.com", Instance: s.instance, Journal: s.journal,
		Facts: s.fleet.facts, Report: &pb.Report{Load: s.fleet.load(), Sessions: list}}
	err = stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: hello}})
	timer := time.AfterFunc(callWithin, end)
	first, rerr := stream.Recv()
	timer.Stop()
	if rerr != nil { // says more than the error of Send
		return false, rerr
	}
	if err != nil {
		return false, err
	}
	w := first.GetWelcome()
	if w == nil || w.Pace == nil {
		return false, errors.New("no welcome")
	}
	s.up(&uplink{client: client, server: w.ServerId, attachment: w.Attachment})
	defer s.down()
	leave()
	pace := make(chan *pb.Pace, 4)
	go func() {
		defer end()
		for {
			d, err := stream.Recv()
			if err != nil {
				return
			}
			if p := d.GetPace(); p != nil {
				select {
				case pace <- p:
				case <-ctx.Done():
				}
			}
		}
	}()
	return true, s.report(ctx, stream, w.Pace, pace)
}

// report sends reports in their slots, and at once where there is news.
func (s *satellite) report(ctx context.Context, stream pb.Link_AttachClient, p *pb.Pace, paces <-chan *pb.Pace) error {
	interval, next := wire.Slot(p)
	due := time.Now().Add(next)
	timer := time.NewTimer(next)
	defer timer.Stop()
	for seq := uint64(0); ; {
		paced := false
		select {
		case <-ctx.Done():
			return nil
		case p := <-paces:
			interval, next = wire.Slot(p)
			due = time.Now().Add(next)
			timer.Reset(next)
			continue
		case <-s.wake:
			if !s.fleet.tells.Load() { // told with the next report
				continue
			}
		case <-timer.C:
			paced = true
			now := time.Now()
			if now.Sub(due) > fleetLate {
				s.fleet.overran.Add(1)
			}
			for !due.After(now) { // stays in its slot
				due = due.Add(interval)
			}
			timer.Reset(time.Until(due))
		}
		s.fleet.pause.RLock() // held while what was sent is counted
		r := &pb.Report{Load: s.fleet.load()}
		s.mu.Lock()
		if s.news || paced && seq%everyFull == 0 {
			r.Sessions, r.Ended = s.list(), s.ended
			s.ended, s.news = nil, false
		} else if !paced { // told already
			s.mu.Unlock()
			s.fleet.pause.RUnlock()
			continue
		}
		s.mu.Unlock()
		seq++
		r.Seq = seq
		err := stream.Send(&pb.Up{Kind: &pb.Up_Report{Report: r}})
		if err == nil {
			s.fleet.sent.Add(1)
		}
		s.fleet.pause.RUnlock()
		if err != nil {
			return err
		}
	}
}

// list is all sessions by ID. s.mu must be held.
func (s *satellite) list() *pb.Sessions {
	out := &pb.Sessions{Sessions: make([]*pb.Session, 0, len(s.sessions))}
	for _, x := range s.sessions {
		out.Sessions = append(out.Sessions, x)
	}
	slices.SortFunc(out.Sessions, func(a, b *pb.Session) int { return strings.Compare(a.Id, b.Id) })
	return out
}

// touch tells that there is news. s.mu must be held.
func (s *satellite) touch() {
	s.news = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *satellite) up(l *uplink) {
	s.mu.Lock()
	s.link = l
	s.mu.Unlock()
	s.fleet.attached(s, l.server)
}

func (s *satellite) down() {
	s.mu.Lock()
	s.link = nil
	s.mu.Unlock()
	s.fleet.ups.Add(-1)
}

func (s *satellite) current() *uplink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// begin takes a claimed session in: its desktop starts.
func (s *satellite) begin(id, user string, uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[id] = &pb.Session{Id: id, User: user, Uid: uid, Desktop: "win4", Image: "win4/7", State: "starting", StartedUnix: time.Now().Unix(),
		Client: "192.0.2.17", Display: "vnc+unix:/run/user/display-0", MemoryBytes: memory, Cpu: 3.5, Pid: int32(uid), Current: true}
	s.touch()
}

// booted lets all desktops that start run.
func (s *satellite) booted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, x := range s.sessions {
		if x.State == "starting" {
			s.sessions[id] = runs(x)
			s.touch()
		}
	}
}

// runs is the session with its desktop running. What may be on its way is
// never changed.
func runs(x *pb.Session) *pb.Session {
	return &pb.Session{Id: x.Id, User: x.User, Uid: x.Uid, Desktop: x.Desktop, Image: x.Image, State: "running", StartedUnix: x.StartedUnix,
		Client: x.Client, Display: x.Display, MemoryBytes: x.MemoryBytes, Cpu: x.Cpu, Pid: x.Pid, Current: x.Current}
}

// finish ends a session, as its guest would.
func (s *satellite) finish(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[id]
	if x == nil {
		return
	}
	delete(s.sessions, id)
	s.ended = append(s.ended, &pb.Ended{Id: id, User: x.User, How: "guest"})
	s.touch()
}

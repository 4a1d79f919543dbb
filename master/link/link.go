// Package link is the master's end of the links to the satellites: it admits
// them, takes in what they report and carries orders to them.
//
// One stream is one attachment. Whatever goes wrong with it ends it, and the
// satellite makes a new one; nothing here is repaired. What the messages mean is
// decided behind Hub; this package only translates and keeps the lines open.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"verdecmd/master/cluster"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// slots is into how many common instants the reports of all satellites fall in
// one interval: grouped wake-ups cost a fifth of scattered ones.
const slots = 30

// Hub is what the links need from the rest of the master.
type Hub interface {
	// Attach admits a satellite. The link is its only one from now on.
	Attach(ctx context.Context, h cluster.Hello, name string) (Attached, error)
	Report(ctx context.Context, server, attachment uint64, r Report) error
	Detach(ctx context.Context, server, attachment uint64)

	Refer(ctx context.Context, server, attachment uint64, l cluster.Login) (*pb.ReferReply, error)
	Claim(ctx context.Context, server, attachment uint64, user string, uid uint32) (*pb.ClaimReply, error)
}

// Attached is the answer to a Hello.
type Attached struct {
	Server, Attachment uint64
	Name               string
}

// Report is a load report as the rules take it.
type Report struct {
	Load     cluster.Load
	Sessions []cluster.Reported // nil: as before
	Ended    []cluster.Ended
	Refused  []Refused // logins that the satellite has refused
}

// Refused is a login that came to nothing, and why.
type Refused struct{ User, Text string }

// Times are what the master prescribes to its satellites.
type Times struct {
	Interval  time.Duration // between reports
	LeaseSelf time.Duration // 0: satellites never stop desktops by themselves
}

// Config is everything a Server needs.
type Config struct {
	Hub     Hub
	Epoch   uint64
	Version string
	Times   Times
	Log     zerolog.Logger
}

// Server implements pb.LinkServer.
type Server struct {
	pb.UnimplementedLinkServer
	cfg      Config
	interval atomic.Int64 // of times, for who does not want to wait
	late     Lateness

	mu     sync.Mutex // guards what follows
	times  Times
	lines  map[uint64]*line // by server
	byUUID map[string]*line // by the identity in the certificate
	orders uint64
}

// line is one live attachment.
type line struct {
	uuid               string
	server, attachment uint64
	out                chan *pb.Down
	done               <-chan struct{} // closed when the line has ended
	end                context.CancelFunc
	mu                 sync.Mutex
	waiting            map[uint64]chan *pb.Result // by order
}

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, times: cfg.Times, lines: map[uint64]*line{}, byUUID: map[string]*line{}}
	s.interval.Store(int64(cfg.Times.Interval))
	return s
}

// Late tells how late the reports came that were taken in so far.
func (s *Server) Late() Late { return s.late.Now() }

// Attach serves one link until it ends.
func (s *Server) Attach(stream pb.Link_AttachServer) error {
	id, err := wire.PeerIdentity(stream.Context())
	if err != nil {
		return wire.ToStatus(err)
	}
	first, err := receiveWithin(stream, 10*time.Second)
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "the first message of a link must be a hello")
	}
	h, err := Admit(id, hello, s.cfg.Epoch)
	if err != nil {
		if wire.KindOf(err) == wire.OldEpoch {
			s.cfg.Log.Error().Str("satellite", id.Name).Uint64("epoch", s.cfg.Epoch).Uint64("seen", hello.EpochSeen).
				Msg("a newer master has been seen, this one is left alone; stop one of them")
		}
		return wire.ToStatus(err)
	}
	ctx, end := context.WithCancel(stream.Context())
	defer end()
	l := &line{uuid: id.ID, out: make(chan *pb.Down, 64), done: ctx.Done(), end: end, waiting: map[uint64]chan *pb.Result{}}
	at, err := s.cfg.Hub.Attach(ctx, h, id.Name)
	if err != nil {
		return wire.ToStatus(err)
	}
	l.server, l.attachment = at.Server, at.Attachment
	log := s.cfg.Log.With().Uint64("server", at.Server).Str("satellite", at.Name).Logger()
	times := s.register(l)
	log.Info().Str("address", h.Address).Str("version", h.Version).Int("sessions", len(h.Sessions)).Msg("satellite connected")
	defer func() {
		s.unregister(l)
		s.cfg.Hub.Detach(context.WithoutCancel(ctx), at.Server, at.Attachment)
		log.Warn().Msg("satellite's link is down")
	}()

	l.out <- &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{
		Epoch: s.cfg.Epoch, ServerId: at.Server, Attachment: at.Attachment, Version: s.cfg.Version,
		Pace: PaceAt(times, at.Server, time.Now()), LeaseSelfMs: uint32(times.LeaseSelf / time.Millisecond),
	}}}
	// Both end soon after this function has returned, and not before: a
	// satellite that neither sends nor reads holds them up until then.
	ended, fault := make(chan error, 2), make(chan string, 1)
	go func() { ended <- l.send(ctx, stream) }()
	go func() {
		defer func() {
			if v := recover(); v != nil {
				fault <- fmt.Sprintf("%v\n%s", v, debug.Stack())
			}
		}()
		ended <- s.receive(ctx, stream, l, times.LeaseSelf > 0)
	}()
	select {
	case <-ctx.Done():
		return nil
	case text := <-fault:
		panic(text) // here it ends this link alone, see wire.Recover
	case err = <-ended:
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// receive takes in what the satellite sends until the link ends.
func (s *Server) receive(ctx context.Context, stream pb.Link_AttachServer, l *line, lease bool) error {
	var due Due
	may := quota()
	for {
		up, err := stream.Recv()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := s.within(&may, l); err != nil {
			return err
		}
		switch k := up.Kind.(type) {
		case *pb.Up_Report:
			s.late.Add(due.Arrived(time.Now(), time.Duration(s.interval.Load())))
			r, err := FromReport(k.Report)
			if err != nil {
				return wire.ToStatus(err)
			}
			if err := s.cfg.Hub.Report(ctx, l.server, l.attachment, r); err != nil {
				return wire.ToStatus(err)
			}
			if lease {
				l.post(&pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: k.Report.Seq}}})
			}
		case *pb.Up_Result:
			l.settle(k.Result)
		default:
			return status.Error(codes.InvalidArgument, "unexpected message on a link")
		}
	}
}

// send writes what is posted until the link ends.
func (l *line) send(ctx context.Context, stream pb.Link_AttachServer) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d := <-l.out:
			if err := stream.Send(d); err != nil {
				return err
			}
		}
	}
}

// post queues a message. A satellite that does not read loses its link.
func (l *line) post(d *pb.Down) bool {
	select {
	case l.out <- d:
		return true
	default:
		l.end()
		return false
	}
}

func (l *line) settle(r *pb.Result) {
	l.mu.Lock()
	ch := l.waiting[r.Order]
	delete(l.waiting, r.Order)
	l.mu.Unlock()
	if ch != nil {
		ch <- r
	}
}

// register makes l the server's line and ends the one before, or ends l where a
// newer one has overtaken it.
func (s *Server) register(l *line) Times {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.lines[l.server]
	if old != nil && old.attachment > l.attachment {
		l.end()
		return s.times
	}
	if old != nil {
		old.end()
	}
	s.lines[l.server], s.byUUID[l.uuid] = l, l
	return s.times
}

func (s *Server) unregister(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[l.server] == l {
		delete(s.lines, l.server)
		delete(s.byUUID, l.uuid)
	}
}

// SetTimes takes over changed settings and tells them to all satellites.
func (s *Server) SetTimes(t Times) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.LeaseSelf = s.times.LeaseSelf // both sides agree on it when the link opens
	s.times = t
	s.interval.Store(int64(t.Interval))
	now := time.Now()
	for id, l := range s.lines {
		l.post(&pb.Down{Kind: &pb.Down_Pace{Pace: PaceAt(t, id, now)}})
	}
}

// PaceAt gives a server its slot on the master's grid of instants, as a delay
// from now.
func PaceAt(t Times, server uint64, now time.Time) *pb.Pace {
	step := t.Interval / slots
	at := time.Duration(server%slots) * step
	delay := (at - time.Duration(now.UnixNano())%t.Interval + t.Interval) % t.Interval
	return &pb.Pace{IntervalMs: uint32(t.Interval / time.Millisecond), SlotMs: uint32(delay / time.Millisecond)}
}

// ErrDown is returned by Order for a server without a link.
var ErrDown = errors.New("the server's link is down")

// Order sends an order to a server and waits for its result. An error of the
// satellite is a *wire.Error; ErrDown means that nothing is known about whether
// the order arrived.
func (s *Server) Order(ctx context.Context, server uint64, o *pb.SessionOrder) error {
	s.mu.Lock()
	l := s.lines[server]
	s.orders++
	id := s.orders
	s.mu.Unlock()
	if l == nil {
		return ErrDown
	}
	result := make(chan *pb.Result, 1)
	l.mu.Lock()
	l.waiting[id] = result
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()
	if !l.post(&pb.Down{Kind: &pb.Down_Order{Order: &pb.Order{Id: id, Epoch: s.cfg.Epoch, Kind: &pb.Order_Session{Session: o}}}}) {
		return ErrDown
	}
	select {
	case r := <-result:
		return wire.FromDetail(r.Error)
	case <-l.done:
		return ErrDown
	case <-ctx.Done():
		return ctx.Err()
	}
}

// caller finds the live line of the satellite that calls beside its stream. Who
// it is comes from its certificate; the attachment must be the present one.
func (s *Server) caller(ctx context.Context, attachment uint64) (*line, error) {
	id, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.byUUID[id.ID]
	if l == nil || l.attachment != attachment {
		return nil, wire.Errorf(wire.StaleLink, "this link is no longer the current one of %s", id.Name)
	}
	return l, nil
}

// Refer answers a satellite that asks where a user is or should be.
func (s *Server) Refer(ctx context.Context, r *pb.ReferRequest) (*pb.ReferReply, error) {
	l, err := s.caller(ctx, r.Attachment)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	login, err := FromRefer(r)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	reply, err := s.cfg.Hub.Refer(ctx, l.server, l.attachment, login)
	return reply, wire.ToStatus(err)
}

// Claim answers a satellite that wants to consume a reservation.
func (s *Server) Claim(ctx context.Context, r *pb.ClaimRequest) (*pb.ClaimReply, error) {
	l, err := s.caller(ctx, r.Attachment)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	if err := CheckUser(r.User); err != nil {
		return nil, wire.ToStatus(err)
	}
	reply, err := s.cfg.Hub.Claim(ctx, l.server, l.attachment, r.User, r.Uid)
	return reply, wire.ToStatus(err)
}

// receiveWithin receives the first message, or gives up after d.
func receiveWithin(stream pb.Link_AttachServer, d time.Duration) (*pb.Up, error) {
	type got struct {
		up  *pb.Up
		err error
	}
	ch := make(chan got, 1)
	go func() {
		up, err := stream.Recv()
		ch <- got{up, err}
	}()
	select {
	case g := <-ch:
		return g.up, g.err
	case <-time.After(d):
		return nil, status.Error(codes.DeadlineExceeded, fmt.Sprintf("no hello within %v", d))
	}
}

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

// retell is after how many reports a satellite is told its slot again: clocks
// run differently fast, and reports that have left their slots cost several
// times as much. In 200 reports of 3 s a bad clock loses a third of a slot.
const retell = 200

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
	Clock    time.Time // what the satellite's clock showed; zero: it did not tell
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
	// Revoked tells whether an identity is of the cluster no more. nil: none is.
	Revoked func(uuid, serial string) (why string, revoked bool)
	Trust   Trust // nil: there are no trust bundles
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
	// The newest trust bundle, the lines that it is to be sent to, and how many
	// goroutines do that.
	parts     []*pb.TrustPart
	spread    []*line
	spreading int
}

// New returns a Server.
func New(cfg Config) *Server {
	if cfg.Revoked == nil {
		cfg.Revoked = func(string, string) (string, bool) { return "", false }
	}
	s := &Server{cfg: cfg, times: cfg.Times, lines: map[uint64]*line{}, byUUID: map[string]*line{}}
	s.interval.Store(int64(cfg.Times.Interval))
	return s
}

// Late tells how late the reports came that were taken in so far.
func (s *Server) Late() Late { return s.late.Now() }

// helloWithin is how long a satellite may take to say who it is.
const helloWithin = 10 * time.Second

// Attach serves one link until it ends. It only waits: all that happens on the
// link does so on another goroutine, which ends soon after this function has
// returned, and not before, for a satellite that sends nothing holds it up. So
// the one here keeps a small stack.
func (s *Server) Attach(stream pb.Link_AttachServer) error {
	id, err := wire.PeerIdentity(stream.Context())
	if err != nil {
		return wire.ToStatus(err)
	}
	ctx, end := context.WithCancel(stream.Context())
	defer end()
	l := &line{uuid: id.ID, stream: stream, done: ctx.Done(), end: end}
	came, admitted := make(chan struct{}), make(chan struct{})
	ended, fault := make(chan error, 1), make(chan string, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				fault <- fmt.Sprintf("%v\n%s", v, debug.Stack())
			}
		}()
		ended <- s.serve(ctx, id, l, came, admitted)
	}()
	defer func() {
		select {
		case <-admitted:
			s.detach(ctx, l)
		default:
		}
	}()
	timer := time.NewTimer(helloWithin)
	defer timer.Stop()
	late, down, up := timer.C, ctx.Done(), admitted
	for {
		select {
		case <-late:
			return status.Error(codes.DeadlineExceeded, fmt.Sprintf("no hello within %v", helloWithin))
		case <-came: // from now on what serve does must be seen to its end
			timer.Stop()
			came, late, down = nil, nil, nil
		case <-up:
			up, down = nil, ctx.Done()
		case <-down:
			return s.over(id)
		case text := <-fault:
			panic(text) // here it ends this link alone, see wire.Recover
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// over is what a satellite is told whose link the master has ended.
func (s *Server) over(id wire.Identity) error {
	if why, revoked := s.cfg.Revoked(id.ID, ""); revoked {
		return wire.ToStatus(wire.Errorf(wire.Revoked, "%s", why))
	}
	return nil
}

// serve is a link from its hello to its end.
func (s *Server) serve(ctx context.Context, id wire.Identity, l *line, came, admitted chan<- struct{}) error {
	first, err := l.stream.Recv()
	if err != nil {
		return err
	}
	select {
	case came <- struct{}{}:
	case <-ctx.Done(): // it came too late
		return nil
	}
	lease, err := s.admit(ctx, id, l, first.GetHello(), admitted)
	if err != nil {
		return err
	}
	return s.receive(ctx, l, lease)
}

// admit opens a link. Once admitted is closed it is to be detached.
func (s *Server) admit(ctx context.Context, id wire.Identity, l *line, hello *pb.Hello, admitted chan<- struct{}) (lease bool, err error) {
	if hello == nil {
		return false, status.Error(codes.InvalidArgument, "the first message of a link must be a hello")
	}
	h, err := Admit(id, hello, s.cfg.Epoch)
	if err != nil {
		if wire.KindOf(err) == wire.OldEpoch {
			s.cfg.Log.Error().Str("satellite", id.Name).Uint64("epoch", s.cfg.Epoch).Uint64("seen", hello.EpochSeen).
				Msg("a newer master has been seen, this one is left alone; stop one of them")
		}
		return false, wire.ToStatus(err)
	}
	h.Certificate = shown(ctx, id)
	at, err := s.cfg.Hub.Attach(ctx, h, id.Name)
	if err != nil {
		return false, wire.ToStatus(err)
	}
	l.server, l.attachment, l.name = at.Server, at.Attachment, at.Name
	l.takes = s.cfg.Trust != nil && hello.TrustVersion != nil
	times := s.register(l)
	close(admitted)
	l.flush()
	s.opened(ctx, l, hello)
	s.cfg.Log.Info().Uint64("server", l.server).Str("satellite", l.name).Str("address", h.Address).Str("version", h.Version).Int("sessions", len(h.Sessions)).
		Msg("satellite connected")
	return times.LeaseSelf > 0, nil
}

// detach tells that a link is down.
func (s *Server) detach(ctx context.Context, l *line) {
	s.unregister(l)
	if s.cfg.Trust != nil {
		s.cfg.Trust.Closed(l.server, l.attachment)
	}
	s.cfg.Hub.Detach(context.WithoutCancel(ctx), l.server, l.attachment)
	s.cfg.Log.Warn().Uint64("server", l.server).Str("satellite", l.name).Msg("satellite's link is down")
}

// receive takes in what the satellite sends until the link ends.
func (s *Server) receive(ctx context.Context, l *line, lease bool) error {
	var due Due
	may := quota()
	for told := 0; ; {
		up, err := l.stream.Recv()
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
			if told++; told%retell == 0 {
				l.post(&pb.Down{Kind: &pb.Down_Pace{Pace: PaceAt(s.now(), l.server, time.Now())}})
			}
			if lease {
				l.post(&pb.Down{Kind: &pb.Down_Lease{Lease: &pb.Lease{Report: k.Report.Seq}}})
			}
		case *pb.Up_Result:
			l.settle(k.Result)
		case *pb.Up_TrustAck:
			if s.cfg.Trust != nil {
				s.cfg.Trust.Acked(l.server, l.attachment, k.TrustAck.GetVersion(), k.TrustAck.GetError())
			}
		default:
			return status.Error(codes.InvalidArgument, "unexpected message on a link")
		}
	}
}

// register makes l the server's line, whose first message is the welcome, and
// ends the one before, or ends l where a newer one has overtaken it.
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
	l.out = append(l.out, &pb.Down{Kind: &pb.Down_Welcome{Welcome: &pb.Welcome{
		Epoch: s.cfg.Epoch, ServerId: l.server, Attachment: l.attachment, Version: s.cfg.Version,
		Pace: PaceAt(s.times, l.server, time.Now()), LeaseSelfMs: uint32(s.times.LeaseSelf / time.Millisecond),
		NowUnixMs: time.Now().UnixMilli(),
	}}})
	s.lines[l.server], s.byUUID[l.uuid] = l, l
	if _, revoked := s.cfg.Revoked(l.uuid, ""); revoked { // and Cut came too early for it
		l.end()
	}
	return s.times
}

// Cut ends the link of an identity that was revoked.
func (s *Server) Cut(uuid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.byUUID[uuid]; l != nil {
		l.end()
	}
}

func (s *Server) unregister(l *line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[l.server] == l {
		delete(s.lines, l.server)
		delete(s.byUUID, l.uuid)
	}
}

func (s *Server) now() Times {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times
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
	result := l.await(id)
	defer l.forget(id)
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

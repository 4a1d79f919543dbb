package link

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"verdecmd/master/cluster"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// hub notes what the links tell it.
type hub struct {
	mu     sync.Mutex
	notes  []string
	uuids  []string // server n has uuids[n-1]
	last   uint64
	refuse error // of reports
	fault  bool  // of reports
}

func (h *hub) note(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes = append(h.notes, s)
}

func (h *hub) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := strings.Join(h.notes, ", ")
	h.notes = nil
	return s
}

func (h *hub) Attach(_ context.Context, hello cluster.Hello, name string) (Attached, error) {
	h.note("attach " + name)
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.uuids, hello.UUID)
	if i < 0 {
		i = len(h.uuids)
		h.uuids = append(h.uuids, hello.UUID)
	}
	h.last++
	return Attached{Server: uint64(i + 1), Attachment: h.last, Name: name}, nil
}

func (h *hub) Report(context.Context, uint64, uint64, Report) error {
	h.note("report")
	if h.fault {
		panic("a fault")
	}
	return h.refuse
}
func (h *hub) Detach(context.Context, uint64, uint64) { h.note("detach") }
func (h *hub) Refer(_ context.Context, server, _ uint64, l cluster.Login) (*pb.ReferReply, error) {
	h.note("refer " + l.User)
	return &pb.ReferReply{ServerId: server}, nil
}
func (h *hub) Claim(_ context.Context, server, _ uint64, user string, _ uint32) (*pb.ClaimReply, error) {
	h.note("claim " + user)
	return &pb.ClaimReply{Session: "s1"}, nil
}

// rig is a server and a way to connect satellites, in a bubble.
type rig struct {
	t      *testing.T
	hub    *hub
	server *Server
	auth   *wire.Authority
	listen *bufconn.Listener
	grpc   *grpc.Server
}

func newRig(t *testing.T, times Times) *rig {
	r := &rig{t: t, hub: &hub{}, listen: bufconn.Listen(1 << 16)}
	var err error
	if r.auth, err = wire.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	creds, err := r.auth.Credentials(wire.Master, "master", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if times.Interval == 0 {
		times.Interval = 3 * time.Second
	}
	r.server = New(Config{Hub: r.hub, Epoch: 5, Version: "1.0", Times: times, Log: zerolog.Nop()})
	r.grpc = grpc.NewServer(append(wire.ServerOptions(creds, func(wire.Report) {}), grpc.WaitForHandlers(true))...)
	pb.RegisterLinkServer(r.grpc, r.server)
	go r.grpc.Serve(r.listen)
	return r
}

// peer is a satellite's end.
type peer struct {
	t      *testing.T
	cc     *grpc.ClientConn
	client pb.LinkClient
	stream pb.Link_AttachClient
}

func (r *rig) creds(name string) *wire.Credentials {
	c, err := r.auth.Credentials(wire.Satellite, name, time.Now(), time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) dial(c *wire.Credentials) *peer {
	options := append(wire.DialOptions(c), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listen.DialContext(ctx) }))
	cc, err := grpc.NewClient("passthrough:///master", options...)
	if err != nil {
		r.t.Fatal(err)
	}
	p := &peer{t: r.t, cc: cc, client: pb.NewLinkClient(cc)}
	if p.stream, err = p.client.Attach(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (p *peer) send(u *pb.Up) {
	if err := p.stream.Send(u); err != nil {
		p.t.Errorf("send: %v", err)
	}
}

func (p *peer) hello() *pb.Welcome {
	p.send(helloUp())
	d, err := p.stream.Recv()
	if err != nil {
		p.t.Fatalf("welcome: %v", err)
	}
	return d.GetWelcome()
}

func helloUp() *pb.Up { return &pb.Up{Kind: &pb.Up_Hello{Hello: goodHello()}} }

func goodHello() *pb.Hello {
	return &pb.Hello{Protocol: wire.Protocol, Version: "1.0", Instance: "i", Address: "a", Report: &pb.Report{Sessions: &pb.Sessions{}}}
}

// failure is how the stream ended.
func (p *peer) failure() error {
	for {
		if _, err := p.stream.Recv(); err != nil {
			return wire.FromStatus(err)
		}
	}
}

func bubble(t *testing.T, times Times, f func(*testing.T, *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, times)
		f(t, r)
		r.grpc.Stop()
		synctest.Wait()
	})
}

// A first message that is no good hello ends the link with a clear word, and
// nobody behind hears of it.
func TestBadHello(t *testing.T) {
	change := func(f func(*pb.Hello)) *pb.Up {
		h := goodHello()
		f(h)
		return &pb.Up{Kind: &pb.Up_Hello{Hello: h}}
	}
	sessions := func(s ...*pb.Session) *pb.Up {
		return change(func(h *pb.Hello) { h.Report.Sessions.Sessions = s })
	}
	tests := map[string]struct {
		up   *pb.Up
		want string
	}{
		"nothing":            {&pb.Up{}, "must be a hello"},
		"a report first":     {&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}}, "must be a hello"},
		"no instance":        {change(func(h *pb.Hello) { h.Instance = "" }), "instance"},
		"no report":          {change(func(h *pb.Hello) { h.Report = nil }), "sessions"},
		"no sessions":        {change(func(h *pb.Hello) { h.Report.Sessions = nil }), "sessions"},
		"session of nobody":  {sessions(&pb.Session{Id: "s1"}), "not a login name"},
		"session without id": {sessions(&pb.Session{User: "alice"}), "not a session's name"},
		"long id":            {sessions(&pb.Session{User: "alice", Id: strings.Repeat("s", 65)}), "not a session's name"},
		"too many sessions":  {sessions(slices.Repeat([]*pb.Session{{User: "a", Id: "s1"}}, maxSessions+1)...), "at most"},
		"a newer epoch seen": {change(func(h *pb.Hello) { h.EpochSeen = 6 }), "epoch 6"}, // S9
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, Times{}, func(t *testing.T, r *rig) {
				p := r.dial(r.creds("sat1"))
				defer p.cc.Close()
				p.send(tt.up)
				if err := p.failure(); !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if got := r.hub.take(); got != "" {
					t.Errorf("behind was told: %s", got)
				}
			})
		})
	}
}

// A connection that says nothing is closed.
func TestSilentSatellite(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		began := time.Now()
		err := p.failure()
		if took := time.Since(began); took != 10*time.Second || !strings.Contains(err.Error(), "no hello within") {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// Who calls is told by the certificate. The attachment must be the caller's
// own and the newest.
func TestAttachmentOfTheCaller(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		c1 := r.creds("sat1")
		one, two := r.dial(c1), r.dial(r.creds("sat2"))
		defer one.cc.Close()
		defer two.cc.Close()
		first, second := one.hello(), two.hello()
		refer := func(p *peer, attachment uint64) (uint64, error) {
			reply, err := p.client.Refer(t.Context(), &pb.ReferRequest{User: "alice", Need: &pb.Need{MemoryBytes: 1 << 30}, Attachment: attachment})
			return reply.GetServerId(), wire.FromStatus(err)
		}
		claim := func(p *peer, attachment uint64) error {
			_, err := p.client.Claim(t.Context(), &pb.ClaimRequest{User: "alice", Attachment: attachment})
			return wire.FromStatus(err)
		}
		r.hub.take()
		if got, err := refer(one, first.Attachment); err != nil || got != first.ServerId {
			t.Errorf("its own: got %d, %v", got, err)
		}
		for name, x := range map[string]uint64{"another's": second.Attachment, "none": 0, "of the future": 99} {
			if _, err := refer(one, x); wire.KindOf(err) != wire.StaleLink {
				t.Errorf("refer with %s attachment: got %v", name, err)
			}
			if err := claim(one, x); wire.KindOf(err) != wire.StaleLink {
				t.Errorf("claim with %s attachment: got %v", name, err)
			}
		}
		// A newer link of the same satellite ends the one before.
		again := r.dial(c1)
		defer again.cc.Close()
		newer := again.hello()
		synctest.Wait() // until the old one has ended
		if err := claim(one, first.Attachment); wire.KindOf(err) != wire.StaleLink {
			t.Errorf("claim on the link before: got %v", err)
		}
		if err := claim(again, newer.Attachment); err != nil {
			t.Errorf("claim on the new link: got %v", err)
		}
		if got, want := r.hub.take(), "refer alice, attach sat1, detach, claim alice"; got != want {
			t.Errorf("behind was told %q, want %q", got, want)
		}
		// Bad requests reach nobody.
		for name, q := range map[string]*pb.ReferRequest{
			"no user": {Need: &pb.Need{MemoryBytes: 1}}, "no need": {User: "alice"}, "no memory": {User: "alice", Need: &pb.Need{}},
			"impossible memory": {User: "alice", Need: &pb.Need{MemoryBytes: 1 << 60}}, "long user": {User: strings.Repeat("x", 300), Need: &pb.Need{MemoryBytes: 1}},
		} {
			q.Attachment = newer.Attachment
			if _, err := again.client.Refer(t.Context(), q); wire.KindOf(wire.FromStatus(err)) != wire.BadRequest {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if got := r.hub.take(); got != "" {
			t.Errorf("behind was told %q", got)
		}
	})
}

// Orders: the result comes back, an error with its kind; without a link, or
// when it breaks, nothing is known.
func TestOrder(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		order := func(server uint64) error {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			return r.server.Order(ctx, server, &pb.SessionOrder{Session: "s1", Action: pb.SessionOrder_ABORT})
		}
		if err := order(1); !errors.Is(err, ErrDown) {
			t.Errorf("no link: got %v", err)
		}
		p := r.dial(r.creds("sat1"))
		w := p.hello()
		answer := func(detail *pb.ErrorDetail) {
			d, err := p.stream.Recv()
			if err != nil {
				t.Error(err)
				return
			}
			if o := d.GetOrder(); o.Epoch != w.Epoch || o.GetSession().GetSession() != "s1" {
				t.Errorf("order: %v", o)
			}
			p.send(&pb.Up{Kind: &pb.Up_Result{Result: &pb.Result{Order: 999}}}) // of no order: ignored
			p.send(&pb.Up{Kind: &pb.Up_Result{Result: &pb.Result{Order: d.GetOrder().Id, Error: detail}}})
		}
		go answer(nil)
		if err := order(1); err != nil {
			t.Errorf("done: got %v", err)
		}
		go answer(&pb.ErrorDetail{Kind: string(wire.NotFound), Text: "no such session"})
		if err := order(1); wire.KindOf(err) != wire.NotFound {
			t.Errorf("not found: got %v", err)
		}
		began := time.Now()
		if err := order(1); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("no answer: got %v after %v", err, time.Since(began))
		}
		go func() {
			time.Sleep(time.Second)
			p.cc.Close()
		}()
		began = time.Now()
		if err := order(1); !errors.Is(err, ErrDown) || time.Since(began) != time.Second {
			t.Errorf("broken link: got %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		if got := r.hub.take(); got != "attach sat1, detach" {
			t.Errorf("behind was told %q", got)
		}
	})
}

// A satellite that does not read what is sent to it loses its link, and holds
// nobody up.
func TestSatelliteThatDoesNotRead(t *testing.T) {
	bubble(t, Times{LeaseSelf: time.Minute}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		p.hello()
		began := time.Now()
		n := 0
		for ; n < 200_000; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			err := r.server.Order(ctx, 1, &pb.SessionOrder{Session: strings.Repeat("s", 4000)})
			cancel()
			if errors.Is(err, ErrDown) {
				break
			}
		}
		if n == 200_000 {
			t.Error("never cut off")
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("orders waited for it: %v", took)
		}
		synctest.Wait()
		if got := r.hub.take(); got != "attach sat1, detach" {
			t.Errorf("behind was told %q", got)
		}
	})
}

// A report that is refused behind, or that nobody may send, ends the link.
func TestReports(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		p.hello()
		p.send(&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}})
		synctest.Wait()
		r.hub.mu.Lock()
		r.hub.refuse = wire.Errorf(wire.StaleLink, "an old link")
		r.hub.mu.Unlock()
		p.send(&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}})
		if err := p.failure(); wire.KindOf(err) != wire.StaleLink {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		if got := r.hub.take(); got != "attach sat1, report, report, detach" {
			t.Errorf("behind was told %q", got)
		}
		again := r.dial(r.creds("sat2"))
		defer again.cc.Close()
		again.hello()
		again.send(&pb.Up{Kind: &pb.Up_Hello{Hello: goodHello()}})
		if err := again.failure(); wire.KindOf(err) != wire.BadRequest {
			t.Errorf("a second hello: got %v", err)
		}
	})
}

// S21: a fault met by one message ends the link that it came over, not the
// master.
func TestFaultInAReport(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		p.hello()
		r.hub.fault = true
		p.send(&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}})
		if err := p.failure(); wire.KindOf(err) != wire.Internal {
			t.Errorf("got %v, want an internal error", err)
		}
		synctest.Wait()
		if got := r.hub.take(); got != "attach sat1, report, detach" {
			t.Errorf("behind was told %q", got)
		}
	})
}

// V-10: changed times are told to all at once, each in its slot.
func TestPace(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		if w := p.hello(); w.Pace.IntervalMs != 3000 || w.Pace.SlotMs >= 3000 {
			t.Errorf("welcome: %v", w.Pace)
		}
		r.server.SetTimes(Times{Interval: time.Second})
		d, err := p.stream.Recv()
		if err != nil || d.GetPace().GetIntervalMs() != 1000 || d.GetPace().GetSlotMs() >= 1000 {
			t.Errorf("got %v, %v", d, err)
		}
		// The slot is told again and again: no clock is like another.
		for range 2 * retell {
			time.Sleep(time.Second)
			p.send(&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}})
		}
		for range 2 {
			if d, err := p.stream.Recv(); err != nil || d.GetPace().GetIntervalMs() != 1000 {
				t.Errorf("after %d reports: got %v, %v, want the slot", retell, d, err)
			}
		}
	})
	seen := map[uint32]int{}
	for id := range uint64(300) {
		seen[PaceAt(Times{Interval: 3 * time.Second}, id, time.Unix(1e9, 12345)).SlotMs]++
	}
	if len(seen) != slots {
		t.Errorf("%d slots are used, want %d", len(seen), slots)
	}
}

// An attachment that was long in being admitted does not end the newer one.
func TestOvertakenAttachment(t *testing.T) {
	s := New(Config{Log: zerolog.Nop(), Times: Times{Interval: time.Second}})
	make := func(attachment uint64) (*line, context.Context) {
		ctx, end := context.WithCancel(t.Context())
		return &line{uuid: "u", server: 1, attachment: attachment, end: end}, ctx
	}
	older, olderEnd := make(1)
	newer, newerEnd := make(2)
	s.register(newer)
	s.register(older)
	s.unregister(older)
	if s.lines[1] != newer || s.byUUID["u"] != newer || newerEnd.Err() != nil || olderEnd.Err() == nil {
		t.Errorf("got lines %v, the newer ended: %v, the older: %v; want the newer alone", s.lines, newerEnd.Err(), olderEnd.Err())
	}
}

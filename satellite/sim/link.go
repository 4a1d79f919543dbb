package sim

import (
	"strconv"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/link"
	"verdecmd/satellite/session"
)

// conn is one link.
type conn struct {
	link      uint64
	sent      time.Duration // the hello, by the time since the computer started
	welcomeBy time.Time
	end       *link.End // nil before the welcome
	welcome   *pb.Welcome
}

// errEnded is what a call comes to when its link ends under it.
var errEnded = wire.Errorf(wire.Unreachable, "the link to the master ended")

// Open implements simulated.Satellite.
func (s *satellite) Open(on uint64) *pb.Hello {
	s.now = s.host.Clock()
	s.drop("the connection was replaced")
	s.conn = &conn{link: on, sent: s.now.Boot, welcomeBy: s.now.Mono.Add(welcomeWithin)}
	news := s.known.Hello(on)
	hello := link.Hello(version, s.cfg.Name, s.cfg.Instance, s.journal, s.known.Epoch(), s.cfg.Facts, s.host.Load(), news)
	hello.NowUnixMs = s.now.Wall.UnixMilli()
	return hello
}

// Closed implements simulated.Satellite.
func (s *satellite) Closed(on uint64) {
	s.now = s.host.Clock()
	if s.conn != nil && s.conn.link == on {
		s.drop("the connection ended")
	}
	s.settle()
}

// end ends the present link from this side.
func (s *satellite) end(why string) {
	if s.conn == nil {
		return
	}
	on := s.conn.link
	s.drop(why)
	s.host.Close(on)
}

// drop lets go of the present link, and of what was asked on it.
func (s *satellite) drop(why string) {
	c := s.conn
	if c == nil {
		return
	}
	s.conn = nil
	s.why = why
	if c.end != nil {
		s.down = s.now.Mono
	}
	for _, l := range s.logins {
		if l.call != 0 {
			s.answer(l, nil, errEnded)
		}
	}
}

// Receive implements simulated.Satellite.
func (s *satellite) Receive(on uint64, d *pb.Down) error {
	s.now = s.host.Clock()
	if s.conn == nil || s.conn.link != on {
		return nil // it ended while the message was under way
	}
	err := s.receive(s.conn, d)
	if err != nil {
		s.drop(err.Error())
	}
	s.settle()
	return err
}

func (s *satellite) receive(c *conn, d *pb.Down) error {
	if c.end == nil {
		return s.welcome(c, d)
	}
	switch k := d.Kind.(type) {
	case *pb.Down_Order:
		res, order := c.end.Order(k.Order, s.known.Epoch())
		if order != nil {
			res = c.end.Did(k.Order, s.order(order))
		}
		s.host.Send(c.link, &pb.Up{Kind: &pb.Up_Result{Result: res}})
	case *pb.Down_Lease:
		if from, self, ok := c.end.Leased(k.Lease); ok {
			s.lease(from, self)
		}
	}
	return nil
}

func (s *satellite) welcome(c *conn, d *pb.Down) error {
	w, err := link.Welcomed(d, s.known.Epoch())
	if err != nil {
		return err
	}
	if s.known.MustNote(w.Epoch) {
		if err := s.host.Write(epochFile, strconv.AppendUint(nil, w.Epoch, 10)); err != nil {
			return err
		}
	}
	s.known.Obey(w.Epoch)
	s.lease(c.sent, link.Self(w))
	c.welcome, c.end = w, link.NewEnd(w, s.told)
	return nil
}

// Report implements simulated.Satellite.
func (s *satellite) Report(on uint64) *pb.Report {
	s.now = s.host.Clock()
	c := s.conn
	if c == nil || c.link != on || c.end == nil {
		return nil
	}
	r := c.end.Report(s.known.News(s.told), true, s.now.Boot)
	s.told = c.end.Told()
	r.Load, r.NowUnixMs = s.host.Load(), s.now.Wall.UnixMilli()
	return r
}

// up tells whether there is a link that was welcomed.
func (s *satellite) up() bool { return s.conn != nil && s.conn.end != nil }

// ask begins a call to the master; answer or expireCalls ends it.
func (s *satellite) ask(l *login, do session.Do) {
	user := l.User()
	switch do {
	case session.Refer:
		r := l.Request()
		r.Attachment = s.conn.welcome.Attachment
		l.call = s.host.Refer(s.conn.link, r)
	case session.Claim:
		l.call = s.host.Claim(s.conn.link, &pb.ClaimRequest{User: user.Name, Uid: user.UID, Attachment: s.conn.welcome.Attachment})
	}
	l.until = s.now.Mono.Add(link.CallWithin)
}

// Answered implements simulated.Satellite.
func (s *satellite) Answered(call uint64, reply any, err error) {
	s.now = s.host.Clock()
	for _, l := range s.logins {
		if l.call != 0 && l.call == call {
			s.answer(l, reply, err)
			break
		}
	}
	s.settle()
}

// answer takes what came of a login's call.
func (s *satellite) answer(l *login, reply any, err error) {
	l.call, l.until = 0, time.Time{}
	switch l.step.Do {
	case session.Refer:
		var ref link.Referral
		if r, ok := reply.(*pb.ReferReply); ok && err == nil {
			ref = link.Referral{ReferReply: r, Here: s.conn != nil && r.ServerId == s.conn.welcome.ServerId}
		}
		l.next = l.Referred(ref, err)
	case session.Claim:
		claimed, on := (*pb.ClaimReply)(nil), uint64(0)
		if r, ok := reply.(*pb.ClaimReply); ok && err == nil {
			claimed, on = r, s.conn.link
		}
		l.next = l.Claimed(claimed, on, s.granted(), err)
		if link.ClaimUnknown(err) {
			s.end("the outcome of a call is not known")
		}
	}
}

// expireCalls gives up what the master has not answered in time.
func (s *satellite) expireCalls() {
	for _, l := range s.logins {
		if l.call != 0 && !l.until.After(s.now.Mono) {
			s.answer(l, nil, wire.Errorf(wire.Unreachable, "the master did not answer within %d s", int(link.CallWithin.Seconds())))
		}
	}
}

package sim

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
)

// honest is the least that a satellite must do, without the real one's rules:
// it lets the simulator be tested by itself. wrong names a promise that it
// breaks.
type honest struct {
	cfg     simulated.Config
	host    simulated.Host
	wrong   string
	journal string

	epoch, link, attachment, server uint64
	up                              bool
	seq                             uint64
	desks                           map[string]*desk // by session
	visits                          map[uint64]*visitor
	calls                           map[uint64]uint64 // login by call
	lease, self                     time.Duration
	sent                            map[uint64]time.Duration
}

type desk struct {
	Session, UUID, User, State string
	UID                        uint32
	Memory                     uint64
	PID                        int
	force                      time.Time // abort by then; zero: no
	adopted                    bool
}

type visitor struct {
	user string
	uid  uint32
	by   time.Time
}

func newHonest(wrong string) func(simulated.Config) simulated.Satellite {
	return func(cfg simulated.Config) simulated.Satellite {
		return &honest{cfg: cfg, host: cfg.Host, wrong: wrong, desks: map[string]*desk{}, visits: map[uint64]*visitor{}, calls: map[uint64]uint64{}, sent: map[uint64]time.Duration{}}
	}
}

func (s *honest) Begin() error {
	if b, ok := s.host.Read("epoch"); ok {
		if err := json.Unmarshal(b, &s.epoch); err != nil {
			return err
		}
	}
	id, ok := s.host.Read("id")
	if !ok {
		id = strconv.AppendUint(nil, s.host.Random(), 16)
		if err := s.host.Write("id", id); err != nil {
			return err
		}
	}
	s.journal = string(id)
	for _, f := range s.host.Files() {
		if id, ok := strings.CutPrefix(f, "s/"); ok {
			b, _ := s.host.Read(f)
			d := &desk{}
			if err := json.Unmarshal(b, d); err != nil {
				return err
			}
			d.adopted = true
			s.desks[id] = d
			s.host.Find(id, d.UUID, d.PID)
		}
	}
	return nil
}

func (s *honest) note(d *desk) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return s.host.Write("s/"+d.Session, b)
}

func (s *honest) Tick() {
	now := s.host.Clock()
	for _, id := range s.Sessions() {
		d := s.desks[id]
		over := s.self > 0 && now.Boot-s.lease > s.self
		if over || !d.force.IsZero() && !now.Mono.Before(d.force) {
			s.host.Kill(id)
		}
	}
	for _, id := range sortedKeys(s.visits) {
		if v := s.visits[id]; !now.Mono.Before(v.by) {
			s.refuse(id, wire.Errorf(wire.Unreachable, "no answer"))
		}
	}
}

func (s *honest) Wake() time.Time { return time.Time{} }

func (s *honest) sessions() *pb.Sessions {
	out := &pb.Sessions{}
	for _, id := range s.Sessions() {
		d := s.desks[id]
		out.Sessions = append(out.Sessions, &pb.Session{Id: id, User: d.User, Uid: d.UID, State: d.State, Pid: int32(d.PID), MemoryBytes: d.Memory})
	}
	return out
}

func (s *honest) Open(link uint64) *pb.Hello {
	s.link, s.up, s.seq = link, false, 0
	clear(s.calls)
	s.sent[0] = s.host.Clock().Boot
	return &pb.Hello{Protocol: wire.Protocol, EpochSeen: s.epoch, Instance: s.cfg.Instance, Journal: s.journal, Facts: s.cfg.Facts, Address: s.cfg.Name,
		Report: &pb.Report{Load: s.host.Load(), Sessions: s.sessions()}}
}

func (s *honest) Receive(link uint64, d *pb.Down) error {
	switch k := d.Kind.(type) {
	case *pb.Down_Welcome:
		if k.Welcome.Epoch < s.epoch && s.wrong != "obeys the old" {
			return wire.Errorf(wire.OldEpoch, "an old master")
		}
		s.epoch = k.Welcome.Epoch
		b, err := json.Marshal(s.epoch)
		if err != nil {
			return err
		}
		if s.wrong != "obeys the old" {
			if err := s.host.Write("epoch", b); err != nil {
				return err
			}
		}
		s.up, s.attachment, s.server = true, k.Welcome.Attachment, k.Welcome.ServerId
		s.lease, s.self = s.sent[0], time.Duration(k.Welcome.LeaseSelfMs)*time.Millisecond
	case *pb.Down_Lease:
		s.lease = max(s.lease, s.sent[k.Lease.Report])
	case *pb.Down_Order:
		o := k.Order.GetSession()
		var fail error
		if x := s.desks[o.Session]; x == nil {
			fail = wire.Errorf(wire.NotFound, "no session %s here", o.Session)
		} else {
			switch o.Action {
			case pb.SessionOrder_ABORT:
				x.force = s.host.Clock().Mono
				s.host.Kill(o.Session)
			case pb.SessionOrder_LOGOFF:
				if by := s.host.Clock().Mono.Add(time.Duration(o.LimitS) * time.Second); x.force.IsZero() || by.Before(x.force) {
					x.force = by
				}
				s.host.PowerDown(o.Session)
			default:
				s.host.PowerDown(o.Session)
			}
		}
		s.host.Send(link, &pb.Up{Kind: &pb.Up_Result{Result: &pb.Result{Order: k.Order.Id, Error: wire.Detail(fail)}}})
	}
	return nil
}

func (s *honest) Report(uint64) *pb.Report {
	if !s.up {
		return nil
	}
	s.seq++
	s.sent[s.seq] = s.host.Clock().Boot
	return &pb.Report{Load: s.host.Load(), Sessions: s.sessions(), Seq: s.seq}
}

func (s *honest) Closed(link uint64) {
	if link == s.link {
		s.up = false
		for _, id := range sortedKeys(s.calls) {
			s.refuse(s.calls[id], wire.Errorf(wire.Unreachable, "the link is gone"))
		}
	}
}

func (s *honest) refuse(login uint64, err error) {
	if s.visits[login] != nil {
		delete(s.visits, login)
		s.host.LoggedIn(login, simulated.Outcome{Err: err})
	}
}

func (s *honest) Login(id uint64, user string, uid uint32) {
	memory, cpus, requires, err := s.host.Desktop(user)
	for _, x := range s.Sessions() {
		if d := s.desks[x]; d.User == user && d.UID == uid {
			s.host.LoggedIn(id, simulated.Outcome{Session: x, Existing: true})
			return
		}
	}
	if err == nil && !s.up {
		err = wire.Errorf(wire.Unreachable, "no master")
	}
	for _, v := range s.visits {
		if v.user == user {
			err = wire.Errorf(wire.InUse, "another login")
		}
	}
	if err != nil {
		s.host.LoggedIn(id, simulated.Outcome{Err: err})
		return
	}
	s.visits[id] = &visitor{user, uid, s.host.Clock().Mono.Add(15 * time.Second)}
	s.calls[s.host.Refer(s.link, &pb.ReferRequest{User: user, Uid: uid, Attachment: s.attachment,
		Need: &pb.Need{MemoryBytes: uint64(memory) << 20, Cpus: uint32(cpus), Requires: requires}})] = id
}

func (s *honest) Answered(call uint64, reply any, err error) {
	login := s.calls[call]
	delete(s.calls, call)
	v := s.visits[login]
	if v == nil {
		if _, claimed := reply.(*pb.ClaimReply); claimed {
			s.host.Close(s.link)
		}
		return
	}
	switch r := reply.(type) {
	case *pb.ReferReply:
		switch {
		case r.ServerId != s.server:
			delete(s.visits, login)
			s.host.LoggedIn(login, simulated.Outcome{Server: r.ServerId})
		case r.Session != "":
			s.refuse(login, wire.Errorf(wire.NotReady, "settling"))
		case s.wrong == "starts unasked":
			s.start(login, v, "s999")
		default:
			s.calls[s.host.Claim(s.link, &pb.ClaimRequest{User: v.user, Uid: v.uid, Attachment: s.attachment})] = login
		}
	case *pb.ClaimReply:
		s.start(login, v, r.Session)
	default:
		if k := wire.KindOf(err); k == wire.Internal || k == wire.Unreachable || k == wire.StaleLink {
			s.host.Close(s.link)
		}
		s.refuse(login, err)
	}
}

func (s *honest) start(login uint64, v *visitor, session string) {
	memory, _, _, _ := s.host.Desktop(v.user)
	d := &desk{Session: session, UUID: "uuid-" + s.cfg.Instance + session, User: v.user, UID: v.uid, State: "starting", Memory: uint64(memory) << 20}
	if err := s.note(d); err != nil {
		s.host.Close(s.link)
		s.refuse(login, err)
		return
	}
	s.desks[session] = d
	s.host.Start(session, d.UUID, v.user)
	delete(s.visits, login)
	s.host.LoggedIn(login, simulated.Outcome{Session: session})
}

func (s *honest) gone(id string) {
	delete(s.desks, id)
	s.host.Remove("s/" + id)
}

func (s *honest) Started(id string, pid int, err error) {
	d := s.desks[id]
	switch {
	case d == nil:
	case err != nil:
		s.gone(id)
	default:
		d.PID = pid
		if s.note(d) != nil {
			return // the next program finds it by its UUID
		}
	}
}

func (s *honest) Found(id string, pid int, err error) {
	d := s.desks[id]
	switch {
	case d == nil:
	case errors.Is(err, simulated.ErrGone):
		s.gone(id)
	case err != nil && s.wrong == "forgets":
		s.gone(id)
	case err != nil:
		s.host.Find(id, d.UUID, d.PID)
	default:
		d.PID = pid
	}
}

func (s *honest) state(id, state string) {
	if d := s.desks[id]; d != nil {
		d.State = state
	}
}

func (s *honest) Ready(id string) {
	s.state(id, "running")
	if s.wrong == "kills" && len(s.desks) > 3 {
		s.host.Kill(id)
	}
}
func (s *honest) Stopping(id string)       { s.state(id, "stopping") }
func (s *honest) Exited(id string, _ bool) { s.gone(id) }
func (s *honest) Pinged(string, error)     {}

func (s *honest) Sessions() []string { return slices.Sorted(slices.Values(sortedKeys(s.desks))) }

package host

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"verdecmd/master/cluster"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

const (
	// mostSurveys are told to a host that compares itself, the newest first, and
	// are kept. A host that is unlike all of them is found by these as well.
	mostSurveys = 50
	// mostAnswer bounds the surveys of one answer, in bytes; the list of members
	// comes on top.
	mostAnswer = 1 << 20
	// mostSurvey bounds one survey, in bytes, so that none hides the others. What
	// is not in its lists fits into it.
	mostSurvey = mostAnswer / 8
	mostList   = 500 // entries of each list in a survey
)

// survey is the last one of a host, in its encoding: few are ever read, and
// many small parts would cost several times as much.
type survey struct {
	server uint64
	body   []byte
}

// Service is the part of Checks that satellites call.
type Service struct {
	pb.UnimplementedHostServer
	checks *Checks
}

// Service returns what is to be registered at the port for satellites.
func (k *Checks) Service() *Service { return &Service{checks: k} }

// Compare implements pb.HostServer.
func (s *Service) Compare(ctx context.Context, r *pb.CompareRequest) (*pb.CompareReply, error) {
	id, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	reply, err := s.checks.compare(id.ID, r.GetSurvey())
	return reply, wire.ToStatus(err)
}

// Checked implements pb.HostServer.
func (s *Service) Checked(ctx context.Context, r *pb.CheckedRequest) (*pb.CheckedReply, error) {
	id, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	if len(r.GetFindings()) > maxFindings {
		return nil, wire.ToStatus(wire.Errorf(wire.BadRequest, "%d findings, at most %d", len(r.Findings), maxFindings))
	}
	var all []finding
	for _, f := range r.GetFindings() {
		text := func(s string) string { return wire.Clean(s, maxCheckText) }
		all = append(all, finding{Check: f.GetCheck(), Level: f.GetLevel(), Measured: text(f.GetMeasured()), Wanted: text(f.GetWanted()), Fix: text(f.GetFix()), Hard: f.GetHard()})
	}
	at, err := s.checks.keep(ctx, id.ID, all, wire.Clean(r.GetVersion(), 100))
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return &pb.CheckedReply{CheckedUnixMs: at.UnixMilli()}, nil
}

// compare takes in the survey of a host and answers those of the others.
func (k *Checks) compare(uuid string, s *pb.Survey) (*pb.CompareReply, error) {
	id, name, err := k.server(uuid)
	if err != nil {
		return nil, err
	}
	if err := k.pass(id); err != nil {
		return nil, err
	}
	now := k.cfg.Now()
	reply := &pb.CompareReply{Version: k.cfg.Version, Settings: k.cfg.Settings}
	if s != nil {
		k.surveyed(id, tidy(s, id, name, now))
	}
	k.mu.Lock()
	bodies := slices.Clone(k.surveys)
	if r, ok := k.kept[id]; ok && r.UUID == uuid {
		r.seen = now
		k.kept[id] = r
		reply.CheckedUnixMs = r.At.UnixMilli()
	}
	k.mu.Unlock()
	left := mostAnswer
	for _, b := range slices.Backward(bodies) {
		var other pb.Survey
		if b.server == id || len(b.body) > left || len(reply.Others) == mostSurveys || proto.Unmarshal(b.body, &other) != nil {
			continue
		}
		left -= len(b.body)
		reply.Others = append(reply.Others, &other)
	}
	k.cfg.State(func(c *cluster.Cluster) {
		for _, m := range c.Servers() {
			reply.Members = append(reply.Members, &pb.Member{ServerId: m.ID, Id: m.UUID, Name: m.Name, Address: m.Address, Peer: k.cfg.Peer(m.UUID)})
		}
	})
	reply.NowUnixMs = k.cfg.Now().UnixMilli()
	return reply, nil
}

// surveyed keeps a survey as the newest.
func (k *Checks) surveyed(id uint64, s *pb.Survey) {
	body, err := proto.Marshal(s)
	if err != nil {
		return // tidy has made all texts fit
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.surveys = slices.DeleteFunc(k.surveys, func(o survey) bool { return o.server == id })
	k.surveys = append(k.surveys, survey{id, body})
	if n := len(k.surveys) - mostSurveys - 1; n > 0 { // one is the caller's own
		k.surveys = slices.Delete(k.surveys, 0, n)
	}
}

// tidy is a survey with what others may see of it, within bounds. Who it is
// from, the master knows better than the host.
func tidy(s *pb.Survey, id uint64, name string, now time.Time) *pb.Survey {
	text := func(s string) string { return wire.Clean(s, maxCheckText) }
	texts := func(all []string) (out []string) {
		for _, s := range all[:min(len(all), maxTexts)] {
			out = append(out, text(s))
		}
		return out
	}
	h := s.GetHome()
	out := &pb.Survey{Hostname: name, ServerId: id, TakenUnixMs: now.UnixMilli(), NowUnixMs: s.GetNowUnixMs(),
		Version: text(s.GetVersion()), Arch: text(s.GetArch()), BootId: text(s.GetBootId()), Settings: map[string]string{},
		PublicAddress: text(s.GetPublicAddress()), PeerAddress: text(s.GetPeerAddress()),
		Home: &pb.Mount{Dir: text(h.GetDir()), Kind: text(h.GetKind()), Source: text(h.GetSource()), Options: texts(h.GetOptions()), Network: h.GetNetwork()}}
	for k, v := range s.GetSettings() {
		if len(out.Settings) < maxTexts {
			out.Settings[text(k)] = text(v)
		}
	}
	for _, a := range s.GetAccounts()[:min(len(s.GetAccounts()), mostList)] {
		out.Accounts = append(out.Accounts, &pb.Account{Name: text(a.GetName()), Uid: a.GetUid(), Gid: a.GetGid(), Home: text(a.GetHome())})
	}
	for _, b := range s.GetBridges()[:min(len(s.GetBridges()), mostList)] {
		out.Bridges = append(out.Bridges, &pb.Bridge{Name: text(b.GetName()), Subnets: texts(b.GetSubnets()), Mtu: b.GetMtu(), Vlan: b.GetVlan()})
	}
	for proto.Size(out) > mostSurvey && len(out.Accounts)+len(out.Bridges) > 0 {
		out.Accounts, out.Bridges = out.Accounts[:len(out.Accounts)/2], out.Bridges[:len(out.Bridges)/2]
	}
	return out
}

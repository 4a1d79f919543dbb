package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// Bounds of what is sent, and believed of others.
const (
	maxText     = 500 // bytes of one text
	maxFindings = 64
	maxTexts    = 64 // texts of one list, entries of one map
	maxList     = 500
)

// comparison is what the master has told of the others, and the connection on
// which it did.
type comparison struct {
	answer  Answer
	own     uint64 // this server's number; 0: not told
	kept    time.Time
	others  []Survey
	members map[uint64]*pb.Member
	cc      *grpc.ClientConn
}

func (a *comparison) close() { a.cc.Close() }

// ask hands the survey in and takes those of the others.
func (d *doctor) ask(ctx context.Context) (*comparison, error) {
	masters := d.masters()
	if len(masters) == 0 {
		return nil, errors.New("WIN4_VERDE_CMADDR does not say where the master is")
	}
	var errs []string
	for i, address := range masters {
		one, cancel := context.WithTimeout(ctx, askFor/time.Duration(len(masters)))
		a, err := d.askOne(one, address)
		cancel()
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil && i+1 == len(masters) {
			return nil, ctx.Err()
		}
		errs = append(errs, address+": "+wire.FromStatus(err).Error())
	}
	return nil, errors.New(strings.Join(errs, "; "))
}

func (d *doctor) askOne(ctx context.Context, address string) (*comparison, error) {
	cc, err := grpc.NewClient("passthrough:///"+address, wire.DialOptions(d.cfg.Credentials)...)
	if err != nil {
		return nil, err
	}
	a := &comparison{cc: cc, members: map[uint64]*pb.Member{}}
	// The handshake is no part of the round trip. Where it fails, the call says why.
	cc.Connect()
	for s := cc.GetState(); s == connectivity.Idle || s == connectivity.Connecting; s = cc.GetState() {
		if !cc.WaitForStateChange(ctx, s) {
			break
		}
	}
	sent := d.cfg.now()
	start := time.Now()
	reply, err := pb.NewHostClient(cc).Compare(ctx, &pb.CompareRequest{Survey: toProto(d.m.Survey)})
	if err != nil {
		cc.Close()
		return nil, err
	}
	rtt := time.Since(start)
	a.answer = Answer{Address: address, Version: wire.Clean(reply.Version, maxText), RTT: rtt, Settings: cleanMap(reply.Settings),
		Offset: sent.Add(rtt / 2).Sub(time.UnixMilli(reply.NowUnixMs)).Round(time.Millisecond)}
	if reply.CheckedUnixMs != 0 {
		a.kept = time.UnixMilli(reply.CheckedUnixMs)
	}
	for _, m := range reply.Members {
		if m.GetId() == d.cfg.Credentials.Identity.ID {
			a.own = m.GetServerId()
		}
		a.members[m.GetServerId()] = m
		address, _, err := settings.SplitAddress(m.GetAddress(), 1)
		if err == nil {
			a.answer.Servers = append(a.answer.Servers, Server{m.GetServerId(), wire.Clean(m.GetName(), maxText), address})
		}
	}
	for _, s := range reply.Others {
		a.others = append(a.others, fromProto(s))
	}
	return a, nil
}

// handIn lets the master keep a result; it answers from when it is then.
func (a *comparison) handIn(ctx context.Context, r Result, version string, now time.Time) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	q := &pb.CheckedRequest{AtUnixMs: now.UnixMilli(), Version: version}
	for _, f := range r.Findings[:min(len(r.Findings), maxFindings)] {
		q.Findings = append(q.Findings, &pb.Finding{Check: f.Check, Level: string(f.Level), Measured: wire.Clean(f.Measured, maxText),
			Wanted: wire.Clean(f.Wanted, maxText), Fix: wire.Clean(f.Fix, maxText), Hard: f.Hard})
	}
	reply, err := pb.NewHostClient(a.cc).Checked(ctx, q)
	if err != nil {
		return at, wire.FromStatus(err)
	}
	return time.UnixMilli(reply.CheckedUnixMs), nil
}

func toProto(s Survey) *pb.Survey {
	out := &pb.Survey{Hostname: s.Hostname, Version: s.Version, Arch: s.Arch, PublicAddress: strings.Join(s.PublicIPs, ","), PeerAddress: s.PeerAddress,
		NowUnixMs: s.NowMillis, Settings: s.Settings, ServerId: s.ServerID, BootId: s.BootID,
		Home: &pb.Mount{Dir: s.Home.Dir, Kind: s.Home.Kind, Source: s.Home.Source, Options: s.Home.Options, Network: s.Home.Network}}
	for _, a := range s.Accounts[:min(len(s.Accounts), maxList)] {
		out.Accounts = append(out.Accounts, &pb.Account{Name: a.Name, Uid: a.UID, Gid: a.GID, Home: a.Home})
	}
	for _, b := range s.Bridges[:min(len(s.Bridges), maxList)] {
		out.Bridges = append(out.Bridges, &pb.Bridge{Name: b.Name, Subnets: b.Subnets, Mtu: b.MTU, Vlan: b.VLAN})
	}
	return out
}

// fromProto takes another host's survey in. It may say anything: what it says is
// shown and compared, and nothing else.
func fromProto(s *pb.Survey) Survey {
	out := Survey{Hostname: s.GetHostname(), ServerID: s.GetServerId(), Version: s.GetVersion(), Arch: s.GetArch(), BootID: s.GetBootId(),
		PublicAddress: s.GetPublicAddress(), PeerAddress: s.GetPeerAddress(), NowMillis: s.GetNowUnixMs(), Settings: s.GetSettings()}
	if s.GetPublicAddress() != "" {
		out.PublicIPs = strings.Split(s.GetPublicAddress(), ",")
	}
	h := s.GetHome()
	out.Home = Mount{Dir: h.GetDir(), Kind: h.GetKind(), Source: h.GetSource(), Options: h.GetOptions(), Network: h.GetNetwork()}
	for _, a := range s.GetAccounts() {
		out.Accounts = append(out.Accounts, Account{Name: a.GetName(), UID: a.GetUid(), GID: a.GetGid(), Home: a.GetHome()})
	}
	for _, b := range s.GetBridges() {
		out.Bridges = append(out.Bridges, Bridge{Name: b.GetName(), Subnets: b.GetSubnets(), MTU: b.GetMtu(), VLAN: b.GetVlan()})
	}
	return out.clean()
}

// clean makes what another host says fit to be shown, and short.
func (s Survey) clean() Survey {
	text := func(p *string) { *p = wire.Clean(*p, maxText) }
	texts := func(all []string) []string {
		all = append([]string(nil), all[:min(len(all), maxTexts)]...)
		for i := range all {
			text(&all[i])
		}
		return all
	}
	for _, p := range []*string{&s.Hostname, &s.Version, &s.Arch, &s.BootID, &s.PublicAddress, &s.PeerAddress, &s.Home.Dir, &s.Home.Kind, &s.Home.Source} {
		text(p)
	}
	s.PublicIPs, s.Home.Options, s.Settings = texts(s.PublicIPs), texts(s.Home.Options), cleanMap(s.Settings)
	s.Accounts = append([]Account(nil), s.Accounts[:min(len(s.Accounts), maxList)]...)
	for i := range s.Accounts {
		text(&s.Accounts[i].Name)
		text(&s.Accounts[i].Home)
	}
	s.Bridges = append([]Bridge(nil), s.Bridges[:min(len(s.Bridges), maxList)]...)
	for i, b := range s.Bridges {
		text(&s.Bridges[i].Name)
		s.Bridges[i].Subnets = texts(b.Subnets)
	}
	return s
}

func cleanMap(m map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if len(out) < maxTexts {
			out[wire.Clean(k, maxText)] = wire.Clean(v, maxText)
		}
	}
	return out
}

// String is a line for logs.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s", f.Check, f.Level, f.Measured)
}

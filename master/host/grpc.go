package host

import (
	"context"
	"encoding/pem"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// Enrolment implements pb.EnrolmentServer over a Manager. Who may call what is
// decided before, by wire.ServerOptions.
type Enrolment struct {
	pb.UnimplementedEnrolmentServer
	Manager *Manager
	Cluster string // UUID
	// Roots are the authorities to trust, in DER, the one that issues first.
	Roots func() [][]byte
	// Trust is the bundle in force; nil where there is none yet. May be nil.
	Trust func() *pb.SignedTrust
}

// Join implements pb.EnrolmentServer.
func (e *Enrolment) Join(ctx context.Context, r *pb.JoinRequest) (*pb.JoinReply, error) {
	key, err := wire.ParseRequest(r.GetCsr())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	j, err := e.Manager.Join(ctx, Request{Key: key, Token: r.GetToken(), Password: r.GetPassword(), Name: r.GetName(), Address: r.GetAddress(),
		From: wire.PeerAddress(ctx), Clock: clock(r.GetNowUnixMs()), Version: r.GetVersion(), Arch: r.GetArch()})
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return e.reply(j), nil
}

// Renew implements pb.EnrolmentServer.
func (e *Enrolment) Renew(ctx context.Context, r *pb.RenewRequest) (*pb.JoinReply, error) {
	return e.again(ctx, r, e.Manager.Renew)
}

// Rejoin implements pb.EnrolmentServer.
func (e *Enrolment) Rejoin(ctx context.Context, r *pb.RenewRequest) (*pb.JoinReply, error) {
	return e.again(ctx, r, e.Manager.Rejoin)
}

func (e *Enrolment) again(ctx context.Context, r *pb.RenewRequest, f func(context.Context, Renewal) (Joined, error)) (*pb.JoinReply, error) {
	id, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	key, err := wire.ParseRequest(r.GetCsr())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	_, until := wire.PeerCertificate(ctx)
	j, err := f(ctx, Renewal{ID: id, Key: key, Until: until, From: wire.PeerAddress(ctx)})
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return e.reply(j), nil
}

// reply is the answer, with what else a new member needs.
func (e *Enrolment) reply(j Joined) *pb.JoinReply {
	out := &pb.JoinReply{Certificate: j.Certificate, Cluster: e.Cluster, Id: j.UUID, ServerId: j.Server, Name: j.Name, Replaced: j.Replaced,
		NowUnixMs: e.Manager.cfg.Now().UnixMilli()}
	for _, der := range e.Roots() {
		out.Roots = append(out.Roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if e.Trust != nil {
		out.Trust = e.Trust()
	}
	return out
}

// clock is a time that a machine tells; zero: it told none.
func clock(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings/address"
)

// Bounds of the port for other satellites.
const (
	peerConns      = 1024
	peerPerAddress = 32 // of connections that have not proved who they are
	listenAgain    = 5 * time.Second
)

// PeerConfig is everything a Peer needs.
type PeerConfig struct {
	Credentials *wire.Credentials
	// Listen says where to wait for other satellites. It fails while the network
	// is not up yet, and is asked again.
	Listen func(context.Context) (address.Peers, error)
	// Only closes a listener to other networks than those of the settings by
	// which it listens. It may be nil.
	Only    func(l net.Listener, by []string) net.Listener
	Version string
	Trust   func() uint64 // version of the bundle in force
	Locks   *LockTrial
	// May tells whether a satellite may move desktops here, and if not, why.
	May func(who wire.Identity) (allowed bool, why string)
	Log zerolog.Logger
}

// Peer is the port on which other satellites of the cluster talk to this one: no
// strangers, no master, nobody who was revoked. It implements pb.PeerServer.
type Peer struct {
	pb.UnimplementedPeerServer
	cfg     PeerConfig
	reached func()
	address atomic.Pointer[string]
	tried   chan struct{}
	settle  func() // closes tried
}

// NewPeer returns a Peer that does not listen yet.
func NewPeer(cfg PeerConfig) *Peer {
	tried := make(chan struct{})
	return &Peer{cfg: cfg, reached: func() {}, tried: tried, settle: sync.OnceFunc(func() { close(tried) })}
}

// Connect hands in who tells the cluster where others reach this satellite; it
// must not block. It must be called before Run.
func (p *Peer) Connect(reached func()) { p.reached = reached }

// Tried is closed once it is known whether others reach this satellite at first.
func (p *Peer) Tried() <-chan struct{} { return p.tried }

// Address is where others reach this satellite, as host:port; empty while nobody
// does.
func (p *Peer) Address() string {
	if a := p.address.Load(); a != nil {
		return *a
	}
	return ""
}

// Run listens until ctx ends. Where that is not possible, now or at all, it goes
// on trying: desktops do not need it.
func (p *Peer) Run(ctx context.Context) error {
	told := ""
	for ctx.Err() == nil {
		err := p.serve(ctx)
		p.settle()
		if ctx.Err() != nil {
			break
		}
		if text := fmt.Sprint(err); text != told {
			told = text
			p.cfg.Log.Error().Err(err).Msg("other satellites do not reach this one (WIN4_PEER_LISTEN); trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
	return nil
}

// serve listens until ctx ends or a listener fails.
func (p *Peer) serve(ctx context.Context) error {
	at, err := p.cfg.Listen(ctx)
	if err != nil {
		return err
	}
	for _, r := range at.Remarks {
		p.cfg.Log.Warn().Msg(r)
	}
	report := func(r wire.Report) {
		p.cfg.Log.Warn().Interface("report", r).Msg("a connection of another satellite was refused or failed")
	}
	var all []net.Listener
	var open []string
	for _, port := range at.Ports {
		l, err := net.Listen("tcp", port.Listen)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return err
		}
		if p.cfg.Only != nil {
			l = p.cfg.Only(l, port.Settings)
		}
		open = append(open, port.Listen)
		all = append(all, wire.Limit(l, wire.Bounds{Total: peerConns, PerAddress: peerPerAddress, Report: report}))
	}
	server := grpc.NewServer(append(wire.PeerServerOptions(p.cfg.Credentials, report), grpc.WaitForHandlers(true))...)
	pb.RegisterPeerServer(server, p)
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range all {
		g.Go(func() error { return server.Serve(l) })
	}
	g.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
	if was := p.address.Swap(&at.Peer); was == nil || *was != at.Peer {
		p.reached()
	}
	p.settle()
	p.cfg.Log.Info().Strs("listen", open).Str("address", at.Peer).Msg("waiting for other satellites")
	err = g.Wait()
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Ping tells who is here.
func (p *Peer) Ping(context.Context, *pb.PeerPing) (*pb.PeerPong, error) {
	return &pb.PeerPong{NowUnixMs: time.Now().UnixMilli(), Name: p.cfg.Credentials.Identity.Name, Version: p.cfg.Version, TrustVersion: p.cfg.Trust()}, nil
}

// TryLock tries the lock on a file in the directory of the homes that the caller
// holds.
func (p *Peer) TryLock(ctx context.Context, r *pb.TryLockRequest) (*pb.TryLockReply, error) {
	return p.cfg.Locks.Try(ctx, r), nil
}

// MayMigrate tells a satellite whether it may move desktops here.
func (p *Peer) MayMigrate(ctx context.Context, _ *pb.MayMigrateRequest) (*pb.MayMigrateReply, error) {
	who, err := wire.PeerIdentity(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	allowed, why := p.cfg.May(who)
	return &pb.MayMigrateReply{Allowed: allowed, Why: why}, nil
}

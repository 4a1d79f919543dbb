package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
)

// Accounts finds the users of this computer.
type Accounts interface {
	ByName(ctx context.Context, name string) (desktop.User, error)
	ByUID(ctx context.Context, uid uint32) (desktop.User, error)
}

// Local serves win4 on the satellite's local socket. Who calls is told by the
// kernel, not by the caller.
type Local struct {
	pb.UnimplementedLoginServer
	Manager  *Manager
	Accounts Accounts
}

// What one user of this computer may have open at the local socket, and all
// together, so that nobody takes the satellite's descriptors and memory from the
// others. The satellite's own user is not counted.
const (
	userConns = 8
	allConns  = 2048
	streams   = 4 // calls at once on one connection
	idleConn  = time.Minute

	userRate, userBurst = 64 << 10, 256 << 10 // bytes a second that one connection may send, and at once
)

// Listen makes the local socket: everybody on this computer may connect.
func Listen(path string) (net.Listener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("the path of the local socket has %d bytes, at most 107 are possible: %s (WIN4_VERDE_SAT_SOCKET)", len(path), path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("left-over of the local socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("local socket: %w (WIN4_VERDE_SAT_SOCKET)", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("local socket: %w", err)
	}
	return limitUsers(l, userConns, allConns), nil
}

// Serve answers until ctx ends.
func (l *Local) Serve(ctx context.Context, on net.Listener, report wire.Reporter) error {
	unary, stream := wire.Recover(report)
	s := grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(peerCredentials{}), grpc.MaxConcurrentStreams(streams), grpc.MaxRecvMsgSize(64<<10),
		grpc.MaxHeaderListSize(wire.MaxHeaders), grpc.ConnectionTimeout(wire.HandshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleConn}), grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream))
	pb.RegisterLoginServer(s, l)
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(on); err != nil && ctx.Err() == nil {
		return fmt.Errorf("local socket: %w", err)
	}
	return nil
}

// Open implements pb.LoginServer.
func (l *Local) Open(r *pb.OpenRequest, out pb.Login_OpenServer) error {
	u, err := l.caller(out.Context(), r.User)
	if err != nil {
		return wire.ToStatus(err)
	}
	began := time.Now()
	progress := func(text string) {
		// A client that went away is noticed by the context.
		_ = out.Send(&pb.OpenReply{Kind: &pb.OpenReply_Progress{Progress: &pb.Progress{Text: text, ElapsedS: uint32(time.Since(began).Seconds())}}})
	}
	o, err := l.Manager.Open(out.Context(), u, "local", progress)
	if err != nil {
		return wire.ToStatus(err)
	}
	if o.Referred != nil {
		return out.Send(&pb.OpenReply{Kind: &pb.OpenReply_Referred{Referred: o.Referred}})
	}
	return out.Send(&pb.OpenReply{Kind: &pb.OpenReply_Opened{Opened: &pb.Opened{Session: o.Session, Existing: o.Existing}}})
}

// Screenshot implements pb.LoginServer.
func (l *Local) Screenshot(ctx context.Context, r *pb.ScreenshotRequest) (*pb.ScreenshotReply, error) {
	u, err := l.caller(ctx, r.User)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	png, err := l.Manager.Screenshot(ctx, u)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return &pb.ScreenshotReply{Png: png}, nil
}

// caller is the user for whom is asked: the caller, or, where the satellite
// itself asks, anybody.
func (l *Local) caller(ctx context.Context, name string) (desktop.User, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return desktop.User{}, status.Error(codes.Unauthenticated, "unknown caller")
	}
	cred, ok := p.AuthInfo.(peerInfo)
	if !ok {
		return desktop.User{}, status.Error(codes.Unauthenticated, "unknown caller")
	}
	if name == "" {
		u, err := l.Accounts.ByUID(ctx, cred.uid)
		if err != nil {
			return u, wire.Errorf(wire.NotFound, "UID %d has no account on this satellite: %v", cred.uid, err)
		}
		return u, nil
	}
	u, err := l.Accounts.ByName(ctx, name)
	if cred.uid != uint32(os.Geteuid()) && (err != nil || u.UID != cred.uid) {
		return desktop.User{}, wire.Errorf(wire.BadRequest, "UID %d may not log in as %q: only the satellite's own user (UID %d) may name another", cred.uid, name, os.Geteuid())
	}
	if err != nil {
		return u, wire.Errorf(wire.NotFound, "no account is named %q on this satellite: %v", name, err)
	}
	return u, nil
}

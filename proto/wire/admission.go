package wire

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	pb "verdecmd/proto"
)

// needs says what a connection must have proved for a call on the master's
// port. All calls that are not in it need an identity of the cluster.
var needs = map[string]standing{
	pb.Enrolment_Join_FullMethodName:   proofNone,
	pb.Enrolment_Rejoin_FullMethodName: proofExpired,
}

// admit refuses a call that the connection has not proved enough for, and every
// call of an identity that was revoked, or whose authority was removed since the
// connection was made: TLS itself has no words for that.
func (c *Credentials) admit(ctx context.Context, method string) error {
	is := proofNone
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(provedInfo); ok {
			is = info.is
		}
	}
	want, listed := needs[method]
	if !listed {
		want = proofIdentity
	}
	switch {
	case is != want && is == proofNone:
		return Errorf(Denied, "this connection has shown no certificate: it can register a host and nothing else")
	case is != want && is == proofExpired:
		return Errorf(Denied, "this connection is for a host whose certificate has expired: it can ask for a new one and nothing else")
	case is != want:
		return Errorf(Denied, "a host that has a valid certificate does not need this call")
	case is == proofNone:
		return nil
	}
	id, err := PeerIdentity(ctx)
	if err != nil {
		return err
	}
	if why, revoked := c.isRevoked(id); revoked {
		return Errorf(Revoked, "%s", why)
	}
	if c.PeerRoot(ctx) == "" {
		return Errorf(Denied, "the authority that has issued the certificate of %s is trusted no more: another one has its place, register this machine again", id)
	}
	return nil
}

// admission are interceptors that ask admit before each call.
func (c *Credentials) admission() (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := c.admit(ctx, info.FullMethod); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
	stream := func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if err := c.admit(s.Context(), info.FullMethod); err != nil {
			return err
		}
		return next(srv, s)
	}
	return unary, stream
}

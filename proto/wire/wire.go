// Package wire is what both ends of a connection between machines agree on:
// the version, who may talk to whom, limits and keep-alive, and how an error
// keeps its kind on the way.
//
// A peer is never trusted by its address. Both ends show a certificate of the
// cluster's own authority, and its URI says which cluster, role and machine
// it stands for; host names are not looked at. The limits stand here once,
// since a client that pings faster than the server allows is cut off.
package wire

import (
	"crypto/tls"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	pb "verdecmd/proto"
)

// Protocol is the version of the link between master and satellite.
const Protocol = 1

// Time limits of a connection.
const (
	// HandshakeTimeout is how long a connection may take until it has proved
	// its identity. Silent ones are closed after it.
	HandshakeTimeout = 10 * time.Second
	// KeepaliveTime is the silence after which either end asks whether the
	// other is still there, KeepaliveTimeout how long the answer may take.
	KeepaliveTime    = 10 * time.Second
	KeepaliveTimeout = 5 * time.Second

	pingsNotFasterThan = 5 * time.Second
)

// Size limits in bytes, named from the server's side.
const (
	MaxReceive = 1 << 20  // one message to the server
	MaxSend    = 4 << 20  // one message from the server
	MaxHeaders = 16 << 10 // all headers of one call

	maxStreams = 64 // calls at once on one connection
)

// ServerOptions are the options of the master's gRPC server: identity c, the
// limits, who may call what, and interceptors that keep a panic in one call
// from ending the program. report gets each of those panics and each refused
// handshake; it must be safe for many goroutines.
func ServerOptions(c *Credentials, report Reporter) []grpc.ServerOption {
	return serverOptions(c, c.ServerTLS(), report)
}

// PeerServerOptions are those of a satellite's server for other satellites.
func PeerServerOptions(c *Credentials, report Reporter) []grpc.ServerOption {
	return serverOptions(c, c.PeerTLS(), report)
}

func serverOptions(c *Credentials, t *tls.Config, report Reporter) []grpc.ServerOption {
	unary, stream := Recover(report)
	admitUnary, admitStream := c.admission()
	return []grpc.ServerOption{
		grpc.Creds(prove(t, report)),
		grpc.ConnectionTimeout(HandshakeTimeout),
		grpc.InTapHandle(charge),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(MaxReceive),
		grpc.MaxSendMsgSize(MaxSend),
		grpc.MaxHeaderListSize(MaxHeaders),
		// TLS has the record that was read in a buffer already; another one of
		// 32 KiB for each satellite was a third of the master's memory.
		grpc.ReadBufferSize(0),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: KeepaliveTime, Timeout: KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsNotFasterThan, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(unary, admitUnary),
		grpc.ChainStreamInterceptor(stream, admitStream),
	}
}

// DialOptions are the options of a satellite's connection to the master. The
// environment's proxies and the name service's hints are not used.
func DialOptions(c *Credentials) []grpc.DialOption { return dialOptions(c.ClientTLS()) }

// PeerDialOptions are those of a connection to another satellite: to that with
// the identity id or, where id is empty, to any of the cluster.
func PeerDialOptions(c *Credentials, id string) []grpc.DialOption {
	return dialOptions(c.client(Satellite, id))
}

// RejoinDialOptions are those of a connection to the master with a certificate
// that has expired. It is good for Rejoin alone.
func RejoinDialOptions(c *Credentials) []grpc.DialOption {
	t := c.ClientTLS()
	t.ServerName = RejoinServerName
	return dialOptions(t)
}

func dialOptions(t *tls.Config) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(t)),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(MaxHeaders),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxSend), grpc.MaxCallSendMsgSize(MaxReceive)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: KeepaliveTime, Timeout: KeepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second},
			MinConnectTimeout: HandshakeTimeout,
		}),
	}
}

// Slot is what a Pace prescribes, within bounds: the time between two reports,
// and that until the first.
func Slot(p *pb.Pace) (interval, next time.Duration) {
	interval = time.Duration(min(max(p.IntervalMs, 100), 3600_000)) * time.Millisecond
	return interval, time.Duration(p.SlotMs)*time.Millisecond%interval + interval/100
}

// MaxSkew is how far two clocks may be apart without a word.
const MaxSkew = 5 * time.Second

// Apart says by how much a clock is off from another: "2m0s ahead of", where off
// is negative "2m0s behind".
func Apart(off time.Duration) string {
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	return fmt.Sprintf("%v %s", skew(off), way)
}

// skew is how far apart two clocks are, rounded for a message.
func skew(d time.Duration) time.Duration {
	d = time.Duration(math.Abs(float64(d)))
	switch {
	case d >= 48*time.Hour:
		return d.Round(time.Hour)
	case d >= time.Hour:
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}

package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
)

// provingCredentials tell the listener's connection how far its handshake has
// come, and the log where it has failed.
type provingCredentials struct {
	credentials.TransportCredentials
	refused *throttle
}

// prove returns the credentials of a server with the configuration t.
func prove(t *tls.Config, report Reporter) credentials.TransportCredentials {
	turns := newTurns()
	choose := t.GetConfigForClient
	t.GetConfigForClient = func(hello *tls.ClientHelloInfo) (_ *tls.Config, err error) {
		if l, ok := hello.Conn.(*limitConn); ok {
			if err = l.greeted(); err != nil {
				return nil, err
			}
			if l.turn, err = turns.take(); err != nil {
				l.excused()
				return nil, err
			}
		}
		if choose == nil {
			return nil, nil
		}
		return choose(hello)
	}
	return &provingCredentials{TransportCredentials: credentials.NewTLS(t), refused: &throttle{to: report}}
}

func (p *provingCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ServerHandshake(c)
	if l, ok := c.(*limitConn); ok && l.turn != nil {
		l.turn()
	}
	if err == nil {
		if info, err = admitted(c, info); err != nil {
			conn.Close()
		}
	}
	if err != nil {
		if errors.Is(err, net.ErrClosed) {
			err = errSilent
		}
		// Somebody who only looks whether the port is open is no news.
		if !errors.Is(err, io.EOF) {
			p.refused.report(Report{What: "connection refused", Address: c.RemoteAddr().String(), Err: errors.New(Clean(err.Error(), maxText))})
		}
		return nil, nil, err
	}
	return conn, info, nil
}

// standing is what a connection has proved.
type standing int

const (
	proofNone     standing = iota
	proofIdentity          // of the cluster
	proofExpired           // an identity whose certificate may be over
)

// provedInfo is TLS's own, the connection behind it where it is counted, and
// what it has proved.
type provedInfo struct {
	credentials.TLSInfo
	conn *limitConn
	is   standing
}

// strangerLife is how long a connection may be open that never proves an
// identity: the time to register.
const strangerLife = 30 * time.Second

// admitted counts a connection of a proved identity. One without stays a
// stranger in all counts, and not for long.
func admitted(c net.Conn, info credentials.AuthInfo) (credentials.AuthInfo, error) {
	t, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, errors.New("the connection is not TLS")
	}
	l, counted := c.(*limitConn)
	out := provedInfo{TLSInfo: t, conn: l, is: proofIdentity}
	switch t.State.ServerName {
	case JoinServerName:
		out.is = proofNone
		time.AfterFunc(strangerLife, func() { c.Close() })
		return out, nil
	case RejoinServerName:
		out.is = proofExpired
	}
	if len(t.State.PeerCertificates) == 0 {
		return nil, errors.New("no certificate was shown")
	}
	id, err := IdentityOf(t.State.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	if counted {
		if err := l.prove(id.ID); err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
	}
	return out, nil
}

// charge makes a call cost its machine what it costs us, as soon as it begins:
// one that is taken back at once has cost it few bytes.
func charge(ctx context.Context, _ *tap.Info) (context.Context, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(provedInfo); ok && info.conn != nil && info.conn.proved.Load() {
			info.conn.pace.spend(callBytes)
		}
	}
	return ctx, nil
}

func (p *provingCredentials) Clone() credentials.TransportCredentials {
	return &provingCredentials{TransportCredentials: p.TransportCredentials.Clone(), refused: p.refused}
}

// throttle lets strangers write few lines into the log: burst in each period,
// the next line tells how many were dropped.
type throttle struct {
	to Reporter

	mu      sync.Mutex // guards all below
	since   time.Time
	sent    int
	dropped int
}

const (
	burst  = 10
	period = 10 * time.Second
)

func (t *throttle) report(r Report) {
	t.mu.Lock()
	if now := time.Now(); now.Sub(t.since) >= period {
		t.since, t.sent = now, 0
	}
	if t.sent >= burst {
		t.dropped++
		t.mu.Unlock()
		return
	}
	t.sent++
	r.Dropped, t.dropped = t.dropped, 0
	t.mu.Unlock()
	t.to.report(r)
}

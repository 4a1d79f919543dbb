package wire

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// LimitListener closes connections beyond total at once, and beyond
// perAddress where they come from one address and have not yet proved an
// identity. A proved one counts in total only. IPv6 addresses are counted by
// /64. The proof comes from the credentials in ServerOptions.
func LimitListener(l net.Listener, total, perAddress int) net.Listener {
	return &limitListener{Listener: l, total: total, perAddress: perAddress, unproved: map[string]int{}}
}

type limitListener struct {
	net.Listener
	total, perAddress int

	mu       sync.Mutex // guards all below
	open     int
	unproved map[string]int // connections by address
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := address(c.RemoteAddr())
		l.mu.Lock()
		full := l.open >= l.total || l.unproved[from] >= l.perAddress
		if !full {
			l.open++
			l.unproved[from]++
		}
		l.mu.Unlock()
		if !full {
			return &limitConn{Conn: c, from: from, l: l}, nil
		}
		c.Close()
	}
}

type limitConn struct {
	net.Conn
	from string
	l    *limitListener
	once sync.Once

	mu     sync.Mutex // guards all below
	proved bool       // no longer counted in l.unproved
}

// prove gives the place among the unproved connections of the address back.
// It tells whether the connection had it still.
func (c *limitConn) prove() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proved {
		return false
	}
	c.proved = true
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	if c.l.unproved[c.from]--; c.l.unproved[c.from] == 0 {
		delete(c.l.unproved, c.from)
	}
	return true
}

// Close lets a refused peer read why: closing while it still sends would throw
// the TLS alert away that is on its way to it.
func (c *limitConn) Close() (err error) {
	c.once.Do(func() {
		if c.prove() {
			linger(c.Conn)
		}
		err = c.Conn.Close()
		c.l.mu.Lock()
		defer c.l.mu.Unlock()
		c.l.open--
	})
	return err
}

func linger(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, lingerBytes)
}

// How long and how much a refused peer is listened to.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

func address(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.String()
	}
	return ip.String()
}

// provingCredentials tells the listener's connection when its handshake has
// succeeded, and the log when not.
type provingCredentials struct {
	credentials.TransportCredentials
	refused *throttle
}

func (p *provingCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ServerHandshake(c)
	if err != nil {
		// Somebody who only looks whether the port is open is no news.
		if !errors.Is(err, io.EOF) {
			p.refused.report(Report{What: "connection refused", Address: c.RemoteAddr().String(), Err: errors.New(Clean(err.Error(), maxText))})
		}
		return nil, nil, err
	}
	if l, ok := c.(*limitConn); ok {
		l.prove()
	}
	return conn, info, nil
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

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// simNet is a network inside a bubble: connections that can be cut, frozen and
// delayed for each pair of a satellite and a master, as cables and switches do.
type simNet struct {
	mu        sync.Mutex // guards all of the network
	listeners map[string]*simListener
	paths     map[string]*simPath // by "satellite>master"
	dead      map[string]bool     // programs that do not run
	attempts  []attempt
}

// attempt is one try to connect.
type attempt struct {
	from string
	at   time.Time
}

// simPath is the way from a satellite to a master.
type simPath struct {
	from string // the satellite
	cut  bool   // connections break, new ones are refused
	// What is sent up to the master, or down from it, waits, as in TCP; new
	// connections hang.
	up, down bool
	delay    time.Duration
	wake     chan struct{} // closed when it changes
	conns    map[*simConn]bool

	// Calls and messages, not bytes: see sim_wire_test.go.
	repeat bool          // each comes twice
	late   time.Duration // each call waits so long before it is sent, and again with its answer
}

func (p *simPath) hole(on bool) { p.up, p.down = on, on }

// stuck tells whether what is sent to one end does not arrive. It needs n.mu.
func (p *simPath) stuck(end string) bool {
	if end == p.from {
		return p.down
	}
	return p.up
}

func newSimNet() *simNet {
	return &simNet{listeners: map[string]*simListener{}, paths: map[string]*simPath{}, dead: map[string]bool{}}
}

// path needs n.mu.
func (n *simNet) path(from, to string) *simPath {
	key := from + ">" + to
	if n.paths[key] == nil {
		n.paths[key] = &simPath{from: from, wake: make(chan struct{}), conns: map[*simConn]bool{}}
	}
	return n.paths[key]
}

// change changes a path and lets everybody on it look again.
func (n *simNet) change(from, to string, f func(*simPath)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(from, to)
	f(p)
	for c := range p.conns {
		if p.cut {
			c.abort()
		}
		c.in.cond.Broadcast()
		c.peer.in.cond.Broadcast()
	}
	close(p.wake)
	p.wake = make(chan struct{})
}

// kill ends all connections of the program called name, as its death does,
// and lets it make no new ones; alive is the opposite.
func (n *simNet) kill(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[name] = true
	for _, p := range n.paths {
		for c := range p.conns {
			if (c.local == name || c.peer.local == name) && !c.peer.vanished {
				c.abort()
			}
		}
	}
}

// vanish is kill where nobody is told: the other ends of the connections stay
// half-open.
func (n *simNet) vanish(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[name] = true
	for _, p := range n.paths {
		for c := range p.conns {
			if c.local == name {
				c.vanished, c.reset = true, true
				delete(p.conns, c)
				c.in.cond.Broadcast()
			}
		}
	}
}

func (n *simNet) alive(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.dead, name)
}

func (n *simNet) dial(ctx context.Context, from, to string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead[from] {
		return nil, net.ErrClosed
	}
	n.attempts = append(n.attempts, attempt{from, time.Now()})
	for {
		p := n.path(from, to)
		l := n.listeners[to]
		switch {
		case p.up || p.down:
			wake := p.wake
			n.mu.Unlock()
			select {
			case <-wake:
			case <-ctx.Done():
			}
			n.mu.Lock()
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		case p.cut || l == nil || l.closed || n.dead[to]:
			return nil, fmt.Errorf("dial %s: connection refused", to)
		}
		a, b := n.pipe(from, to, p)
		l.waiting = append(l.waiting, b)
		l.cond.Signal()
		return a, nil
	}
}

// pipe needs n.mu.
func (n *simNet) pipe(from, to string, p *simPath) (client, server *simConn) {
	end := func(name string) *simConn {
		c := &simConn{n: n, path: p, local: name}
		c.in.cond = sync.NewCond(&n.mu)
		return c
	}
	client, server = end(from), end(to)
	client.peer, server.peer = server, client
	p.conns[client], p.conns[server] = true, true
	return client, server
}

// simListener is where a master listens.
type simListener struct {
	n       *simNet
	name    string
	cond    *sync.Cond
	waiting []*simConn
	closed  bool
}

func (n *simNet) listen(name string) *simListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &simListener{n: n, name: name, cond: sync.NewCond(&n.mu)}
	n.listeners[name] = l
	return l
}

func (l *simListener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for len(l.waiting) == 0 {
		if l.closed {
			return nil, net.ErrClosed
		}
		l.cond.Wait()
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	return c, nil
}

func (l *simListener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.closed = true
	for _, c := range l.waiting {
		c.abort()
	}
	l.waiting = nil
	l.cond.Broadcast()
	return nil
}

func (l *simListener) Addr() net.Addr { return simAddr(l.name) }

type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }

// simConn is one end of a connection. What arrives is in its own stream.
type simConn struct {
	n      *simNet
	path   *simPath
	local  string
	peer   *simConn
	in     stream
	closed bool // by this end
	reset  bool
	// Its computer has lost its power: it says nothing any more, not even that
	// it is gone.
	vanished bool
}

// stream is what is on its way to one end.
type stream struct {
	cond     *sync.Cond
	chunks   []chunk
	deadline time.Time
	timer    *time.Timer
}

type chunk struct {
	at   time.Time // when it arrives
	data *bytes.Buffer
	eof  bool
}

// abort breaks the connection for both ends. It needs n.mu.
func (c *simConn) abort() {
	for _, e := range []*simConn{c, c.peer} {
		e.reset = true
		delete(c.path.conns, e)
		e.in.cond.Broadcast()
	}
}

func (c *simConn) Read(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.reset:
			return 0, errors.New("connection reset by peer")
		case !c.in.deadline.IsZero() && !now.Before(c.in.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		if len(c.in.chunks) > 0 && !c.path.stuck(c.local) {
			head := &c.in.chunks[0]
			if wait := head.at.Sub(now); wait > 0 {
				time.AfterFunc(wait, c.in.cond.Broadcast)
			} else if head.eof {
				return 0, io.EOF
			} else {
				k, _ := head.data.Read(b)
				if head.data.Len() == 0 {
					c.in.chunks = c.in.chunks[1:]
				}
				return k, nil
			}
		}
		c.in.cond.Wait()
	}
}

func (c *simConn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.peer.vanished && !c.path.up && !c.path.down && !c.n.dead[c.peer.local]:
		c.abort() // the computer is back and knows nothing of this connection
		return 0, errors.New("connection reset by peer")
	case c.reset || c.peer.closed && !c.peer.vanished && !c.path.stuck(c.local):
		return 0, errors.New("broken pipe")
	}
	c.send(chunk{data: bytes.NewBuffer(bytes.Clone(b))})
	return len(b), nil
}

// send needs n.mu.
func (c *simConn) send(x chunk) {
	if c.vanished || c.peer.vanished {
		return
	}
	x.at = time.Now().Add(c.path.delay)
	c.peer.in.chunks = append(c.peer.in.chunks, x)
	c.peer.in.cond.Broadcast()
}

func (c *simConn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	delete(c.path.conns, c)
	if c.in.timer != nil {
		c.in.timer.Stop()
	}
	c.in.cond.Broadcast()
	c.send(chunk{eof: true})
	return nil
}

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.in.deadline = t
	if c.in.timer != nil {
		c.in.timer.Stop()
		c.in.timer = nil
	}
	if !t.IsZero() && !c.closed {
		c.in.timer = time.AfterFunc(time.Until(t), c.in.cond.Broadcast)
	}
	c.in.cond.Broadcast()
	return nil
}

// SetWriteDeadline does nothing: writing never waits.
func (c *simConn) SetWriteDeadline(time.Time) error { return nil }

func (c *simConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
func (c *simConn) LocalAddr() net.Addr           { return simAddr(c.local) }
func (c *simConn) RemoteAddr() net.Addr          { return simAddr(c.peer.local) }

package wire

import (
	"container/list"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// limitConn is a connection within the Bounds of its listener.
type limitConn struct {
	*paced // as a satellite
	l      *limitListener
	from   string
	leave  sync.Once
	proved atomic.Bool
	got    int    // of a stranger, in bytes; the reader's alone
	turn   func() // ends the turn of its handshake; the handshake's alone

	// Guarded by l.mu.
	place   *list.Element // in l.silent
	machine *member       // whose it is; nil: a stranger's
	charged bool          // a handshake was taken from l.handshakes
	gone    bool
}

var (
	errTooMuch = errors.New("it sends much and proves nothing")
	errSilent  = errors.New("it said nothing and had to make way for another one")
)

// Read implements net.Conn.
func (c *limitConn) Read(p []byte) (int, error) {
	if c.proved.Load() {
		return c.paced.Read(p)
	}
	n, err := c.Conn.Read(p)
	if c.got += n; c.got > strangerBytes {
		return 0, errTooMuch
	}
	return n, err
}

// Write implements net.Conn. A stranger has the deadline of the handshake.
func (c *limitConn) Write(p []byte) (int, error) {
	if c.proved.Load() {
		return c.paced.Write(p)
	}
	return c.Conn.Write(p)
}

// greeted, excused and prove are called by the credentials.
func (c *limitConn) greeted() error { return c.l.greeted(c, time.Now()) }

func (c *limitConn) excused() { c.l.excused(c, time.Now()) }

func (c *limitConn) prove(id string) error {
	if err := c.l.proved(c, id, time.Now()); err != nil {
		return err
	}
	c.proved.Store(true)
	return nil
}

// evict ends a silent connection without waiting for anything.
func (c *limitConn) evict() {
	c.l.left(c, time.Now())
	c.Conn.Close()
}

// Close lets a refused peer read why: closing while it still sends would throw
// the TLS alert away that is on its way to it. In a flood that courtesy ends.
func (c *limitConn) Close() (err error) {
	c.leave.Do(func() {
		if c.l.left(c, time.Now()) && c.l.farewell(1) {
			linger(c.Conn)
			c.l.farewell(-1)
		}
		err = c.paced.Close()
	})
	return err
}

// farewell counts the connections that linger and tells whether there may be so
// many.
func (l *limitListener) farewell(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lingering+n > lingerConns {
		return false
	}
	l.lingering += n
	return true
}

func linger(c net.Conn) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c, lingerBytes)
}

// How long and how much refused peers are listened to, and how many at once.
const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
	lingerConns = 64
)

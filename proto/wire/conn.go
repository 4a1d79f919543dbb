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
	net.Conn
	l      *limitListener
	from   string
	once   sync.Once
	closed chan struct{}

	proved atomic.Bool
	got    int    // of a stranger, in bytes; the reader's alone
	bytes  Bucket // of a satellite; the reader's alone

	// Guarded by l.mu.
	place   *list.Element // in l.silent
	machine *member       // whose it is; nil: a stranger's
	charged bool          // a handshake was taken from l.handshakes
	gone    bool
}

// writeWithin is how long the other end may take nothing in. A satellite that
// sends and never reads would have its answers pile up here.
const writeWithin = KeepaliveTime + KeepaliveTimeout

var (
	errTooMuch = errors.New("it sends much and proves nothing")
	errSilent  = errors.New("it said nothing and had to make way for another one")
)

// Read implements net.Conn. A satellite that sends faster than it may is read
// more slowly, so that its own network holds it up and not our processors.
func (c *limitConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.proved.Load() {
		if c.got += n; c.got > strangerBytes {
			return 0, errTooMuch
		}
		return n, err
	}
	if wait := c.bytes.Spend(time.Now(), float64(n)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-c.closed:
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *limitConn) Write(p []byte) (int, error) {
	if c.proved.Load() {
		c.Conn.SetWriteDeadline(time.Now().Add(writeWithin))
	}
	return c.Conn.Write(p)
}

// greeted and prove are called by the credentials.
func (c *limitConn) greeted() error { return c.l.greeted(c, time.Now()) }

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
	c.once.Do(func() {
		close(c.closed)
		if c.l.left(c, time.Now()) && c.l.farewell(1) {
			linger(c.Conn)
			c.l.farewell(-1)
		}
		err = c.Conn.Close()
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

package wire

import (
	"net"
	"sync"
	"time"
)

// writeWithin is how long the other end may take nothing in. Who sends and
// never reads would have its answers pile up here.
const writeWithin = KeepaliveTime + KeepaliveTimeout

// Pace returns c with bounds: in the long run no more than rate bytes a second
// are read, burst of them at once, so that a peer who sends without a pause is
// held up by its own end and takes none of our processors. A peer who reads
// nothing for 15 s fails the write. One goroutine at a time may read.
func Pace(c net.Conn, rate, burst float64) net.Conn { return newPaced(c, rate, burst) }

type paced struct {
	net.Conn
	bytes  Bucket
	once   sync.Once
	closed chan struct{}
}

func newPaced(c net.Conn, rate, burst float64) *paced {
	return &paced{Conn: c, bytes: Bucket{Rate: rate, Burst: burst}, closed: make(chan struct{})}
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.wait(n)
	return n, err
}

// wait lets the time pass that n bytes take.
func (p *paced) wait(n int) {
	if wait := p.bytes.Spend(time.Now(), float64(n)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-p.closed:
		}
	}
}

func (p *paced) Write(b []byte) (int, error) {
	p.Conn.SetWriteDeadline(time.Now().Add(writeWithin))
	return p.Conn.Write(b)
}

func (p *paced) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

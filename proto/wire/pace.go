package wire

import (
	"net"
	"sync"
	"time"
)

// writeWithin is how long the other end may take nothing in. Who sends and
// never reads would have its answers pile up here.
const writeWithin = KeepaliveTime + KeepaliveTimeout

// longestWait is after what time a connection is looked at again, whatever was
// sent: by then its peer may have gone.
const longestWait = 5 * time.Second

// Pace returns c with bounds: in the long run no more than rate bytes a second
// are read, burst of them at once, so that a peer who sends without a pause is
// held up by its own end and takes none of our processors. A peer who reads
// nothing for 15 s fails the write.
func Pace(c net.Conn, rate, burst float64) net.Conn {
	return &paced{Conn: c, pace: newPace(rate, burst), closed: make(chan struct{})}
}

// pace is a Bucket of bytes, of one connection or of all of one machine.
type pace struct {
	mu     sync.Mutex
	bucket Bucket // guarded by mu
}

func newPace(rate, burst float64) *pace { return &pace{bucket: Bucket{Rate: rate, Burst: burst}} }

func (p *pace) spend(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bucket.Spend(time.Now(), float64(n))
}

type paced struct {
	net.Conn
	pace   *pace
	once   sync.Once
	closed chan struct{}
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if wait := min(longestWait, p.pace.spend(n)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-p.closed:
		}
	}
	return n, err
}

func (p *paced) Write(b []byte) (int, error) {
	p.Conn.SetWriteDeadline(time.Now().Add(writeWithin))
	return p.Conn.Write(b)
}

func (p *paced) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Conn.Close()
}

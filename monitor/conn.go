package monitor

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// style is how a connection is written to.
type style struct {
	verbose, progress bool
	format            Format
}

// conn is one connection. Its own goroutine reads, executes and answers one
// command after the other; a second one exists while events are on.
type conn struct {
	s      *server
	nc     net.Conn
	raw    syscall.RawConn // of nc; nil where it has none
	in     lineReader
	caller Caller
	level  Level
	start  time.Time

	session  bool          // stays open without commands
	began    bool          // a byte has come
	linger   time.Duration // of a short connection, now
	last     time.Time     // when something came or was answered
	due      time.Time     // when the present wait is over; zero: never
	armed    time.Time     // the deadline of nc, not later than due
	yielded  time.Time     // when others were last let in
	answered bool          // everything before the next line was answered
	waited   bool          // the next line was waited for after that
	quit     bool          // the last reply was sent
	events   *subscription // nil: off

	// mu guards out, style and writing to nc: whoever holds it may append
	// whole replies or events and write them.
	mu    sync.Mutex
	out   []byte
	style style
	dead  error // the first failure to write: the client is gone
}

// Replies are gathered up to this size before they are written.
const gather = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

// ErrStopping is what a command returns that ends because the master stops: the
// connection is told 421.
var ErrStopping = errors.New("the master stops")

var errQuiet = errors.New("the time of the connection is over")

func newConn(s *server, nc net.Conn, caller Caller) *conn {
	now := time.Now()
	c := &conn{s: s, nc: nc, caller: caller, level: Admin, start: now, last: now, linger: s.set().Linger}
	if caller.UID != 0 {
		c.level = s.levels().level(s.cfg.Directory, caller)
	}
	c.in.nc, c.in.block, c.in.arrived, c.in.failed = nc, c.block, c.gotBytes, c.readError
	if u, ok := nc.(*net.UnixConn); ok {
		c.raw, _ = u.SyscallConn()
	}
	return c
}

// serve works the connection off and closes it.
func (c *conn) serve() {
	// Wake the reader, and give a blocked writer little time.
	awake := context.AfterFunc(c.s.stopping, func() {
		c.nc.SetReadDeadline(time.Unix(1, 0))
		c.nc.SetWriteDeadline(time.Now().Add(stopWrite))
	})
	defer awake()
	err := c.loop()
	subscribed := c.events != nil
	c.unsubscribe()
	switch {
	case errors.Is(err, ErrStopping):
		c.mu.Lock()
		if subscribed {
			c.encode(func(r *Row) { r.end(652, nil, "The cluster master is stopping.") })
		}
		c.encode(func(r *Row) {
			r.end(421, []Pair{{"reason", "stopping"}}, "The cluster master is stopping and closes the connection.")
		})
		c.mu.Unlock()
	case errors.Is(err, errQuiet) && c.session:
		c.mu.Lock()
		c.encode(func(r *Row) {
			r.end(421, []Pair{{"reason", "idle"}}, "The connection was idle for too long and is closed.")
		})
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.flush()
	dead := c.dead
	c.release()
	c.mu.Unlock()
	if dead != nil || err == nil && c.in.eof {
		c.nc.Close()
		return
	}
	part(c.nc, time.Second)
}

// loop answers commands until the connection is to end. It returns nil after
// quit or the end of the stream.
func (c *conn) loop() error {
	for {
		if c.s.stopping.Err() != nil {
			return ErrStopping
		}
		line, ended, err := c.in.next()
		switch {
		case errors.Is(err, errTooLong):
			c.arrive()
			c.answerError(refusef(504, "the line is longer than %d bytes", maxLine))
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		default:
			c.arrive()
			if err := c.execute(string(line), ended); err != nil {
				return err
			}
		}
		if c.quit || c.gone() {
			return nil
		}
		c.answered = true
		c.last = time.Now()
		// Who sends without a pause is never waited for: others take turns.
		if c.last.Sub(c.yielded) > turn {
			runtime.Gosched()
			c.yielded = time.Now()
		}
	}
}

// turn is how long a connection works before others are let in. The scheduler
// by itself gives each ten times as much, and a satellite's call would wait
// for all connections that are busy.
const turn = time.Millisecond

// arrive counts a line that came after everything before it was answered: who
// converses is not cut off.
func (c *conn) arrive() {
	if c.waited {
		c.linger = min(4*c.linger, c.s.cfg.MaxLinger)
	}
	c.waited, c.answered = false, false
}

// gotBytes is called when something came from the client.
func (c *conn) gotBytes() {
	c.last = time.Now()
	if !c.began {
		c.began = true
		if c.last.Sub(c.start) > c.s.cfg.Typing {
			c.session = true // somebody types
		}
	}
}

// block is called before a read that may wait.
func (c *conn) block() error {
	c.mu.Lock()
	c.flush()
	if cap(c.out) > gather {
		c.release() // a connection that is silent holds no large list
	}
	dead := c.dead
	c.mu.Unlock()
	if dead != nil {
		return dead
	}
	c.waited = c.waited || c.answered
	var deadline time.Time
	switch idle := c.s.set().Idle; {
	case !c.began:
		deadline = c.start.Add(c.s.cfg.FirstByte)
	case c.session && idle > 0:
		deadline = c.last.Add(idle)
	case !c.session && c.linger > 0:
		deadline = c.last.Add(c.linger)
	}
	// Setting a deadline costs more than a command. One that is too early does
	// no harm: readError looks whether the time has truly come.
	if deadline.IsZero() != c.armed.IsZero() || deadline.Before(c.armed) {
		c.nc.SetReadDeadline(deadline)
		c.armed = deadline
	}
	c.due = deadline
	if c.s.stopping.Err() != nil {
		return ErrStopping // its wake-up may have come before our deadline
	}
	return nil
}

// readError gives a failure of reading its meaning; nil where reading is to
// go on.
func (c *conn) readError(err error) error {
	switch {
	case c.s.stopping.Err() != nil:
		return ErrStopping
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case !c.due.IsZero() && !time.Now().Before(c.due):
		return errQuiet
	}
	c.armed = time.Time{}
	c.nc.SetReadDeadline(c.armed)
	return nil
}

func (c *conn) gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dead != nil
}

// encode appends to what is to be written; c.mu is held.
func (c *conn) encode(f func(*Row)) {
	if c.dead != nil {
		return
	}
	if c.out == nil {
		c.out = (*buffers.Get().(*[]byte))[:0]
	}
	r := Row{buf: c.out, format: c.style.format, human: c.s.cfg.Human, limit: stringLimit}
	f(&r)
	c.out = r.buf
}

// answer appends a reply. It is written when enough is gathered or when the
// connection has to wait for the client.
func (c *conn) answer(p *Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.out)
	defer func() {
		if v := recover(); v != nil {
			c.out = c.out[:before]
			panic(v) // dispatch answers it
		}
	}()
	c.encode(func(r *Row) { r.reply(p) })
	if len(c.out) >= gather {
		c.flush()
	}
}

// tell writes a line that is complete by itself at once.
func (c *conn) tell(code int, pairs []Pair, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.encode(func(r *Row) { r.end(code, pairs, text) })
	c.flush()
}

// release gives the buffer back; c.mu is held and everything was written.
func (c *conn) release() {
	if b := c.out; b != nil && cap(b) <= 4<<20 {
		buffers.Put(&b)
	}
	c.out = nil
}

// stopWrite is how long a client may take to read when the master stops.
const stopWrite = 2 * time.Second

// flush writes what was gathered; c.mu is held. A client that takes nothing
// for WriteTimeout is gone.
func (c *conn) flush() {
	rest := c.out
	c.out = c.out[:0]
	if len(rest) == 0 || c.dead != nil {
		return
	}
	rest = rest[c.writeNow(rest):]
	if len(rest) == 0 {
		return
	}
	waiting := c.unread()
	for len(rest) > 0 && c.dead == nil {
		limit := c.s.cfg.WriteTimeout
		c.nc.SetWriteDeadline(time.Now().Add(limit))
		if c.s.stopping.Err() != nil {
			c.nc.SetWriteDeadline(time.Now().Add(min(limit, stopWrite)))
		}
		n, err := c.nc.Write(rest)
		rest = rest[n:]
		left := c.unread()
		// The kernel lets us write only when the client has read most of what
		// waits for it: one that reads slowly is not one that does not read.
		reads := (n > 0 || left < waiting) && c.s.stopping.Err() == nil
		if err != nil && (!reads || !errors.Is(err, os.ErrDeadlineExceeded)) {
			c.dead = err
		}
		waiting = left
	}
	c.nc.SetWriteDeadline(time.Time{})
}

// unread is how much the kernel holds for the client.
func (c *conn) unread() (n int) {
	if c.raw != nil {
		c.raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	}
	return n
}

// writeNow writes what the kernel takes at once: no deadline has to be set for
// it, which costs more than a short reply. Errors are left to the next write.
func (c *conn) writeNow(b []byte) (n int) {
	if c.raw == nil {
		return 0
	}
	c.raw.Write(func(fd uintptr) bool {
		n, _ = unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	})
	return max(n, 0)
}

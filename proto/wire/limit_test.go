package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"
)

// pipes is a listener whose connections are pipes inside a bubble.
type pipes struct {
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newPipes() *pipes { return &pipes{in: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.in:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// from is a pipe's end that comes from an address.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1000} }

// dial connects from an address.
func (p *pipes) dial(ip string) net.Conn {
	a, b := net.Pipe()
	p.in <- from{a, ip}
	return b
}

// port is a Limit whose connections are handed to the test.
type port struct {
	*pipes
	l    net.Listener
	in   chan *limitConn
	said []string // of the log
	mu   sync.Mutex
}

func newPort(t *testing.T, b Bounds) *port {
	p := &port{pipes: newPipes(), in: make(chan *limitConn, 100000)}
	b.Report = func(r Report) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.said = append(p.said, r.Err.Error())
	}
	p.l = Limit(p.pipes, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			p.in <- c.(*limitConn)
		}
	}()
	t.Cleanup(func() { p.Close(); <-done })
	return p
}

// taken is the connection that was let in last, or nil.
func (p *port) taken() *limitConn {
	synctest.Wait()
	select {
	case c := <-p.in:
		return c
	default:
		return nil
	}
}

// closed tells whether the other end has closed.
func closed(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// Row A: whoever says nothing makes way for who does, and is not even refused
// while there is room; one who has begun a handshake is never thrown out.
func TestSilenceKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 10, PerAddress: 10}) // 5 for strangers
		var silent []net.Conn
		for i := range 5 {
			silent = append(silent, p.dial(fmt.Sprintf("192.0.2.%d", i)))
			if c := p.taken(); c == nil {
				t.Fatalf("stranger %d was refused", i)
			} else if i == 0 {
				if err := c.greeted(); err != nil {
					t.Fatal(err)
				}
			}
		}
		p.dial("198.51.100.1")
		honest := p.taken()
		if honest == nil || honest.greeted() != nil || honest.prove("sat1") != nil {
			t.Fatal("a satellite was kept out by strangers")
		}
		for i, c := range silent {
			if got, want := closed(c), i == 1; got != want {
				t.Errorf("stranger %d: closed %v, want %v: the oldest silent one makes way", i, got, want)
			}
		}
		// All busy with handshakes: then the newest is refused.
		for len(p.in) > 0 {
			<-p.in
		}
		p2 := newPort(t, Bounds{Total: 4, PerAddress: 10})
		for range 2 {
			p2.dial("192.0.2.1")
			p2.taken().greeted()
		}
		if last := p2.dial("192.0.2.2"); p2.taken() != nil || !closed(last) {
			t.Error("one more stranger was let in")
		}
		if fmt.Sprint(p2.said) != "[2 connections have not proved yet who they are]" {
			t.Errorf("log: %v", p2.said)
		}
	})
}

// Row A: what proves nothing may come 10 times a second from one address, in a
// burst 64 times; what proves itself is not counted, nor are the others.
func TestFailuresOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 1000, PerAddress: 10})
		try := func(ip string) bool {
			c := p.dial(ip)
			defer c.Close()
			lc := p.taken()
			if lc == nil {
				return false
			}
			lc.Close()
			return true
		}
		n := 0
		for try("192.0.2.1") {
			n++
		}
		if n != addressBurst {
			t.Errorf("%d failures at once, want %d", n, addressBurst)
		}
		if !try("192.0.2.2") {
			t.Error("another address was refused")
		}
		time.Sleep(time.Second)
		for n = 0; try("192.0.2.1"); n++ {
		}
		if n != addressRate {
			t.Errorf("%d more after a second, want %d", n, addressRate)
		}
		for i := range 500 {
			c := p.dial("192.0.2.2")
			lc := p.taken()
			if lc == nil || lc.greeted() != nil || lc.prove(fmt.Sprint("sat", i)) != nil {
				t.Fatalf("satellite %d was refused", i)
			}
			lc.Close()
			c.Close()
		}
		if len(p.said) > 2*burst {
			t.Errorf("%d lines of log", len(p.said))
		}
	})
}

// Row A: handshakes of strangers take no more than so much of a processor, but
// for those right after the start; addresses with satellites are not among them.
func TestHandshakesOfStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 2 * (handshakeBurst + 500), PerAddress: 32}) // 500 more, once
		next := func(i int) *limitConn {
			p.dial(fmt.Sprintf("10.0.%d.%d", i/250, i%250))
			return p.taken()
		}
		known := next(0)
		if known.greeted() != nil || known.prove("sat1") != nil {
			t.Fatal("the first satellite was refused")
		}
		var begun []*limitConn
		flood := func(want int) {
			n := 0
			for i := range handshakeBurst + 600 {
				c := next(1 + i)
				if c != nil && c.greeted() == nil {
					begun = append(begun, c)
					n++
				}
				if c != nil && len(begun) > 1000 { // places are not what is looked at
					begun[0].Close()
					begun = begun[1:]
				}
			}
			if n != want {
				t.Errorf("%d handshakes at once, want %d", n, want)
			}
		}
		flood(handshakeBurst + 500)
		time.Sleep(handshakeBurst / handshakeRate * time.Second)
		flood(handshakeBurst)

		// Who is refused for want of a turn gets back what it was charged.
		time.Sleep(handshakeBurst / handshakeRate * time.Second)
		for i := range 2 * handshakeBurst {
			c := next(1 + i)
			if c == nil || c.greeted() != nil {
				t.Fatalf("handshake %d was refused, though those before were excused", i)
			}
			c.excused()
			c.Close()
		}
		for range 10 {
			if c := next(0); c == nil || c.greeted() != nil {
				t.Error("the address of a satellite was refused")
			}
		}
	})
}

// Row D: one certificate gets few connections, and few new ones.
func TestOneIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 1000, PerAddress: 32})
		prove := func(id string) (*limitConn, error) {
			p.dial("192.0.2.1")
			c := p.taken()
			if err := c.greeted(); err != nil {
				return c, err
			}
			return c, c.prove(id)
		}
		var open []*limitConn
		for range identityConns {
			c, err := prove("rogue")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		if open[0].pace != open[1].pace {
			t.Error("each of its connections has a pace of its own")
		}
		c, err := prove("rogue")
		if err != errConns {
			t.Errorf("got %v, want %v", err, errConns)
		}
		c.Close()
		if _, err := prove("honest"); err != nil {
			t.Errorf("another machine: %v", err)
		}
		for _, c := range open {
			c.Close()
		}
		for err = nil; err == nil; {
			if c, err = prove("rogue"); err == nil {
				c.Close()
			}
		}
		if err != errOften {
			t.Errorf("got %v, want %v", err, errOften)
		}
		time.Sleep(2 * time.Second)
		if _, err := prove("rogue"); err != nil {
			t.Errorf("after two seconds: %v", err)
		}
	})
}

// S21: a stranger who sends much is closed, a satellite is read at its pace.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 10, PerAddress: 10})
		pump := func(c net.Conn) {
			for b := make([]byte, 16<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
		stranger := p.dial("192.0.2.1")
		c := p.taken()
		go pump(stranger)
		n, err := io.Copy(io.Discard, c)
		if n > strangerBytes || !errors.Is(err, errTooMuch) {
			t.Errorf("read %d bytes of a stranger: %v", n, err)
		}
		c.Close()
		stranger.Close()

		satellite := p.dial("192.0.2.1")
		c = p.taken()
		if c.greeted() != nil || c.prove("sat1") != nil {
			t.Fatal("refused")
		}
		go pump(satellite)
		began := time.Now()
		if _, err := io.CopyN(io.Discard, c, satelliteBurst); err != nil || time.Since(began) > 0 {
			t.Errorf("the burst: %v, took %v", err, time.Since(began))
		}
		if _, err := io.CopyN(io.Discard, c, 10*satelliteRate); err != nil || time.Since(began) < 9*time.Second || time.Since(began) > 11*time.Second {
			t.Errorf("10 s of bytes: %v, took %v", err, time.Since(began))
		}
		// Who reads nothing for long is gone.
		began = time.Now()
		for err = nil; err == nil; {
			_, err = c.Write(make([]byte, 1<<10))
		}
		if took := time.Since(began); took != writeWithin {
			t.Errorf("a write to who does not read took %v, want %v", took, writeWithin)
		}
		c.Close()
		satellite.Close()
	})
}

// Row D: calls that are begun and taken back at once cost few bytes, but count
// like others.
func TestCallsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 10, PerAddress: 10})
		c := p.dial("192.0.2.1")
		l := p.taken()
		if l.greeted() != nil || l.prove("sat1") != nil {
			t.Fatal("refused")
		}
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: provedInfo{conn: l}})
		for range satelliteBurst / callBytes {
			charge(ctx, nil)
		}
		if got := l.pace.spend(0); got != 0 {
			t.Errorf("2000 calls at once: the next waits for %v", got)
		}
		for range satelliteRate / callBytes {
			charge(ctx, nil)
		}
		go c.Write([]byte("x"))
		began := time.Now()
		if _, err := l.Read(make([]byte, 1)); err != nil || time.Since(began).Round(time.Millisecond) != time.Second {
			t.Errorf("%d more: the next waits for %v (%v), want 1 s", satelliteRate/callBytes, time.Since(began), err)
		}
		c.Close()
		l.Close()
	})
}

// LV1: satellites that all come back at once, after a restart of the master,
// are all there soon, from however few addresses they come.
func TestAllComeBack(t *testing.T) {
	tests := map[string]struct {
		satellites, addresses int
		within                time.Duration
	}{
		"from one address":              {1000, 1, 15 * time.Second},
		"from four addresses":           {1000, 4, 15 * time.Second},
		"from as many addresses":        {1000, 1000, 10 * time.Second},
		"three thousand, few addresses": {3000, 12, 45 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// A handshake takes 5 ms of the one processor, as measured on a
				// small machine that does other things besides.
				const cost = 5 * time.Millisecond
				p := newPort(t, Bounds{Total: 16384, PerAddress: 32})
				work := make(chan *limitConn, 1<<16)
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				all.Go(func() {
					for {
						select {
						case c := <-p.in:
							if c.greeted() == nil {
								work <- c
							} else {
								c.Close()
							}
						case <-ctx.Done():
							return
						}
					}
				})
				all.Go(func() {
					for {
						select {
						case c := <-work:
							time.Sleep(cost)
							if c.prove(NewUUID()) != nil {
								t.Error("a satellite that had proved itself was refused")
							}
							if _, err := c.Conn.Write([]byte{1}); err != nil { // the welcome
								c.Close() // it has given up meanwhile
							}
						case <-ctx.Done():
							return
						}
					}
				})
				began := time.Now()
				var back sync.WaitGroup
				for i := range test.satellites {
					back.Go(func() { comeBack(p, fmt.Sprintf("10.1.%d.%d", i%test.addresses/250, i%test.addresses%250)) })
				}
				back.Wait()
				took := time.Since(began)
				t.Logf("%d satellites from %d addresses were back after %v", test.satellites, test.addresses, took)
				if took > test.within {
					t.Errorf("they took %v, want at most %v", took, test.within)
				}
				cancel()
				all.Wait()
			})
		})
	}
}

// comeBack connects as a satellite does, until it is welcomed: satellite/link
// has the same delays.
func comeBack(p *port, ip string) {
	for delay := time.Second; ; delay = min(5*time.Second, delay*16/10) {
		time.Sleep(time.Duration(rand.Float64() * float64(delay)))
		c := p.dial(ip)
		c.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			return
		}
		c.Close()
	}
}

// The log of a flood is short, and nothing in it comes from the stranger.
func TestFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPort(t, Bounds{Total: 1000, PerAddress: 5})
		for range 1000 {
			p.dial("192.0.2.1")
		}
		synctest.Wait()
		if n := len(p.said); n != burst || !strings.Contains(p.said[0], "5 connections from 192.0.2.1 have not proved yet who they are") {
			t.Errorf("%d lines: %q", n, p.said)
		}
	})
}

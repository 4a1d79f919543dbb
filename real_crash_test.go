package main

import (
	"io"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// V-91 in both policies, and what waits beside it: while the lease of a silent
// server runs out, the other stories are played.
func TestRealLost(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	lease := values{"WIN4_VERDE_LOST_SESSIONS": "lease", "WIN4_VERDE_LEASE_SELF": "20"}
	r.master(lease, "")
	r.run(0, "verdecmd", "settings", "set", "--settings", r.path("m"), "WIN4_VERDE_LEASE_REPLACE", "52")
	r.all[0].kill()
	r.all[0].start()
	r.until("the socket", r.ready)
	p := newProxy(t, "127.0.0.1:"+r.port)
	through := maps.Clone(lease)
	through["WIN4_VERDE_CMADDR"] = p.Addr().String()
	r.satellite(1, through, "")
	r.satellite(2, lease, "")
	r.admin("offlineserver", "2")
	r.win4(0, 1, "alice")
	r.admin("onlineserver", "2")
	p.cut()
	cut := time.Now()
	r.until("the loss", func() bool { return strings.Contains(r.admin("users"), "\tlost\t") })
	if out := r.win4(1, 2, "alice"); !strings.Contains(out, "server 1 (sat1), which has been silent") || !strings.Contains(out, "else the session counts as ended in") {
		t.Errorf("while the lease runs: %s", out)
	}

	t.Run("hold", realHold)

	// The satellite ends the desktop by itself, and long after that the user is
	// let in elsewhere, with no word of an administrator. That the two desktops
	// are never there together is what the witness sees (S1).
	r.until("the end of the desktop", func() bool { return len(r.desktops()) == 0 })
	if took := time.Since(cut); took < 15*time.Second {
		t.Errorf("the desktop was ended after %v, with a lease of 20 s", took)
	}
	r.until("the end of the lease", func() bool {
		_, code := r.try("win4", "--satellite", r.path("sat2"), "--user", "alice")
		return code == 0
	})
	if took := time.Since(cut); took < 50*time.Second {
		t.Errorf("the user was let in after %v, want not before 52 s", took)
	}
	if n := len(r.desktops()); n != 1 {
		t.Errorf("%d desktops", n)
	}
}

// V-91, hold: refused with the server, its silence and the command; after the
// administrator's word the login works.
func realHold(t *testing.T) {
	r := newReal(t)
	r.master(nil, "")
	dead := r.satellite(1, nil, "")
	r.satellite(2, nil, "")
	r.admin("offlineserver", "2")
	r.win4(0, 1, "alice")
	r.admin("onlineserver", "2")
	dead.kill() // and all that it ran: the power is off
	for pid := range r.desktops() {
		check(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	r.until("the loss", func() bool { return strings.Contains(r.admin("users"), "\tlost\t") })
	if out := r.win4(1, 2, "alice"); !strings.Contains(out, "server 1 (sat1), which has been silent") || !strings.Contains(out, `"fenceserver 1"`) {
		t.Errorf("hold: %s", out)
	}
	r.admin("fenceserver", "1")
	r.win4(0, 2, "alice")

	// V-36: what the dead satellite's sessions left on its disk goes when it is back.
	if left, _ := os.ReadDir(r.path("snapsat1")); len(left) != 1 {
		t.Errorf("left after the crash: %v, want the directory of the session", left)
	}
	dead.start()
	r.until("the sweep", func() bool { left, _ := os.ReadDir(r.path("snapsat1")); return len(left) == 0 })
	if n := len(r.desktops()); n != 1 {
		t.Errorf("%d desktops of alice", n)
	}
}

// metric is the value of a metric of the master without labels.
func metric(r *real, name string) string {
	r.t.Helper()
	for line := range strings.Lines(r.admin("metrics")) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	r.t.Fatalf("no metric %s", name)
	return ""
}

// proxy is a line between a satellite and the master that can be cut.
type proxy struct {
	net.Listener
	mu    sync.Mutex // guards what follows
	conns []net.Conn
	off   bool
	lose  func() bool // answers are lost as soon as it says so; nil: none is
}

func newProxy(t *testing.T, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &proxy{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			if !p.take(a, b) {
				continue
			}
			wg.Go(func() { io.Copy(lossy{a, p}, b); a.Close() })
			wg.Go(func() { io.Copy(b, a); b.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); p.cut(); wg.Wait() })
	return p
}

// lossy is where answers go, or are lost.
type lossy struct {
	io.Writer
	p *proxy
}

func (a lossy) Write(b []byte) (int, error) {
	a.p.mu.Lock()
	lose := a.p.lose
	a.p.mu.Unlock()
	if lose != nil && lose() {
		return len(b), nil
	}
	return a.Writer.Write(b)
}

func (p *proxy) take(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.off {
		for _, c := range conns {
			c.Close()
		}
		return false
	}
	p.conns = append(p.conns, conns...)
	return true
}

// cut ends all connections, and every new one at once.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
	for _, c := range p.conns {
		c.Close()
	}
}

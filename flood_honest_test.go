package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// honest are those who use a cluster while it is flooded: what they wait for is
// measured.
type honest struct {
	r     *real
	creds *wire.Credentials
	bin   string // directory of programs that are built as users get them

	mu    sync.Mutex // guards all below
	took  map[string][]time.Duration
	wrong []string
}

// The deeds that are measured.
const (
	refers = "login decided"  // a place found by the master, over a link that is there
	logins = "login"          // of a user at a satellite, until the desktop is started
	asks   = "command"        // of an administrator: connect, ask, read the answer
	comes  = "satellite back" // a satellite connects, proves itself and is welcomed
)

func (h *honest) note(deed string, began time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took[deed] = append(h.took[deed], time.Since(began))
	if err != nil {
		h.wrong = append(h.wrong, fmt.Sprintf("%s: %v", deed, err))
	}
}

// times takes what was measured since the last time.
func (h *honest) times() (took map[string][]time.Duration, wrong []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	took, wrong = h.took, h.wrong
	h.took, h.wrong = map[string][]time.Duration{}, nil
	for _, d := range took {
		slices.Sort(d)
	}
	return took, wrong
}

// did waits until each deed has been done once since the last call of times.
func (h *honest) did(t *testing.T) {
	t.Helper()
	h.r.until("the honest ones", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return !slices.ContainsFunc([]string{refers, logins, asks, comes}, func(deed string) bool { return len(h.took[deed]) == 0 })
	})
}

// quantile of what is sorted.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(len(d)-1, int(q*float64(len(d))))].Round(100 * time.Microsecond)
}

// start lets all of them work until the test ends.
func (h *honest) start(t *testing.T) {
	h.took = map[string][]time.Duration{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	every := func(d time.Duration, f func()) {
		all.Go(func() {
			tick := time.NewTicker(d)
			defer tick.Stop()
			for ctx.Err() == nil {
				f()
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	conn, attachment, err := h.attach(ctx, "honest", "127.3.0.1")
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	n := 0
	every(50*time.Millisecond, func() {
		began := time.Now()
		n++
		ctx, cancel := context.WithTimeout(ctx, mostWait)
		defer cancel()
		err := again(ctx, func() error {
			_, err := pb.NewLinkClient(conn).Refer(ctx, &pb.ReferRequest{User: fmt.Sprint("user", n), Uid: uint32(40000 + n), Client: "local",
				Need: &pb.Need{MemoryBytes: 64 << 20}, Attachment: attachment})
			return err
		})
		if ctx.Err() != context.Canceled {
			h.note(refers, began, err)
		}
	})
	i := 0
	every(time.Second, func() {
		began := time.Now()
		i++
		c, _, err := h.attach(ctx, "coming", "127.3.1."+strconv.Itoa(1+i%200))
		if ctx.Err() == nil {
			h.note(comes, began, err)
		}
		if c != nil {
			c.Close()
		}
	})
	every(100*time.Millisecond, func() {
		began := time.Now()
		err := h.ask("servers")
		h.note(asks, began, err)
	})
	u := 0
	every(200*time.Millisecond, func() {
		user := realUsers[u%6]
		u++
		began := time.Now()
		err := again(ctx, func() error { return h.login(user) })
		if ctx.Err() != nil {
			return
		}
		h.note(logins, began, err)
		if err := h.ask("abortuser " + user); err != nil {
			h.note(asks, began, err)
		}
	})
}

// attach opens a link as a satellite that has no room for desktops.
func (h *honest) attach(ctx context.Context, instance, from string) (*grpc.ClientConn, uint64, error) {
	name := map[string]string{"honest": "sat3", "coming": "sat4"}[instance]
	creds, err := wire.Load(h.r.path("k"+name), wire.Satellite)
	if err != nil {
		return nil, 0, err
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	cc, err := grpc.NewClient("passthrough:///127.0.0.1:"+h.r.port, append(wire.DialOptions(creds),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return d.DialContext(ctx, "tcp", a) }))...)
	if err != nil {
		return nil, 0, err
	}
	opening, cancel := context.WithTimeout(ctx, mostWait)
	defer cancel()
	// The stream must outlive its opening.
	s, err := pb.NewLinkClient(cc).Attach(ctx, grpc.WaitForReady(true))
	stop := context.AfterFunc(opening, func() {
		if opening.Err() == context.DeadlineExceeded {
			cc.Close()
		}
	})
	defer stop()
	report := &pb.Report{Load: &pb.Load{MemoryTotal: 1 << 20}, Sessions: &pb.Sessions{}}
	if err == nil {
		err = s.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: &pb.Hello{Protocol: wire.Protocol, Version: version, Address: from, Instance: instance, Report: report,
			Facts: &pb.HostFacts{Arch: "x86_64", Cpus: 1, MemoryBytes: 1 << 20, Accelerator: "tcg"}}}})
	}
	var down *pb.Down
	if err == nil {
		down, err = s.Recv()
	}
	if err != nil {
		cc.Close()
		return nil, 0, wire.FromStatus(err)
	}
	return cc, down.GetWelcome().GetAttachment(), nil
}

// ask is one command of an administrator.
func (h *honest) ask(line string) error {
	c, err := monitor.Dial(h.r.path("sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(line); err != nil {
		return err
	}
	for {
		l, err := c.Read()
		if err != nil || l.Code >= 400 {
			return fmt.Errorf("%s: %v %v", line, l, err)
		}
		if l.End() {
			return nil
		}
	}
}

// again does what a busy machine may refuse for a moment, until it does not.
func again(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || !momentary(err.Error()) || ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// login logs a user in at the first satellite, and where it is referred to the
// other one, there. A place that is not taken in time is given away.
func (h *honest) login(user string) error {
	for i := range 20 {
		n := 1 + i%2
		out, code := h.r.try(h.bin+"/win4", "--satellite", h.r.path("sat"+strconv.Itoa(n)), "--user", user)
		switch code {
		case 0:
			return nil
		case 3:
		default:
			return fmt.Errorf("%s at satellite %d: %s", user, n, out)
		}
	}
	return fmt.Errorf("%s was sent in a circle", user)
}

// figure is one of the master's own figures.
func (h *honest) figure(name string) (int, error) {
	c, err := monitor.Dial(h.r.path("sock"))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.Send("metrics"); err != nil {
		return 0, err
	}
	for {
		l, err := c.Read()
		if err != nil {
			return 0, err
		}
		if v, ok := strings.CutPrefix(l.Data, name+" "); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
		if l.End() {
			return 0, fmt.Errorf("no figure %s", name)
		}
	}
}

// Command flood is a crowd of bad clients for a cluster master: it connects to
// the port for satellites or to the administrators' socket, and does there what
// nobody should. It is for tests of a master that one owns.
//
// It is a process of its own so that what it costs is not measured with what it
// does. It goes on for a time, connects again where the master closes, and prints
// one line at the end: how many connections were made, refused by the kernel
// and closed by the master, and the bytes sent.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// kind is a way to be bad.
type kind struct {
	what    string
	local   bool // at the administrators' socket
	attack  func(ctx context.Context, f *flood, c net.Conn) error
	workers int // by default
}

var kinds = map[string]kind{
	"silent":   {"connections that say nothing", false, silent, 10000},
	"slow":     {"TLS handshakes, byte by byte", false, slow, 2000},
	"garbage":  {"random bytes, as fast as they go", false, garbage, 64},
	"foreign":  {"TLS with certificates of another cluster", false, foreign, 64},
	"plain":    {"HTTP/2 without TLS", false, plain, 64},
	"idle":     {"connections of a satellite that ask nothing", false, idle, 64},
	"noise":    {"random bytes from a satellite", false, noise, 8},
	"reset":    {"requests of a satellite, each taken back at once", false, reset, 8},
	"ping":     {"pings of a satellite", false, pings, 8},
	"settings": {"settings of a satellite", false, changes, 8},
	"headers":  {"headers of a satellite without an end", false, bomb, 8},
	"unread":   {"requests of a satellite that reads no answer", false, unread, 8},

	"words":    {"random bytes at the socket, as fast as they go", true, garbage, 16},
	"lines":    {"commands that do not exist, as fast as they go", true, lines, 16},
	"sessions": {"sessions at the socket that do nothing", true, sessions, 1000},
	"deaf":     {"clients of the socket that ask and never read", true, deaf, 48},
}

// flood is one run.
type flood struct {
	address, socket string
	sources         int
	id              identity
	pause           time.Duration
	once            bool

	made, failed, closed, bytes atomic.Int64
}

func main() {
	f := &flood{}
	name := flag.String("kind", "silent", "what to do: "+strings.Join(names(), ", "))
	flag.StringVar(&f.address, "address", "", "the master's port for satellites, host:port")
	flag.StringVar(&f.socket, "socket", "", "the administrators' socket")
	pki := flag.String("pki", "", "directory with a satellite's ca.pem and identity.pem, for the kinds that are a satellite's")
	n := flag.Int("n", 0, "connections at once; 0: what suits the kind")
	last := flag.Duration("for", 5*time.Second, "how long")
	flag.IntVar(&f.sources, "sources", 400, "how many addresses of 127.0.0.0/8 to come from, where the master is on this computer")
	flag.DurationVar(&f.pause, "pause", 100*time.Millisecond, "between a connection that has ended and the next in its place")
	flag.BoolVar(&f.once, "once", false, "do not connect again in the place of a connection that has ended")
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "A crowd of bad clients, for tests of one's own master.\n\nflood -kind KIND -address HOST:PORT\nflood -kind KIND -socket PATH\n\n")
		for _, k := range names() {
			fmt.Fprintf(os.Stderr, "  %-9s %s\n", k, kinds[k].what)
		}
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := f.run(*name, *n, *last, *pki); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func names() (out []string) {
	for k := range kinds {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func (f *flood) run(name string, n int, last time.Duration, pki string) error {
	k, ok := kinds[name]
	switch {
	case !ok:
		return fmt.Errorf("no kind %q: one of %s", name, strings.Join(names(), " "))
	case k.local && f.socket == "":
		return fmt.Errorf("%s needs -socket", name)
	case !k.local && f.address == "":
		return fmt.Errorf("%s needs -address", name)
	}
	if n == 0 {
		n = k.workers
	}
	if err := raise(uint64(n + 100)); err != nil {
		return err
	}
	var err error
	if f.id, err = newIdentity(pki); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, last)
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f.worker(ctx, k, i) })
	}
	all.Wait()
	took := time.Since(began)
	fmt.Printf("kind=%s connections=%d made=%d failed=%d closed=%d bytes=%d seconds=%.1f\n",
		name, n, f.made.Load(), f.failed.Load(), f.closed.Load(), f.bytes.Load(), took.Seconds())
	return nil
}

// raise makes room for n open files.
func raise(n uint64) error {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return err
	}
	if r.Cur >= n {
		return nil
	}
	r.Cur, r.Max = n, max(n, r.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return fmt.Errorf("%d open files are needed: %w; raise ulimit -n", n, err)
	}
	return nil
}

// worker keeps one bad connection.
func (f *flood) worker(ctx context.Context, k kind, i int) {
	for ctx.Err() == nil {
		c, err := f.dial(ctx, k.local, i)
		if err != nil {
			if ctx.Err() == nil {
				f.failed.Add(1)
			}
		} else {
			f.made.Add(1)
			end := context.AfterFunc(ctx, func() { c.Close() })
			k.attack(ctx, f, c)
			if ctx.Err() == nil {
				f.closed.Add(1)
			}
			end()
			c.Close()
		}
		if f.once {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(f.pause):
		}
	}
}

// dial connects, the ith worker from an address of its own where that is
// possible.
func (f *flood) dial(ctx context.Context, local bool, i int) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if local {
		c, err := d.DialContext(ctx, "unix", f.socket)
		return f.count(c, err)
	}
	if host, _, err := net.SplitHostPort(f.address); err == nil && f.sources > 0 && net.ParseIP(host).IsLoopback() {
		s := i % f.sources
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(s/250), byte(1+s%250))}
	}
	c, err := d.DialContext(ctx, "tcp", f.address)
	return f.count(c, err)
}

func (f *flood) count(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return counted{c, f}, nil
}

// counted counts what is sent.
type counted struct {
	net.Conn
	f *flood
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.f.bytes.Add(int64(n))
	return n, err
}

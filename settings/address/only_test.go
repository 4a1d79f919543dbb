package address

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/settings"
)

// V-13, V-14: where a setting names a network interface, a client in another
// network who sends packets for that interface's address to this computer is not
// let in; who comes over the interface is, and this computer itself. That holds
// for both kinds of IP. Where the setting is an address, nothing is looked at.
func TestOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network name spaces") // CI is root
	}
	server, client := fmt.Sprintf("vonly-%d-s", os.Getpid()), fmt.Sprintf("vonly-%d-c", os.Getpid())
	for _, n := range []string{server, client} {
		if out, err := exec.Command("ip", "netns", "add", n).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n).Run() })
	}
	batch(t, server, `link set lo up
link add clu0 type veth peer name clu0 netns `+client+`
link add pub0 type veth peer name pub0 netns `+client+`
link set clu0 up
link set pub0 up
addr add 10.1.0.7/24 dev clu0
addr add 2001:db8:1::7/64 dev clu0 nodad
addr add 198.51.100.7/24 dev pub0
addr add 2001:db8:2::7/64 dev pub0 nodad
`)
	batch(t, client, `link set clu0 up
link set pub0 up
addr add 10.1.0.9/24 dev clu0
addr add 2001:db8:1::9/64 dev clu0 nodad
addr add 198.51.100.9/24 dev pub0
addr add 2001:db8:2::9/64 dev pub0 nodad
`)
	var mu sync.Mutex
	var refused []string
	open := func(setting, at string) string {
		var l net.Listener
		inside(t, server, func() error {
			v, err := settings.Parse("settings.global", []byte(setting))
			if err != nil {
				return err
			}
			if l, err = net.Listen("tcp", at); err != nil {
				return err
			}
			l = New(v).Only(l, func(from, over string) {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, over)
			}, settings.Listen, settings.PeerListen)
			return nil
		})
		t.Cleanup(func() { l.Close() })
		// The listener's thread must be in the name space: interfaces have their
		// numbers there.
		go inside(t, server, func() error {
			for {
				c, err := l.Accept()
				if err != nil {
					return nil
				}
				c.Write([]byte("x"))
				c.Close()
			}
		})
		return l.Addr().String()
	}
	const patience = 20 * time.Second // nobody is kept waiting, also who is refused
	lets := func(from, at string) bool {
		var n int
		inside(t, from, func() error {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", at)
			if err != nil {
				return nil
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			n, _ = c.Read(make([]byte, 1))
			return nil
		})
		return n == 1
	}
	named := []string{open("WIN4_VERDE_LISTEN=clu0", "10.1.0.7:0"), open("WIN4_PEER_LISTEN=clu0\nWIN4_VERDE_LISTEN=pub0", "[2001:db8:1::7]:0")}
	plain := []string{open("WIN4_VERDE_LISTEN=10.1.0.7", "10.1.0.7:0"), open("WIN4_VERDE_LISTEN=eth9", "[2001:db8:1::7]:0"), open("WIN4_PEER_LISTEN=pub0", "10.1.0.7:0")}
	for _, at := range append(named, plain...) {
		for _, from := range []string{server, client} {
			if !lets(from, at) {
				t.Errorf("%s is not let in at %s", from, at)
			}
		}
	}
	batch(t, client, "route add 10.1.0.7/32 via 198.51.100.7\nroute add 2001:db8:1::7/128 via 2001:db8:2::7\n")
	for _, at := range named {
		if lets(client, at) {
			t.Errorf("a client in another network is let in at %s", at)
		}
		if !lets(server, at) {
			t.Errorf("this computer is not let in at %s any more", at)
		}
	}
	for _, at := range plain {
		if !lets(client, at) {
			t.Errorf("%s: the setting is no interface, and a client is not let in", at)
		}
	}
	lets(client, named[0])
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(refused, " "); got != "pub0 pub0" {
		t.Errorf("told of connections over %q, want pub0 once for each listener", got)
	}
}

func batch(t *testing.T, space, commands string) {
	t.Helper()
	cmd := exec.Command("ip", "-n", space, "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip: %v: %s", err, out)
	}
}

// inside runs f on a thread in a network name space.
func inside(t *testing.T, space string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		in, err := os.Open("/run/netns/" + space)
		if err == nil {
			err = unix.Setns(int(in.Fd()), unix.CLONE_NEWNET)
			in.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

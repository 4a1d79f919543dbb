package address

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inNetwork runs f in a new network name space, after commands of ip.
func inNetwork(t *testing.T, setup string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network name space") // CI is root
	}
	done := make(chan struct{})
	go func() { // the thread is not used again: it is never unlocked
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network name space: %v", err)
			return
		}
		ip := exec.Command("ip", "-batch", "-")
		ip.Stdin = strings.NewReader(setup)
		if out, err := ip.CombinedOutput(); err != nil {
			t.Errorf("ip: %v: %s", err, out)
			return
		}
		f()
	}()
	<-done
}

// V-13: what the kernel says is understood as it is meant.
func TestSystem(t *testing.T) {
	inNetwork(t, `link set lo up
link add eth1 type bridge
link set eth1 up
addr add 2001:db8::9/64 dev eth1 nodad
addr add 2001:db8::2/64 dev eth1 nodad
addr add 2001:db8::1/64 dev eth1 nodad preferred_lft 0
addr add 10.1.0.9/32 dev eth1
addr add 10.1.0.7/24 dev eth1
addr add 10.1.0.6/24 dev eth1
link add eth0 type bridge
link add eth2 type bridge
link set eth2 up
addr add 2001:db8:1::9/64 dev eth2 nodad
addr add 2001:db8:1::2/64 dev eth2 nodad
addr add 2001:db8:1::1/64 dev eth2 nodad preferred_lft 0
`, func() {
		all, err := system{}.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := list(all), "eth1 10.1.0.7, eth2 2001:db8:1::2, eth0 without a global address, lo without a global address"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if !belongs(all, loopback) || !belongs(all, netip.MustParseAddr("2001:db8::1")) || belongs(all, netip.MustParseAddr("10.1.0.8")) {
			t.Errorf("what is ours is not known: %+v", all)
		}
		for to, want := range map[string]string{"10.1.0.200": "10.1.0.7", "10.1.0.9": "10.1.0.9", "127.9.9.9": "127.0.0.1"} {
			if got, err := (system{}).Source(t.Context(), netip.MustParseAddr(to)); err != nil || got.String() != want {
				t.Errorf("towards %s: got %v, %v, want %s", to, got, err, want)
			}
		}
		if got, err := (system{}).Source(t.Context(), netip.MustParseAddr("203.0.113.1")); err == nil || !strings.Contains(err.Error(), "route to 203.0.113.1") {
			t.Errorf("without a route: got %v, %v", got, err)
		}
	})
	ips, err := system{}.Lookup(t.Context(), "localhost")
	if err != nil || !slices.Contains(ips, loopback) {
		t.Errorf("localhost: got %v, %v", ips, err)
	}
}

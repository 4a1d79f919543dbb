package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// insideEnv tells the test binary that it runs in name spaces of its own.
const insideEnv = "VERDECMD_TEST_INSIDE"

// TestInside runs the tests that need bridges and full disks in a network and
// mount name space of their own, so that nothing of the machine changes.
func TestInside(t *testing.T) {
	needRoot(t)
	if os.Getenv(insideEnv) != "" {
		t.Run("bridge", bridged)
		t.Run("full disk", fullDisk)
		t.Run("full later", fullLater)
		return
	}
	guestImage(t) // built outside, where there is a network
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command("unshare", "--net", "--mount", "--", self, "-test.run=^TestInside$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInside/full_later") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A bridged desktop has its tap on the bridge, and no other network.
func bridged(t *testing.T) {
	s := newSite(t)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7", MTU: 1400}}
	must(t, netlink.LinkAdd(br))
	taps := func() []netlink.Link {
		links, err := netlink.LinkList()
		must(t, err)
		var out []netlink.Link
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "win4t") {
				out = append(out, l)
			}
		}
		return out
	}
	s.cfg.Network = "bridge:lo"
	if _, err := s.driver().Start(t.Context(), s.spec("")); !errors.Is(err, desktop.ErrNetwork) || !strings.Contains(err.Error(), "not a bridge") {
		t.Errorf("lo: got %v, want ErrNetwork", err)
	}
	s.cfg.Network = "bridge:br7"
	if p := s.driver().Probe(t.Context()); p.Problems != nil {
		t.Errorf("got problems %q", p.Problems)
	}
	d := begin(t, s, s.spec(""))
	got := taps()
	if len(got) != 1 || got[0].Attrs().MasterIndex != br.Attrs().Index || got[0].Attrs().MTU != 1400 || got[0].Attrs().Flags&net.FlagUp == 0 {
		t.Fatalf("got taps %+v, want one, up, on the bridge", got)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", d.Process().PID))
	must(t, err)
	if ours, err := os.Readlink("/proc/self/ns/net"); err != nil || ours == theirs {
		t.Errorf("QEMU is in the satellite's network name space, %s (%v)", ours, err)
	}
	must(t, d.Kill())
	next(t, d, desktop.Exited)
	if got := taps(); len(got) != 0 {
		t.Errorf("after the end: got taps %+v, want none", got)
	}
}

// A full disk is told with its name and figures, and nothing is left on it (S20).
func fullDisk(t *testing.T) {
	must(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for name, where := range map[string]func(*site) string{
		"snap directory":    (*site).snap,
		"prepared overlays": func(s *site) string { return s.cfg.PreparedDir },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			dir := where(s)
			must(t, os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=1777"))
			defer unix.Unmount(dir, unix.MNT_DETACH)
			_, err := s.driver().Start(t.Context(), s.spec(""))
			if !errors.Is(err, desktop.ErrNoSpace) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "KiB free") {
				t.Errorf("got %v, want ErrNoSpace with %s and what is free", err, dir)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			// Recovers by itself as soon as there is space.
			must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"))
			must(t, begin(t, s, s.spec("")).Kill())
		})
	}
}

// A disk that becomes full under a desktop halts its guest, which is told with
// the directory, and the guest goes on by itself as soon as there is space (S20).
func fullLater(t *testing.T) {
	must(t, unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	s := newSite(t)
	dir := s.snap()
	must(t, os.MkdirAll(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=1777"))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	d := begin(t, s, s.spec(""))
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	little := (fs.Blocks-fs.Bfree)*uint64(fs.Bsize) + 16<<10 // the guest boots, and has not written yet
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", little)))
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(bootLimit)
	var err error
	for !errors.Is(err, desktop.ErrHalted) {
		select {
		case <-tick.C:
			err = d.Ping(t.Context())
		case <-limit:
			t.Fatalf("got ping %v, want ErrHalted; console: %q", err, d.Serial(50))
		}
	}
	if !errors.Is(err, desktop.ErrNoSpace) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want ErrNoSpace with %s", err, dir)
	}
	must(t, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"))
	limit = time.After(bootLimit)
	for ready := false; !ready; {
		select {
		case e, open := <-d.Events():
			if ready = open && e.Kind == desktop.Ready; !ready {
				t.Fatalf("got event %+v (open %v), want Ready; console: %q", e, open, d.Serial(20))
			}
		case <-tick.C: // each time it tries again; a try from before there was space may have failed last
			_ = d.Ping(t.Context())
		case <-limit:
			t.Fatalf("it does not go on; console: %q", d.Serial(20))
		}
	}
	must(t, d.Ping(t.Context()), d.Kill())
}

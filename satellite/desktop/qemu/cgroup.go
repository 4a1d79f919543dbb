package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// Beyond the guest's memory QEMU needs some for itself: translated code, the
// display, buffers of devices.
const overheadMiB = 512

// maxThreads bounds QEMU's threads: its worker pool alone may have 64.
const maxThreads = 512

// cgroups makes one control group for each desktop where the machine offers
// controllers (cgroup v2). They do not lie in the satellite's own group but
// beside all that is systemd's: its service may be stopped and started again,
// which a group with desktops in it would keep from starting. The name is none
// that a unit can have, so systemd leaves it alone.
type cgroups struct {
	root string // where cgroup2 is mounted
}

var wantControllers = []string{"cpu", "memory", "pids"}

func (c cgroups) base() string            { return filepath.Join(c.root, "verdecmd") }
func (c cgroups) path(s string) string    { return filepath.Join(c.base(), s) }
func (c cgroups) remove(s string)         { _ = os.Remove(c.path(s)) } // refused while a process is in it; swept later
func (c cgroups) write(p, v string) error { return os.WriteFile(p, []byte(v), 0o644) }

// prepare makes the group above all desktops and returns the controllers that
// it can hand out.
func (c cgroups) prepare() ([]string, error) {
	if err := os.Mkdir(c.base(), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	var have []string
	for _, dir := range []string{c.root, c.base()} {
		offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return nil, err
		}
		have = nil
		for _, name := range wantControllers {
			if slices.Contains(strings.Fields(string(offered)), name) {
				have = append(have, name)
			}
		}
		if len(have) == 0 {
			return nil, fmt.Errorf("%s offers none of %s", dir, strings.Join(wantControllers, ", "))
		}
		if err := c.write(filepath.Join(dir, "cgroup.subtree_control"), "+"+strings.Join(have, " +")); err != nil {
			return nil, err
		}
	}
	return have, nil
}

// create makes the group of one session. The caller closes what it returns
// after the start.
func (c cgroups) create(s desktop.Spec) (*os.File, error) {
	have, err := c.prepare()
	if err != nil {
		return nil, err
	}
	dir := c.path(s.Session)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	limits := map[string][2]string{
		"memory": {"memory.max", fmt.Sprint(int64(s.MemoryMiB+overheadMiB) << 20)},
		// One more than the guest has: for disk, display and network.
		"cpu":  {"cpu.max", fmt.Sprintf("%d 100000", (s.CPUs+1)*100000)},
		"pids": {"pids.max", fmt.Sprint(maxThreads + s.CPUs)},
	}
	for _, name := range have {
		if err := c.write(filepath.Join(dir, limits[name][0]), limits[name][1]); err != nil {
			c.remove(s.Session)
			return nil, err
		}
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		c.remove(s.Session)
	}
	return f, err
}

// moveTo moves a process to a group.
func moveTo(group *os.File, pid int) error {
	fd, err := unix.Openat(int(group.Fd()), "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(strconv.Itoa(pid))); err != nil {
		return fmt.Errorf("moving process %d to its control group: %w", pid, err)
	}
	return nil
}

// findCgroup2 is the directory where cgroup v2 is mounted; empty: nowhere.
func findCgroup2(mounts string) string {
	for l := range strings.SplitSeq(mounts, "\n") {
		if f := strings.Fields(l); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

package qemu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/satellite/desktop"
)

func unixTime(s int64) time.Time { return time.Unix(s, 0) }

// KVM is used only where it truly works (DESKTOP 2).
func TestAccelerator(t *testing.T) {
	const intel = "processor\t: 0\nmodel name\t: x vmx\nflags\t\t: fpu vmx sse\n"
	const plain = "processor\t: 0\nmodel name\t: x vmx\nflags\t\t: fpu sse\n"
	tests := map[string]struct {
		setting, cpuinfo string
		version          int
		noDevice         bool
		want, why        string
		err              error
	}{
		"works":                             {setting: "kvm", cpuinfo: intel, version: 12, want: "kvm", why: "offer it"},
		"works, AMD":                        {setting: "auto", cpuinfo: "flags : svm\n", version: 12, want: "kvm"},
		"works, but the setting is tcg":     {setting: "tcg", cpuinfo: intel, version: 12, want: "tcg", why: "WIN4_ACCEL"},
		"no device":                         {setting: "auto", cpuinfo: intel, noDevice: true, want: "tcg", why: "does not exist"},
		"a device, but the processor lacks": {setting: "auto", cpuinfo: plain, version: 12, want: "tcg", why: "neither vmx nor svm"},
		"another version":                   {setting: "auto", cpuinfo: intel, version: 11, want: "tcg", why: "version 11"},
		"kvm is required":                   {setting: "kvm", cpuinfo: plain, version: 12, why: "neither", err: desktop.ErrNoAccel},
		"kvm is required, no device":        {setting: "kvm", noDevice: true, why: "does not exist", err: desktop.ErrNoAccel},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := New(Config{Accel: tt.setting, PreparedDir: dir})
			must(t, err)
			d.host = host{filepath.Join(dir, "kvm"), filepath.Join(dir, "cpuinfo"), func(*os.File) (int, error) { return tt.version, nil }}
			must(t, os.WriteFile(d.host.cpuinfo, []byte(tt.cpuinfo), 0o644))
			if !tt.noDevice {
				must(t, os.WriteFile(d.host.device, nil, 0o660))
			}
			got, why, err := d.accelerator()
			if got != tt.want || !strings.Contains(why, tt.why) || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %q, %v, want %q, %q, %v", got, why, err, tt.want, tt.why, tt.err)
			}
			if err != nil && !strings.Contains(err.Error(), "WIN4_ACCEL=auto") {
				t.Errorf("got %v, want the fix in it", err)
			}
		})
	}
}

func TestKVMGroup(t *testing.T) {
	h := host{device: filepath.Join(t.TempDir(), "kvm")}
	must(t, os.WriteFile(h.device, nil, 0o600))
	if _, err := h.kvmGroup(); !errors.Is(err, desktop.ErrNoAccel) || !strings.Contains(err.Error(), "chmod 0660") {
		t.Errorf("nobody but root: got %v, want ErrNoAccel with the fix", err)
	}
	must(t, os.Chmod(h.device, 0o660))
	if g, err := h.kvmGroup(); err != nil || g != uint32(os.Getegid()) {
		t.Errorf("got %d, %v, want the file's group", g, err)
	}
}

func TestProbe(t *testing.T) {
	s := newSite(t)
	p := s.driver().Probe(t.Context())
	if p.Accel != "tcg" || p.Version == "" || p.Problems != nil {
		t.Errorf("got %+v, want tcg, a version and no problems", p)
	}
	s.cfg.Binary, s.cfg.ImageTool = "qemu-system-none", "qemu-img-none"
	p = s.driver().Probe(t.Context())
	if got := strings.Join(p.Problems, "\n"); !strings.Contains(got, "apt install qemu-system-x86") || !strings.Contains(got, "apt install qemu-utils") {
		t.Errorf("got problems %q, want the packages named", p.Problems)
	}
	if !older("6.2.1", 7, 2) || older("7.2", 7, 2) || older("10.0.3", 7, 2) || older("?", 7, 2) {
		t.Error("versions are compared wrongly")
	}
}

func TestNew(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"accelerator":          {Accel: "xen", PreparedDir: dir},
		"network":              {Network: "tap", PreparedDir: dir},
		"network without name": {Network: "bridge:", PreparedDir: dir, AsRoot: true},
		"bridge without root":  {Network: "bridge:br0", PreparedDir: dir},
		"no directory":         {},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

// Limits where the machine offers them, on a fake tree: few build machines
// have controllers.
func TestCgroups(t *testing.T) {
	root := t.TempDir()
	c := cgroups{root}
	s := plainSpec()
	if _, err := c.create(s); err == nil {
		t.Error("no controllers file: got nil, want an error")
	}
	must(t, os.WriteFile(root+"/cgroup.controllers", []byte("cpuset\n"), 0o644))
	if _, err := c.create(s); err == nil || !strings.Contains(err.Error(), "offers none") {
		t.Errorf("got %v, want none offered", err)
	}
	must(t, os.WriteFile(root+"/cgroup.controllers", []byte("cpuset cpu io memory pids\n"), 0o644),
		os.WriteFile(c.base()+"/cgroup.controllers", []byte("memory pids\n"), 0o644))
	f, err := c.create(s)
	must(t, err)
	defer f.Close()
	for name, want := range map[string]string{
		root + "/cgroup.subtree_control":     "+cpu +memory +pids",
		c.base() + "/cgroup.subtree_control": "+memory +pids",
		c.path("s40") + "/memory.max":        "1073741824",
		c.path("s40") + "/pids.max":          "514",
	} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(c.path("s40") + "/cpu.max"); err == nil {
		t.Error("a controller that is not offered was written")
	}
	if got := findCgroup2("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"); got != "/sys/fs/cgroup/unified" {
		t.Errorf("got %q", got)
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 3 0 -1 4194560 7 0 0 0 150 50 0 0 20 0 3 0 248008 1 2"
	for _, name := range []string{"qemu", "a) S 1 (b", "x y"} {
		got, err := parseStat([]byte("17 (" + name + ")" + tail + "\n"))
		if err != nil || got.startTime != 248008 || got.cpu != 2*time.Second {
			t.Errorf("%q: got %+v, %v, want 248008 and 2 s", name, got, err)
		}
	}
	for _, bad := range []string{"", "17 (qemu", "17 (qemu) S 1", "17 (q) S 1 2 3 0 -1 4194560 7 0 0 0 x 50 0 0 20 0 3 0 248008 1"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: got nil, want an error", bad)
		}
	}
}

func TestStartError(t *testing.T) {
	for text, want := range map[string]error{
		`qemu: -blockdev x: Failed to get "write" lock`:     desktop.ErrInUse,
		"qemu: cannot write: No space left on device":       desktop.ErrNoSpace,
		"qemu: -blockdev {..}: Could not open '/x/disk'":    desktop.ErrNoImage,
		"qemu: failed to initialize kvm: Permission denied": desktop.ErrNoAccel,
		"Could not access KVM kernel module: No such file":  desktop.ErrNoAccel,
	} {
		if err := startError(text, "/tmp/s1"); !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want %v", text, err, want)
		}
	}
}

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// Probe is what a satellite can do for desktops.
type Probe struct {
	Accel    string   // kvm, tcg; empty: none that the setting allows
	Why      string   // why this accelerator, in words
	Version  string   // of QEMU, for example 7.2.22; empty: not installed
	Problems []string // what keeps desktops from starting, each with its fix
	Programs []string // of Problems: those with QEMU and its tools
}

var versionText = regexp.MustCompile(`version ([0-9][0-9.]*)`)

// Probe looks at the machine. It runs QEMU once to ask for its version.
func (d *Driver) Probe(ctx context.Context) Probe {
	var p Probe
	accel, why, err := d.accelerator()
	p.Accel, p.Why = accel, why
	if err != nil {
		p.Problems = append(p.Problems, err.Error())
	}
	out, err := exec.CommandContext(ctx, d.cfg.Binary, "--version").Output()
	if m := versionText.FindSubmatch(out); err == nil && m != nil {
		p.Version = string(m[1])
		if older(p.Version, 7, 2) {
			p.Programs = append(p.Programs, "QEMU "+p.Version+" is older than 7.2, which has the machine type "+machineType)
		}
	} else {
		p.Programs = append(p.Programs, d.missing(err).Error())
	}
	if _, err := exec.LookPath(d.cfg.ImageTool); err != nil {
		p.Programs = append(p.Programs, fmt.Sprintf("%v: %s is missing: apt install qemu-utils", desktop.ErrNoQEMU, d.cfg.ImageTool))
	}
	p.Problems = append(p.Problems, p.Programs...)
	if d.bridge != "" {
		if err := checkBridge(d.bridge); err != nil {
			p.Problems = append(p.Problems, err.Error())
		}
	}
	return p
}

// missing words the error of a QEMU that cannot be run.
func (d *Driver) missing(err error) error {
	if err == nil {
		return fmt.Errorf("%w: %s --version does not look like QEMU", desktop.ErrNoQEMU, d.cfg.Binary)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing: apt install qemu-system-x86, or correct WIN4_QEMU", desktop.ErrNoQEMU, d.cfg.Binary)
	}
	return fmt.Errorf("%w: %s: %v", desktop.ErrNoQEMU, d.cfg.Binary, err)
}

func older(version string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(version, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a < major || a == major && b < minor
}

// accelerator chooses by the setting and by what truly works.
func (d *Driver) accelerator() (accel, why string, err error) {
	if d.cfg.Accel == "tcg" {
		return "tcg", "WIN4_ACCEL is tcg", nil
	}
	if err := d.host.kvm(); err == nil {
		return "kvm", "the processor and " + d.host.device + " offer it", nil
	} else if d.cfg.Accel == "auto" {
		return "tcg", "no KVM: " + err.Error(), nil
	} else {
		return "", err.Error(), fmt.Errorf("%w: %w; without it desktops run slowly, allow that by WIN4_ACCEL=auto", desktop.ErrNoAccel, err)
	}
}

// host is where the machine is looked at; tests look elsewhere.
type host struct {
	device  string // /dev/kvm
	cpuinfo string // /proc/cpuinfo
	version func(*os.File) (int, error)
}

func realHost() host {
	return host{"/dev/kvm", "/proc/cpuinfo", func(f *os.File) (int, error) {
		const getAPIVersion = 0xae00
		v, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getAPIVersion, 0)
		if e != 0 {
			return 0, e
		}
		return int(v), nil
	}}
}

// kvm returns nil if KVM works. A device that opens is not enough: there are
// modules that offer one on processors without virtualisation, and guests hang
// on them.
func (h host) kvm() error {
	f, err := os.OpenFile(h.device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: load kvm_intel or kvm_amd, and switch virtualisation on in the firmware", h.device)
	case err != nil:
		return err
	}
	defer f.Close()
	if v, err := h.version(f); err != nil || v != 12 {
		return fmt.Errorf("%s speaks version %d, want 12 (%v)", h.device, v, err)
	}
	info, err := os.ReadFile(h.cpuinfo)
	if err != nil {
		return err
	}
	for l := range strings.SplitSeq(string(info), "\n") {
		if key, value, _ := strings.Cut(l, ":"); strings.TrimSpace(key) == "flags" {
			for _, flag := range strings.Fields(value) {
				if flag == "vmx" || flag == "svm" {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("%s is there, but the processor has neither vmx nor svm", h.device)
}

// kvmGroup is the group that may open the device, for QEMU's groups.
func (h host) kvmGroup() (uint32, error) {
	var st unix.Stat_t
	if err := unix.Stat(h.device, &st); err != nil {
		return 0, fmt.Errorf("%w: %s: %w", desktop.ErrNoAccel, h.device, err)
	}
	if st.Mode&0o060 != 0o060 && st.Mode&0o006 != 0o006 {
		return 0, fmt.Errorf("%w: %s has mode %04o, users cannot open it: chgrp kvm %s; chmod 0660 %s",
			desktop.ErrNoAccel, h.device, st.Mode&0o777, h.device, h.device)
	}
	return st.Gid, nil
}

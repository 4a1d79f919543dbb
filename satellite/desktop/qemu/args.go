package qemu

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"verdecmd/satellite/desktop"
)

// machineType is written with its version: templates, and later migration,
// need the very same board on every host. Every QEMU from 7.2 on has it.
const machineType = "pc-q35-7.2"

// Names of the files in a session's directory. QEMU runs in that directory and
// gets them without a path, so a long path is no problem for a socket.
const (
	overlayFile = "overlay.qcow2"
	serialFile  = "serial.log"
	stderrFile  = "stderr.log"
	pidFile     = "pid"
	qmpSocket   = "qmp"
	rescueQMP   = "rescue" // for an administrator and for yank; nobody holds it
	agentSocket = "ga"
	vncSocket   = "vnc"
	shotFile    = "shot.png"
)

const agentPort = "ga0" // id of the guest agent's port, in events

// options is what the command line depends on beside the Spec.
type options struct {
	accel string // kvm, tcg
	cpu   string
	tapFD int // 0: user-mode network
}

// arguments is the command line of a desktop, without the program. What comes
// from users goes through JSON or has its commas doubled, so no name can add
// an option.
func arguments(s desktop.Spec, o options) []string {
	windows := s.Image.OS == "windows"
	a := []string{
		"-name", "guest=" + escape(s.Session),
		"-uuid", s.UUID,
		"-nodefaults", "-no-user-config",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", machineType + ",memory-backend=ram,dump-guest-core=off",
		"-accel", o.accel,
		"-cpu", o.cpu,
		"-smp", strconv.Itoa(s.CPUs),
		"-m", strconv.Itoa(s.MemoryMiB) + "M",
		"-object", object("qom-type", "memory-backend-ram", "id", "ram", "size", int64(s.MemoryMiB)<<20),
		"-rtc", "base=" + choose(windows, "localtime", "utc"),
		"-display", "none", "-vga", "std", "-vnc", "unix:" + vncSocket,
		"-pidfile", pidFile,
		"-msg", "timestamp=on",
		"-chardev", "file,id=serial,append=on,path=" + serialFile, "-serial", "chardev:serial",
		"-chardev", "socket,id=qmp,server=on,wait=off,path=" + qmpSocket, "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=rescue,server=on,wait=off,path=" + rescueQMP, "-mon", "chardev=rescue,mode=control",
		"-fw_cfg", "name=opt/org.verdecmd/name,string=" + escape(s.Name),
		"-fw_cfg", "name=opt/org.verdecmd/user,string=" + escape(s.User.Name),
		"-fw_cfg", "name=opt/org.verdecmd/uid,string=" + strconv.FormatUint(uint64(s.User.UID), 10),
	}
	if s.Image.Kernel != "" {
		a = append(a, "-kernel", s.Image.Kernel, "-append", s.Image.Append)
		if s.Image.Initrd != "" {
			a = append(a, "-initrd", s.Image.Initrd)
		}
	}
	if s.Image.Disk != "" {
		a = append(a, "-blockdev", disk(s.Image.Disk),
			"-device", choose(windows, "ide-hd,drive=d0,id=vd0,bootindex=1", "virtio-blk-pci,drive=d0,id=vd0,bootindex=1"))
	}
	if o.tapFD > 0 {
		a = append(a, "-netdev", object("type", "tap", "id", "n0", "fd", strconv.Itoa(o.tapFD), "vhost", false))
	} else {
		a = append(a, "-netdev", object("type", "user", "id", "n0"))
	}
	a = append(a, "-device", choose(windows, "e1000e", "virtio-net-pci")+",netdev=n0,id=nic0,romfile=,mac="+escape(s.MAC))
	if s.Image.Agent {
		a = append(a, "-device", "virtio-serial-pci,id=vs0",
			"-chardev", "socket,id=ga,server=on,wait=off,path="+agentSocket,
			"-device", "virtserialport,chardev=ga,id="+agentPort+",name=org.qemu.guest_agent.0")
	}
	if windows {
		// Windows as shipped has drivers for these, but none for virtio or 9p.
		return append(a, "-device", "qemu-xhci,id=usb", "-device", "usb-tablet,bus=usb.0")
	}
	a = append(a, "-device", "virtio-tablet-pci", "-device", "virtio-rng-pci")
	if s.User.Home != "" {
		// QEMU has the user's rights and no others, so "none" is enough: what
		// root in the guest makes is the user's here.
		a = append(a, "-fsdev", "local,id=home,security_model=none,multidevs=remap,path="+escape(s.User.Home),
			"-device", "virtio-9p-pci,fsdev=home,mount_tag=home")
	}
	return a
}

// disk is the overlay over its base image. All formats are given, nothing is
// probed; the base has no further base.
func disk(base string) string {
	return object("driver", "qcow2", "node-name", "d0", "discard", "unmap",
		"file", map[string]any{"driver": "file", "filename": overlayFile},
		"backing", map[string]any{
			"driver": "qcow2", "node-name": "base0", "read-only": true, "backing": nil,
			"file": map[string]any{"driver": "file", "filename": base, "read-only": true},
		})
}

// object is a JSON object of names and values in turn.
func object(pairs ...any) string {
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // only strings, numbers and maps of these come here
	}
	return string(b)
}

// escape makes a text one value in QEMU's list syntax.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// checkSpec refuses what could not become a command line, and what would be
// read as something else than it says.
func checkSpec(s desktop.Spec) error {
	for _, v := range []struct{ what, value string }{
		{"session", s.Session}, {"UUID", s.UUID}, {"name", s.Name}, {"user", s.User.Name}, {"home", s.User.Home},
		{"MAC", s.MAC}, {"disk", s.Image.Disk}, {"kernel", s.Image.Kernel}, {"initrd", s.Image.Initrd}, {"append", s.Image.Append},
	} {
		if strings.ContainsFunc(v.value, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
			return fmt.Errorf("%w: the %s %q has control characters or is not UTF-8", desktop.ErrBadConfig, v.what, v.value)
		}
	}
	switch {
	case !sessionName.MatchString(s.Session):
		return fmt.Errorf("%w: session %q: want s and a number", desktop.ErrBadConfig, s.Session)
	case !uuidText.MatchString(s.UUID):
		return fmt.Errorf("%w: UUID %q", desktop.ErrBadConfig, s.UUID)
	case !macText.MatchString(s.MAC):
		return fmt.Errorf("%w: MAC address %q", desktop.ErrBadConfig, s.MAC)
	case s.MemoryMiB < 1 || s.CPUs < 1:
		return fmt.Errorf("%w: %d MiB of memory and %d processors", desktop.ErrBadConfig, s.MemoryMiB, s.CPUs)
	case s.Image.Kernel == "" && s.Image.Disk == "":
		return fmt.Errorf("%w: %s has neither disk nor kernel", desktop.ErrBadConfig, s.Image.Dir)
	}
	for _, path := range []string{s.Dir, s.User.Home, s.Image.Disk, s.Image.Kernel, s.Image.Initrd} {
		if path != "" && !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%w: %q is not an absolute path", desktop.ErrBadConfig, path)
		}
	}
	return nil
}

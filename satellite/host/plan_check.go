package host

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Names of the checks, in the order in which they are told.
const (
	checkMaster   = "master"
	checkVersion  = "version"
	checkArch     = "architecture"
	checkQEMU     = "qemu"
	checkAccel    = "accelerator"
	checkDevice   = "kvm-device"
	checkClock    = "clock"
	checkNames    = "names"
	checkAddress  = "address"
	checkAccounts = "accounts"
	checkHomes    = "homes"
	checkLocks    = "locks"
	checkSnap     = "snap"
	checkSpeed    = "speed"
	checkBridges  = "bridges"
	checkSettings = "settings"
	checkKeys     = "keys"
	checkFiles    = "files"
)

// Check judges what was measured, compared with what the other hosts are.
func Check(m Measured, others []Survey) []Finding {
	others = apart(m.Survey, others)
	var out []Finding
	add := func(f Finding) {
		if why, ok := m.Failed[f.Check]; ok {
			f = Finding{Check: f.Check, Level: Fail, Measured: why, Wanted: "an answer", Fix: silence[f.Check]}
		}
		out = append(out, f)
	}
	compared := len(others) > 0
	if m.Satellite || !m.Master {
		add(master(m))
	}
	if m.Satellite || compared {
		add(version(m, others))
		add(arch(m, others))
	}
	if m.Probe != nil || m.failed(checkAccel) {
		add(hypervisor(m))
		add(accelerator(m))
		add(device(m))
	}
	if m.Answer != nil {
		add(clock(*m.Answer))
	}
	if m.Names != nil || m.failed(checkNames) {
		add(names(m))
	}
	if m.Address != nil || m.failed(checkAddress) {
		add(publicAddress(m, others))
	}
	if m.People != nil || m.failed(checkAccounts) {
		add(accounts(m, others))
	}
	if m.Survey.Home.Dir != "" || m.failed(checkHomes) {
		add(homes(m, others))
	}
	if m.Locks != nil || m.failed(checkLocks) {
		add(locks(m))
	}
	if m.Snap != nil || m.failed(checkSnap) {
		add(snap(m))
	}
	if m.Cards != nil || m.failed(checkSpeed) {
		add(speed(m.Cards))
	}
	if m.Survey.Bridges != nil || m.Network != "" || m.failed(checkBridges) {
		add(bridges(m, others))
	}
	if compared || m.Answer != nil {
		add(same(m, others))
	}
	if len(m.Keys) > 0 || m.failed(checkKeys) {
		add(keys(m))
	}
	if m.Files > 0 {
		add(files(m.Files))
	}
	return out
}

func (m Measured) failed(check string) bool {
	_, ok := m.Failed[check]
	return ok
}

// silence is what to look at where a check had no answer.
var silence = map[string]string{
	checkMaster:   "look at WIN4_VERDE_CMADDR and at the certificate of this host, and whether the master runs and the network leads there",
	checkAccel:    "look at QEMU and the accelerator: WIN4_QEMU, WIN4_ACCEL",
	checkNames:    "look at /etc/resolv.conf and whether the name servers run",
	checkAddress:  "look at /etc/resolv.conf and at WIN4_VERDE_PUBADDR",
	checkAccounts: "look at the directory server (LDAP, sssd), and at the file server of the homes",
	checkHomes:    "look at the file server of the homes",
	checkLocks:    "look at the file server of the homes and its lock service",
	checkSnap:     "look at WIN4_SNAP_DIR",
	checkSpeed:    "look at the network interfaces: ip link",
	checkBridges:  "look at the network interfaces: ip link",
	checkKeys:     "run it as root; see WIN4_VERDE_PKI_DIR",
}

// apart are the surveys of the other hosts, without this one's own.
func apart(own Survey, all []Survey) []Survey {
	return slices.DeleteFunc(slices.Clone(all), func(s Survey) bool {
		return own.ServerID != 0 && s.ServerID == own.ServerID || s.ServerID == 0 && s.Hostname == own.Hostname && s.BootID == own.BootID && s.PublicAddress == own.PublicAddress
	})
}

func master(m Measured) Finding {
	f := Finding{Check: checkMaster, Level: Pass, Wanted: "an answer"}
	if m.Answer != nil {
		f.Measured = fmt.Sprintf("%s answers in %s", m.Answer.Address, milli(m.Answer.RTT))
		return f
	}
	f.Level, f.Wanted = Warn, "a certificate of the cluster"
	f.Measured = "this computer has none: only what needs no certificate is checked"
	f.Fix = "on a server of the cluster: verdecmd register; on a management workstation nothing, it is compared by --against FILE"
	if m.Satellite { // there is one, and it was not wanted
		f.Level, f.Wanted, f.Fix = Pass, "not to be asked", ""
		f.Measured = "not asked"
	}
	return f
}

func version(m Measured, others []Survey) Finding {
	f := Finding{Check: checkVersion, Level: Pass, Measured: m.Survey.Version, Wanted: m.Survey.Version}
	if m.Answer != nil {
		f.Wanted = m.Answer.Version + ", as the master has"
		if m.Answer.Version != m.Survey.Version {
			f.Level, f.Fix = Warn, "install the same version everywhere"
			return f
		}
	}
	if odd := differing(others, func(s Survey) string { return s.Version }, m.Survey.Version); len(odd) > 0 {
		f.Level, f.Wanted, f.Fix = Warn, "the same everywhere: "+listed(odd), "install the same version everywhere"
	}
	return f
}

func arch(m Measured, others []Survey) Finding {
	f := Finding{Check: checkArch, Level: Pass, Measured: m.Survey.Arch, Wanted: m.Survey.Arch}
	if odd := differing(others, func(s Survey) string { return s.Arch }, m.Survey.Arch); len(odd) > 0 {
		f.Level, f.Wanted, f.Fix = Fail, "the same everywhere: "+listed(odd), "desktops of one image need processors of one kind: use such hosts only"
	}
	return f
}

// differing tells on which hosts a value is another one.
func differing(others []Survey, value func(Survey) string, own string) (out []string) {
	for _, s := range others {
		if v := value(s); v != own {
			out = append(out, fmt.Sprintf("%s on %s", orNone(v), hostName(s)))
		}
	}
	return out
}

// severe is how bad it is where desktops cannot run: on a computer that is no
// server of the cluster they need not.
func (m Measured) severe(f Finding) Finding {
	f.Level, f.Hard = Fail, true
	if !m.Satellite {
		f.Level, f.Hard = Warn, false
	}
	return f
}

func hypervisor(m Measured) Finding {
	f := Finding{Check: checkQEMU, Level: Pass, Wanted: "QEMU 7.2 or newer with its tools"}
	if m.Probe == nil {
		f.Measured = "not looked at, see " + checkAccel
		return f
	}
	f.Measured = "QEMU " + m.Probe.Version
	if len(m.Probe.Problems) > 0 {
		f.Measured, f.Fix = listed(m.Probe.Problems), "install what is missing, or correct WIN4_QEMU"
		f = m.severe(f)
	}
	return f
}

func accelerator(m Measured) Finding {
	f := Finding{Check: checkAccel, Level: Pass, Wanted: "kvm"}
	p := m.Probe
	switch {
	case p == nil:
	case p.Accelerator == "":
		f.Measured, f.Fix = p.Why, "switch virtualisation on in the firmware and load kvm_intel or kvm_amd; WIN4_ACCEL=auto lets desktops run slowly without it"
		f = m.severe(f)
	case p.Failed != "":
		f.Measured, f.Fix = fmt.Sprintf("QEMU does not start with %s: %s", p.Accelerator, p.Failed), "see what QEMU says; other hypervisors on this host must not hold the processor"
		f = m.severe(f)
	case p.Accelerator != "kvm":
		f.Level, f.Measured, f.Fix = Warn, fmt.Sprintf("%s: %s", p.Accelerator, p.Why), "desktops are emulated and slow; use a host with virtualisation, and WIN4_ACCEL=kvm"
	default:
		f.Measured = "kvm, and QEMU starts with it: " + p.Why
	}
	return f
}

func device(m Measured) Finding {
	f := Finding{Check: checkDevice, Level: Pass, Measured: "not used", Wanted: "a group that desktops are given"}
	switch p := m.Probe; {
	case p == nil:
	case p.DeviceFault != "":
		f.Measured, f.Fix = p.DeviceFault, "chgrp kvm /dev/kvm; chmod 0660 /dev/kvm; a rule of udev keeps it"
		f = m.severe(f)
	case p.Device != "":
		f.Measured = p.Device
	}
	return f
}

// How far clocks may be apart.
const (
	clockWarn = time.Second
	clockFail = 5 * time.Second
)

func clock(a Answer) Finding {
	// Half of the round trip is not known.
	sure := max(0, a.Offset.Abs()-a.RTT/2)
	f := Finding{Check: checkClock, Level: Pass, Wanted: fmt.Sprintf("within %g s of the master's", clockWarn.Seconds()),
		Measured: fmt.Sprintf("%+.3f s, measured within %s", a.Offset.Seconds(), milli(a.RTT/2))}
	switch {
	case sure > clockFail:
		f.Level = Fail
	case sure > clockWarn:
		f.Level = Warn
	}
	if f.Level != Pass {
		f.Fix = "set the clock, and keep it right by NTP (chrony or systemd-timesyncd)"
	}
	return f
}

func snap(m Measured) Finding {
	f := Finding{Check: checkSnap, Level: Pass, Wanted: "a local disk with more than WIN4_SNAP_RESERVE free"}
	s := m.Snap
	switch {
	case s == nil:
	case s.Dir == "":
		f.Level, f.Measured = Warn, "WIN4_SNAP_DIR is not set: what desktops write goes to the homes"
		f.Fix = "set WIN4_SNAP_DIR to a directory on a local disk"
	case s.Error != "":
		f.Level, f.Measured, f.Fix = Fail, s.Error, "make the directory, or correct WIN4_SNAP_DIR"
	default:
		f.Measured = fmt.Sprintf("%s is %s, %d MiB free, reserve %d MiB", s.Dir, s.Kind, s.Free>>20, s.Reserve>>20)
		switch {
		case s.Free <= s.Reserve:
			f.Level, f.Fix = Fail, "free space there, or lower WIN4_SNAP_RESERVE: no new sessions come to this host"
		case s.Kind != "local":
			f.Level, f.Fix = Warn, "set WIN4_SNAP_DIR to a directory on a local disk: desktops are slower, or take memory"
		case s.Free < 2*s.Reserve:
			f.Level, f.Fix = Warn, "free space there: soon no new sessions come to this host"
		}
	}
	return f
}

const slowMbit = 1000

func speed(cards []Card) Finding {
	f := Finding{Check: checkSpeed, Level: Pass, Wanted: fmt.Sprintf("%d Mbit/s", slowMbit)}
	var all []string
	for _, c := range cards {
		text := "not known"
		if c.Mbit > 0 {
			text = fmt.Sprintf("%d Mbit/s", c.Mbit)
		}
		all = append(all, fmt.Sprintf("%s (%s) %s", c.Name, c.Use, text))
		if c.Mbit > 0 && c.Mbit < slowMbit {
			f.Level, f.Fix = Warn, "use a faster network card, switch or cable"
		}
	}
	f.Measured = orNone(listed(all))
	return f
}

func keys(m Measured) Finding {
	f := Finding{Check: checkKeys, Level: Pass, Wanted: "of root and readable by nobody else"}
	var wrong, fix []string
	for _, s := range m.Keys {
		if s.Mode&s.Mask != 0 {
			wrong = append(wrong, fmt.Sprintf("%s has mode %04o", s.Path, s.Mode))
			fix = append(fix, fmt.Sprintf("chmod %04o %s", s.Mode&^s.Mask, s.Path))
		}
		if s.UID != 0 && s.UID != m.Self {
			wrong, fix = append(wrong, fmt.Sprintf("%s belongs to uid %d", s.Path, s.UID)), append(fix, "chown root:root "+s.Path)
		}
	}
	f.Measured = count(len(m.Keys), "file", "files")
	if len(wrong) > 0 {
		f.Level, f.Measured, f.Fix = Fail, listed(wrong), strings.Join(fix, "; ")
	}
	return f
}

// fewFiles is less than a satellite with some hundred desktops may need.
const fewFiles = 4096

func files(n uint64) Finding {
	f := Finding{Check: checkFiles, Level: Pass, Measured: fmt.Sprintf("%d open files", n), Wanted: fmt.Sprintf("%d", fewFiles)}
	if n < fewFiles {
		f.Level, f.Fix = Warn, fmt.Sprintf("raise the limit of open files: LimitNOFILE, or ulimit -n %d", fewFiles)
	}
	return f
}

func hostName(s Survey) string { return orNone(s.Hostname) }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// milli is a short time in words.
func milli(d time.Duration) string {
	return fmt.Sprintf("%g ms", math.Round(d.Seconds()*1e4)/10)
}

// wavers are checks that measure another figure each time.
var wavers = []string{checkMaster, checkClock, checkSnap}

// sameResult tells whether a result brings no news.
func sameResult(a, b []Finding) bool { return slices.EqualFunc(a, b, sameFinding) }

// sameFinding tells whether a finding brings no news: figures of what passes are
// none.
func sameFinding(a, b Finding) bool {
	return a.Check == b.Check && a.Level == b.Level && a.Hard == b.Hard &&
		(a.Level == Pass || slices.Contains(wavers, a.Check) || a.Measured == b.Measured)
}

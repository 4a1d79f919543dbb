package settings

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"
)

// leaseStop is how long a satellite may need to end its desktops.
const leaseStop = 20 * time.Second

// leaseReports is how many reports must be due in the time of a lease.
const leaseReports = 4

// Masters returns where the master may be, as host:port, in the order in which
// to try: WIN4_VERDE_CMADDR, each with port 8442 where it names none. Where it
// is empty and this computer is itself the master, that is its own address;
// else it is an error that names the fix. Names are not resolved here, so that
// each new connection sees changes of DNS.
func Masters(v *Values) ([]string, error) {
	if list := v.String(CMAddr); list != "" {
		return splitAddresses(list, MasterPort)
	}
	if !v.Bool(ClusterMaster) {
		return nil, fmt.Errorf("%s is not set in %s: nobody knows where the master is; write the master's name or address there: verdecmd settings set %s ADDRESS", CMAddr, v.Path(), CMAddr)
	}
	if v.String(Listen) == "" {
		return []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(MasterPort))}, nil
	}
	host, port, err := SplitAddress(v.String(Listen), MasterPort)
	if err != nil {
		return nil, err
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return []string{net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// PKI is the directory of keys and certificates.
func PKI(v *Values) string {
	if dir := v.String(PKIDir); dir != "" {
		return dir
	}
	return filepath.Join(v.String(StateDir), "pki")
}

// MasterDir is the directory of the master's database.
func MasterDir(v *Values) string { return filepath.Join(v.String(StateDir), "master") }

// SatelliteDir is the directory of a satellite's journal.
func SatelliteDir(v *Values) string { return filepath.Join(v.String(StateDir), "satellite") }

// LockFile is the file that a running master holds locked; its pid is inside.
func LockFile(v *Values) string {
	return filepath.Join(filepath.Dir(v.String(Socket)), "verdecmd.lock")
}

// contradictions finds settings that are right one by one but not together.
// The problem is told at the line that was written, not at a default.
func (v *Values) contradictions() []Problem {
	var problems []Problem
	say := func(name, format string, args ...any) {
		a := v.set[name]
		problems = append(problems, Problem{a.Line, a.Col, fmt.Sprintf(format, args...)})
	}
	if v.String(PasswdFile) != "" && filepath.Clean(v.String(StateDir)) == DefaultStateDir {
		say(PasswdFile, "%s is for demonstrations and tests, not for the real state directory %s: remove the line, or set %s to another directory", PasswdFile, DefaultStateDir, StateDir)
	}
	if v.String(Socket) == v.String(SatSocket) {
		name := SatSocket
		if !v.IsSet(name) {
			name = Socket
		}
		say(name, "%s and %s are the same path: choose two", Socket, SatSocket)
	}
	v.addresses(say)
	if v.String(LostSessions) == "lease" {
		self, replace := v.Duration(LeaseSelf), v.Duration(LeaseReplace)
		// The factor allows for clocks of different speed; the rest is the time
		// to end the desktops, and 10 s for messages under way.
		if least := self*11/10 + leaseStop + 10*time.Second; replace < least {
			name := LeaseReplace
			if !v.IsSet(name) {
				name = LeaseSelf
			}
			say(name, "%s is %v, but with %s=%v it must be at least %v: a user could have two desktops before",
				LeaseReplace, replace, LeaseSelf, self, least)
		}
		if lost := v.Duration(MasterLost); self <= lost {
			name := LeaseSelf
			if !v.IsSet(name) {
				name = MasterLost
			}
			say(name, "%s is %v: it must be longer than %s=%v", LeaseSelf, self, MasterLost, lost)
		}
		// A report renews the lease; three that are lost in a row must not end it.
		if every := v.Duration(StatsInterval); every > self/leaseReports {
			name := StatsInterval
			if !v.IsSet(name) {
				name = LeaseSelf
			}
			say(name, "%s is %v, but with %s=%v it must be at most %v: desktops would end because of reports that are late", StatsInterval, every, LeaseSelf, self, self/leaseReports)
		}
	}
	return problems
}

// addresses finds addresses on which two parts of this computer cannot both
// listen. Only what is written is compared, nothing is resolved.
func (v *Values) addresses(say func(name, format string, args ...any)) {
	peer, migration := v.String(PeerListen), v.String(MigrationAddr)
	for _, other := range []struct{ name, value string }{{PeerListen, peer}, {MigrationAddr, migration}} {
		if other.value != "" && v.Bool(ClusterMaster) && v.String(Listen) != "" && clash(other.value, v.String(Listen), PeerPort, MasterPort) {
			say(other.name, "%s=%s and %s=%s are on the same port of this computer: give one of them another port", other.name, other.value, Listen, v.String(Listen))
		}
	}
	// The same address twice is one place for both.
	if peer != "" && migration != "" && clash(peer, migration, PeerPort, PeerPort) && !same(peer, migration) {
		say(MigrationAddr, "%s=%s and %s=%s are on the same port, and one of them is all interfaces: give one another port, or remove one", MigrationAddr, migration, PeerListen, peer)
	}
}

// same compares two addresses of the port for satellites.
func same(a, b string) bool {
	hostA, _, _ := SplitAddress(a, PeerPort)
	hostB, _, _ := SplitAddress(b, PeerPort)
	return sameHost(hostA, hostB)
}

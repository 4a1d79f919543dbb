package host

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

func names(m Measured) Finding {
	f := Finding{Check: checkNames, Level: Pass, Wanted: "the host's name leads to its address and back, and the master's name to the master"}
	n := m.Names
	if n == nil {
		return f
	}
	var said, fix []string
	worse := func(l Level, text, how string) {
		if f.Level == Pass || l == Fail {
			f.Level = l
		}
		said, fix = append(said, text), append(fix, how)
	}
	for _, x := range n.Masters {
		if x.Error != "" {
			worse(Fail, fmt.Sprintf("%s, the master: %s", x.Name, x.Error), "make the master's name known, or write its address into WIN4_VERDE_CMADDR")
		}
	}
	switch {
	case n.Error != "":
		worse(Fail, fmt.Sprintf("%s, this host: %s", n.Host, n.Error), "make the host's name known to the name servers, or in /etc/hosts of all hosts")
	case !n.Own:
		worse(Warn, fmt.Sprintf("%s leads to %s, which other hosts cannot reach this one by", n.Host, strings.Join(n.IPs, ", ")), "let the host's name lead to its address in the network, see /etc/hosts")
	case !slices.ContainsFunc(n.Back, func(b string) bool { return sameHost(b, n.Host) }):
		worse(Warn, fmt.Sprintf("%s leads to %s, and that back to %s", n.Host, strings.Join(n.IPs, ", "), orNone(strings.Join(n.Back, ", "))), "let the address lead back to the host's name, by a PTR record or /etc/hosts")
	}
	if f.Level == Pass {
		said = append(said, fmt.Sprintf("%s is %s and back", n.Host, strings.Join(n.IPs, ", ")))
		for _, x := range n.Masters {
			said = append(said, fmt.Sprintf("%s is %s", x.Name, strings.Join(x.IPs, ", ")))
		}
	}
	f.Measured, f.Fix = listed(said), strings.Join(slices.Compact(fix), "; ")
	return f
}

// sameHost compares names with and without their domain.
func sameHost(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(a, ".")), strings.ToLower(strings.TrimSuffix(b, "."))
	short := func(s string) string { s, _, _ = strings.Cut(s, "."); return s }
	return a == b || short(a) == b || a == short(b)
}

func publicAddress(m Measured, others []Survey) Finding {
	f := Finding{Check: checkAddress, Level: Pass, Wanted: "an address of this host alone, where clients reach it"}
	a := m.Address
	if a == nil {
		return f
	}
	f.Measured = fmt.Sprintf("%s is %s", a.Text, strings.Join(a.IPs, ", "))
	if slices.Equal(a.IPs, []string{a.Text}) {
		f.Measured = a.Text
	}
	const set = "correct WIN4_VERDE_PUBADDR"
	twin, elsewhere := twins(m, others)
	switch {
	case a.Error != "":
		f.Level, f.Measured, f.Fix = Fail, fmt.Sprintf("%s: %s", a.Text, a.Error), "make the name known, or "+set
	case len(twin) > 0:
		f.Level, f.Fix = Fail, set+" here or there: each host has its own"
		f.Measured += ", and the same is the address of " + listed(twin)
	case a.Bind != "":
		f.Level, f.Fix = Fail, set
		f.Measured += ", and nothing can listen there: " + a.Bind
	case a.Loopback && elsewhere:
		f.Level, f.Fix = Fail, set
		f.Measured += ", which leads every client to itself"
	case !a.Own:
		f.Level, f.Fix = Warn, "where a router translates addresses (NAT) this is right; else "+set
		f.Measured += ", which no interface of this host has"
	}
	return f
}

// twins are the hosts that have the same address for clients; elsewhere tells
// whether there are other computers in the cluster at all. Satellites on one
// computer, as in a demonstration, may share an address.
func twins(m Measured, others []Survey) (twin []string, elsewhere bool) {
	here := map[uint64]bool{m.Survey.ServerID: true}
	for _, s := range others {
		switch {
		case s.BootID != "" && s.BootID == m.Survey.BootID:
			here[s.ServerID] = true
			continue
		case slices.ContainsFunc(s.PublicIPs, func(ip string) bool { return slices.Contains(m.Address.IPs, ip) }):
			twin = append(twin, hostName(s))
		}
		elsewhere = true
	}
	if m.Answer == nil {
		return twin, elsewhere
	}
	for _, s := range m.Answer.Servers {
		if here[s.ID] || slices.Contains(twin, s.Name) {
			continue
		}
		if s.Address != "localhost" && s.Address != "::1" && !strings.HasPrefix(s.Address, "127.") {
			elsewhere = true
		}
		if s.Address == m.Address.Text || slices.Contains(m.Address.IPs, s.Address) {
			twin = append(twin, s.Name)
		}
	}
	return twin, elsewhere
}

func accounts(m Measured, others []Survey) Finding {
	f := Finding{Check: checkAccounts, Level: Pass, Wanted: "the same users with the same numbers on all hosts, as the homes are owned"}
	p := m.People
	if p == nil {
		return f
	}
	f.Measured = count(len(m.Survey.Accounts), "user with a desktop", "users with desktops")
	if p.Cut {
		f.Measured = "the first " + f.Measured
	}
	var odd []string
	note := func(format string, args ...any) { odd = append(odd, fmt.Sprintf(format, args...)) }
	for _, h := range p.Homes {
		a, known := p.Here[h.Name]
		if !known {
			note("%s has a desktop and belongs to UID %d, which no user has here", h.Dir, h.Owner)
			continue
		}
		if a.UID == h.Owner || a.Home != h.Dir {
			continue
		}
		note("%s has UID %d here, and %s belongs to %d", h.Name, a.UID, h.Dir, h.Owner)
		// The file server and another host agree: it is this host that is wrong.
		if slices.ContainsFunc(elsewhere(h.Name, others), func(t Account) bool { return t.UID == h.Owner }) {
			f.Hard = true
		}
	}
	for _, s := range others {
		for _, b := range s.Accounts {
			switch a, known := p.Here[b.Name]; {
			case !known:
				note("%s (%d on %s) is not known here", b.Name, b.UID, hostName(s))
			case a.UID != b.UID || a.GID != b.GID:
				note("%s is %d:%d here and %d:%d on %s", b.Name, a.UID, a.GID, b.UID, b.GID, hostName(s))
			case a.Home != b.Home:
				note("%s has the home %s here and %s on %s", b.Name, a.Home, b.Home, hostName(s))
			}
		}
	}
	if len(odd) > 0 {
		f.Level, f.Measured = Fail, listed(odd)
		f.Fix = "make the accounts the same on all hosts (LDAP, or the same /etc/passwd); such a user is refused: getent passwd USER shows what a host has"
	}
	f.Hard = f.Hard && m.Satellite
	return f
}

// elsewhere is an account as other hosts have it.
func elsewhere(name string, others []Survey) (out []Account) {
	for _, s := range others {
		for _, a := range s.Accounts {
			if a.Name == name {
				out = append(out, a)
			}
		}
	}
	return out
}

func homes(m Measured, others []Survey) Finding {
	h := m.Survey.Home
	f := Finding{Check: checkHomes, Level: Pass, Measured: mountText(h), Wanted: "the same file system at the same place on all hosts"}
	var odd []string
	apart := false
	for _, s := range others {
		one := s.BootID == m.Survey.BootID && s.BootID != "" // they share its disks, too
		switch {
		case s.Home.Dir == "":
		case !one && (!h.Network || !s.Home.Network):
			apart = true
			if s.Home.Network {
				odd = append(odd, fmt.Sprintf("%s has %s", hostName(s), mountText(s.Home)))
			}
		case s.Home.Dir != h.Dir || s.Home.Source != h.Source || s.Home.Kind != h.Kind:
			odd = append(odd, fmt.Sprintf("%s has %s", hostName(s), mountText(s.Home)))
		}
	}
	switch {
	case apart && !h.Network:
		f.Level, f.Fix = Fail, "mount the homes from a file server that all hosts share"
		f.Measured += ", a disk of this host alone"
		if len(odd) > 0 {
			f.Measured += "; " + listed(odd)
		}
	case len(odd) > 0:
		f.Level, f.Measured = Fail, f.Measured+"; "+listed(odd)
		f.Fix = "mount the same export at the same place on all hosts"
	}
	return f
}

func mountText(m Mount) string {
	return fmt.Sprintf("%s (%s) at %s", orNone(m.Source), orNone(m.Kind), orNone(m.Dir))
}

func locks(m Measured) Finding {
	f := Finding{Check: checkLocks, Level: Pass, Wanted: "locks that exclude each other, on this host and between hosts"}
	l := m.Locks
	option := lockProblem(m.Survey.Home)
	bad := func(hard bool, text, fix string) Finding {
		f.Level, f.Measured, f.Fix = Fail, text, fix
		f.Hard = hard && m.Satellite
		return f
	}
	const mount = "mount the homes without nolock and local_lock, and start the lock service (rpc.statd) of hosts and file server"
	switch {
	case option != "":
		return bad(true, fmt.Sprintf("%s is mounted with %s: locks are of this host alone", mountText(m.Survey.Home), option), mount)
	case l == nil:
		return f
	case l.Error != "":
		f.Level, f.Measured, f.Fix = Warn, "not tried: "+l.Error, "run it as root, or let root write to the homes for a moment (no_root_squash)"
		return f
	case l.None != "":
		return bad(true, fmt.Sprintf("in %s no lock can be had: %s", l.Dir, l.None), mount)
	case !l.Excludes:
		return bad(true, fmt.Sprintf("in %s two processes hold the same lock", l.Dir), "use a file system with working POSIX locks for the homes; an image could be written by two at once")
	}
	tried := 0
	var odd, not []string
	found := true
	for _, p := range l.Peers {
		switch {
		case p.Error != "":
			not = append(not, fmt.Sprintf("%s: %s", p.Name, p.Error))
		case !p.Found:
			odd, found = append(odd, p.Name+" does not find the file that is locked here"), false
		case !p.Excludes:
			odd = append(odd, p.Name+" gets the lock that is held here")
		default:
			tried++
		}
	}
	f.Measured = "they exclude in " + l.Dir
	switch {
	case len(odd) > 0 && !found:
		return bad(false, listed(odd), "mount the same export at the same place on all hosts")
	case len(odd) > 0:
		return bad(false, listed(odd), mount+"; on OCFS2, the cluster stack o2cb has no such locks between hosts")
	case tried > 0:
		f.Measured += ", also from " + count(tried, "other host", "other hosts")
	case len(not) > 0:
		f.Level, f.Measured, f.Fix = Warn, f.Measured+"; between hosts it could not be tried: "+listed(not), "look at WIN4_PEER_LISTEN of that host and at its firewall"
	case m.Survey.Home.Kind == "ocfs2":
		f.Level, f.Fix = Warn, "with the cluster stack o2cb locks are of one host alone; it is tried as soon as another host is there"
	}
	return f
}

// usual are bridges that programs make for themselves.
func usual(name string) bool {
	return strings.HasPrefix(name, "docker") || strings.HasPrefix(name, "virbr") || strings.HasPrefix(name, "lxcbr") || strings.HasPrefix(name, "podman") || strings.HasPrefix(name, "cni") || strings.HasPrefix(name, "br-")
}

func bridges(m Measured, others []Survey) Finding {
	f := Finding{Check: checkBridges, Level: Pass, Wanted: "the same bridges with the same networks on all hosts"}
	own := map[string]Bridge{}
	var have []string
	for _, b := range m.Survey.Bridges {
		own[b.Name] = b
		have = append(have, b.Name)
	}
	f.Measured = "bridges: " + orNone(strings.Join(have, ", "))
	if _, ok := own[m.Network]; m.Network != "" && !ok {
		f.Level, f.Hard, f.Wanted = Fail, m.Satellite, fmt.Sprintf("the bridge %s of WIN4_NETWORK", m.Network)
		f.Fix = fmt.Sprintf("make the bridge (ip link add %s type bridge; ip link set %s up) and keep it in the network's configuration, or set WIN4_NETWORK=user", m.Network, m.Network)
		return f
	}
	var odd []string
	for _, s := range others {
		for _, b := range s.Bridges {
			a, ok := own[b.Name]
			switch {
			case usual(b.Name):
			case !ok:
				odd = append(odd, fmt.Sprintf("%s has %s, this host has not", hostName(s), b.Name))
			default:
				odd = append(odd, bridgeDiffers(a, b, hostName(s))...)
			}
		}
	}
	if len(odd) > 0 {
		f.Level, f.Measured = Warn, listed(odd)
		f.Fix = "give bridges of one name the same network on all hosts: desktops move between them"
	}
	return f
}

func bridgeDiffers(a, b Bridge, host string) (odd []string) {
	if !slices.Equal(a.Subnets, b.Subnets) {
		odd = append(odd, fmt.Sprintf("%s has the networks %s here and %s on %s", a.Name, orNone(strings.Join(a.Subnets, " ")), orNone(strings.Join(b.Subnets, " ")), host))
	}
	if a.MTU != b.MTU {
		odd = append(odd, fmt.Sprintf("%s has MTU %d here and %d on %s", a.Name, a.MTU, b.MTU, host))
	}
	if a.VLAN != b.VLAN {
		odd = append(odd, fmt.Sprintf("%s has VLAN %d here and %d on %s", a.Name, a.VLAN, b.VLAN, host))
	}
	return odd
}

func same(m Measured, others []Survey) Finding {
	f := Finding{Check: checkSettings, Level: Pass, Wanted: "the same where it must be the same"}
	own := m.Survey.Settings
	f.Measured = count(len(own), "setting", "settings") + " compared"
	var odd []string
	compare := func(host string, theirs map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(own)) {
			if v, ok := theirs[name]; ok && v != own[name] {
				odd = append(odd, fmt.Sprintf("%s is %s here and %s on %s", name, cmp.Or(own[name], "empty"), cmp.Or(v, "empty"), host))
			}
		}
	}
	if m.Answer != nil {
		compare("the master", m.Answer.Settings)
	}
	for _, s := range others {
		compare(hostName(s), s.Settings)
	}
	if len(odd) > 0 {
		f.Level, f.Measured, f.Fix = Fail, listed(odd), "verdecmd settings set NAME VALUE, and restart"
	}
	return f
}

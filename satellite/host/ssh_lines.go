package host

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// sshName is what may stand as a host name in known_hosts, where *, ?, ! and
// commas have a meaning.
var sshName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// SSHLines are the managed lines of authorized_keys and of known_hosts: the same
// on every server, by server. What does not look like a name, an address or a
// key is left out. A server is known by the name in its certificate and by its
// addresses, and an address that two of them claim is nobody's.
func SSHLines(members []*pb.Member) (authorized, known []string) {
	all := slices.SortedFunc(slices.Values(members), func(a, b *pb.Member) int { return cmp.Compare(a.ServerId, b.ServerId) })
	claims := map[string]int{}
	for _, m := range all {
		for _, a := range addresses(m) {
			claims[a]++
		}
	}
	for _, m := range all {
		if !sshName.MatchString(m.Name) {
			continue
		}
		if key, err := wire.SSHKey(m.SshUserKey, wire.SSHUserKinds); err == nil {
			authorized = append(authorized, key+" root@"+m.Name)
		}
		names := []string{m.Name}
		for _, a := range addresses(m) {
			if claims[a] == 1 {
				names = append(names, a)
			}
		}
		var keys []string
		for _, k := range m.SshHostKeys {
			if key, err := wire.SSHKey(k, wire.SSHHostKinds); err == nil {
				keys = append(keys, strings.Join(names, ",")+" "+key)
			}
		}
		slices.Sort(keys)
		known = append(known, slices.Compact(keys)...)
	}
	return authorized, known
}

// addresses are the IP addresses that a server tells of itself. Names are not
// taken over: a server could claim that of any machine of the world.
func addresses(m *pb.Member) (out []string) {
	for _, a := range []string{m.Address, m.Peer} {
		host, _, err := settings.SplitAddress(a, 1)
		if err != nil {
			continue
		}
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() && !ip.IsLoopback() && ip.Zone() == "" {
			out = append(out, ip.Unmap().String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

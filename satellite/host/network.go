package host

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// measureBridges asks the kernel for the bridges of this host.
func measureBridges() ([]Bridge, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, err
	}
	out := []Bridge{}
	for _, l := range links {
		if l.Type() != "bridge" {
			continue
		}
		b := Bridge{Name: l.Attrs().Name, MTU: uint32(l.Attrs().MTU), Subnets: []string{}}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, err
		}
		for _, a := range addresses {
			if a.IPNet == nil || a.IP.IsLinkLocalUnicast() {
				continue
			}
			if p, err := netip.ParsePrefix(a.IPNet.String()); err == nil {
				b.Subnets = append(b.Subnets, p.Masked().String())
			}
		}
		slices.Sort(b.Subnets)
		b.Subnets = slices.Compact(b.Subnets)
		for _, port := range links {
			if v, ok := port.(*netlink.Vlan); ok && v.MasterIndex == l.Attrs().Index {
				b.VLAN = uint32(v.VlanId)
			}
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Bridge) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// measureCards finds the interfaces that lead to the masters and have the public
// addresses, and asks for their speed. sys is /sys, or a copy of it in tests.
func measureCards(sys string, masters, public []string) ([]Card, error) {
	use := map[string][]string{}
	note := func(name, what string) {
		if name != "" && !slices.Contains(use[name], what) {
			use[name] = append(use[name], what)
		}
	}
	for _, ip := range masters {
		routes, err := netlink.RouteGet(net.ParseIP(ip))
		if err != nil || len(routes) == 0 {
			continue // another check tells that the master is not reached
		}
		if l, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil {
			note(l.Attrs().Name, "to the master")
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && slices.Contains(public, p.Addr().WithZone("").String()) {
				note(i.Name, "to clients")
			}
		}
	}
	out := []Card{}
	for name, what := range use {
		slices.Sort(what)
		out = append(out, Card{Name: name, Use: strings.Join(what, " and "), Mbit: cardSpeed(sys, name)})
	}
	slices.SortFunc(out, func(a, b Card) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// cardSpeed is the speed of an interface in Mbit/s; 0: it does not tell, as
// virtual ones.
func cardSpeed(sys, name string) int {
	data, err := os.ReadFile(filepath.Join(sys, "class/net", name, "speed"))
	if err != nil {
		return 0
	}
	return parseSpeed(string(data))
}

// parseSpeed reads what the kernel tells of a speed: -1 where it does not know.
func parseSpeed(text string) int {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 0 || n > 1e9 {
		return 0
	}
	return n
}

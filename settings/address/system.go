package address

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// system is the network that this process is in.
type system struct{}

func (system) Interfaces() ([]Interface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list of network interfaces: %w", err)
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list of addresses: %w", err)
	}
	all := make([]Interface, 0, len(links))
	for _, l := range links {
		i := Interface{Name: l.Attrs().Name}
		for _, a := range addresses {
			if a.LinkIndex == l.Attrs().Index && a.IPNet != nil {
				i.Own = append(i.Own, own(a))
			}
		}
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func own(a netlink.Addr) Own {
	ip, _ := netip.AddrFromSlice(a.IP)
	ip = ip.Unmap()
	bits, _ := a.Mask.Size()
	passing := unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	if ip.Is6() { // the flag means "secondary" for IPv4
		passing |= unix.IFA_F_TEMPORARY
	}
	return Own{IP: ip, Bits: bits, Passing: a.Flags&passing != 0,
		Global: a.Scope == unix.RT_SCOPE_UNIVERSE && ip.IsGlobalUnicast()}
}

func (system) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// Source connects a socket, for which the kernel asks its routes.
func (system) Source(ctx context.Context, to netip.Addr) (netip.Addr, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("route to %v: %w", to, err)
	}
	defer c.Close()
	from, err := netip.ParseAddrPort(c.LocalAddr().String())
	return from.Addr(), err
}

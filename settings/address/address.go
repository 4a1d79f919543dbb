// Package address turns the addresses in the settings into addresses of this
// computer: each may be an IP address, a name, or the name of a network
// interface, which stands for its first global address.
//
// What the network is like comes in through the interface Network, so that
// tests are on any computer they like. An interface counts before a name of
// DNS, IPv4 before IPv6, and nothing here ever chooses all interfaces: that is
// only where somebody writes 0.0.0.0 or ::, and then there is a remark for the
// log. An answer is true when it is given; DHCP may change it.
package address

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"verdecmd/settings"
)

// ErrNotYet is in the errors of what may be right later without a change of
// the settings: an interface without an address, a master that cannot be found.
var ErrNotYet = errors.New("not known yet")

// Own is an address of this computer.
type Own struct {
	IP   netip.Addr
	Bits int // of its network
	// Global: other computers can reach it.
	Global bool
	// Passing: it is deprecated, temporary, or not usable yet.
	Passing bool
}

// Interface is a network interface with its addresses in the kernel's order.
type Interface struct {
	Name string
	Own  []Own
}

// Network is the network as this computer sees it.
type Network interface {
	Interfaces() ([]Interface, error)
	// Lookup resolves a name.
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
	// Source is the own address from which another one is reached. It sends
	// nothing.
	Source(ctx context.Context, to netip.Addr) (netip.Addr, error)
}

// First is the address that an interface stands for: global, IPv4 before IPv6,
// lasting before passing, a network's before a single host's such as a virtual
// address. Among equals the kernel's order decides for IPv4; for IPv6, where
// that is newest first, the number does.
func (i Interface) First() (netip.Addr, bool) {
	var ok []Own
	for _, o := range i.Own {
		if o.Global {
			ok = append(ok, o)
		}
	}
	if len(ok) == 0 {
		return netip.Addr{}, false
	}
	slices.SortStableFunc(ok, func(a, b Own) int {
		order := cmp.Or(cmp.Compare(a.IP.BitLen(), b.IP.BitLen()), compareBool(a.Passing, b.Passing),
			compareBool(a.Bits == a.IP.BitLen(), b.Bits == b.IP.BitLen()))
		if order == 0 && a.IP.Is6() {
			return a.IP.Compare(b.IP)
		}
		return order
	})
	return ok[0].IP, true
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Finder finds the addresses of one computer.
type Finder struct {
	Values  *settings.Values
	Network Network
}

// New is a finder for this computer.
func New(v *settings.Values) Finder { return Finder{v, system{}} }

// here is the address of this computer that the host of a setting stands for.
func (f Finder) here(ctx context.Context, setting, host string) (netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip, nil
	}
	all, ip, found, err := f.byInterface(setting, host)
	if found || err != nil {
		return ip, err
	}
	ips, err := f.Network.Lookup(ctx, host)
	if err != nil {
		err = fmt.Errorf("%s: it is neither a network interface of this computer (%s) nor a name that can be resolved: %w", f.is(setting, host), list(all), err)
		if dns, ok := errors.AsType[*net.DNSError](err); ok && !dns.IsNotFound {
			err = fmt.Errorf("%w (%w)", err, ErrNotYet)
		}
		return netip.Addr{}, err
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	for _, ip := range ips {
		if ip.IsLoopback() || belongs(all, ip) {
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: the name stands for %s, which is no address of this computer (%s)", f.is(setting, host), join(ips), list(all))
}

// byInterface finds what host stands for where it is the name of an interface.
func (f Finder) byInterface(setting, host string) (all []Interface, ip netip.Addr, found bool, err error) {
	all, err = f.Network.Interfaces()
	if err != nil {
		return nil, ip, false, fmt.Errorf("addresses of this computer: %w", err)
	}
	i := slices.IndexFunc(all, func(i Interface) bool { return i.Name == host })
	if i < 0 {
		return all, ip, false, nil
	}
	ip, ok := all[i].First()
	if !ok {
		return all, ip, true, fmt.Errorf("%s: the network interface has no address that other computers can reach (%s): %w", f.is(setting, host), list(all), ErrNotYet)
	}
	return all, ip, true, nil
}

// is says which setting says what, and where.
func (f Finder) is(setting, host string) string {
	return fmt.Sprintf("%s (%s) is %q", setting, f.Values.Where(setting), host)
}

func belongs(all []Interface, ip netip.Addr) bool {
	return slices.ContainsFunc(all, func(i Interface) bool {
		return slices.ContainsFunc(i.Own, func(o Own) bool { return o.IP == ip.WithZone("") })
	})
}

// mostListed is how many interfaces an error names.
const mostListed = 12

// list names interfaces with what they stand for, those with an address first.
func list(all []Interface) string {
	var with, without []string
	for _, i := range all {
		if ip, ok := i.First(); ok {
			with = append(with, i.Name+" "+ip.String())
		} else {
			without = append(without, i.Name+" without a global address")
		}
	}
	names := append(with, without...)
	if n := len(names) - mostListed; n > 0 {
		names = append(names[:mostListed], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

func join(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips[:min(len(ips), 8)] {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}

func hostPort(ip netip.Addr, port int) string {
	return net.JoinHostPort(ip.String(), strconv.Itoa(port))
}

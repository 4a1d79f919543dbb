package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"verdecmd/settings"
	"verdecmd/settings/address"
)

// resolver is what is asked for names; tests hand in another one.
type resolver interface {
	LookupHost(ctx context.Context, name string) ([]string, error)
	LookupAddr(ctx context.Context, address string) ([]string, error)
}

// ownIPs are the addresses of this host's interfaces.
func ownIPs() ([]string, error) {
	all, err := net.InterfaceAddrs()
	var out []string
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().WithZone("").String())
		}
	}
	return out, err
}

// lookup resolves a name, or is the address that is given instead of one.
func lookup(ctx context.Context, r resolver, name string) ([]string, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		return []string{ip.Unmap().String()}, nil
	}
	ips, err := r.LookupHost(ctx, name)
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if ctx.Err() != nil || dns.IsTimeout {
			return nil, context.DeadlineExceeded
		}
		return nil, errors.New("no such name")
	}
	return slices.Compact(slices.Sorted(slices.Values(ips))), err
}

func isLoopback(ip string) bool {
	a, err := netip.ParseAddr(ip)
	return err == nil && a.IsLoopback()
}

// reachable is the first address that other hosts could reach this one by.
func reachable(ips, own []string) (ip string, ok bool) {
	for _, ip := range ips {
		if slices.Contains(own, ip) && !isLoopback(ip) {
			return ip, true
		}
	}
	return "", false
}

// measureNames resolves the host's own name there and back, and the master's.
func measureNames(ctx context.Context, r resolver, host string, masters []string) (*Names, error) {
	n := &Names{Host: host}
	own, err := ownIPs()
	if err != nil {
		return nil, err
	}
	for _, m := range masters {
		name, _, err := net.SplitHostPort(m)
		if err != nil {
			return nil, err
		}
		x := Name{Name: name}
		if x.IPs, err = lookup(ctx, r, name); err != nil {
			x.Error = reason(err, askFor)
		}
		n.Masters = append(n.Masters, x)
	}
	if n.IPs, err = lookup(ctx, r, host); err != nil {
		n.Error = reason(err, askFor)
		return n, nil
	}
	ip, ok := reachable(n.IPs, own)
	n.Own = ok
	if ok {
		n.Back, _ = r.LookupAddr(ctx, ip) // no name is no error here
		for i, b := range n.Back {
			n.Back[i] = strings.TrimSuffix(b, ".")
		}
	}
	return n, nil
}

// measureAddress looks at the address that clients are told, and at that for
// other satellites.
func measureAddress(ctx context.Context, r resolver, f address.Finder, hostname string) (*Address, error) {
	a := &Address{}
	text, _, err := f.Public(ctx, hostname)
	if err == nil {
		a.Text, _, err = settings.SplitAddress(text, 1)
	}
	if err != nil {
		return nil, err
	}
	host := a.Text
	if peers, err := f.Peers(ctx); err == nil {
		a.Peer = peers.Peer
	}
	if a.IPs, err = lookup(ctx, r, host); err != nil {
		a.Error = reason(err, askFor)
		return a, nil
	}
	own, err := ownIPs()
	if err != nil {
		return nil, err
	}
	a.Loopback = !slices.ContainsFunc(a.IPs, func(ip string) bool { return !isLoopback(ip) })
	for _, ip := range a.IPs {
		if !slices.Contains(own, ip) && !isLoopback(ip) {
			continue
		}
		a.Own = true
		l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
		if err != nil {
			a.Bind = err.Error()
			continue
		}
		l.Close()
	}
	return a, nil
}

package address

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"verdecmd/settings"
)

// Master is where the master waits for satellites, as host:port: what
// WIN4_VERDE_LISTEN says, else the address of WIN4_VERDE_CMADDR that belongs to
// this computer, else 127.0.0.1. The remarks are warnings for the log.
func (f Finder) Master(ctx context.Context) (listen string, remarks []string, err error) {
	if a := f.Values.String(settings.Listen); a != "" {
		host, port, err := settings.SplitAddress(a, settings.MasterPort)
		if err != nil {
			return "", nil, err
		}
		ip, err := f.here(ctx, settings.Listen, host)
		if err != nil {
			return "", nil, err
		}
		return hostPort(ip, port), f.everywhere(settings.Listen, ip), nil
	}
	if f.Values.String(settings.CMAddr) != "" {
		masters, err := settings.Masters(f.Values)
		if err != nil {
			return "", nil, err
		}
		all, err := f.Network.Interfaces()
		if err != nil {
			return "", nil, fmt.Errorf("addresses of this computer: %w", err)
		}
		for _, m := range masters {
			host, port, err := net.SplitHostPort(m)
			if err != nil {
				return "", nil, err
			}
			ips, err := f.resolve(ctx, host)
			if err != nil {
				remarks = append(remarks, fmt.Sprintf("%s: %v", settings.CMAddr, err))
			}
			for _, ip := range ips {
				if belongs(all, ip) {
					return net.JoinHostPort(ip.String(), port), remarks, nil
				}
			}
		}
	}
	remarks = append(remarks, fmt.Sprintf("neither %s nor %s names an address of this computer: only satellites on this computer can connect", settings.Listen, settings.CMAddr))
	return hostPort(loopback, settings.MasterPort), remarks, nil
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// everywhere remarks on an address that means all interfaces.
func (f Finder) everywhere(setting string, ip netip.Addr) []string {
	if !ip.IsUnspecified() {
		return nil
	}
	return []string{fmt.Sprintf("%s (%s) is %v: the port is open on all networks of this computer, those of the clients too; the name of an interface closes it elsewhere", setting, f.Values.Where(setting), ip)}
}

// resolve is Lookup for what may be an IP address.
func (f Finder) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ips, err := f.Network.Lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("the name %s cannot be resolved: %w", host, err)
	}
	return ips, nil
}

// Masters is settings.Masters, with the address for the name of an interface
// where the master is on this computer and nothing else says where.
func (f Finder) Masters() ([]string, error) {
	masters, err := settings.Masters(f.Values)
	if err != nil || f.Values.String(settings.CMAddr) != "" || f.Values.String(settings.Listen) == "" {
		return masters, err
	}
	host, port, err := net.SplitHostPort(masters[0])
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return masters, nil
	}
	_, ip, found, err := f.byInterface(settings.Listen, host)
	if err != nil {
		return nil, err
	}
	if !found {
		return masters, nil
	}
	return []string{net.JoinHostPort(ip.String(), port)}, nil
}

// Public is how clients reach this satellite, a host or host:port: as
// WIN4_VERDE_PUBADDR says it, with the address for the name of an interface;
// else the host name. The remarks are warnings for the log.
func (f Finder) Public(ctx context.Context, hostname string) (address string, remarks []string, err error) {
	written := f.Values.String(settings.PubAddr)
	if written == "" {
		return hostname, nil, nil
	}
	host, port, err := settings.SplitAddress(written, 0)
	if err != nil {
		return "", nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return written, nil, nil
	}
	all, ip, found, err := f.byInterface(settings.PubAddr, host)
	switch {
	case err != nil:
		return "", nil, err
	case found && port != 0:
		return hostPort(ip, port), nil, nil
	case found:
		return ip.String(), nil, nil
	}
	// Clients may resolve a name that this computer cannot; the name of an
	// interface has no dot as a rule, and then it may be a mistake.
	if !strings.Contains(host, ".") {
		if _, err := f.Network.Lookup(ctx, host); err != nil {
			remarks = []string{fmt.Sprintf("%s: it is neither a network interface of this computer (%s) nor a name that can be resolved here: %v", f.is(settings.PubAddr, host), list(all), err)}
		}
	}
	return written, remarks, nil
}

// Peers is where this satellite waits for others.
type Peers struct {
	Ports []Port // each once; one or two
	// Peer and Migration are what others are told, as host:port: where this
	// satellite is reached, and where desktops and images are sent to.
	Peer, Migration string
	Remarks         []string // warnings for the log
}

// Port is where to listen.
type Port struct {
	Listen   string   // host:port
	Settings []string // by which settings; see Only
}

// Peers follows WIN4_PEER_LISTEN, where it is empty the way to the master, and
// WIN4_MIGRATION_ADDR. An error that is ErrNotYet may be gone the next time.
func (f Finder) Peers(ctx context.Context) (Peers, error) {
	listen, tell, remarks, err := f.place(ctx, settings.PeerListen)
	if err != nil {
		return Peers{}, err
	}
	p := Peers{Ports: []Port{{listen, []string{settings.PeerListen}}}, Peer: tell, Migration: tell, Remarks: remarks}
	if f.Values.String(settings.MigrationAddr) == "" {
		return p, nil
	}
	listen, tell, remarks, err = f.place(ctx, settings.MigrationAddr)
	if err != nil {
		return Peers{}, err
	}
	p.Migration = tell
	if first := &p.Ports[0]; listen == first.Listen {
		first.Settings = append(first.Settings, settings.MigrationAddr)
	} else {
		p.Ports, p.Remarks = append(p.Ports, Port{listen, []string{settings.MigrationAddr}}), append(p.Remarks, remarks...)
	}
	return p, nil
}

// place is where to listen for other satellites by one setting, and what they
// are told of it.
func (f Finder) place(ctx context.Context, setting string) (listen, tell string, remarks []string, err error) {
	port := settings.PeerPort
	var ip netip.Addr
	if a := f.Values.String(setting); a != "" {
		var host string
		if host, port, err = settings.SplitAddress(a, port); err == nil {
			ip, err = f.here(ctx, setting, host)
		}
		if err != nil {
			return "", "", nil, err
		}
	}
	reached := ip
	if !ip.IsValid() || ip.IsUnspecified() {
		if reached, err = f.towardsMaster(ctx); err != nil {
			return "", "", nil, fmt.Errorf("which address other satellites are told follows from the way to the master, unless %s says it: %w", setting, err)
		}
	}
	if !ip.IsValid() {
		ip = reached
	}
	return hostPort(ip, port), hostPort(reached, port), f.everywhere(setting, ip), nil
}

// towardsMaster is the own address from which the master is reached: that of
// the first master for which there is one.
func (f Finder) towardsMaster(ctx context.Context) (netip.Addr, error) {
	masters, err := f.Masters()
	if err != nil {
		return netip.Addr{}, err
	}
	var errs []error
	for _, m := range masters {
		host, _, err := net.SplitHostPort(m)
		if err != nil {
			return netip.Addr{}, err
		}
		ips, err := f.resolve(ctx, host)
		if err != nil {
			errs = append(errs, err)
		}
		for _, to := range ips {
			from, err := f.Network.Source(ctx, to)
			if err == nil {
				return from, nil
			}
			errs = append(errs, err)
		}
	}
	return netip.Addr{}, fmt.Errorf("%w: %w", ErrNotYet, errors.Join(errs...))
}

package settings

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// SplitAddress takes host[:port] apart: a name, an IPv4 address, or an IPv6
// address, in brackets where a port follows. Without a port, defaultPort is
// returned. The host comes without brackets.
func SplitAddress(address string, defaultPort int) (host string, port int, err error) {
	const want = "wants host or host:port, an IPv6 address as [address]:port"
	host, port = address, defaultPort
	_, notIP := netip.ParseAddr(address)
	rest, bracket := strings.CutPrefix(address, "[")
	switch {
	case notIP == nil: // a bare address of either kind
	case bracket && strings.HasSuffix(rest, "]"):
		host = strings.TrimSuffix(rest, "]")
	case strings.Contains(address, ":"):
		var text string
		host, text, err = net.SplitHostPort(address)
		if err != nil {
			return "", 0, errors.New(want)
		}
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("the port %.20q is not a number from 1 to 65535", text)
		}
		port = int(n)
	}
	if bracket {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", 0, fmt.Errorf("%.80q in brackets is not an IPv6 address", host)
		}
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Zone() != "" && !validHost(ip.Zone()+".zone") {
		return "", 0, fmt.Errorf("%.80q is not the name of a network interface", ip.Zone())
	}
	if err != nil && !validHost(host) {
		return "", 0, fmt.Errorf("%.80q is neither an IP address nor a host name: %s", host, want)
	}
	return host, port, nil
}

// unspecified tells 0.0.0.0 and :: from all other hosts.
func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

// clash tells whether a program that listens on one address keeps another from
// listening on the other: the same port on the same host, or one is all
// interfaces.
func clash(a, b string, defaultA, defaultB int) bool {
	hostA, portA, errA := SplitAddress(a, defaultA)
	hostB, portB, errB := SplitAddress(b, defaultB)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	return sameHost(hostA, hostB) || unspecified(hostA) || unspecified(hostB)
}

// sameHost compares as written: names are not resolved.
func sameHost(a, b string) bool {
	ipA, errA := netip.ParseAddr(a)
	ipB, errB := netip.ParseAddr(b)
	return errA == nil && errB == nil && ipA == ipB || errA != nil && errB != nil && strings.EqualFold(a, b)
}

// validHost accepts what DNS and /etc/hosts accept as a name. A name of digits
// and points alone is an IPv4 address with a mistake in it.
func validHost(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 || strings.Trim(host, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

func splitAddresses(list string, defaultPort int) ([]string, error) {
	var out []string
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			return nil, errors.New("wants addresses with one comma between two of them: one is empty")
		}
		host, port, err := SplitAddress(item, defaultPort)
		if err != nil {
			return nil, err
		}
		out = append(out, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	return out, nil
}

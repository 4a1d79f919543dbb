package address

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"verdecmd/settings"
)

// Only lets in, of those who connect to a listener, who comes over a network
// interface that one of the settings names, or from this computer itself. Linux
// takes packets for any of its addresses from any network: who is in the
// clients' network and sends them to a computer's address in another one would
// be answered. What counts are interfaces that have the listener's address;
// settings that are an IP address or a name of DNS close nothing.
//
// refused is told, at most once a minute, over which interface somebody came. A
// kernel that does not tell this lets everybody in.
func (f Finder) Only(l net.Listener, refused func(from, over string), names ...string) net.Listener {
	all, err := f.Network.Interfaces()
	if err != nil {
		return l
	}
	at, _ := netip.ParseAddrPort(l.Addr().String())
	var nics []string
	for _, name := range names {
		host, _, err := settings.SplitAddress(f.Values.String(name), 0)
		i := slices.IndexFunc(all, func(i Interface) bool { return i.Name == host })
		if err == nil && i >= 0 && belongs(all[i:i+1], at.Addr()) {
			nics = append(nics, host)
		}
	}
	if len(nics) == 0 {
		return l
	}
	return &only{Listener: l, nics: nics, refused: refused, known: map[int]known{}}
}

// only is a listener that looks over which interface a connection came.
type only struct {
	net.Listener
	nics    []string
	refused func(from, over string)

	mu    sync.Mutex // guards what follows
	known map[int]known
	told  time.Time
}

// known is what was found out about the interface with a number. It is looked at
// again after a while: interfaces are made anew and get the numbers of others.
type known struct {
	name string
	ok   bool
	at   time.Time
}

// lookAgain is how long it is believed.
const lookAgain = time.Second

// Accept implements net.Listener.
func (o *only) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		index, ok := arrival(c)
		if !ok {
			return c, nil
		}
		name, ok := o.lets(index, time.Now())
		if ok {
			return c, nil
		}
		from := c.RemoteAddr().String()
		c.Close()
		if o.tell(time.Now()) {
			o.refused(from, name)
		}
	}
}

// lets tells whether somebody who came over an interface may come in, and what
// it is called.
func (o *only) lets(index int, now time.Time) (name string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	k, found := o.known[index]
	if !found || now.Sub(k.at) > lookAgain {
		k = known{at: now}
		if i, err := net.InterfaceByIndex(index); err == nil {
			k.name, k.ok = i.Name, i.Flags&net.FlagLoopback != 0 || slices.Contains(o.nics, i.Name)
		}
		if len(o.known) > 1000 {
			clear(o.known)
		}
		o.known[index] = k
	}
	return k.name, k.ok
}

func (o *only) tell(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.told) < time.Minute {
		return false
	}
	o.told = now
	return true
}

// arrival is the number of the interface over which a connection has come about;
// ok is false where the kernel does not say.
func arrival(c net.Conn) (index int, ok bool) {
	t, is := c.(*net.TCPConn)
	if !is {
		return 0, false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return 0, false
	}
	raw.Control(func(fd uintptr) {
		index, ok = pktinfo(int(fd), unix.SOL_IP, unix.IP_PKTINFO, unix.IP_PKTOPTIONS)
		if !ok {
			index, ok = pktinfo(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_2292PKTOPTIONS)
		}
	})
	return index, ok
}

// pktinfo asks a socket for what the packet was like that made it.
func pktinfo(fd, level, enable, get int) (index int, ok bool) {
	if unix.SetsockoptInt(fd, level, enable, 1) != nil {
		return 0, false
	}
	defer unix.SetsockoptInt(fd, level, enable, 0)
	var buf [256]byte
	size := uint32(len(buf))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(get),
		uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, false
	}
	return parsePktinfo(buf[:size])
}

// parsePktinfo finds the number of the interface in control messages.
func parsePktinfo(b []byte) (index int, ok bool) {
	all, err := unix.ParseSocketControlMessage(b)
	if err != nil {
		return 0, false
	}
	for _, m := range all {
		at := -1
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO:
			at = 0 // struct in_pktinfo begins with it
		case m.Header.Level == unix.SOL_IPV6 && (m.Header.Type == unix.IPV6_PKTINFO || m.Header.Type == unix.IPV6_2292PKTINFO):
			at = 16 // struct in6_pktinfo begins with the address
		}
		if at >= 0 && len(m.Data) >= at+4 {
			index = int(binary.NativeEndian.Uint32(m.Data[at:]))
			return index, index > 0
		}
	}
	return 0, false
}

package qemu

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// checkBridge says why no desktop could be connected to the bridge.
func checkBridge(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%w: bridge %s: %v; make it, or set WIN4_NETWORK=user", desktop.ErrNetwork, name, err)
	}
	if l.Type() != "bridge" {
		return fmt.Errorf("%w: %s is a %s, not a bridge", desktop.ErrNetwork, name, l.Type())
	}
	return nil
}

// openTap makes a network card of the host for one desktop, as a port of the
// bridge. It lives as long as somebody holds the descriptor, so nothing is left
// behind whoever dies.
func openTap(bridge string) (_ *os.File, err error) {
	if err := checkBridge(bridge); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: /dev/net/tun: %w", desktop.ErrNetwork, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	req, err := unix.NewIfreq("win4t%d") // the kernel fills in a number
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("%w: making a tap: %w", desktop.ErrNetwork, err)
	}
	tap, err := netlink.LinkByName(req.Name())
	if err != nil {
		return nil, fmt.Errorf("%w: tap %s: %w", desktop.ErrNetwork, req.Name(), err)
	}
	br, err := netlink.LinkByName(bridge)
	if err == nil {
		err = netlink.LinkSetMTU(tap, br.Attrs().MTU)
	}
	if err == nil {
		err = netlink.LinkSetMaster(tap, br)
	}
	if err == nil {
		err = netlink.LinkSetUp(tap)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: tap %s on bridge %s: %w", desktop.ErrNetwork, req.Name(), bridge, err)
	}
	return os.NewFile(uintptr(fd), req.Name()), nil
}

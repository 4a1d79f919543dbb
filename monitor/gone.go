package monitor

import (
	"net"

	"golang.org/x/sys/unix"
)

// gone tells whether the client has closed its whole end. One that has ended
// only its sending side is not gone: the kernel tells POLLHUP for the first
// and POLLRDHUP for the second.
func gone(nc net.Conn) bool {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		hup = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || hup
}

package monitor

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Levels says which peer has which level: the values of the settings
// VERDECMD_CONN_ADMINS, _OPERATORS, _VIEWERS (login names, UIDs and @groups,
// separated by blanks) and VERDECMD_CONN_LEVEL (empty: admin).
type Levels struct {
	Admins, Operators, Viewers string
	Default                    string
}

// members is one of the lists with its names resolved.
type members struct {
	uids, gids []int
}

// levels decides about peers.
type levels struct {
	of       [3]members // by Level
	standard Level      // of who is in none
}

// resolve looks the names up. Any mistake gives everybody but UID 0 the level
// viewer; the error says what is wrong.
func (l Levels) resolve(d Directory) (levels, error) {
	out := levels{standard: Admin}
	if l.Default != "" {
		level, ok := ParseLevel(l.Default)
		if !ok {
			return levels{}, fmt.Errorf("VERDECMD_CONN_LEVEL: %q is not viewer, operator or admin", l.Default)
		}
		out.standard = level
	}
	for _, list := range []struct {
		name, words string
		level       Level
	}{
		{"VERDECMD_CONN_ADMINS", l.Admins, Admin},
		{"VERDECMD_CONN_OPERATORS", l.Operators, Operator},
		{"VERDECMD_CONN_VIEWERS", l.Viewers, Viewer},
	} {
		m := &out.of[list.level]
		for _, w := range strings.Fields(list.words) {
			group, isGroup := strings.CutPrefix(w, "@")
			var id int
			var err error
			if isGroup {
				id, err = groupID(d, group)
				m.gids = append(m.gids, id)
			} else {
				id, err = userID(d, w)
				m.uids = append(m.uids, id)
			}
			if err != nil {
				return levels{}, fmt.Errorf("%s: %q is not known: %w", list.name, w, err)
			}
		}
	}
	return out, nil
}

// level is what a peer may do. Its supplementary groups count, those that its
// process has and those of its account; they are looked up only where groups are
// asked for.
func (l levels) level(d Directory, c Caller) Level {
	if c.UID == 0 {
		return Admin
	}
	var gids []int
	for level := Admin; level >= Viewer; level-- {
		m := l.of[level]
		if slices.Contains(m.uids, c.UID) {
			return level
		}
		if len(m.gids) == 0 {
			continue
		}
		if gids == nil {
			gids = slices.Concat([]int{c.GID}, c.groups, d.Groups(c.UID))
		}
		if slices.ContainsFunc(m.gids, func(g int) bool { return slices.Contains(gids, g) }) {
			return level
		}
	}
	return l.standard
}

// peer reads who is at the other end from the kernel.
func peer(nc net.Conn) (Caller, error) {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("%T has no peer credentials", nc)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var groups []int
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups = peerGroups(fd)
	}); err != nil {
		return Caller{}, err
	}
	if credErr != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", credErr)
	}
	return Caller{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid), groups: groups}, nil
}

// peerGroups are the supplementary groups of the process at the other end when it
// connected; a kernel that does not tell them has none.
func peerGroups(fd uintptr) []int {
	var gids [1024]uint32
	size := uint32(unsafe.Sizeof(gids))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS, uintptr(unsafe.Pointer(&gids)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	var out []int
	for _, g := range gids[:size/4] {
		out = append(out, int(g))
	}
	return out
}

// name fills in the login name of a caller.
func (c *Caller) name(d Directory) {
	c.Name = strconv.Itoa(c.UID)
	if name, ok := d.UserName(c.UID); ok {
		c.Name = name
	}
}

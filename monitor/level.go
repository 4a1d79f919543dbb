package monitor

import (
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"

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
func (l Levels) resolve() (levels, error) {
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
				id, err = groupID(group)
				m.gids = append(m.gids, id)
			} else {
				id, err = userID(w)
				m.uids = append(m.uids, id)
			}
			if err != nil {
				return levels{}, fmt.Errorf("%s: %q is not known", list.name, w)
			}
		}
	}
	return out, nil
}

// level is what a peer may do. Its supplementary groups count; they are
// looked up only where groups are asked for.
func (l levels) level(c Caller) Level {
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
			gids = groupsOf(c)
		}
		if slices.ContainsFunc(m.gids, func(g int) bool { return slices.Contains(gids, g) }) {
			return level
		}
	}
	return l.standard
}

func groupsOf(c Caller) []int {
	gids := []int{c.GID}
	u, err := user.LookupId(strconv.Itoa(c.UID))
	if err != nil {
		return gids
	}
	words, err := u.GroupIds()
	if err != nil {
		return gids
	}
	for _, w := range words {
		if g, err := strconv.Atoi(w); err == nil {
			gids = append(gids, g)
		}
	}
	return gids
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
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Caller{}, err
	}
	if credErr != nil {
		return Caller{}, fmt.Errorf("peer credentials: %w", credErr)
	}
	return Caller{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}

// name fills in the login name of a caller.
func (c *Caller) name() {
	c.Name = strconv.Itoa(c.UID)
	if u, err := user.LookupId(c.Name); err == nil {
		c.Name = u.Username
	}
}

package monitor

import (
	"os/user"
	"strconv"
)

// Directory knows the users and groups that levels, the owner of the socket and
// callers are named by.
type Directory interface {
	// UserID and GroupID return the number of a name.
	UserID(name string) (int, error)
	GroupID(name string) (int, error)
	// UserName returns the login name of a user; ok is false where nobody has the
	// number.
	UserName(uid int) (name string, ok bool)
	// Groups returns the groups of a user that are known.
	Groups(uid int) []int
}

// LocalFiles is the Directory of /etc/passwd and /etc/group.
type LocalFiles struct{}

// UserID implements Directory.
func (LocalFiles) UserID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return number32(u.Uid)
}

// GroupID implements Directory.
func (LocalFiles) GroupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return number32(g.Gid)
}

// UserName implements Directory.
func (LocalFiles) UserName(uid int) (string, bool) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "", false
	}
	return u.Username, true
}

// Groups implements Directory.
func (LocalFiles) Groups(uid int) (groups []int) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil
	}
	words, _ := u.GroupIds() // those that are known
	for _, w := range words {
		if g, err := number32(w); err == nil {
			groups = append(groups, g)
		}
	}
	return groups
}

// userID is the number of a user given by name or number.
func userID(d Directory, word string) (int, error) {
	if isDigits(word) {
		return number32(word)
	}
	return d.UserID(word)
}

// groupID is the number of a group given by name or number.
func groupID(d Directory, word string) (int, error) {
	if isDigits(word) {
		return number32(word)
	}
	return d.GroupID(word)
}

// number32 reads a UID or GID; 2^32-1 is none, it means "leave as it is".
func number32(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = strconv.ErrRange
	}
	return int(n), err
}

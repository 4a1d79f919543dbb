package master

import (
	"verdecmd/monitor"
	"verdecmd/settings/account"
)

// directory finds the administrators of the settings: in the files of this
// computer, and else wherever the system knows users from. Who is in the files
// does not wait for a directory server that is down, except for groups, which
// somebody may have there as well.
type directory struct {
	files  monitor.LocalFiles
	system *account.Lookup
}

func (d directory) UserID(name string) (int, error) {
	if id, err := d.files.UserID(name); err == nil {
		return id, nil
	}
	u, err := d.system.ByName(name)
	return int(u.UID), err
}

func (d directory) GroupID(name string) (int, error) {
	if id, err := d.files.GroupID(name); err == nil {
		return id, nil
	}
	id, err := d.system.GID(name)
	return int(id), err
}

func (d directory) UserName(uid int) (string, bool) {
	if name, ok := d.files.UserName(uid); ok {
		return name, true
	}
	u, err := d.system.ByUID(uint32(uid))
	return u.Name, err == nil
}

func (d directory) Groups(uid int) []int {
	groups := d.files.Groups(uid)
	if u, err := d.system.ByUID(uint32(uid)); err == nil {
		groups = append(groups, int(u.GID))
		for _, g := range u.Groups {
			groups = append(groups, int(g))
		}
	}
	return groups
}

package master

import (
	"verdecmd/monitor"
	"verdecmd/settings/account"
)

// directory finds the administrators of the settings: in the files of this
// computer, and else wherever the system knows users from. Root and whoever is in
// the files does not wait for a directory server that is down.
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

func (d directory) Account(uid int) (name string, groups []int, ok bool) {
	name, groups, ok = d.files.Account(uid)
	if ok && uid == 0 {
		return name, groups, true
	}
	u, err := d.system.ByUID(uint32(uid))
	if err != nil {
		return name, groups, ok
	}
	if !ok {
		name = u.Name
	}
	groups = append(groups, int(u.GID))
	for _, g := range u.Groups {
		groups = append(groups, int(g))
	}
	return name, groups, true
}

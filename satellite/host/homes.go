package host

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
	"verdecmd/settings/account"
)

const (
	mostHomes   = 500  // whose owners are compared with those on other hosts
	mostUsers   = 5000 // who are looked at for it
	mostEntries = 5000 // of one directory of homes
)

// measureHome finds the file system of the homes by one of them, or by the
// directory of all. Looking into it also makes an automounter mount it.
func measureHome(mountinfo, dir string, one bool) (Mount, error) {
	_, err := os.Stat(filepath.Join(dir, "."))
	for errors.Is(err, fs.ErrNotExist) && dir != "/" { // then it would be there
		dir, one = filepath.Dir(dir), false
		_, err = os.Stat(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return Mount{}, err
	}
	data, err := os.ReadFile(mountinfo)
	if err != nil {
		return Mount{}, err
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	m, ok := mountOf(parseMountinfo(string(data)), real)
	if !ok {
		return Mount{}, errors.New("nothing is mounted above " + dir)
	}
	if one {
		m = homesMount(m, dir)
	}
	return m, nil
}

// accountsDB is the part of account.Lookup that is needed here.
type accountsDB interface {
	Names(prefix string, limit int) ([]string, error)
	Several(names []string) (map[string]account.User, error)
	ByUID(uid uint32) (account.User, error)
}

// people finds the homes with a desktop: of the accounts that the host tells,
// and in the directories where homes are, since a directory server may not tell
// all that it knows.
type people struct {
	db      accountsDB
	desktop string   // name of the link in a home
	roots   []string // directories of homes, beside those of the accounts
	found   map[string]Home
	here    map[string]Account
	cut     bool
}

func measurePeople(ctx context.Context, db accountsDB, desktopName string, roots []string) (*People, error) {
	p := &people{db: db, desktop: desktopName, roots: roots, found: map[string]Home{}, here: map[string]Account{}}
	names, err := db.Names("", mostUsers)
	if err != nil {
		return nil, err
	}
	users, err := db.Several(names)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		u := users[name]
		if owner, group, ok := p.owner(u.Home, u.UID); ok {
			p.add(Home{Name: u.Name, Dir: u.Home, Owner: owner, Group: group}, &u)
			if d := filepath.Dir(u.Home); d != "/" && !slices.Contains(p.roots, d) {
				p.roots = append(p.roots, d)
			}
		}
	}
	if err := p.unknown(ctx); err != nil {
		return nil, err
	}
	out := &People{Here: p.here, Cut: p.cut}
	for _, dir := range slices.Sorted(maps.Keys(p.found)) {
		out.Homes = append(out.Homes, p.found[dir])
	}
	return out, nil
}

func (p *people) add(h Home, u *account.User) {
	if _, again := p.found[h.Dir]; !again && len(p.found) == mostHomes {
		p.cut = true
		return
	}
	p.found[h.Dir] = h
	if u != nil {
		p.here[u.Name] = Account{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home}
	}
}

// owner tells whose a home is, if there is a desktop in it. Where root may not
// look into it, as on many file servers, its owner looks.
func (p *people) owner(home string, uid uint32) (owner, group uint32, ok bool) {
	var st unix.Stat_t
	if unix.Stat(home, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, 0, false
	}
	look := func() error {
		_, err := os.Lstat(filepath.Join(home, p.desktop))
		return err
	}
	err := look()
	for _, id := range []uint32{st.Uid, uid} {
		if errors.Is(err, fs.ErrPermission) && id != 0 {
			err = desktop.User{Name: home, UID: id, GID: st.Gid}.Do(look)
		}
	}
	return st.Uid, st.Gid, err == nil
}

// unknown looks for homes of which no account was told.
func (p *people) unknown(ctx context.Context) error {
	var dirs []string
	for _, root := range p.roots {
		entries, cut, err := readDir(root)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		p.cut = p.cut || cut
		for _, name := range entries {
			dir := filepath.Join(root, name)
			if _, known := p.found[dir]; known || ctx.Err() != nil {
				continue
			}
			if owner, group, ok := p.owner(dir, 0); ok && owner != 0 {
				p.add(Home{Name: name, Dir: dir, Owner: owner, Group: group}, nil)
				dirs = append(dirs, dir)
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var names []string
	for _, d := range dirs {
		names = append(names, filepath.Base(d))
	}
	users, err := p.db.Several(names)
	if err != nil {
		return err
	}
	asked := 0
	for _, dir := range dirs {
		h, kept := p.found[dir]
		if !kept {
			continue
		}
		u, ok := users[h.Name]
		if !ok && asked < 20 { // a home that is not named as its user
			asked++
			if byUID, err := p.db.ByUID(h.Owner); err == nil && byUID.Home == dir {
				u, ok = byUID, true
			}
		}
		if ok {
			h.Name = u.Name
			p.add(h, &u)
		}
	}
	return nil
}

// readDir is the names in a directory, sorted; cut: there are more.
func readDir(dir string) (names []string, cut bool, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	names, err = f.Readdirnames(mostEntries + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	cut = len(names) > mostEntries
	slices.Sort(names)
	return names[:min(len(names), mostEntries)], cut, err
}

// known looks up users whom other hosts have told, and who have no desktop here.
func (p *People) known(db accountsDB, others []Survey) error {
	var names []string
	for _, s := range others {
		for _, a := range s.Accounts {
			if _, ok := p.Here[a.Name]; !ok {
				names = append(names, a.Name)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	users, err := db.Several(names[:min(len(names), mostUsers)])
	for name, u := range users {
		p.Here[name] = Account{Name: name, UID: u.UID, GID: u.GID, Home: u.Home}
	}
	return err
}

// surveyed are the accounts that other hosts are told, by name.
func (p *People) surveyed() []Account {
	out := []Account{}
	for _, h := range p.Homes {
		if a, ok := p.Here[h.Name]; ok {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b Account) int { return cmp.Compare(a.Name, b.Name) })
	return slices.Compact(out)
}

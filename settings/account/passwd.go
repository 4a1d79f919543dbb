package account

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile is the largest passwd or group file, in bytes.
const maxFile = 16 << 20

// passwd is a file in the format of /etc/passwd, with a file group beside it.
// It is read anew for each question; Lookup remembers the answers.
type passwd struct {
	file string
}

// parsePasswd reads what it can: a line with a mistake is left out and named in
// problems, and the others count. Where a name is there twice, the first counts.
func parsePasswd(file string, data []byte) (users []User, problems []string) {
	number := 0
	seen := map[string]bool{}
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSuffix(string(line), "\n")
		if text == "" || text[0] == '#' {
			continue
		}
		u, err := parsePasswdLine(text)
		if err == nil && seen[u.Name] {
			err = fmt.Errorf("%q is there twice", u.Name)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s:%d: %v", file, number, err))
			continue
		}
		seen[u.Name] = true
		users = append(users, u)
	}
	return users, problems
}

// parsePasswdLine reads name:password:uid:gid:comment:home:shell.
func parsePasswdLine(line string) (User, error) {
	f := strings.Split(line, ":")
	if len(f) != 7 {
		return User{}, fmt.Errorf("%d fields, wants 7 with : between them", len(f))
	}
	if err := CheckName(f[0]); err != nil {
		return User{}, fmt.Errorf("user %.80q: %w", f[0], err)
	}
	uid, err := parseID(f[2])
	if err != nil {
		return User{}, fmt.Errorf("uid: %w", err)
	}
	gid, err := parseID(f[3])
	if err != nil {
		return User{}, fmt.Errorf("gid: %w", err)
	}
	if !filepath.IsAbs(f[5]) || strings.ContainsRune(f[5], 0) {
		return User{}, fmt.Errorf("home directory %.80q is not an absolute path", f[5])
	}
	return User{Name: f[0], UID: uid, GID: gid, Home: f[5], Shell: f[6]}, nil
}

// group is one line of a group file.
type group struct {
	name    string
	gid     uint32
	members []string
}

// parseGroup reads lines name:password:gid:member,member and leaves out those
// with a mistake.
func parseGroup(data []byte) []group {
	var groups []group
	for line := range bytes.Lines(data) {
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) != 4 || CheckName(f[0]) != nil {
			continue
		}
		gid, err := parseID(f[2])
		if err != nil {
			continue
		}
		groups = append(groups, group{f[0], gid, strings.Split(f[3], ",")})
	}
	return groups
}

// find returns the first user for whom match is true, with the groups.
func (p passwd) find(match func(User) bool) (User, error) {
	data, err := readFile(p.file)
	if err != nil {
		return User{}, err
	}
	users, problems := parsePasswd(p.file, data)
	i := slices.IndexFunc(users, match)
	if i < 0 && len(problems) > 0 {
		return User{}, fmt.Errorf("%w in %s, where %d lines are wrong, first: %s", ErrUnknownUser, p.file, len(problems), problems[0])
	}
	if i < 0 {
		return User{}, fmt.Errorf("%w in %s", ErrUnknownUser, p.file)
	}
	u := users[i]
	groups, err := p.groups()
	for _, g := range groups {
		if slices.Contains(g.members, u.Name) && g.gid != u.GID {
			u.Groups = append(u.Groups, g.gid)
		}
	}
	slices.Sort(u.Groups)
	u.Groups = slices.Compact(u.Groups)
	return u, err
}

func (p passwd) byName(name string) (User, error) {
	return p.find(func(u User) bool { return u.Name == name })
}

func (p passwd) byUID(uid uint32) (User, error) {
	return p.find(func(u User) bool { return u.UID == uid })
}

// groups reads the file beside; there need not be one.
func (p passwd) groups() ([]group, error) {
	data, err := readFile(filepath.Join(filepath.Dir(p.file), "group"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return parseGroup(data), err
}

func (p passwd) group(name string) (uint32, error) {
	groups, err := p.groups()
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
	if i < 0 {
		return 0, fmt.Errorf("%w in the file group beside %s", ErrUnknownGroup, p.file)
	}
	return groups[i].gid, nil
}

// names returns all: whoever writes such a file means each of them.
func (p passwd) names() ([]string, error) {
	data, err := readFile(p.file)
	users, _ := parsePasswd(p.file, data)
	return sortedNames(users), err
}

func sortedNames(users []User) []string {
	var names []string
	for _, u := range users {
		names = append(names, u.Name)
	}
	slices.Sort(names)
	return names
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

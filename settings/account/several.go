package account

import (
	"errors"
	"fmt"
	"slices"
)

const (
	batch = 50 // names in one question
	// singly is how many that a batch did not find are asked for one by one: a
	// directory server may answer under another name than it was asked for.
	singly = 20
)

// Several finds many users by login name, with few questions to the system.
// Users are returned under the names that were asked for; names that nobody
// has, and what cannot be a name, are left out. Supplementary groups are not
// asked for, and nothing is remembered. The error tells the first question that
// was not answered; what was found until then is returned beside it.
func (l *Lookup) Several(names []string) (map[string]User, error) {
	names = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(names))), func(n string) bool { return CheckName(n) != nil })
	found := map[string]User{}
	for part := range slices.Chunk(names, batch) {
		users, err := l.from.several(part)
		if err != nil {
			return found, fmt.Errorf("accounts: %w", err)
		}
		for _, u := range users {
			found[u.Name] = u
		}
	}
	tries := 0
	for _, name := range names {
		if _, ok := found[name]; ok || tries == singly {
			continue
		}
		tries++
		switch u, err := l.ByName(name); {
		case err == nil:
			found[name] = u
		case !errors.Is(err, ErrUnknownUser):
			return found, err
		}
	}
	return found, nil
}

func (n nss) several(names []string) ([]User, error) {
	out, err := n.getent(append([]string{"passwd"}, names...)...)
	if err != nil && !errors.Is(err, errNoEntry) {
		return nil, err
	}
	users, _ := parsePasswd("getent passwd", out)
	return users, nil
}

func (p passwd) several(names []string) ([]User, error) {
	data, err := readFile(p.file)
	if err != nil {
		return nil, err
	}
	users, _ := parsePasswd(p.file, data)
	return slices.DeleteFunc(users, func(u User) bool { return !slices.Contains(names, u.Name) }), nil
}

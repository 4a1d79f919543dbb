// Package account finds the users of the system: their numbers, groups and home
// directories, whether they come from /etc/passwd, LDAP or sssd, or from a file
// that takes the place of all that in demonstrations and tests.
//
// The system is asked through getent, since a program without cgo sees only
// /etc/passwd by itself. Answers are kept for half a minute. The name in an
// answer is the one to go on with: a directory server may know one user by
// several names, and all of them must mean the same desktop.
package account

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"
)

// Errors for names and numbers that nobody has, and for what cannot be a name.
var (
	ErrUnknownUser  = errors.New("unknown user")
	ErrUnknownGroup = errors.New("unknown group")
	ErrBadName      = errors.New("not a possible name")
)

// User is an account.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary, without GID, sorted
	Home   string   // absolute
	Shell  string
}

const (
	keep        = 30 * time.Second // how long an answer is used again
	keepUnknown = 2 * time.Second  // shorter, for somebody may just be making the user
	keepMost    = 10000            // answers
	maxName     = 64               // bytes
)

// source is where accounts come from. Its errors for what is not there are
// ErrUnknownUser and ErrUnknownGroup.
type source interface {
	byName(name string) (User, error)
	byUID(uid uint32) (User, error)
	group(name string) (gid uint32, err error)
	names() ([]string, error)
	several(names []string) ([]User, error) // those that there are
}

// Lookup finds accounts. Its methods may be called from any goroutine; each
// returns within about ten seconds, two questions to a dead directory server.
type Lookup struct {
	from   source
	flight singleflight.Group

	mu    sync.Mutex // guards cache
	cache map[string]answer
}

type answer struct {
	value any
	err   error
	until time.Time
}

// New makes a lookup in a file in the format of /etc/passwd (and a file named
// group beside it, if there is one), or in the system's accounts where
// passwdFile is empty.
func New(passwdFile string) *Lookup {
	l := &Lookup{cache: map[string]answer{}}
	if passwdFile != "" {
		l.from = passwd{file: passwdFile}
	} else {
		l.from = nss{program: "getent", limit: askFor}
	}
	return l
}

// ByName finds a user by login name. ErrBadName, ErrUnknownUser, or what kept
// it from finding out. The name of the result may be written another way.
func (l *Lookup) ByName(name string) (User, error) {
	if err := CheckName(name); err != nil {
		return User{}, fmt.Errorf("user %.80q: %w", name, err)
	}
	u, err := ask(l, "user "+name, func() (User, error) { return l.from.byName(name) })
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	return u.clone(), nil
}

// ByUID finds a user by number.
func (l *Lookup) ByUID(uid uint32) (User, error) {
	u, err := ask(l, "uid "+strconv.Itoa(int(uid)), func() (User, error) { return l.from.byUID(uid) })
	if err != nil {
		return User{}, fmt.Errorf("uid %d: %w", uid, err)
	}
	return u.clone(), nil
}

// UID is the number of a user who is given by name or number. A number need not
// belong to anybody.
func (l *Lookup) UID(nameOrNumber string) (uint32, error) {
	if uid, err := parseID(nameOrNumber); err == nil {
		return uid, nil
	}
	u, err := l.ByName(nameOrNumber)
	return u.UID, err
}

// GID is the number of a group that is given by name or number.
func (l *Lookup) GID(nameOrNumber string) (uint32, error) {
	if gid, err := parseID(nameOrNumber); err == nil {
		return gid, nil
	}
	if err := CheckName(nameOrNumber); err != nil {
		return 0, fmt.Errorf("group %.80q: %w", nameOrNumber, err)
	}
	gid, err := ask(l, "group "+nameOrNumber, func() (uint32, error) { return l.from.group(nameOrNumber) })
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", nameOrNumber, err)
	}
	return gid, nil
}

// Names returns at most limit login names that begin with prefix, sorted, for
// completion. The system's own accounts (below 1000) are left out, and a
// directory server may not tell its users.
func (l *Lookup) Names(prefix string, limit int) ([]string, error) {
	all, err := ask(l, "names", l.from.names)
	if err != nil {
		return nil, fmt.Errorf("names of users: %w", err)
	}
	var some []string
	for _, name := range all {
		if len(some) < limit && strings.HasPrefix(name, prefix) {
			some = append(some, name)
		}
	}
	return some, nil
}

// ask returns a recent answer or asks now; several who want the same at the same
// time ask once. That the system could not be asked is not remembered.
func ask[T any](l *Lookup, key string, from func() (T, error)) (T, error) {
	l.mu.Lock()
	a, ok := l.cache[key]
	l.mu.Unlock()
	if !ok || !time.Now().Before(a.until) {
		got, _, _ := l.flight.Do(key, func() (any, error) {
			value, err := from()
			a := answer{value, err, time.Now().Add(keep)}
			if errors.Is(err, ErrUnknownUser) || errors.Is(err, ErrUnknownGroup) {
				a.until = time.Now().Add(keepUnknown)
			} else if err != nil {
				return a, nil
			}
			l.remember(key, a)
			return a, nil
		})
		a = got.(answer)
	}
	return a.value.(T), a.err
}

// remember keeps an answer. Names come from strangers, so their number is
// bounded: the old ones go first, then all.
func (l *Lookup) remember(key string, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.cache) >= keepMost {
		now := time.Now()
		maps.DeleteFunc(l.cache, func(_ string, a answer) bool { return !now.Before(a.until) })
	}
	if len(l.cache) >= keepMost {
		clear(l.cache)
	}
	l.cache[key] = a
}

func (u User) clone() User {
	u.Groups = slices.Clone(u.Groups)
	return u
}

// CheckName says whether this can be a login name: not empty, at most 64 bytes
// of UTF-8, without blanks, control characters, "/" and ":", not a number, and
// not beginning with "-", "." or "+". Forms such as CORP\alice and
// alice@example.com are names. The error is ErrBadName with the reason.
func CheckName(name string) error {
	reason := ""
	switch {
	case name == "":
		reason = "it is empty"
	case len(name) > maxName:
		reason = fmt.Sprintf("it is longer than %d bytes", maxName)
	case !utf8.ValidString(name):
		reason = "it is not UTF-8"
	case strings.ContainsAny(name[:1], "-.+"):
		reason = "it begins with " + name[:1]
	case strings.ContainsAny(name, "/:"):
		reason = "it contains / or :"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }):
		reason = "it contains blanks or characters that cannot be printed"
	case strings.Trim(name, "0123456789") == "":
		// getent takes such a name for a number.
		reason = "it is a number"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrBadName, reason)
}

// parseID reads a number of a user or group. The highest stands for "nobody
// given" in the kernel and is refused.
func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 || text[0] == '+' {
		return 0, fmt.Errorf("%.40q is not a number from 0 to %d", text, uint32(1<<32-2))
	}
	return uint32(n), nil
}

package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// askFor is how long getent may take: a directory server that is down makes
	// it wait for minutes.
	askFor = 5 * time.Second
	// firstUser is the lowest number of people's accounts on all common
	// distributions; nobody is 65534.
	firstUser, nobody = 1000, 65534
)

// nss asks the system's accounts through getent, which knows all sources of
// /etc/nsswitch.conf.
type nss struct {
	program string        // getent, or another in tests
	limit   time.Duration // for one question
}

// errNoEntry is getent's answer that there is no such entry.
var errNoEntry = errors.New("no such entry")

// getent runs the program with a limit for time and output.
func (n nss) getent(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = time.Second // for children that keep the pipe open
	var out, errOut limited
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	what := "getent " + strings.Join(args[:min(len(args), 3)], " ")
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: no answer within %v: is the directory server down?", what, n.limit)
	case out.full:
		return nil, fmt.Errorf("%s: more than %d bytes of output", what, maxFile)
	case errors.As(err, &exit) && exit.ExitCode() == 2:
		return out.buf.Bytes(), errNoEntry // some of several may be there
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%w: install the package libc-bin", err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %.200s", what, err, errOut.buf.String())
	}
	return out.buf.Bytes(), nil
}

// limited is a buffer that takes no more than maxFile bytes. It does not embed
// the buffer, whose ReadFrom would be used instead of Write.
type limited struct {
	buf  bytes.Buffer
	full bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.buf.Len()+len(p) > maxFile {
		l.full = true
		return 0, io.ErrShortWrite // ends the program at its next write
	}
	return l.buf.Write(p)
}

func (n nss) byName(name string) (User, error) { return n.find(name) }

func (n nss) byUID(uid uint32) (User, error) {
	u, err := n.find(strconv.FormatUint(uint64(uid), 10))
	if err == nil && u.UID != uid {
		return User{}, fmt.Errorf("%w: the system answers with uid %d", ErrUnknownUser, u.UID)
	}
	return u, err
}

func (n nss) find(key string) (User, error) {
	out, err := n.getent("passwd", key)
	if errors.Is(err, errNoEntry) {
		return User{}, ErrUnknownUser
	}
	if err != nil {
		return User{}, err
	}
	users, problems := parsePasswd("getent passwd", out)
	if len(users) == 0 {
		return User{}, fmt.Errorf("the system's answer cannot be used: %s", strings.Join(append(problems, "it is empty")[:1], ""))
	}
	u := users[0]
	out, err = n.getent("initgroups", u.Name)
	if err != nil && !errors.Is(err, errNoEntry) {
		return User{}, err
	}
	u.Groups = parseInitgroups(out, u.GID)
	return u, nil
}

// parseInitgroups reads the line "NAME  GID GID ..."; what is no number is left
// out, and so is the user's own group.
func parseInitgroups(out []byte, own uint32) []uint32 {
	var groups []uint32
	for i, field := range strings.Fields(string(out)) {
		if gid, err := parseID(field); i > 0 && err == nil && gid != own {
			groups = append(groups, gid)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

func (n nss) group(name string) (uint32, error) {
	out, err := n.getent("group", name)
	if errors.Is(err, errNoEntry) {
		return 0, ErrUnknownGroup
	}
	if err != nil {
		return 0, err
	}
	groups := parseGroup(out)
	if len(groups) == 0 {
		return 0, fmt.Errorf("the system's answer %.80q cannot be used", out)
	}
	return groups[0].gid, nil
}

func (n nss) names() ([]string, error) {
	out, err := n.getent("passwd")
	if err != nil {
		return nil, err
	}
	users, _ := parsePasswd("getent passwd", out)
	users = slices.DeleteFunc(users, func(u User) bool { return u.UID < firstUser || u.UID == nobody })
	return sortedNames(users), nil
}

package desktop

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var sessionDir = regexp.MustCompile(`^s[0-9]{1,18}$`)

// RemoveDir removes a session's directory, also one that is gone already. The
// user may have filled it with links: none is followed.
func RemoveDir(dir string) error {
	if !sessionDir.MatchString(filepath.Base(dir)) {
		return fmt.Errorf("%s is no session's directory, it stays", dir)
	}
	return os.RemoveAll(dir)
}

// HomeSnap is where the sessions of a user live on a satellite without a snap
// directory: in the home.
func HomeSnap(home string) string { return filepath.Join(home, ".win4.snap") }

// RemoveDir is RemoveDir for a session's directory in the user's home, which
// the user may have replaced by a link to somebody else's: it is removed with
// the user's rights. Elsewhere it is the same as RemoveDir.
func (u User) RemoveDir(dir string) error {
	if filepath.Dir(dir) != HomeSnap(u.Home) {
		return RemoveDir(dir)
	}
	return u.Do(func() error { return RemoveDir(dir) })
}

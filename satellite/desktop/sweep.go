package desktop

import (
	"errors"
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

// Sweep removes the directories of sessions that nobody wants any more from
// the snap directory: those for which keep is false. Whatever is not named
// like a session, or is no directory, stays. It returns what it removed; an
// error does not stop it.
func Sweep(snapDir string, keep func(session string) bool) (removed []string, err error) {
	entries, err := os.ReadDir(snapDir)
	if err != nil {
		return nil, fmt.Errorf("snap directory: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !sessionDir.MatchString(e.Name()) || keep(e.Name()) {
			continue
		}
		dir := filepath.Join(snapDir, e.Name())
		if rerr := RemoveDir(dir); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		removed = append(removed, dir)
	}
	return removed, err
}

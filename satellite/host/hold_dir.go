package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// holdFile is locked in the satellite's directory by whoever works with it, and
// holds the number of that process.
const holdFile = "lock"

// ErrHeld: another program works with the satellite's directory.
var ErrHeld = errors.New("held")

// HoldDir makes the satellite's directory, if it is missing, and keeps others away
// from it: a second satellite from the same journal, and a satellite from an
// identity that a registration is about to replace. It lasts until the file is
// closed, or the program ends.
func HoldDir(stateDir string) (*os.File, error) {
	err := os.MkdirAll(filepath.Dir(stateDir), 0o755)
	if err == nil {
		err = os.MkdirAll(stateDir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("the satellite's directory: %w", err)
	}
	path := filepath.Join(stateDir, holdFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the satellite's directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock of the satellite's directory: %s: %w", path, err)
		}
		pid, _ := os.ReadFile(path)
		return nil, fmt.Errorf(`%s is %w by the satellite, or by a "verdecmd register" that has not ended (pid %s)`, stateDir, ErrHeld, strings.TrimSpace(string(pid)))
	}
	if err = f.Truncate(0); err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock of the satellite's directory: %w", err)
	}
	return f, nil
}

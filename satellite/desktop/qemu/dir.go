package qemu

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// sessionDir is a session's own directory, held open. Its files belong to the
// user, who may have put anything in their place: they are only ever opened
// with the user's rights, below the open directory, and never through a link.
type sessionDir struct {
	path string
	user desktop.User

	mu   sync.RWMutex // held for reading while f is in use
	f    *os.File     // nil: not opened yet, or closed
	shut bool
}

// makeDir creates the directory, which must not exist, for the user alone. The
// parent may be world-writable if it is sticky like /tmp (V-36).
func makeDir(path string, user desktop.User, asRoot bool) (_ *sessionDir, err error) {
	if filepath.Dir(path) == desktop.HomeSnap(user.Home) {
		return makeHomeDir(path, user)
	}
	parentPath, name := filepath.Split(path)
	parent, err := os.OpenFile(parentPath, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("snap directory: %w; make it, or set WIN4_SNAP_DIR to another", err)
	}
	defer parent.Close()
	st, err := parent.Stat()
	if err != nil {
		return nil, fmt.Errorf("snap directory: %w", err)
	}
	if st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0 && asRoot {
		return nil, fmt.Errorf("snap directory %s: others may write there and could replace what is made: chmod 0755 or 1777", parentPath)
	}
	if err := unix.Mkdirat(int(parent.Fd()), name, 0o700); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("%w: session directory %s exists already", desktop.ErrInUse, path)
		}
		return nil, fmt.Errorf("session directory %s: %w", path, noSpace(err, parentPath, overlaySize))
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil && asRoot {
		// Until here it was root's: nobody could put something inside.
		if err = unix.Fchown(fd, int(user.UID), int(user.GID)); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		err = errors.Join(err, unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR))
		return nil, fmt.Errorf("session directory %s: %w", path, err)
	}
	d := &sessionDir{path: path, user: user, f: os.NewFile(uintptr(fd), path)}
	if err := d.reachable(); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// makeHomeDir is makeDir in the user's home. Everything on the way is the
// user's, who may have put links there, and a file server may give root no
// rights there: so it is done with the user's rights.
func makeHomeDir(path string, user desktop.User) (_ *sessionDir, err error) {
	d := &sessionDir{path: path, user: user}
	parent := filepath.Dir(path)
	err = user.Do(func() error {
		if err := os.Mkdir(parent, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return noSpace(err, user.Home, overlaySize)
		}
		in, err := os.OpenFile(parent, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("%s is not a directory: remove it, the next login makes one", parent)
		}
		if err != nil {
			return err
		}
		defer in.Close()
		name := filepath.Base(path)
		if err := unix.Mkdirat(int(in.Fd()), name, 0o700); errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%w: it exists already", desktop.ErrInUse)
		} else if err != nil {
			return noSpace(err, parent, overlaySize)
		}
		fd, err := unix.Openat(int(in.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return errors.Join(err, unix.Unlinkat(int(in.Fd()), name, unix.AT_REMOVEDIR))
		}
		d.f = os.NewFile(uintptr(fd), path)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("session directory %s (WIN4_SNAP_DIR is not set): %w", path, err)
	}
	return d, nil
}

// opened opens the directory of an earlier start where it is not open yet.
func (d *sessionDir) opened() error {
	d.mu.RLock()
	done, shut := d.f != nil, d.shut
	d.mu.RUnlock()
	if done || shut {
		return nil
	}
	open := func() (*os.File, error) {
		return os.OpenFile(d.path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	}
	f, err := open()
	if errors.Is(err, unix.EACCES) { // in a home on a file server that gives root no rights
		err = d.user.Do(func() (err error) { f, err = open(); return err })
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Uid != d.user.UID && os.Geteuid() == 0 {
		f.Close()
		return fmt.Errorf("%s does not belong to user %s (uid %d): %w", d.path, d.user.Name, d.user.UID, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f != nil || d.shut {
		f.Close()
		return nil
	}
	d.f = f
	return nil
}

// reachable says in words which directory above keeps the user out.
func (d *sessionDir) reachable() error {
	return d.user.Do(func() error {
		for i, c := range d.path {
			if c != '/' || i == 0 {
				continue
			}
			var st unix.Stat_t
			if err := unix.Stat(d.path[:i]+"/.", &st); errors.Is(err, unix.EACCES) {
				return fmt.Errorf("user %s cannot enter %s, and so not use %s: chmod o+x %s, or set WIN4_SNAP_DIR to another directory",
					d.user.Name, d.path[:i], d.path, d.path[:i])
			}
		}
		return nil
	})
}

// do calls f with the user's rights and the open directory.
func (d *sessionDir) do(f func(fd int) error) error {
	if err := d.opened(); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.f == nil {
		return fmt.Errorf("%s: %w", d.path, desktop.ErrGone)
	}
	return d.user.Do(func() error { return f(int(d.f.Fd())) })
}

// create makes a file of the user's that was not there.
func (d *sessionDir) create(name string, flags int) (f *os.File, err error) {
	err = d.do(func(fd int) error {
		n, err := unix.Openat(fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0o600)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
		}
		f = os.NewFile(uintptr(n), filepath.Join(d.path, name))
		return nil
	})
	return f, err
}

// open opens a regular file that is there.
func (d *sessionDir) open(name string, flags int) (f *os.File, err error) {
	err = d.do(func(fd int) error {
		n, err := unix.Openat(fd, name, unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
		}
		f = os.NewFile(uintptr(n), filepath.Join(d.path, name))
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a regular file", f.Name())
		}
		if err != nil {
			f.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// read returns a whole file, which must not be larger than limit bytes.
func (d *sessionDir) read(name string, limit int64) ([]byte, error) {
	f, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), limit)
	}
	return data, err
}

// tail returns the last bytes of a file, at most limit.
func (d *sessionDir) tail(name string, limit int64) []byte {
	f, err := d.open(name, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > limit {
		if _, err := f.Seek(st.Size()-limit, io.SeekStart); err != nil {
			return nil
		}
	}
	data, _ := io.ReadAll(io.LimitReader(f, limit)) // what could be read is what there is
	return data
}

// unlink removes a file, if it is there.
func (d *sessionDir) unlink(name string) {
	_ = d.do(func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

// dial connects to a socket. peer is the process that listens there, as the
// kernel knows it.
func (d *sessionDir) dial(name string) (conn *net.UnixConn, peer int, err error) {
	return d.dialWhile(name, func(error) bool { return false })
}

// dialPatiently is dial where connections of others may wait for QEMU, which
// takes one at a time.
func (d *sessionDir) dialPatiently(name string, limit time.Duration) (conn *net.UnixConn, peer int, err error) {
	end := time.Now().Add(limit)
	return d.dialWhile(name, func(err error) bool {
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
		return true
	})
}

// dialWhile is dial that tries until it works or again returns false.
func (d *sessionDir) dialWhile(name string, again func(error) bool) (conn *net.UnixConn, peer int, err error) {
	err = d.do(func(fd int) error {
		// Through the open directory the path is short and not to be replaced.
		addr := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)}
		for {
			var err error
			if conn, err = net.DialUnix("unix", nil, addr); err == nil || !again(err) {
				return err
			}
		}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", filepath.Join(d.path, name), plain(err))
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var cred *unix.Ucred
		cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		if err = errors.Join(cerr, err); err == nil {
			return conn, int(cred.Pid), nil
		}
	}
	conn.Close()
	return nil, 0, fmt.Errorf("%s: %w", filepath.Join(d.path, name), err)
}

// plain is the cause alone, without the path through /proc.
func plain(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

func (d *sessionDir) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
	if d.f != nil {
		d.f.Close()
		d.f = nil
	}
}

// remove closes and removes the directory with all that is in it.
func (d *sessionDir) remove() error {
	d.close()
	return d.user.RemoveDir(d.path)
}

// lines cuts text into at most n last lines that are safe to show.
func lines(text []byte, n int) []string {
	var out []string
	for l := range strings.SplitSeq(strings.ToValidUTF8(string(text), "?"), "\n") {
		l = strings.TrimRight(strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case r < ' ' || r >= 0x7f && r < 0xa0:
				return -1
			}
			return r
		}, escapes.ReplaceAllString(l, "")), " ")
		if l != "" {
			out = append(out, l)
		}
	}
	return out[max(0, len(out)-n):]
}

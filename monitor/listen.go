package monitor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// SocketPath is where the admin socket is by default.
const SocketPath = "/var/run/win4linpro/verdecmd-socket"

// MaxSocketPath is how many bytes the kernel takes as the path of a socket.
const MaxSocketPath = 107

// ErrLocked tells that another process holds a Lock.
var ErrLocked = errors.New("another process holds the lock")

// ListenConfig says where the admin socket is and whose.
type ListenConfig struct {
	Path string // required; at most MaxSocketPath bytes

	// Owner and Group are names or numbers; empty is 0. Where a name is not
	// known, the error names OwnerSource or GroupSource, for example
	// "VERDECMD_CONN_UID, settings.global line 12".
	Owner, OwnerSource string
	Group, GroupSource string
	Directory          Directory // of the names; nil: LocalFiles
}

// Listen makes the admin socket with mode 01770 and replaces what is at its
// path; the caller holds the Lock that makes it a left-over. Closing the
// listener removes the socket.
//
// The path never exists with other rights: the socket is bound under another
// name in the same directory, where nobody can connect before it listens.
func Listen(cfg ListenConfig) (net.Listener, error) {
	if n := len(cfg.Path); n == 0 || n > MaxSocketPath {
		return nil, fmt.Errorf("admin socket %q: the path has %d bytes, allowed are 1 to %d: set a shorter VERDECMD_SOCKET", cfg.Path, n, MaxSocketPath)
	}
	if cfg.Directory == nil {
		cfg.Directory = LocalFiles{}
	}
	uid, err := lookup(cfg.Directory, cfg.Owner, cfg.OwnerSource, "user", userID)
	if err != nil {
		return nil, err
	}
	gid, err := lookup(cfg.Directory, cfg.Group, cfg.GroupSource, "group", groupID)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(cfg.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of the admin socket: %w", err)
	}
	if err := notOther(cfg.Path); err != nil {
		return nil, err
	}
	f, made, err := bindSocket(dir, uid, gid)
	if err != nil {
		return nil, fmt.Errorf("admin socket in %s: %w", dir, err)
	}
	defer f.Close() // the listener has a descriptor of its own
	if err := os.Rename(made, cfg.Path); err != nil {
		os.Remove(made)
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		os.Remove(cfg.Path)
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it knows the name before
	at, _ := os.Lstat(cfg.Path)
	return &listener{Listener: l, path: cfg.Path, made: at}, nil
}

// notOther keeps a mistaken path from replacing somebody's file.
func notOther(path string) error {
	at, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if at.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("admin socket: %s is there and is not a socket: move it away or set another VERDECMD_SOCKET", path)
	}
	return nil
}

// bindSocket makes a listening socket under a temporary name in dir.
func bindSocket(dir string, uid, gid int) (f *os.File, name string, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, "", fmt.Errorf("socket: %w", err)
	}
	name = filepath.Join(dir, ".v"+rand.Text()[:6])
	f = os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(name)
		}
	}()
	// bind makes the file with the mode of the descriptor.
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, "", fmt.Errorf("fchmod: %w", err)
	}
	at := name
	if len(at) > MaxSocketPath {
		d, err := os.Open(dir)
		if err != nil {
			return nil, "", err
		}
		defer d.Close()
		at = fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(name))
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: at}); err != nil {
		return nil, "", fmt.Errorf("bind: %w", err)
	}
	// The mode first, while it is our own: CAP_CHOWN is all that is needed. And
	// os.Chmod(01770) would lose the sticky bit: Go keeps it elsewhere.
	if err := os.Chmod(name, fs.ModeSticky|0o770); err != nil {
		return nil, "", err
	}
	if err := os.Lchown(name, uid, gid); err != nil {
		return nil, "", err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, "", fmt.Errorf("listen: %w", err)
	}
	return f, name, nil
}

// listener removes the socket when it is closed, if it is still the one it
// made.
type listener struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
}

func (l *listener) Close() error {
	l.once.Do(func() {
		if at, err := os.Lstat(l.path); err == nil && l.made != nil && os.SameFile(at, l.made) {
			os.Remove(l.path)
		}
	})
	return l.Listener.Close()
}

func lookup(d Directory, word, source, kind string, find func(Directory, string) (int, error)) (int, error) {
	if word == "" {
		return 0, nil
	}
	id, err := find(d, word)
	if err != nil {
		if source != "" {
			source = " (" + source + ")"
		}
		return 0, fmt.Errorf("admin socket: no %s is named %q%s: give a known name or a number", kind, word, source)
	}
	return id, nil
}

// Lock takes the exclusive lock that says that a master runs here, and writes
// our pid into its file. It is held until release is called or the process
// ends; the file stays. ErrLocked where another process has it, with its pid.
func Lock(path string) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := make([]byte, 20)
		n, _ := f.ReadAt(pid, 0)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w (process %s)", path, ErrLocked, strings.TrimSpace(string(pid[:n])))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock: %w", err)
	}
	return func() { f.Close() }, nil
}

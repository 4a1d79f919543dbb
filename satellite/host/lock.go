package host

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

const (
	// lockPrefix begins the names of files whose locks are tried.
	lockPrefix = ".verdecmd-lock-"
	// lockRole is the argument by which this program is started as the holder of
	// a lock.
	lockRole = "hold-lock"
	// exitNoLocks is how the holder ends where it gets no lock.
	exitNoLocks = 3
	// holdFor is how long the holder lives at most.
	holdFor = time.Minute
	// lockLeft is after what time a file counts as left behind by a crash.
	lockLeft = time.Hour
)

// ownProgram is this program, also where its file has been replaced meanwhile.
const ownProgram = "/proc/self/exe"

// errNoLocks: the file system has no locks.
var errNoLocks = errors.New("no locks there")

// errNotHere: the file is not there, or not the same one.
var errNotHere = errors.New("the file is not there")

// tryLock tries to take the lock on a file that somebody else holds, and gives
// it back at once. refused is how it must be. The file must hold the content,
// else it is another one and the error is errNotHere.
func tryLock(path, content string) (refused bool, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, errNotHere
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(len(content))+1))
	if err != nil {
		return false, err
	}
	if string(b) != content {
		return false, errNotHere
	}
	err = setLock(f, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("locking %s: %w", path, err)
	}
	return false, setLock(f, unix.F_UNLCK)
}

// setLock sets a lock on the whole file, as QEMU does: it belongs to the open
// file, and conflicts with those of all others, in this process too.
func setLock(f *os.File, typ int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: typ, Whence: io.SeekStart})
}

// holdLock is the holder: it takes the lock on a file, says so, and keeps it
// until its input ends.
func holdLock(path string, in io.Reader, out io.Writer) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := setLock(f, unix.F_WRLCK); err != nil {
		return fmt.Errorf("%w: %s: %w", errNoLocks, path, err)
	}
	if _, err := fmt.Fprintln(out, "held"); err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		over <- err
	}()
	select {
	case err := <-over:
		return err
	case <-time.After(holdFor): // whoever wanted it does not any more
		return nil
	}
}

// held is a file in a directory of homes whose lock another process holds.
type held struct {
	dir, name, content string
	user               desktop.User // who it belongs to; UID 0: who runs this
	shared             bool         // it is in the directory of the homes itself, where others find it
	child              *exec.Cmd
	input              io.Closer
	end                context.CancelFunc
}

// hold makes a file in dir, or where root may not, in the home of a user, and
// starts program to lock it.
func hold(ctx context.Context, program []string, dir string, homes []Home) (*held, error) {
	name, err := os.Hostname()
	if err != nil {
		name = "host"
	}
	sweep(dir, lockPrefix+name+"-")
	h := &held{dir: dir, name: lockPrefix + name + "-" + rand.Text(), content: rand.Text(), shared: true}
	err = h.create()
	if (errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS)) && len(homes) > 0 && os.Geteuid() == 0 {
		h.dir, h.shared = homes[0].Dir, false
		h.user = desktop.User{Name: homes[0].Name, UID: homes[0].Owner, GID: homes[0].Group}
		sweepAs(h.user, h.dir, lockPrefix+name+"-")
		err = h.user.Do(h.create)
	}
	if err != nil {
		return nil, h.named(err)
	}
	if err := h.start(ctx, program); err != nil {
		h.close()
		return nil, h.named(err)
	}
	return h, nil
}

// named is an error without the random part of the file's name: the same one
// again is no news.
func (h *held) named(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s a file in %s: %w", p.Op, h.dir, p.Err)
	}
	if errors.Is(err, errNoLocks) {
		return fmt.Errorf("%w in %s", errNoLocks, h.dir)
	}
	return errors.New(strings.ReplaceAll(err.Error(), h.name, lockPrefix+"..."))
}

func (h *held) path() string { return filepath.Join(h.dir, h.name) }

func (h *held) create() error {
	f, err := os.OpenFile(h.path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, h.content)
	// Whatever the umask: other hosts may read it by another number than root's.
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(h.path()))
	}
	return nil
}

// start starts the holder and waits until it holds.
func (h *held) start(ctx context.Context, program []string) error {
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	h.end = end
	h.child = exec.CommandContext(run, program[0], append(program[1:len(program):len(program)], h.path())...)
	h.child.Args[0] = "verdecmd" // of ours, by which name it is called says what it does
	h.child.WaitDelay = time.Second
	if h.user.UID != 0 {
		h.child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.user.UID, Gid: h.user.GID}}
	}
	in, err := h.child.StdinPipe()
	if err != nil {
		return err
	}
	out, err := h.child.StdoutPipe()
	if err != nil {
		return err
	}
	var said strings.Builder
	h.child.Stderr = &bounded{w: &said, left: 1000}
	if err := h.child.Start(); err != nil {
		h.child = nil
		return err
	}
	h.input = in
	stop := context.AfterFunc(ctx, end)
	line, err := bufio.NewReaderSize(out, 64).ReadString('\n')
	if !stop() && ctx.Err() != nil {
		return ctx.Err()
	}
	if line == "held\n" {
		return nil
	}
	ended := h.child.Wait()
	h.child = nil
	if e, ok := errors.AsType[*exec.ExitError](ended); ok && e.ExitCode() == exitNoLocks {
		return fmt.Errorf("%w: %.200s", errNoLocks, strings.TrimSpace(said.String()))
	}
	return fmt.Errorf("the process that was to hold a lock: %.200s (%v)", strings.TrimSpace(said.String()), err)
}

// try tries the lock from this process.
func (h *held) try() (refused bool, err error) {
	err = h.user.Do(func() (err error) {
		refused, err = tryLock(h.path(), h.content)
		return err
	})
	if err != nil {
		err = h.named(err)
	}
	return refused, err
}

// close ends the holder and removes the file.
func (h *held) close() {
	if h.child != nil {
		h.input.Close()
		h.end()
		_ = h.child.Wait()
	}
	_ = h.user.Do(func() error { return os.Remove(h.path()) })
}

// sweep removes files that a crash has left behind.
func sweep(dir, prefix string) {
	names, _, err := readDir(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		path := filepath.Join(dir, name)
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && time.Since(st.ModTime()) > lockLeft {
			_ = os.Remove(path)
		}
	}
}

func sweepAs(u desktop.User, dir, prefix string) {
	_ = u.Do(func() error { sweep(dir, prefix); return nil })
}

// bounded takes the beginning of what is written.
type bounded struct {
	w    io.Writer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	if _, err := b.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxSSHFile is more than authorized_keys of 10,000 servers has, in bytes.
const maxSSHFile = 64 << 20

// errChanged tells that somebody else has written a file meanwhile.
var errChanged = errors.New("somebody else changes it at the same time")

// sshDir is an open SSH directory. Files are named relative to it and no
// symbolic link is followed: who may write there shall not lead root elsewhere.
type sshDir struct{ f *os.File }

// openSSHDir opens an SSH directory, and makes it where it is wanted.
func openSSHDir(path string, wanted bool) (*sshDir, error) {
	path = filepath.Clean(path)
	if wanted {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("the SSH directory (WIN4_SSH_DIR): %w", err)
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the SSH directory (WIN4_SSH_DIR): %w", about(path, err))
	}
	d := &sshDir{os.NewFile(uintptr(fd), path)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		d.close()
		return nil, about(path, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		d.close()
		return nil, fmt.Errorf("%s belongs to user %d and has mode %04o: it must be root's, and nobody else may write there", path, st.Uid, st.Mode&0o7777)
	}
	return d, nil
}

func (d *sshDir) close() { d.f.Close() }

func (d *sshDir) fd() int { return int(d.f.Fd()) }

func (d *sshDir) path(name string) string { return filepath.Join(d.f.Name(), name) }

// about says which file an error is about.
func about(path string, err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%s is a symbolic link or no directory, and links are not followed here: %w", path, err)
	}
	return &fs.PathError{Op: "open", Path: path, Err: err}
}

// read returns a file and what it is; both are nil where it is missing.
func (d *sshDir) read(name string) ([]byte, *unix.Stat_t, error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, about(d.path(name), err)
	}
	f := os.NewFile(uintptr(fd), d.path(name))
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, about(d.path(name), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxSSHFile {
		return nil, nil, fmt.Errorf("%s is no regular file, or has more than %d MiB", d.path(name), maxSSHFile>>20)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSSHFile+1))
	if err == nil && len(b) > maxSSHFile {
		err = fmt.Errorf("%s has more than %d MiB", d.path(name), maxSSHFile>>20)
	}
	if b == nil {
		b = []byte{}
	}
	return b, &st, err
}

// create makes a new file, all of it or none.
func (d *sshDir) create(name string, data []byte, mode uint32) error {
	temp, err := d.temp(name, data, func(fd int) error { return unix.Fchmod(fd, mode) })
	if err != nil {
		return err
	}
	if err := unix.Renameat2(d.fd(), temp, d.fd(), name, unix.RENAME_NOREPLACE); err != nil {
		unix.Unlinkat(d.fd(), temp, 0)
		return &fs.PathError{Op: "create", Path: d.path(name), Err: err}
	}
	return d.f.Sync()
}

// replace puts data into the place of a file that was read before, with its
// owner and its mode.
func (d *sshDir) replace(name string, data []byte, was *unix.Stat_t) error {
	temp, err := d.temp(name, data, func(fd int) error {
		return errors.Join(unix.Fchown(fd, int(was.Uid), int(was.Gid)), unix.Fchmod(fd, was.Mode&0o7777))
	})
	if err != nil {
		return err
	}
	var now unix.Stat_t
	err = unix.Fstatat(d.fd(), name, &now, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (now.Ino != was.Ino || now.Size != was.Size || now.Mtim != was.Mtim || now.Ctim != was.Ctim) {
		err = errChanged
	}
	if err == nil {
		err = unix.Renameat(d.fd(), temp, d.fd(), name)
	}
	if err != nil {
		unix.Unlinkat(d.fd(), temp, 0)
		return err
	}
	return d.f.Sync()
}

// temp writes a file that is to become another one.
func (d *sshDir) temp(name string, data []byte, owned func(fd int) error) (string, error) {
	temp := "." + name + ".verdecmd-" + rand.Text()[:12]
	fd, err := unix.Openat(d.fd(), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", about(d.path(temp), err)
	}
	f := os.NewFile(uintptr(fd), d.path(temp))
	_, err = f.Write(data)
	if err := errors.Join(err, owned(fd), f.Sync(), f.Close()); err != nil {
		unix.Unlinkat(d.fd(), temp, 0)
		return "", err
	}
	return temp, nil
}

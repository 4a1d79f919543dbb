package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"mvdan.cc/sh/v3/syntax"
)

// Set gives a name a value: the bytes of its last assignment's value are
// replaced, or a line is appended. It does not ask the table.
func (f *File) Set(name, value string) error {
	if !syntax.ValidName(name) {
		return fmt.Errorf("%q cannot be the name of a setting: wants letters, digits and _", name)
	}
	if err := CheckText(value); err != nil {
		return fmt.Errorf("the value of %s %w", name, err)
	}
	var data []byte
	if a, ok := f.Get(name); ok {
		data = slices.Concat(f.data[:a.valueFrom], []byte(quote(value)), f.data[a.valueTo:])
	} else {
		data = slices.Clone(f.data)
		if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
			data = append(data, '\n')
		}
		data = append(data, name+"="+quote(value)+"\n"...)
	}
	return f.replace(data, name, value, true)
}

// Unset removes every line that gives the name a value, and says whether there
// was one.
func (f *File) Unset(name string) (bool, error) {
	if _, ok := f.Get(name); !ok {
		return false, nil
	}
	data := slices.Clone(f.data)
	for _, a := range slices.Backward(f.words) {
		if a.Name == name {
			data = slices.Delete(data, a.lineFrom, a.lineTo)
		}
	}
	return true, f.replace(data, name, "", false)
}

// replace takes the edited bytes after reading them again: every other name
// must have kept its value. Only an unusual file, such as one that ends with a
// backslash, is refused here.
func (f *File) replace(data []byte, name, value string, set bool) error {
	next, err := ParseFile(f.name, data)
	if err != nil {
		return fmt.Errorf("after the change, the file would be wrong: %w", err)
	}
	got, ok := next.Get(name)
	same := ok == set && got.Value == value
	for _, other := range f.Names() {
		before, _ := f.Get(other)
		after, ok := next.Get(other)
		same = same && (other == name || ok && before.Value == after.Value)
	}
	if !same {
		return fmt.Errorf("%s cannot be changed safely: is a line of it continued with a backslash? Change it by hand", f.name)
	}
	*f = *next
	return nil
}

// Edit reads the file at path, lets change work on it and puts the result in
// its place in one step: whoever reads it meanwhile, or after a power failure,
// sees the old file or the new one. Owner and mode stay; a new file gets mode
// 0644. A missing file is made, a missing directory is not. Two Edits of one
// directory wait for each other.
func Edit(path string, change func(*File) error) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays a link
	}
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: the directory does not exist; make it with: install -d -m 0755 %s", path, filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	// Some network file systems cannot lock a directory; one editor at a time
	// is the administrator's own care there.
	_ = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)

	data, info, err := readSettings(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := ParseFile(path, data)
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	if info != nil && bytes.Equal(f.Bytes(), data) {
		return nil
	}
	err = replaceFile(path, f.Bytes(), info)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("writing %s: permission denied: only root and the owner of the file and its directory can; try sudo (%w)", path, err)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return dir.Sync()
}

// replaceFile writes data beside path and renames it to path. The new file has
// owner and mode of old; old is nil where there was none.
func replaceFile(path string, data []byte, old fs.FileInfo) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	mode := fs.FileMode(0o644)
	if old != nil {
		mode = old.Mode().Perm()
		st, ok := old.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("the owner of the file cannot be found out")
		}
		// Whoever is not root can keep the owner only if it is himself.
		if err := tmp.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return fmt.Errorf("keeping its owner %d:%d: %w", st.Uid, st.Gid, err)
		}
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// readSettings reads a file that may be at most maxFile long. It refuses what
// is no plain file, so that a pipe at that place cannot hang a daemon. The
// error is fs.ErrNotExist where there is none, with nil data.
func readSettings(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("%s cannot be read: permission denied; run as root, or: chmod 0644 %s (%w)", path, path, fs.ErrPermission)
	case err != nil:
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a plain file: remove it or name another", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, info, nil
}

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Verify reads a database or a copy of one and tells whether every record is
// whole. It opens nothing for writing; on a database in use it may see half of
// a commit and call that damage.
func Verify(path string) error { return verifyFile(path, false) }

func verifyFile(path string, anyTurn bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := (&verifier{r: f, size: st.Size(), anyTurn: anyTurn}).all(); err != nil {
		return &DamagedError{Path: path, What: err.Error()}
	}
	return nil
}

// Backup implements Store. The copy can be opened as a database.
func (b *Bolt) Backup(ctx context.Context, path string) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("backup to %s: %w", path, fs.ErrExist)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.gone {
		return ErrClosed
	}
	if w := b.wreck.Load(); w != nil {
		return fmt.Errorf("backup to %s: %w", path, w)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix+"*") // mode 0600
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.Remove(f.Name())
	err = guard(func() error {
		return b.db.View(func(tx *bbolt.Tx) error {
			_, err := tx.WriteTo(stoppable{ctx, f})
			return err
		})
	})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			err = b.explain(err)
		}
		return fmt.Errorf("backup to %s: %w", path, noSpace(err))
	}
	err = verifyFile(f.Name(), true) // before bbolt trusts it
	if err == nil {
		if err := inTurn(f.Name()); err != nil {
			return fmt.Errorf("backup to %s: %w", path, noSpace(err))
		}
		err = Verify(f.Name())
	}
	if err != nil {
		return fmt.Errorf("backup to %s: the copy does not match: %w", path, b.explain(err))
	}
	if err := place(f.Name(), path); err != nil {
		return fmt.Errorf("backup: %w", noSpace(err))
	}
	return nil
}

// inTurn gives a copy meta pages as a database has them: bbolt puts the newer
// one first in all copies, verify wants each in its place.
func inTurn(path string) error {
	return guard(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoSync: true})
		if err != nil {
			return err
		}
		for range 2 {
			if err := db.Update(func(*bbolt.Tx) error { return nil }); err != nil {
				db.Close()
				return err
			}
		}
		return db.Close()
	})
}

// stoppable is a writer that ends with its context.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s stoppable) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

// copyFile is a copy of a database.
type copyFile struct {
	path string
	made time.Time
}

// look finds out when a copy was made: its name tells, or else the file.
func (c *copyFile) look() error {
	info, err := os.Lstat(c.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", c.path)
	}
	c.made = info.ModTime()
	if t, err := time.Parse(copyName, filepath.Base(c.path)); err == nil {
		c.made = t
	}
	return nil
}

// newestGood is the newest file in dirs that can be opened as a database; ok is
// false where there is none. Temporary files do not count.
func newestGood(dirs []string) (c copyFile, ok bool) {
	var files []copyFile
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // a directory that is not there has no copy
		for _, e := range entries {
			f := copyFile{path: filepath.Join(dir, e.Name())}
			if filepath.Ext(f.path) == ".db" && f.look() == nil {
				files = append(files, f)
			}
		}
	}
	slices.SortFunc(files, func(a, b copyFile) int { return b.made.Compare(a.made) })
	for _, f := range files {
		if Verify(f.path) == nil {
			return f, true
		}
	}
	return c, false
}

// Age says how long ago something was, in words: "35 minutes".
func Age(d time.Duration) string {
	words := func(n int64, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case d < 2*time.Minute:
		return words(max(0, int64(d/time.Second)), "second")
	case d < 2*time.Hour:
		return words(int64(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return words(int64(d/time.Hour), "hour")
	}
	return words(int64(d/(24*time.Hour)), "day")
}

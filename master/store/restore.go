package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// epochLeap is what a restored copy's epoch is raised by: nobody knows how
// often a master has started since the copy was made, and satellites obey no
// epoch below the highest that they have seen.
const epochLeap = 1 << 20

var (
	// ErrNotDamaged: Restore was asked for a database that is good.
	ErrNotDamaged = errors.New("is not damaged; nothing was done")
	// ErrNoCopy: there is no good copy.
	ErrNoCopy = errors.New("there is no good copy of it")
)

// RestoreConfig says what Restore is to do.
type RestoreConfig struct {
	Path   string   // of the database; required
	Copies []string // directories of hot copies
	// From is the copy to take; empty for the newest good one in Copies.
	From string
	// Replace lets a copy that is named by From take the place of a database
	// that is not damaged.
	Replace bool
	// Change returns what must be different in the copy before it is used:
	// numbers that were given out after it was made must not be given again.
	// There may be more changes than in a commit.
	Change func(Snapshot, Restored) ([]Change, error)
	Now    time.Time // required
}

// Restored is what Restore has done.
type Restored struct {
	From  string    // the copy
	Made  time.Time // when it was made; what was acknowledged later is lost
	Aside string    // what the file that was there is called now; empty where there was none
}

// Restore puts a copy in the place of a damaged or missing database. The file
// that was there is renamed and never deleted. Whatever step it is interrupted
// at, either the old file or the finished new one has the name, and it can be
// asked again. No master may run; a database that another process has open is
// ErrInUse.
func Restore(cfg RestoreConfig) (Restored, error) {
	if err := localOnly(filepath.Dir(cfg.Path)); err != nil {
		return Restored{}, err
	}
	return restore(cfg)
}

// restore is Restore on any file system.
func restore(cfg RestoreConfig) (done Restored, err error) {
	wrap := func(err error) (Restored, error) {
		return Restored{}, fmt.Errorf("database %s: %w", cfg.Path, err)
	}
	if cfg.From != "" {
		if _, err := os.Stat(cfg.From); err != nil {
			return wrap(fmt.Errorf("nothing was done: the copy: %w", err))
		}
	}
	old, good, err := hold(cfg.Path)
	if err != nil {
		return wrap(err)
	}
	if old != nil {
		defer old.Close()
	}
	if good && (!cfg.Replace || cfg.From == "") {
		return wrap(ErrNotDamaged)
	}
	sweep(cfg.Path)
	c := copyFile{path: cfg.From}
	if cfg.From == "" {
		var ok bool
		if c, ok = newestGood(cfg.Copies); !ok {
			return wrap(fmt.Errorf("%w in %v; name one by --restore=FILE", ErrNoCopy, cfg.Copies))
		}
	} else if err := c.look(); err != nil {
		return wrap(err)
	}
	done = Restored{From: c.path, Made: c.made}
	temp, err := duplicate(c.path, cfg.Path)
	if err != nil {
		return wrap(noSpace(err))
	}
	defer os.Remove(temp)
	if old != nil {
		what := ".damaged-"
		if good {
			what = ".replaced-"
		}
		if done.Aside, err = aside(cfg.Path, what, cfg.Now); err != nil {
			return wrap(err)
		}
	}
	if err := prepare(temp, cfg.Change, done); err != nil {
		if d, ok := errors.AsType[*DamagedError](err); ok {
			d.Path = c.path
			return Restored{}, d
		}
		return wrap(noSpace(err))
	}
	if done.Aside != "" && !exists(done.Aside) {
		if err := os.Link(cfg.Path, done.Aside); err != nil {
			return wrap(err)
		}
	}
	if err := errors.Join(syncFile(temp), syncFile(filepath.Dir(cfg.Path))); err != nil {
		return wrap(err)
	}
	if err := os.Rename(temp, cfg.Path); err != nil {
		return wrap(err)
	}
	if err := syncFile(filepath.Dir(cfg.Path)); err != nil {
		return wrap(err)
	}
	return done, nil
}

// hold locks the file that is to be replaced, and tells whether it is good. It
// is nil where there is none.
func hold(path string) (f *os.File, good bool, err error) {
	f, err = os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if _, err = admit(f); err == nil || errors.Is(err, ErrDamaged) {
		return f, err == nil, nil
	}
	f.Close()
	return nil, false, err
}

// duplicate copies a file to one that is not yet a database, beside path.
func duplicate(from, path string) (temp string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix+"*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		os.Remove(out.Name())
		return "", err
	}
	return out.Name(), nil
}

// aside is the name under which the file that is replaced is kept: a free one,
// or the one that an interrupted attempt has given it.
func aside(path, what string, now time.Time) (string, error) {
	own, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	before, _ := filepath.Glob(escape(path) + what + "*")
	for _, name := range before {
		if info, err := os.Lstat(name); err == nil && os.SameFile(info, own) {
			return name, nil
		}
	}
	base := path + what + now.UTC().Format("20060102T150405Z")
	name := base
	for n := 2; exists(name); n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name, nil
}

// prepare makes of a plain copy one that may take the database's place, and
// verifies it.
func prepare(path string, change func(Snapshot, Restored) ([]Change, error), r Restored) error {
	var h head
	db, file, err := openVerified(path, &h)
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			s, err := (&Bolt{db: db, file: file}).snapshot(tx)
			if err != nil {
				return err
			}
			p, err := newPlan(s.rows)
			if err != nil {
				return err
			}
			p.head.epoch += epochLeap
			if change != nil {
				changes, err := change(s, r)
				if err = errors.Join(err, s.err); err != nil {
					return err
				}
				if _, err := p.take(&request{changes: changes}); err != nil {
					return err
				}
			}
			return p.apply(tx)
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return Verify(path)
}

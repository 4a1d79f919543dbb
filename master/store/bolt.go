package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"verdecmd/proto/planted"
)

// ErrInUse: another process has the database open.
var ErrInUse = errors.New("another process has the database open")

// Bolt is the Store in a file. Open makes it, Close ends it.
type Bolt struct {
	path   string
	copies []string // directories of hot copies
	db     *bbolt.DB
	file   *os.File // the same; db closes it
	epoch  Epoch

	queue  chan *request
	closed chan struct{}  // closed by Close: the writer ends when the queue is empty
	writer sync.WaitGroup // the one goroutine that writes

	// wreck is set once bbolt has panicked: it has left its locks as they were,
	// and whoever asked it again would wait for ever.
	wreck atomic.Pointer[DamagedError]

	mu     sync.RWMutex // held for reading while a View or Backup runs or a commit is queued
	gone   bool         // guarded by mu: Close has been called
	broken error        // owned by the writer: why no more commits are taken
}

// Open opens the database, or makes it, and raises its epoch by one. It
// verifies every record first; a damaged file is a *DamagedError and is left
// as it is. Files that others may read or write, and files on a network or
// cluster file system, where neither lock nor memory map is to be trusted, are
// refused. It does not wait for another process: that is ErrInUse. copies are
// directories of hot copies (*.db): the error of a damaged database names the
// newest good one of them, and a missing database counts as damaged where there
// is one.
func Open(path string, copies ...string) (*Bolt, error) {
	if err := localOnly(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return open(path, copies...)
}

// open is Open on any file system.
func open(path string, copies ...string) (*Bolt, error) {
	if !exists(path) {
		// An empty one in its place would be the loss of everything, unnoticed.
		if _, ok := newestGood(copies); ok {
			return nil, (&Bolt{path: path, copies: copies}).explain(damage("the file is missing"))
		}
		// Another process may have made it meanwhile; its lock decides then.
		if err := create(path); err != nil && !exists(path) {
			return nil, fmt.Errorf("database %s: making it: %w", path, err)
		}
	}
	b := &Bolt{path: path, copies: copies, queue: make(chan *request, 1024), closed: make(chan struct{})}
	var h head
	db, file, err := openVerified(path, &h)
	if err != nil {
		return nil, b.explain(err)
	}
	b.db, b.file, b.epoch = db, file, h.epoch+1
	h.epoch = b.epoch
	err = guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(topBucketName).Put(headRow, seal(headRow, h.encode()))
		})
	})
	if err != nil {
		db.Close()
		return nil, b.explain(fmt.Errorf("raising the epoch: %w", noSpace(err)))
	}
	sweep(path)
	b.writer.Go(b.write)
	return b, nil
}

// Epoch is the number of this start. It does not change while open.
func (b *Bolt) Epoch() Epoch { return b.epoch }

// Path is the file's name as given to Open.
func (b *Bolt) Path() string { return b.path }

// Close waits for running commits and views and closes the file. Commits
// after it are ErrClosed.
func (b *Bolt) Close() error {
	b.mu.Lock()
	again := b.gone
	b.gone = true
	b.mu.Unlock()
	if again {
		return nil
	}
	close(b.closed) // nothing is queued any more
	b.writer.Wait()
	if w := b.wreck.Load(); w != nil {
		// The memory map stays until the program ends and would keep the lock.
		return errors.Join(w, unix.Flock(int(b.file.Fd()), unix.LOCK_UN), b.file.Close())
	}
	return b.db.Close()
}

// View implements Store.
func (b *Bolt) View(ctx context.Context, fn func(Snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.gone {
		return ErrClosed
	}
	if w := b.wreck.Load(); w != nil {
		return w
	}
	var tx *bbolt.Tx
	err := guard(func() (err error) { tx, err = b.db.Begin(false); return err })
	if err != nil {
		return b.explain(err)
	}
	defer func() {
		if b.wreck.Load() == nil {
			tx.Rollback()
		}
	}()
	s, err := b.snapshot(tx)
	if err != nil {
		return b.explain(err)
	}
	err = fn(s)
	if s.err != nil {
		return b.explain(s.err)
	}
	return err
}

// boltSnapshot reads a database. The pages that bbolt would believe blindly are
// checked each time, as verify does: the file may be damaged since the start.
type boltSnapshot struct {
	rows *bbolt.Bucket
	file io.ReaderAt
	size int64
	page int   // bytes of one
	err  error // the first damage that was met
	room []byte
}

func (b *Bolt) snapshot(tx *bbolt.Tx) (*boltSnapshot, error) {
	st, err := b.file.Stat()
	if err != nil {
		return nil, err
	}
	s := &boltSnapshot{file: b.file, size: st.Size(), page: b.db.Info().PageSize}
	err = guard(func() error {
		if s.rows = tx.Bucket(topBucketName); s.rows == nil {
			return damage("the records are missing")
		}
		return nil
	})
	return s, err
}

// walk checks the pages with the wanted keys and gives leaf their records. It
// reports false where the records are too few to have pages of their own.
func (s *boltSnapshot) walk(want func(low, high []byte) bool, leaf func(flags uint32, row, sealed []byte) error) (bool, error) {
	root := uint64(s.rows.Root())
	if root == 0 {
		return false, nil
	}
	v := &verifier{r: s.file, size: s.size, pageSize: int64(s.page), pages: uint64(s.size) / uint64(s.page), want: want}
	return true, v.tree(root, 1, nil, nil, leaf)
}

// own copies a value out of the memory map, many into one allocation.
func (s *boltSnapshot) own(v []byte) []byte {
	if len(v) > cap(s.room)-len(s.room) {
		s.room = make([]byte, 0, max(len(v), 32<<10))
	}
	at := len(s.room)
	s.room = append(s.room, v...)
	return s.room[at:len(s.room):len(s.room)]
}

func (s *boltSnapshot) Get(k Key) (v []byte, ok bool, err error) {
	if err := k.check(); err != nil {
		return nil, false, err
	}
	row := rowKey(k)
	err = guard(func() error {
		var sealed []byte
		paged, err := s.walk(keysAmong([][]byte{row}), func(_ uint32, key, value []byte) error {
			if bytes.Equal(key, row) {
				sealed = value
			}
			return nil
		})
		if err != nil {
			return damage(err.Error())
		}
		if !paged {
			sealed = s.rows.Get(row)
		}
		if sealed == nil {
			return nil
		}
		payload, err := unseal(row, sealed)
		if err != nil {
			return damage(fmt.Sprintf("record %s: %v", k, err))
		}
		v, ok = append([]byte{}, payload...), true
		return nil
	})
	if err != nil && s.err == nil {
		s.err = err
	}
	return v, ok, err
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

func (s *boltSnapshot) All(bucket string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if err := (Key{bucket, "x"}).check(); err != nil {
			s.err = err
			return
		}
		prefix := []byte(bucket + "\x00")
		behind := []byte(bucket + "\x01")
		among := func(low, high []byte) bool {
			return bytes.Compare(low, behind) < 0 && (high == nil || bytes.Compare(high, prefix) > 0)
		}
		paged, err := s.walk(among, func(_ uint32, row, sealed []byte) error {
			if !bytes.HasPrefix(row, prefix) {
				return nil
			}
			payload, err := unseal(row, sealed)
			if err != nil {
				return fmt.Errorf("record %s: %w", splitRow(row), err)
			}
			if !yield(string(row[len(prefix):]), s.own(payload)) {
				return errEnough
			}
			return nil
		})
		if paged {
			if err != nil && !errors.Is(err, errEnough) {
				s.err = damage(err.Error())
			}
			return
		}
		c := s.rows.Cursor()
		row := prefix
		for first := true; s.err == nil; first = false {
			var id string
			var value []byte
			// Only bbolt's own steps are guarded: a panic of the caller's loop
			// is the caller's.
			s.err = guard(func() error {
				var sealed []byte
				if first {
					row, sealed = c.Seek(prefix)
				} else {
					row, sealed = c.Next()
				}
				if len(row) <= len(prefix) || string(row[:len(prefix)]) != string(prefix) {
					row = nil
					return nil
				}
				payload, err := unseal(row, sealed)
				if err != nil {
					return damage(fmt.Sprintf("record %s: %v", splitRow(row), err))
				}
				id, value = string(row[len(prefix):]), s.own(payload)
				return nil
			})
			if s.err != nil || row == nil || !yield(id, value) {
				return
			}
		}
	}
}

// openVerified opens an existing file under its lock, and only after verify.
func openVerified(path string, h *head) (db *bbolt.DB, file *os.File, err error) {
	opts := *bbolt.DefaultOptions
	opts.FreelistType = bbolt.FreelistMapType
	// A free list on the disk has no checksum, and a wrong one lets a later
	// commit write over live pages. It is made anew at each start.
	opts.NoFreelistSync = true
	opts.NoSync = planted.Bug("no-fsync")
	opts.Timeout = time.Millisecond
	opts.OpenFile = func(path string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(path, flag&^os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if errors.Is(err, unix.ELOOP) {
			return nil, errors.New("is a symbolic link: name the file itself")
		}
		if err != nil {
			return nil, err
		}
		if *h, err = admit(f); err != nil {
			f.Close()
			return nil, err
		}
		file = f
		return f, nil
	}
	err = guard(func() error {
		db, err = bbolt.Open(path, 0o600, &opts)
		return err
	})
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrInUse
	}
	return db, file, err
}

// admit locks the file as bbolt does, on the same descriptor, so that nobody
// writes while it is verified.
func admit(f *os.File) (head, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return head{}, ErrInUse
	} else if err != nil {
		return head{}, fmt.Errorf("locking: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return head{}, err
	}
	switch perm := st.Mode().Perm(); {
	case !st.Mode().IsRegular():
		return head{}, errors.New("is no regular file")
	case perm&0o077 != 0:
		return head{}, fmt.Errorf("has mode %04o and is open to others: chmod 0600 %s", perm, f.Name())
	case st.Size() == 0:
		return head{}, damage("the file is empty")
	}
	h, err := verify(f, st.Size())
	if err != nil {
		return head{}, damage(err.Error())
	}
	return h, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// damage is a DamagedError whose file and way back explain fills in.
func damage(what string) error { return &DamagedError{What: what} }

// explain names the file, and the way back where it is damaged.
func (b *Bolt) explain(err error) error {
	d, ok := errors.AsType[*DamagedError](err)
	if !ok {
		return fmt.Errorf("database %s: %w", b.path, err)
	}
	back := `there is no good copy of it in the usual place: with the master stopped, "verdecmd master --restore=FILE" puts another one in its place`
	if c, ok := newestGood(b.copies); ok {
		back = fmt.Sprintf(`the newest good copy is %s, %s old: with the master stopped, "verdecmd master --restore" puts it in its place`,
			c.path, Age(time.Since(c.made)))
		if exists(b.path) {
			back += " and keeps the damaged file"
		}
	}
	out := &DamagedError{Path: b.path, What: d.What, Back: back, fault: d.fault}
	if d.fault {
		b.wreck.Store(out)
	}
	return out
}

// guard turns a panic of bbolt, and a fault in its memory map, into an error.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = &DamagedError{What: fmt.Sprint(v), fault: true}
		}
	}()
	return fn()
}

// Package store keeps what the master must not forget: sealed records in a
// database file, written so that a commit that was answered is on the disk.
//
// A commit is all or nothing, compares guards first, and carries the epoch of
// the master that asks. The interface is small on purpose: another engine can
// take the place of the file without a change above it, and Mem takes it in
// simulations. Every record is read back through its seal; what does not
// match is an error and never a value.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Epoch numbers the starts of a master. It grows by one with each Open.
type Epoch uint64

// Limits of one commit, the same for every engine.
const (
	MaxChanges = 100     // changes and, separately, guards
	MaxValue   = 1 << 20 // bytes of one value
	MaxID      = 512     // bytes of Key.ID
	maxBucket  = 64      // bytes of Key.Bucket
)

// Errors of a commit. All but ErrUnknown mean that nothing was changed.
var (
	// ErrFenced: the epoch is not the newest; a later master has taken over.
	ErrFenced = errors.New("the epoch is over, a newer master has taken over")
	// ErrConflict: a guard did not hold. The cause is a *ConflictError.
	ErrConflict = errors.New("the record has changed meanwhile")
	// ErrNoSpace: the storage is full. The same commit may succeed later.
	ErrNoSpace = errors.New("no space left for the database")
	// ErrDamaged: a seal does not match. The cause is a *DamagedError.
	ErrDamaged = errors.New("the database is damaged")
	// ErrUnknown: the outcome is not known, the change may be there or not.
	// Read again before trying again.
	ErrUnknown = errors.New("the outcome of the commit is not known")
	// ErrStopped: a commit before has failed so that nobody knows what the disk
	// holds; nothing is written until the master is restarted. Reading goes on.
	ErrStopped = errors.New("no more changes until the master is restarted")
	// ErrInvalid: the commit itself is impossible: too many changes, a key
	// twice, a name or value beyond its limits.
	ErrInvalid = errors.New("impossible commit")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("the database is closed")
)

// Key names a record. Bucket is one of the master's own words (bytes above
// ' ', at most 64); ID is any text without a NUL byte.
type Key struct{ Bucket, ID string }

func (k Key) String() string { return k.Bucket + "/" + k.ID }

// MaxNumber is more than there will ever be of what is numbered.
const MaxNumber = 1 << 62

// Numbered is the key of what has a number: All yields them by it.
func Numbered(bucket string, n uint64) Key { return Key{bucket, fmt.Sprintf("%020d", n)} }

// Guard is a condition of a commit: the record has exactly the value Want.
// A nil Want means that there must be no record; an empty one that is not nil
// means an empty record.
type Guard struct {
	Key  Key
	Want []byte
}

// Change writes a record, or deletes it where Value is nil. Deleting what is
// not there is no error.
type Change struct {
	Key   Key
	Value []byte
}

// Snapshot is the store at one instant. It ends with the function given to
// View; values taken from it are the caller's own and stay.
type Snapshot interface {
	// Get returns a record; ok is false where there is none.
	Get(Key) (value []byte, ok bool, err error)
	// All yields the records of a bucket by ID, in byte order. It stops early
	// at a damaged record; View then returns that error whatever its function
	// returned, so no caller can miss it.
	All(bucket string) iter.Seq2[string, []byte]
}

// Store is what the master needs. All methods may be called by many
// goroutines at once.
type Store interface {
	// View calls fn with a snapshot. fn must not call Commit, Close or Backup.
	View(ctx context.Context, fn func(Snapshot) error) error
	// Commit makes all changes or none, if every guard holds. They are
	// durable when it returns nil. Commits that return in one order are
	// restored in that order.
	Commit(ctx context.Context, e Epoch, guards []Guard, changes []Change) error
	// Backup writes a verified copy of the newest state to path, mode 0600,
	// while the store goes on working. A file at path is refused with
	// os.ErrExist.
	Backup(ctx context.Context, path string) error
}

// ConflictError tells which guard did not hold.
type ConflictError struct{ Key Key }

func (e *ConflictError) Error() string { return fmt.Sprintf("record %s: %v", e.Key, ErrConflict) }

// Unwrap makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Unwrap() error { return ErrConflict }

// DamagedError tells what is damaged and how to go on.
type DamagedError struct {
	Path string // of the database
	What string // what does not match
	Back string // the way back, in words

	fault bool // bbolt has met it unprepared
}

func (e *DamagedError) Error() string {
	s := fmt.Sprintf("database %s is damaged: %s", e.Path, e.What)
	if e.Back != "" {
		s += "; " + e.Back
	}
	return s
}

// Unwrap makes errors.Is(err, ErrDamaged) true.
func (e *DamagedError) Unwrap() error { return ErrDamaged }

// check refuses commits that no engine takes.
func check(guards []Guard, changes []Change) error {
	if len(changes) > MaxChanges || len(guards) > MaxChanges {
		return fmt.Errorf("%w: %d changes and %d guards, at most %d each", ErrInvalid, len(changes), len(guards), MaxChanges)
	}
	for _, g := range guards {
		if err := g.Key.check(); err != nil {
			return err
		}
	}
	seen := make(map[Key]bool, len(changes))
	for _, c := range changes {
		if err := c.Key.check(); err != nil {
			return err
		}
		if len(c.Value) > MaxValue {
			return fmt.Errorf("%w: record %s has %d bytes, at most %d", ErrInvalid, c.Key, len(c.Value), MaxValue)
		}
		if seen[c.Key] {
			return fmt.Errorf("%w: record %s is changed twice", ErrInvalid, c.Key)
		}
		seen[c.Key] = true
	}
	return nil
}

func (k Key) check() error {
	bad := func(r rune) bool { return r <= ' ' }
	switch {
	case k.Bucket == "" || len(k.Bucket) > maxBucket || strings.ContainsFunc(k.Bucket, bad):
		return fmt.Errorf("%w: bucket name %q", ErrInvalid, k.Bucket)
	case k.ID == "" || len(k.ID) > MaxID || strings.IndexByte(k.ID, 0) >= 0:
		return fmt.Errorf("%w: record id %q", ErrInvalid, k.ID)
	}
	return nil
}

// holds tells whether a guard holds for a record as it is.
func (g Guard) holds(have []byte, ok bool) bool {
	if g.Want == nil {
		return !ok
	}
	return ok && bytes.Equal(have, g.Want)
}

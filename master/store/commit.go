package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// request is one commit on its way through the writer.
type request struct {
	guards  []Guard
	changes []Change

	answered bool       // owned by the writer
	done     chan error // has room for the one answer
}

// groupMax bounds one transaction, so that its pages stay few.
const groupMax = 4096

// Commit implements Store. Commits that wait at the same time share one
// transaction and one sync of the disk.
func (b *Bolt) Commit(ctx context.Context, e Epoch, guards []Guard, changes []Change) error {
	if err := check(guards, changes); err != nil {
		return err
	}
	if e != b.epoch {
		return fmt.Errorf("commit with epoch %d, the store has %d: %w", e, b.epoch, ErrFenced)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{guards: guards, changes: changes, done: make(chan error, 1)}
	if err := b.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// enqueue hands a request to the writer, who answers it even when the store is
// closed meanwhile.
func (b *Bolt) enqueue(ctx context.Context, r *request) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.gone {
		return ErrClosed
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case b.queue <- r:
		return nil
	}
}

// write is the one goroutine that changes the database. It takes all that
// waits into one transaction and never waits for more: a timer would make a
// lone caller wait for nobody.
func (b *Bolt) write() {
	for {
		select {
		case r := <-b.queue:
			b.group(r)
		case <-b.closed:
			for { // what was taken is answered
				select {
				case r := <-b.queue:
					b.group(r)
				default:
					return
				}
			}
		}
	}
}

func (b *Bolt) group(first *request) {
	group := []*request{first}
	for len(group) < groupMax {
		select {
		case r := <-b.queue:
			group = append(group, r)
			continue
		default:
		}
		break
	}
	if w := b.wreck.Load(); w != nil && b.broken == nil {
		b.broken = fmt.Errorf("%w: %w", ErrStopped, w)
	}
	if b.broken != nil {
		answer(group, b.broken)
		return
	}
	err := guard(func() error {
		if err := b.checkPaths(group); err != nil {
			return err
		}
		var p *plan
		err := b.db.View(func(tx *bbolt.Tx) (err error) {
			p, err = newPlan(tx.Bucket(topBucketName))
			if err != nil {
				return err
			}
			for _, r := range group {
				conflict, err := p.take(r)
				if err != nil {
					return err
				}
				if conflict != nil {
					r.answered = true
					r.done <- conflict
				}
			}
			return nil
		})
		if err != nil || len(p.rows) == 0 {
			return err
		}
		return b.db.Update(p.apply)
	})
	switch err = noSpace(err); {
	case err == nil:
	case errors.Is(err, ErrNoSpace):
		err = b.explain(err)
	default:
		// After a failed sync nobody knows what the disk holds, and trying
		// again could succeed without the lost pages. The file is read anew,
		// and verified, by the next start.
		err = b.explain(err)
		b.broken = fmt.Errorf("%w: %w", ErrStopped, err)
		err = fmt.Errorf("%w, %w", ErrUnknown, b.broken)
	}
	answer(group, err)
}

// checkPaths verifies the pages that a group will read and change. bbolt trusts
// them: a damaged one can let it free half of the file, for ever or on a
// goroutine whose panic ends the program.
func (b *Bolt) checkPaths(group []*request) error {
	st, err := b.file.Stat()
	if err != nil {
		return err
	}
	keys, near := [][]byte{headRow}, false
	for _, r := range group {
		for _, g := range r.guards {
			keys = append(keys, rowKey(g.Key))
		}
		for _, c := range r.changes {
			keys = append(keys, rowKey(c.Key))
			near = near || c.Value == nil // what gets small is joined with what is beside it
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	if err := verifyPaths(b.file, st.Size(), keys, near); err != nil {
		return damage(err.Error())
	}
	return nil
}

// answer tells the outcome to all of a group that have none yet: one whose
// guard did not hold has been answered.
func answer(group []*request, err error) {
	for _, r := range group {
		if !r.answered {
			r.done <- err
		}
	}
}

// plan collects the rows that a group changes. Guards are compared before the
// write transaction begins: taking one back makes bbolt read the whole file.
type plan struct {
	old  *bbolt.Bucket
	head head
	rows map[string][]byte // sealed; nil: delete
	keys []string          // of rows, as they came
}

func newPlan(old *bbolt.Bucket) (*plan, error) {
	payload, err := unseal(headRow, old.Get(headRow))
	if err != nil {
		return nil, damage(fmt.Sprintf("head record: %v", err))
	}
	h, err := decodeHead(payload)
	if err != nil {
		return nil, damage(fmt.Sprintf("head record: %v", err))
	}
	return &plan{old: old, head: h, rows: map[string][]byte{}}, nil
}

// sealed returns a row as it will be after what was taken so far; nil: none.
func (p *plan) sealed(row []byte) ([]byte, error) {
	b, ok := p.rows[string(row)]
	if !ok {
		b = p.old.Get(row)
	}
	if b == nil {
		return nil, nil
	}
	if _, err := unseal(row, b); err != nil {
		return nil, damage(fmt.Sprintf("record %s: %v", splitRow(row), err))
	}
	return b, nil
}

func (p *plan) take(r *request) (conflict, err error) {
	for _, g := range r.guards {
		b, err := p.sealed(rowKey(g.Key))
		if err != nil {
			return nil, err
		}
		var have []byte
		if b != nil {
			have = b[sealHeader:]
		}
		if !g.holds(have, b != nil) {
			return &ConflictError{g.Key}, nil
		}
	}
	for _, c := range r.changes {
		row := rowKey(c.Key)
		old, err := p.sealed(row)
		if err != nil {
			return nil, err
		}
		if old == nil && c.Value == nil {
			continue
		}
		if old != nil {
			p.head.tally.sub(old)
		}
		if _, ok := p.rows[string(row)]; !ok {
			p.keys = append(p.keys, string(row))
		}
		p.rows[string(row)] = nil
		if c.Value != nil {
			b := seal(row, c.Value)
			p.head.tally.add(b)
			p.rows[string(row)] = b
		}
	}
	return nil, nil
}

func (p *plan) apply(tx *bbolt.Tx) error {
	rows := tx.Bucket(topBucketName)
	rows.FillPercent = 0.9 // most keys ascend
	for _, k := range p.keys {
		var err error
		if b := p.rows[k]; b != nil {
			err = rows.Put([]byte(k), b)
		} else {
			err = rows.Delete([]byte(k))
		}
		if err != nil {
			return err
		}
	}
	return rows.Put(headRow, seal(headRow, p.head.encode()))
}

// noSpace makes ErrNoSpace of a full disk where nothing was changed by the
// attempt: a write or the growth of the file was refused. A sync that fails
// leaves the outcome open, whatever its reason. bbolt keeps the errors of a
// growth as text only.
func noSpace(err error) error {
	if err == nil {
		return nil
	}
	full := func(e unix.Errno) bool { return e == unix.ENOSPC || e == unix.EDQUOT || e == unix.EFBIG }
	if _, isErrno := err.(unix.Errno); isErrno {
		return err
	}
	var e unix.Errno
	if errors.As(err, &e) && full(e) {
		return fmt.Errorf("%w: %v", ErrNoSpace, err)
	}
	if s := err.Error(); strings.Contains(s, "file resize error") || strings.Contains(s, "file sync error") {
		for _, e := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
			if strings.Contains(s, e.Error()) {
				return fmt.Errorf("%w: %v", ErrNoSpace, err)
			}
		}
	}
	return err
}

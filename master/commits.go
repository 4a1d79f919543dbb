package master

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"verdecmd/master/store"
)

const (
	slowCommit = 5 * time.Second // a commit that takes longer is told of
	slowAgain  = time.Minute     // and then for so long no other
)

// counted is the master's store with its commits counted, and with somebody
// who is told of a disk that is slow or has failed.
type counted struct {
	store.Store
	// tell announces; nil: nobody does. It must not commit.
	tell func(typ, text string)

	done, failed, refused atomic.Uint64
	nanos                 atomic.Int64
	slow                  atomic.Int64 // when that was last told, in nanoseconds of Unix
	stopped               atomic.Bool  // that has been told
	full                  atomic.Bool  // no space is left, that has been told
	low                   atomic.Bool  // little is left, that has been told
}

// Commit implements store.Store.
func (c *counted) Commit(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change) error {
	start := time.Now()
	late := time.AfterFunc(slowCommit, c.late)
	err := c.Store.Commit(ctx, e, guards, changes)
	late.Stop()
	c.nanos.Add(int64(time.Since(start)))
	switch {
	case err == nil:
		c.done.Add(1)
		if c.full.Load() && c.full.CompareAndSwap(true, false) && !c.low.Load() && c.tell != nil {
			c.tell("master.space", "There is space for the database again.")
		}
	case errors.Is(err, store.ErrConflict):
		c.refused.Add(1)
	default:
		c.failed.Add(1)
		if errors.Is(err, store.ErrNoSpace) && c.tell != nil && c.full.CompareAndSwap(false, true) {
			c.tell("master.nospace", "No space is left for the database: new desktops and changes of administrators are refused. Running desktops go on.")
		}
		if errors.Is(err, store.ErrStopped) && c.tell != nil && c.stopped.CompareAndSwap(false, true) {
			c.tell("master.readonly", fmt.Sprintf("The database takes %v. Running desktops go on; new ones and changes of administrators are refused.", err))
		}
	}
	return err
}

// late tells, not too often, that a commit still waits.
func (c *counted) late() {
	now, last := time.Now().UnixNano(), c.slow.Load()
	if c.tell != nil && (last == 0 || now-last >= int64(slowAgain)) && c.slow.CompareAndSwap(last, now) {
		c.tell("master.slow", fmt.Sprintf("The disk of the database is slow: a change has been waiting for %v. New desktops and changes of administrators wait with it, running desktops do not.", slowCommit))
	}
}

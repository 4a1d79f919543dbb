package master

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spaceLow is how much free space for the database is told of: while there is
	// some left, that can still be kept as an alarm.
	spaceLow  = 64 << 20
	spaceOK   = 2 * spaceLow
	spaceLook = 30 * time.Second
)

// freeSpace is how much the file system of a directory has for its owner.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// watchSpace looks at the file system of the database until ctx ends.
func (m *Master) watchSpace(ctx context.Context) error {
	tick := time.NewTicker(spaceLook)
	defer tick.Stop()
	for {
		if free, err := m.cfg.Space(); err != nil {
			m.cfg.Log.Warn().Err(err).Msg("free space for the database is not known")
		} else {
			m.commits.space(free)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// space tells when little is left for the database, before commits are refused,
// and when there is enough again.
func (c *counted) space(free uint64) {
	switch {
	case free < spaceLow && c.low.CompareAndSwap(false, true):
		c.tell("master.nospace", fmt.Sprintf("Only %d MiB are left for the database of the master, less than %d MiB: when there is nothing left, new desktops and changes of administrators are refused.", free>>20, spaceLow>>20))
	case free >= spaceOK && c.low.CompareAndSwap(true, false) && !c.full.Load():
		c.tell("master.space", "There is space for the database again.")
	}
}

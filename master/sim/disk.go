package sim

import (
	"context"
	"fmt"
	"time"

	"verdecmd/master/store"
)

// disk is the store as one master has it: store.Mem behind a file that is slow,
// full or broken as the history wants.
type disk struct{ m *master }

// disks is what is wrong with the disk under all masters.
type disks struct {
	full    int // by how many faults
	slow    int
	unknown int // commits that are to end so
	crash   int // the master dies at this commit from now; 0: it does not
}

func (d disk) View(ctx context.Context, f func(store.Snapshot) error) error {
	return d.m.w.store.View(ctx, f)
}

func (d disk) Backup(ctx context.Context, path string) error { return d.m.w.store.Backup(ctx, path) }

// Commit lets time pass until the change is made, and again until it is
// answered. A master may die in between.
func (d disk) Commit(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change) (err error) {
	m, w := d.m, d.m.w
	m.commits++
	roll := w.dice.of("commit", m.id, m.commits)
	took := roll.between(200*time.Microsecond, 4*time.Millisecond)
	if w.disk.slow > 0 {
		took = min(roll.between(500*time.Millisecond, 12*time.Second), max(took, active-w.time))
		w.faultHit("slow commit")
	}
	made := m.sync(took)
	answered := made + roll.between(0, 2*time.Millisecond)
	var crash string
	if w.disk.crash > 0 {
		if w.disk.crash--; w.disk.crash == 0 {
			crash = pick(&roll, "before", "after")
		}
	}
	m.pending++
	m.park(func(resume func()) {
		// The disk goes on when the program does not.
		w.queue.push(made, func() {
			if m.dead { // killed meanwhile: the write was under way, or not yet
				if roll.chance(50) {
					_ = d.carryOut(ctx, e, guards, changes, &roll) // nobody hears of it
				}
				return
			}
			if crash == "before" {
				w.faultHit("master dies before a commit")
				m.crash("before a commit")
				return
			}
			err = d.carryOut(ctx, e, guards, changes, &roll)
			if crash == "after" {
				w.faultHit("master dies after a commit")
				m.crash("after a commit")
			}
		})
		w.at(&m.actor, answered, resume)
	})
	m.pending--
	return err
}

// sync returns when a commit is made: those that come while the disk is at work
// share the next transaction and its sync, in the order in which they came.
func (m *master) sync(took time.Duration) time.Duration {
	if m.next > m.disk && m.w.time >= m.disk {
		m.disk = m.next
	}
	if m.w.time >= m.disk {
		m.disk = m.w.time + took
		return m.disk
	}
	if m.next <= m.disk {
		m.next = m.disk + took
		if m.disk >= active { // no fault prolongs it
			m.next = m.disk + min(took, 4*time.Millisecond)
		}
	}
	return m.next
}

// carryOut makes a change, or not.
func (d disk) carryOut(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change, roll *dice) error {
	m, w := d.m, d.m.w
	switch {
	case m.broken:
		return fmt.Errorf("%w, no more commits until the master is restarted", store.ErrUnknown)
	case w.disk.unknown > 0:
		w.disk.unknown--
		made := roll.chance(50)
		if made {
			made = w.store.Commit(ctx, e, guards, changes) == nil
		}
		// A sync that failed ends the writing for good; a commit may also have been
		// given up alone.
		m.broken = roll.chance(40)
		w.faultHit(map[bool]string{true: "unknown commit, made", false: "unknown commit, not made"}[made])
		w.note("commit unknown", made, m.broken)
		w.changed(m, changes, made)
		return store.ErrUnknown
	case w.disk.full > 0:
		w.faultHit("master's disk full")
		w.note("commit refused, no space")
		return store.ErrNoSpace
	}
	err := w.store.Commit(ctx, e, guards, changes)
	w.noteCommit(m, changes, err)
	w.changed(m, changes, err == nil)
	return err
}

func (w *world) noteCommit(m *master, changes []store.Change, err error) {
	for _, c := range changes {
		what := "deletes"
		if c.Value != nil {
			what = "writes"
		}
		w.note("commit", m.id, what, c.Key.Bucket, c.Key.ID, err)
	}
}

// changed looks at a commit that was made (S9): only the newest master may.
func (w *world) changed(m *master, changes []store.Change, made bool) {
	if made && m.id != w.newest {
		w.fail("S9", "master %d has changed %s, and master %d is newer", m.id, changes[0].Key, w.newest)
	}
}

package sim

import (
	"iter"
	"time"
)

// task is a call into the master's code that may have to wait in the middle: for
// the disk, for a satellite, for its turn. It gives the control back to the
// simulation meanwhile, so that one goroutine runs at a time and the seed alone
// says what comes next.
type task struct {
	next  func() (arrange, bool)
	stop  func()
	yield func(arrange) bool
	f     func()
}

// arrange tells a task's resume to whatever it waits for; nil: the task is over.
type arrange func(resume func())

// died is the panic that unwinds the tasks of a master that has crashed.
type died struct{}

// newTask returns a coroutine that can do one thing after the other.
func newTask() *task {
	t := &task{}
	t.next, t.stop = iter.Pull(func(yield func(arrange) bool) {
		t.yield = yield
		for t.run() && yield(nil) {
		}
	})
	return t
}

// run reports false when the master has died under it.
func (t *task) run() (lives bool) {
	defer func() {
		if v := recover(); v != nil && v != (died{}) {
			panic(v)
		}
	}()
	t.f()
	return true
}

// begin runs f as a task of the master, up to where it first waits.
func (m *master) begin(f func()) {
	w := m.w
	var t *task
	if n := len(w.idle); n > 0 {
		t, w.idle = w.idle[n-1], w.idle[:n-1]
	} else {
		t = newTask()
	}
	t.f = f
	m.tasks[t] = true
	m.step(t)
}

// step lets a task run up to where it waits next, or to its end.
func (m *master) step(t *task) {
	if m.dead || !m.tasks[t] {
		return
	}
	before := m.task
	m.task = t
	wait, _ := t.next()
	m.task = before
	if wait == nil {
		delete(m.tasks, t)
		m.w.idle = append(m.w.idle, t)
	} else {
		resumed := false
		wait(func() {
			if !resumed {
				resumed = true
				m.w.after(&m.actor, 0, func() { m.step(t) })
			}
		})
	}
	m.wake()
}

// park lets the running task wait until it is resumed.
func (m *master) park(wait arrange) {
	if !m.task.yield(wait) {
		panic(died{})
	}
}

// kill ends the program: all its tasks unwind without effect.
func (m *master) kill() {
	m.dead = true
	for t := range m.tasks { // they only let go of memory that nobody has any more
		t.stop()
	}
	m.tasks, m.waiters, m.backlog = nil, nil, nil
}

// waiter is a task in wait.
type waiter struct {
	done   <-chan struct{}
	over   bool
	resume func()
}

// wait is session.Config.Wait.
func (m *master) wait(done <-chan struct{}, d time.Duration) {
	select {
	case <-done:
		return
	default:
	}
	m.park(func(resume func()) {
		x := &waiter{done: done, resume: resume}
		m.waiters = append(m.waiters, x)
		m.w.after(&m.actor, d, func() {
			x.over = true
			resume()
		})
	})
}

// wake resumes the tasks whose wait is over.
func (m *master) wake() {
	rest := m.waiters[:0]
	for _, x := range m.waiters {
		select {
		case <-x.done:
			x.resume()
		default:
			if !x.over {
				rest = append(rest, x)
			}
		}
	}
	m.waiters = rest
}

// turn is a lock that tasks wait for in the order in which they came.
type turn struct {
	m    *master
	busy bool
	line []func()
}

func (t *turn) Lock() {
	if t.busy {
		t.m.park(func(resume func()) { t.line = append(t.line, resume) })
		return // it was handed over
	}
	t.busy = true
}

func (t *turn) Unlock() {
	if len(t.line) > 0 && !t.m.dead {
		next := t.line[0]
		t.line = t.line[1:]
		next()
		return
	}
	t.busy = false
}

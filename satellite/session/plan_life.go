package session

import (
	"errors"
	"fmt"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
)

// Life is one session as a plain value: its entry in the journal and the rules
// of its desktop. It is told what happens and says what is to be done, as the
// desktop.Machine in it does. It is not safe for several goroutines.
type Life struct {
	entry   Entry
	machine *desktop.Machine
	adopt   bool // the desktop was started by an earlier start of the program
	exists  bool // its process is in our hands

	// What the caller has found out about the desktop, for the inventory.
	Display string
	CPU     float64 // percent of one processor
	Current bool    // it runs the version that a new login would get
	Serial  []string
}

// NewLife is a session that was granted and whose start has not been ordered
// yet. now and wall are as in desktop.Machine.State.
func NewLife(e Entry, l desktop.Limits, now, wall time.Time) *Life {
	x := &Life{entry: e, machine: desktop.NewMachine(l, now), Current: true}
	x.Note(now, wall)
	return x
}

// Restore goes on with a session from the journal. Its desktop must be looked
// for.
func Restore(e Entry, l desktop.Limits, now, wall time.Time) *Life {
	return &Life{entry: e, machine: desktop.Restore(l, e.State, now, wall), adopt: true}
}

// Entry is the session as it was noted last.
func (l *Life) Entry() Entry { return l.entry }

// Note is the session as it is to be noted now.
func (l *Life) Note(now, wall time.Time) Entry {
	l.entry.State = l.machine.State(now, wall)
	return l.entry
}

// Phase is where the session is.
func (l *Life) Phase() desktop.Phase { return l.machine.Phase() }

// Why says in words what happened to a hung, failed or ended session.
func (l *Life) Why() string { return l.machine.Why() }

// Adopt tells whether the desktop is to be looked for instead of started.
func (l *Life) Adopt() bool { return l.adopt }

// Exists tells whether there is a process that can be told something.
func (l *Life) Exists() bool { return l.exists }

// Next is when Tick has something to do.
func (l *Life) Next() (at time.Time, ok bool) { return l.machine.Next() }

// Tick does what is due.
func (l *Life) Tick(now time.Time) []desktop.Action { return l.machine.Tick(now) }

// Abort ends the desktop by force.
func (l *Life) Abort(now time.Time) []desktop.Action { return l.machine.Abort(now) }

// Orderly checks an order of the master before it is given to a session.
func Orderly(a pb.SessionOrder_Action) error {
	switch a {
	case pb.SessionOrder_SHUTDOWN, pb.SessionOrder_LOGOFF, pb.SessionOrder_ABORT:
		return nil
	}
	return wire.Errorf(wire.BadRequest, "unknown order %v", a)
}

// Order is an order of the master; limit is that of a log-off.
func (l *Life) Order(a pb.SessionOrder_Action, limit time.Duration, now time.Time) []desktop.Action {
	switch a {
	case pb.SessionOrder_SHUTDOWN:
		return l.machine.Shutdown(now)
	case pb.SessionOrder_LOGOFF:
		return l.machine.Logoff(now, limit)
	case pb.SessionOrder_ABORT:
		return l.machine.Abort(now)
	}
	return nil
}

// Started takes what came of starting the desktop or of looking for it. again
// tells to look once more in a while: it exists, but cannot be talked to yet.
// Only the proof that there is no process ends a session that was adopted.
func (l *Life) Started(now time.Time, p desktop.Process, err error) (todo []desktop.Action, again bool) {
	switch {
	case err == nil:
		l.exists, l.entry.Process = true, p
		return append(l.machine.Started(now), desktop.Report), false
	case !l.adopt:
		return l.machine.StartFailed(now, err.Error()), false
	case errors.Is(err, desktop.ErrGone) || planted.Bug("no-answer-is-gone"):
		return l.machine.Vanished(now), false
	}
	return nil, true
}

// Found is the process that is there when the program lets go of the desktop.
func (l *Life) Found(p desktop.Process) { l.exists, l.entry.Process = true, p }

// Happened takes what the desktop tells.
func (l *Life) Happened(now time.Time, e desktop.Event) []desktop.Action {
	switch e.Kind {
	case desktop.Ready:
		return l.machine.Ready(now)
	case desktop.Stopping:
		return l.machine.Stopping(now)
	case desktop.Exited:
		return l.machine.Exited(now, e.Reason, e.Detail)
	}
	return nil
}

// Pinged takes the outcome of a look at the hypervisor.
func (l *Life) Pinged(now time.Time, err error) []desktop.Action {
	switch {
	case err == nil:
		return l.machine.Answered(now)
	case errors.Is(err, desktop.ErrHalted):
		return l.machine.Halted(now, err.Error())
	}
	return l.machine.Missed(now)
}

// Row is what the inventory tells of the session; name is that of the
// configuration in the users' homes.
func (l *Life) Row(name string) *pb.Session {
	e := l.entry
	row := &pb.Session{
		Id: e.Spec.Session, User: e.Spec.User.Name, Uid: e.Spec.User.UID, Desktop: name, Image: imageName(e.Spec.Image),
		State: string(l.machine.Phase()), StartedUnix: e.Started.Unix(), Client: e.Client,
		MemoryBytes: uint64(e.Spec.MemoryMiB) << 20, Cpu: l.CPU, Pid: int32(e.Process.PID), Why: wire.Clean(l.machine.Why(), maxText),
		Current: l.Current,
	}
	if l.exists {
		row.Display = l.Display
		if l.machine.Phase() == desktop.PhaseFailed {
			row.Serial = l.Serial
		}
	}
	return row
}

// WantsLastLine tells whether the guest's last line says something about the
// end of the session.
func (l *Life) WantsLastLine() bool {
	return l.exists && (l.machine.How() == desktop.HowFailed || l.machine.How() == desktop.HowCrashed)
}

// Ended is what is told of the session when its process is gone. because is why
// its satellite has ended it; empty: it has not.
func (l *Life) Ended(lastLine, because string) *pb.Ended {
	how := &pb.Ended{Id: l.entry.Spec.Session, User: l.entry.Spec.User.Name, How: string(l.machine.How()), Why: l.machine.Why()}
	if lastLine != "" {
		how.Why += fmt.Sprintf("; the guest's last line: %q", lastLine)
	}
	if because != "" {
		how.Why = because
	}
	how.Why = wire.Clean(how.Why, maxText)
	return how
}

func imageName(i desktop.Image) string {
	if i.Version == 0 {
		return i.Name
	}
	return fmt.Sprintf("%s/%d", i.Name, i.Version)
}

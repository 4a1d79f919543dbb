// Package simulated is what the simulator and a satellite in it agree on: the
// program of a satellite as a value, and the computer under it.
//
// The simulator (master/sim) implements Host and knows nothing of satellites but
// this; satellite/sim implements Satellite with the real rules of a satellite
// and knows nothing of the master. main.go brings them together.
package simulated

import (
	"errors"
	"time"

	pb "verdecmd/proto"
)

// Errors that Host hands to a Satellite.
var (
	ErrGone    = errors.New("the desktop is gone")       // of Found: no such process
	ErrNoSpace = errors.New("no space left")             // of Write and Started
	ErrNoReply = errors.New("the desktop gives no sign") // of Found and Pinged
	ErrHalted  = errors.New("the desktop waits")         // of Pinged: what it writes does not fit the disk
)

// Satellite is the program of one satellite, as a value that is told what
// happens and acts through its Host. One start of the program is one value: a
// crash throws it away, and the next one begins from the Host's files.
//
// All methods are called one at a time and do not block. Any of them may end
// within a call of Host, when the simulator lets the program crash there: a
// panic that only the simulator recovers.
type Satellite interface {
	// Begin reads what earlier starts left and looks for their desktops.
	Begin() error
	// Tick is called every second, and at each time asked for by Wake.
	Tick()
	// Wake is the earliest time on Clock.Mono at which a Tick is due; zero: none
	// but the next second's.
	Wake() time.Time

	// Open begins a new link and returns its first message. Links are counted
	// from 1, never twice in the life of a program; a link before it is closed.
	Open(link uint64) *pb.Hello
	// Receive takes a message of the master. An error ends the link: the
	// satellite has let go of it already.
	Receive(link uint64, d *pb.Down) error
	// Report is asked for when a load report is due, and sent by the caller; nil:
	// the link is not welcomed. News are sent at once, by Host.Send.
	Report(link uint64) *pb.Report
	// Closed tells that a link has ended, whoever ended it. Calls on it that were
	// not answered have failed by that.
	Closed(link uint64)
	// Answered gives the reply to an earlier Host.Refer or Host.Claim: a
	// *pb.ReferReply, a *pb.ClaimReply, or the error of the call as
	// wire.FromStatus makes it. What comes after the call has failed is ignored.
	Answered(call uint64, reply any, err error)

	// Login is a user who wants a desktop here. It is answered by Host.LoggedIn,
	// now or later, unless the program crashes.
	Login(id uint64, user string, uid uint32)

	// The desktops of this host tell what happens to them.

	Started(session string, pid int, err error) // answers Host.Start
	Found(session string, pid int, err error)   // answers Host.Find: ErrGone, another error or none
	Ready(session string)                       // the guest answers
	Stopping(session string)                    // the guest shuts down
	Exited(session string, guest bool)          // guest: it shut itself down; else the process died
	Pinged(session string, err error)           // answers Host.Ping

	// Sessions are the sessions in the satellite's inventory, by ID.
	Sessions() []string
}

// Host is the computer of a satellite, as its program sees it. The simulator
// implements it: files and desktops survive the program.
type Host interface {
	Clock() Clock

	// Files returns the names of all files, sorted; Read the contents of one.
	Files() []string
	Read(name string) (data []byte, ok bool)
	// Write replaces a file as a whole and durably. A full disk refuses it.
	Write(name string, data []byte) error
	Remove(name string) error

	// Load is a sample of how busy the host is.
	Load() *pb.Load
	// Desktop is what the desktop of a user takes, and the features that its host
	// must have; an error: the user has none.
	Desktop(user string) (memoryMiB, cpus int, requires []string, err error)

	// Start orders the process of a session's desktop; Started answers. Quit or
	// Kill before that gives it up: Started then tells an error, and there is no
	// process. A start whose program is gone makes no process any more.
	Start(session, uuid, user string)
	// Find looks for the process of an earlier start of the program; Found
	// answers. A process is the same only if it has this uuid. pid 0: the journal
	// does not know it yet. Without a uuid whatever has the pid is taken, which
	// only a planted bug wants: it may be the desktop of somebody else.
	Find(session, uuid string, pid int)
	Ping(session string)
	PowerDown(session string)
	Quit(session string)
	Kill(session string)

	// Send sends a message on a link; Close ends it.
	Send(link uint64, u *pb.Up)
	Close(link uint64)
	// Refer and Claim call the master on a link and return the number of the
	// call, which Answered gives back.
	Refer(link uint64, r *pb.ReferRequest) uint64
	Claim(link uint64, r *pb.ClaimRequest) uint64

	// Guard starts a guardian as a process of its own: it ticks soon, and every
	// second until it leaves, whatever becomes of this program. Guards are the
	// processes of all guardians of a journal on this host, also of earlier
	// programs; EndGuard ends one.
	Guard(journal string, g Guardian) (pid int, err error)
	Guards(journal string) []int
	EndGuard(pid int)

	// LoggedIn ends a Login.
	LoggedIn(login uint64, o Outcome)

	// Random is a source of randomness that follows from the seed.
	Random() uint64
}

// Guardian is the process that ends desktops when their lease is over and the
// satellite's program cannot. Memory that it shares with the program outlives
// that.
type Guardian interface {
	// Tick is called every second; not to stay is the end of the process.
	Tick(h GuardHost) (stay bool)
}

// GuardHost is the computer as a guardian sees it.
type GuardHost interface {
	Clock() Clock
	Files() []string
	Read(name string) (data []byte, ok bool)
	// Kill ends the process of a desktop and no other: ErrGone where there is
	// none. With pid 0 the uuid tells.
	Kill(session, uuid string, pid int) error
	// Exists is nil where there is one.
	Exists(session, uuid string, pid int) error
	// Alone tells whether the program that started the guardian is gone.
	Alone() bool
}

// Clock is what the clocks of a host show.
type Clock struct {
	Mono time.Time     // as Go's monotonic clock: it stops while the host is suspended
	Wall time.Time     // what is set may jump
	Boot time.Duration // since the host was switched on, suspended time included
}

// Outcome is what came of a login.
type Outcome struct {
	Session  string // it is here
	Existing bool   // and was before
	Server   uint64 // go there; 0: here, or refused
	Err      error  // refused
}

// Config is what a satellite program is told at its start.
type Config struct {
	Name     string
	Facts    *pb.HostFacts
	Instance string // of this start of the program
	Host     Host
	// MasterLost is how long a satellite without a link lets logins wait.
	MasterLost time.Duration
	// Limits of a desktop's life; 0: as in the settings.
	StartTimeout, HungAfter time.Duration
	// PingEvery is how often a desktop is asked for a sign of life; 0: 5 s.
	PingEvery time.Duration
}

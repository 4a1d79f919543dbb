// Package desktop is what a running desktop is to the satellite: how one is
// described, started, found again, asked to end and made to end.
//
// The hypervisor is behind Driver. The rules of a session's life are in
// Machine, which is pure: it is fed what happens and the time, and says what is
// to be done. Nothing in this package starts a process; see qemu and fake.
package desktop

import (
	"context"
	"errors"
	"time"
)

// Errors that a Driver returns, wrapped with the path, the value and the fix.
var (
	ErrNoImage   = errors.New("no base image")            // the user's desktop, or a file of it, is missing
	ErrNoSpace   = errors.New("no space left")            // in the snap directory
	ErrNoQEMU    = errors.New("QEMU is not installed")    //
	ErrNoAccel   = errors.New("no usable accelerator")    // KVM does not work and the setting forbids TCG
	ErrGone      = errors.New("the desktop is gone")      // its process does not exist any more
	ErrBadConfig = errors.New("bad desktop.conf")         //
	ErrInUse     = errors.New("the disk is in use")       // another process holds the image lock
	ErrNetwork   = errors.New("no network for a desktop") // the bridge of WIN4_NETWORK is missing, for example
	ErrHalted    = errors.New("the desktop waits")        // of Ping: what it writes does not fit the disk
)

// User is the account that a desktop runs as.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary
	Home   string
}

// Spec describes one desktop to be started or found again. It is written to
// the satellite's journal before anything is started.
type Spec struct {
	Session   string // for example s40
	UUID      string // QEMU's -uuid; ties a process to the session
	User      User
	Image     Image
	Dir       string // the session's own directory, 0700, the user's
	MemoryMiB int
	CPUs      int
	Name      string // told to the guest (fw_cfg): its host name
	MAC       string // of the network card
}

// Image is one immutable version of a base image, with its configuration.
type Image struct {
	Name      string // "win4"
	Version   int    // of win4.d/N; 0 for a plain directory made by hand
	Dir       string // absolute, links resolved
	OS        string // linux, windows
	MemoryMiB int
	CPUs      int
	Agent     bool   // has a guest agent
	Disk      string // absolute path of the qcow2, empty: none
	Kernel    string // absolute; empty: the disk boots by itself
	Initrd    string
	Append    string
	Requires  []string
	Avoid     []string
}

// Process identifies the process of a desktop beyond a reused pid.
type Process struct {
	PID       int
	StartTime uint64 // field 22 of /proc/PID/stat, clock ticks after boot
	UUID      string
}

// Driver starts desktops and finds running ones again.
type Driver interface {
	// Start makes the overlay and starts the process. It returns when the
	// process exists and answers; the guest is still booting then. Whatever
	// it made is removed again where it fails.
	Start(ctx context.Context, s Spec) (Desktop, error)

	// Adopt finds the running process of an earlier start: ErrGone where it
	// is not there or is another one. A process that does not answer is
	// adopted; Ping tells. With PID 0 it is searched by the UUID, for a
	// satellite that died before it had recorded the process.
	Adopt(ctx context.Context, s Spec, p Process) (Desktop, error)
}

// Desktop is one process of the hypervisor. Its methods may be called from any
// goroutine, also after its end.
type Desktop interface {
	Process() Process

	// Events gives what happens, in order, each kind at most once. It is
	// closed after the event Exited, which is always the last and always comes.
	// After an Adopt a guest that is up is told to be Ready again.
	Events() <-chan Event

	// PowerDown asks the guest to shut down: the guest agent, else the ACPI
	// power button. It returns when the request is made.
	PowerDown(ctx context.Context) error

	// Quit tells the hypervisor to end at once. Like Kill it returns nil where
	// the process is gone already.
	Quit(ctx context.Context) error

	// Kill ends the process group by SIGKILL.
	Kill() error

	// Ping returns nil if the hypervisor answered within ctx and the guest
	// runs. Where QEMU has halted the guest because the disk is full, it lets
	// the guest try again, and returns ErrHalted.
	Ping(ctx context.Context) error

	// Screenshot returns the picture on the screen as PNG.
	Screenshot(ctx context.Context) ([]byte, error)

	// Display is where the display is found, for example vnc+unix:/...
	Display() string

	// Serial returns the last lines of the guest's console, at most n,
	// without control characters.
	Serial(n int) []string

	// CPUTime is the processor time that the process has used so far.
	CPUTime() (time.Duration, error)

	// Release lets go of the desktop without touching the process, so that
	// a later Adopt finds it. It closes Events without Exited; what is called
	// after it returns ErrGone. After the end it does nothing.
	Release()
}

// EventKind is a kind of Event.
type EventKind int

const (
	// Ready: the guest has started: its agent answered, or, without an
	// agent, its picture changed.
	Ready EventKind = iota + 1
	// Stopping: the guest has begun to shut down by itself or on request.
	Stopping
	// Exited: the process is gone.
	Exited
)

// Event is something that happened to a desktop.
type Event struct {
	Kind   EventKind
	Reason Reason // of Exited
	Detail string // of Exited, for people: exit status, last words on stderr
}

// Reason is why a process ended.
type Reason string

const (
	GuestShutdown Reason = "guest"   // the guest powered itself off
	HostQuit      Reason = "quit"    // Quit, or SIGTERM from outside
	Crashed       Reason = "crashed" // neither; Detail says what is known
)

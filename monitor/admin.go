// Package monitor is the administrator's side of the cluster: the one table of
// commands, the socket that carries them, and the terminal monitor.
//
// It knows the master only through the interfaces in admin.go. A command is
// declared once; parsing, levels, help, completion and the manual page come
// from the declaration. Run functions return values and never text rows, so no
// command can miss a format.
package monitor

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Backend is everything that the commands need from the master. Each part is
// small enough to be faked in a test.
type Backend interface {
	General
	ServerAdmin
	DrainAdmin
	HostAdmin
	TrustAdmin
	SessionAdmin
	ReservationAdmin
	JobAdmin
	AlarmAdmin
	AuditAdmin
	EventSource
	Operation
	CheckAdmin
}

// General tells about the master itself.
type General interface {
	Overview() Overview
	// Seq is the number of the newest event.
	Seq() uint64
	// Accounts returns the login names known to the account database that
	// begin with prefix, for completion; at most limit of them.
	Accounts(prefix string, limit int) []string
}

// Overview is what hello shows.
type Overview struct {
	Version       string
	Host          string // the master's host name
	Uptime        time.Duration
	Servers       int // known
	Online        int // of them: state online and not disconnected
	Users         int // sessions
	Reservations  int
	Alarms        int // active
	Critical      int // of them: critical, and acknowledged by nobody
	Seq           uint64
	RetryAfter    time.Duration // not 0: the master has just started and still learns the cluster's state
	RecentRestart bool

	// Interval is the time between two load reports that is in force, Wish what
	// the settings say, and IntervalWhy what keeps the master from it.
	Interval, Wish time.Duration
	IntervalWhy    string
}

// Server states and links, PROTOCOL 11.4.
const (
	Online   = "online"
	Offline  = "offline"
	Draining = "draining"

	LinkUp    = "up"
	LinkStale = "stale"
	LinkDown  = "down"
)

// Server is one satellite as an administrator sees it.
type Server struct {
	ID      uint64
	Name    string
	Address string
	State   string // Online, Offline, Draining
	Reason  string // of the state, given by an administrator
	Link    string // LinkUp, LinkStale, LinkDown

	Users    int
	Reserved int
	Sessions []string // login names, sorted; filled in by Server only

	CPU      float64 // busy percent, 0 to 100
	MemTotal uint64  // bytes
	MemFree  uint64  // bytes
	Seen     time.Time
	Age      time.Duration // since the last report; negative: never
	Version  string
	Score    int64 // lower is chosen first
	Eligible bool
	Why      string // why it is not eligible, in words with measured and wanted values

	Since       time.Time // link up or down since
	Arch        string
	CPUs        int
	Load1       float64
	SnapDir     string
	SnapFree    uint64
	SnapKind    string // local, tmpfs, network
	HomeFree    uint64
	Accelerator string
	Problems    []string

	Job       uint64    // that empties it; 0: none. Filled in by Server only, as Waits
	Waits     string    // what that job waits for, in words
	UUID      string    // of its identity
	Serial    string    // of its certificate, hexadecimal; empty: not known
	CertUntil time.Time // end of its certificate; zero: not known
	Checks    Checks    // Rows are left out; zero: never checked
	Trust     Trust     // filled in by Server only
}

// ServerAdmin is what the server commands need.
type ServerAdmin interface {
	// Servers returns all servers by ID and the seq of that instant.
	Servers() ([]Server, uint64)
	// Server returns one; ok is false where no server has this ID.
	Server(id uint64) (s Server, seq uint64, ok bool)
	// SetServer puts a server online or offline. changed is false where it
	// was so already; left is how many servers are online afterwards.
	SetServer(ctx context.Context, id uint64, state, reason string) (s Server, changed bool, left int, err error)
	// Fence releases the lost sessions of a server that the administrator
	// affirms to be powered off.
	Fence(ctx context.Context, id uint64) (released int, err error)
	// Forget removes a server that is gone; an *Error with code 552 while it
	// is connected or holds sessions. Its number is never given again.
	Forget(ctx context.Context, id uint64) error
	// Placement tells for each server whether the next login (of user, if
	// not empty) would get it; first row first.
	Placement(ctx context.Context, user string) ([]Candidate, error)
}

// Candidate is one row of placement.
type Candidate struct {
	Server   uint64
	Name     string
	Eligible bool
	Score    int64
	Reason   string
}

// Session is one row of users.
type Session struct {
	User    string
	UID     uint32
	Server  uint64
	Desktop string
	Image   string
	State   string // PROTOCOL 11.6
	Started time.Time
	Client  string // empty: disconnected
	ID      string
}

// UserDetail is what user shows. A known account without a session has State
// "none" and, of the rest, User and UID alone.
type UserDetail struct {
	Session
	ServerName string
	Current    bool // runs the version that a new login would get
	Display    string
	Memory     uint64  // bytes
	CPU        float64 // percent of one processor
	PID        int
	Job        uint64   // 0: none
	Why        string   // lost, failed or hung: what happened, since when, and which command helps; without a session: which place is held
	Serial     []string // failed: the last lines of the guest's console
	Last       string   // how the session before this ended or why the last login was refused, in words
}

// How a session is to end.
type How string

const (
	Shutdown How = "shutdown"
	Logoff   How = "logoff"
	Abort    How = "abort"
)

// SessionAdmin is what the session commands need.
type SessionAdmin interface {
	// Users returns all sessions by login name and the seq of that instant.
	Users() ([]Session, uint64)
	// User finds by login name, or by UID where byUID is set. Known accounts
	// without a session are found too; err is an *Error with code 550 else.
	User(ctx context.Context, name string, byUID bool) (UserDetail, uint64, error)
	// End starts the job that ends the session of a user, or joins the one
	// that is under way. limit 0 is the default of how. A user without a
	// session gives JobState with ID 0 and no error.
	End(ctx context.Context, user string, how How, limit time.Duration, force bool) (j Job, joined bool, err error)
}

// Reservation is one row of reservations.
type Reservation struct {
	ID        string
	User      string
	UID       uint32
	Server    uint64
	State     string // waiting, connecting
	Made      time.Time
	Expires   time.Time
	Remaining time.Duration
	Client    string
}

// ReservationAdmin is what the reservation commands need.
type ReservationAdmin interface {
	Reservations() ([]Reservation, uint64)
	// CancelReservation cancels one, or all for id "all"; n is how many.
	CancelReservation(ctx context.Context, id string) (n int, err error)
}

// Job is a long operation. Pairs and Text of a finished job are its final
// reply, told to everybody who waits for it.
type Job struct {
	ID      uint64
	Action  string // shutdownuser, logoffuser, abortuser, drainserver
	Object  string // the user or server
	State   string // waiting, running, done, failed, cancelled
	Percent int
	Started time.Time
	Elapsed time.Duration
	Limit   time.Duration // 0: none
	By      string        // who started it
	Message string        // what it waits for now, in words
	Code    int           // of the final reply; 0 while it runs
	Pairs   []Pair
	Text    string // the final reply as a sentence
}

// Finished tells whether the job has its final reply.
func (j Job) Finished() bool { return j.Code != 0 }

// JobAdmin is what the job commands need.
type JobAdmin interface {
	Jobs(all bool) ([]Job, uint64)
	Job(id uint64) (j Job, ok bool)
	// WaitJob returns when the job has finished or ctx has ended; the job
	// goes on in the second case, and the error is ctx's.
	WaitJob(ctx context.Context, id uint64) (Job, error)
	CancelJob(ctx context.Context, id uint64) (j Job, cancelled bool, err error)
}

// Event is something that happened, PROTOCOL 10.
type Event struct {
	Seq   uint64
	Time  time.Time
	Type  string
	Pairs []Pair
	Text  string // a sentence for people
}

// EventSource is what the events command needs.
type EventSource interface {
	// Since returns the kept events after seq, oldest first. lostTo is not 0
	// where events from seq+1 up to lostTo are no longer known. wait is
	// closed when there is something newer than what was returned.
	Since(seq uint64) (events []Event, lostTo uint64, wait <-chan struct{})
}

// Pair is one key=value of an end-line, or one property of an event. Values
// are those that the encoders know: string, bool, int, int64, uint64, float64,
// time.Time, time.Duration, nil.
type Pair struct {
	Key   string
	Value any
}

// Error is a refusal or failure as the protocol tells it: one code of
// PROTOCOL 5, the pairs of the terse formats, and a sentence for people. The
// keyword follows from the code.
type Error struct {
	Code  int
	Pairs []Pair
	Text  string
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Text) }

// Errorf makes an Error whose msg pair and text are the same words; the text is
// made a sentence.
func Errorf(code int, pairs []Pair, format string, args ...any) *Error {
	text := fmt.Sprintf(format, args...)
	return &Error{Code: code, Pairs: append(pairs[:len(pairs):len(pairs)], Pair{"msg", text}), Text: sentence(text)}
}

// sentence begins a text with a capital and ends it with a full stop.
func sentence(text string) string {
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "?") {
		return upperFirst(text)
	}
	return upperFirst(text) + "."
}

// Caller is who sent a command, from the credentials of the connection. It
// travels in the context of a command; see WithCaller.
type Caller struct {
	PID, UID, GID int
	Name          string // login name of UID, or the number
	groups        []int  // supplementary ones of its process
}

type callerKey struct{}

// WithCaller returns ctx with the caller in it.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the caller in ctx; ok is false where there is none.
func CallerOf(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

package session

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/link"
)

const (
	maxName     = 256 // bytes of a login name, as the master takes it
	settleTries = 20  // while the master still learns that a session has ended here
	settleWait  = 250 * time.Millisecond
	// RefusedPause is how long the next login of a user who was refused waits:
	// each refusal is told to the master and written to logs.
	RefusedPause = 250 * time.Millisecond
)

// Rules are the settings that logins depend on.
type Rules struct {
	MasterLost  time.Duration
	Standalone  bool
	Masters     string // for messages
	Cluster     string // the cluster's ID: part of network addresses
	DesktopName string
	MemoryMax   int // MiB of one desktop; 0: no limit
	CPUsMax     int
}

// Do is what comes next in a login. Each is answered by the method of Login
// that its comment names.
type Do int

const (
	// Resolve: read what the desktop of the user needs; Resolved.
	Resolve Do = iota + 1
	// Wait for the link to the master, Step.Wait at most where that is not 0:
	// Linked. Nothing is to be waited for if it is up.
	Wait
	// Refer: ask the master for the place; Referred.
	Refer
	// Secure: make sure that desktops end with a lease though this program dies;
	// Secured.
	Secure
	// Claim the place; Claimed.
	Claim
	// Alone: make a session without a master; Invented.
	Alone
	// Note: put Step.Life into the journal; Noted.
	Note
	// Break the link, then refuse with Step.Err.
	Break
	// Accept: take Step.Life into the inventory if Step.Link is the present
	// link; Accepted.
	Accept
	// Forget: take Step.Session out of the journal; Forgotten, with Step.Err.
	Forget
	// Start the desktop of Step.Life; Watch.
	Start
	// Await: until something about Step.Session changes; Watch, or Over when it
	// is over.
	Await
	// AwaitEnd: until Step.Session is over; Look.
	AwaitEnd
	// Pause for Step.Wait; Look.
	Pause
	// Answer with Step.Opened.
	Answer
	// Refuse with Step.Err.
	Refuse
)

// Step is what comes next in a login; which fields count depends on Do.
type Step struct {
	Do      Do
	Wait    time.Duration
	Text    string // for the user who waits; may be empty
	Session string
	Link    uint64
	Life    *Life
	Opened  Opened
	Err     error
}

// Opened is what a login came to: a session here, or the place to go to.
type Opened struct {
	Session  *pb.Session
	Existing bool // it was there before
	Referred *pb.Referred
}

// Login is the way of one login through the satellite as a plain value: each
// method is told what came of a step and returns the next one. It begins with
// Look.
type Login struct {
	rules    Rules
	user     desktop.User
	client   string
	try      int
	existing bool // the session was there before

	image        desktop.Image
	memory, cpus int
	life         *Life
	link         uint64
}

// NewLogin checks the user's name and begins nothing.
func NewLogin(r Rules, u desktop.User, client string) (*Login, error) {
	if n := len(u.Name); n == 0 || n > maxName || !utf8.ValidString(u.Name) {
		return nil, wire.Errorf(wire.BadRequest, "the account %.40q cannot log in: its name is longer than %d bytes or not UTF-8", u.Name, maxName)
	}
	return &Login{rules: r, user: u, client: client, try: -1}, nil
}

// User is who logs in.
func (l *Login) User() desktop.User { return l.user }

// Look is told the session of the user here, or nil.
func (l *Login) Look(row *pb.Session) Step {
	l.try++
	switch {
	case row == nil:
		return Step{Do: Resolve}
	case ending(row): // a login waits for its end
		return Step{Do: AwaitEnd, Session: row.Id, Text: "the session before is ending"}
	}
	l.existing = true
	return l.Watch(row)
}

// ending tells whether a session is on its way out.
func ending(row *pb.Session) bool {
	p := desktop.Phase(row.State)
	return p == desktop.PhaseAborting || p == desktop.PhaseEnded
}

// Resolved is told the image of the user's desktop.
func (l *Login) Resolved(image desktop.Image, err error) Step {
	if err != nil {
		return l.failed(noDesktop(l.user.Name, err))
	}
	l.image = image
	l.memory, l.cpus = clamp(image.MemoryMiB, l.rules.MemoryMax), clamp(image.CPUs, l.rules.CPUsMax)
	return Step{Do: Wait}
}

// Linked is told whether the link is up, and else how long it has not been and
// why. It is waited for only while it is away for a short time.
func (l *Login) Linked(up bool, silent time.Duration, why string) Step {
	if up {
		return Step{Do: Refer}
	}
	if left := l.rules.MasterLost - silent; left > 0 {
		return Step{Do: Wait, Wait: left, Text: fmt.Sprintf("waiting for the cluster master (%s)", why)}
	}
	if l.rules.Standalone {
		return Step{Do: Alone}
	}
	err := wire.Errorf(wire.Unreachable,
		"the cluster master (%s) cannot be reached since %d s, so no new desktop is started here: another one of yours may run elsewhere. Running desktops go on. Last error: %s",
		l.rules.Masters, int(silent.Seconds()), why)
	return l.failed(&noMasterError{err})
}

// Request is what the master is asked in the step Refer.
func (l *Login) Request() *pb.ReferRequest {
	return &pb.ReferRequest{User: l.user.Name, Uid: l.user.UID, Client: l.client,
		Need: &pb.Need{MemoryBytes: uint64(l.memory) << 20, Cpus: uint32(l.cpus), Image: imageName(l.image), Requires: l.image.Requires, Avoid: l.image.Avoid}}
}

// errSettling: the master counts on a session here that has just ended.
var errSettling = wire.Errorf(wire.NotReady, "the master has not noted the end of the session before yet; log in again")

// Referred is told where the master sends the user.
func (l *Login) Referred(ref link.Referral, err error) Step {
	switch {
	case err != nil:
		return l.failed(err)
	case !ref.Here:
		to := &pb.Referred{ServerId: ref.ServerId, Name: ref.Name, Address: ref.Address, RemainingS: ref.RemainingS, Existing: ref.Session != ""}
		return Step{Do: Answer, Opened: Opened{Referred: to}}
	case ref.Session != "":
		return l.failed(errSettling)
	}
	return Step{Do: Secure}
}

// Secured is told whether the guard is awake, or not needed: under a lease
// nothing is started that would not end with it.
func (l *Login) Secured(err error) Step {
	if err != nil {
		return l.failed(wire.Errorf(wire.NotReady, "no new desktop is started here, since nothing makes sure that it ends with its lease (WIN4_VERDE_LOST_SESSIONS=lease): %v; log in again in a moment", err))
	}
	return Step{Do: Claim}
}

// Granted is what a new session is made with beside the master's answer.
type Granted struct {
	Dir    func(session string) string // where it lives
	UUID   string
	Limits desktop.Limits
	Now    time.Time // on the clock of the session's machine
	Wall   time.Time
}

// Claimed is told the master's grant and the link on which it was given.
func (l *Login) Claimed(reply *pb.ClaimReply, on uint64, g Granted, err error) Step {
	if err != nil {
		return l.failed(err)
	}
	return l.granted(reply.Session, on, reply.Epoch, g)
}

// Invented is told a random number from which the ID of a session without a
// master is made.
func (l *Login) Invented(n uint64, g Granted) Step {
	return l.granted(fmt.Sprintf("s0%016d", n%1e16), 0, 0, g)
}

func (l *Login) granted(id string, on, epoch uint64, g Granted) Step {
	e := Entry{Started: g.Wall, Client: l.client, Epoch: epoch, Spec: desktop.Spec{
		Session: id, UUID: g.UUID, User: l.user, Image: l.image, Dir: g.Dir(id),
		MemoryMiB: l.memory, CPUs: l.cpus, Name: l.user.Name, MAC: mac(l.rules.Cluster, l.user.UID),
	}}
	l.life, l.link = NewLife(e, g.Limits, g.Now, g.Wall), on
	if planted.Bug("start-before-journal") {
		return Step{Do: Accept, Session: id, Life: l.life, Link: l.link}
	}
	return Step{Do: Note, Session: id, Life: l.life}
}

// Noted is told whether the journal took the session. Nothing is started that
// is not in it.
func (l *Login) Noted(err error) Step {
	id := l.life.entry.Spec.Session
	if err != nil { // the next inventory tells the master that there is no such session
		return Step{Do: Break, Session: id, Err: wire.Errorf(wire.Internal, "the session cannot be noted, so it is not started: %v", err)}
	}
	return Step{Do: Accept, Session: id, Life: l.life, Link: l.link}
}

// Accepted is told the answer of Inventory.Accept.
func (l *Login) Accepted(err error) Step {
	id := l.life.entry.Spec.Session
	if err != nil {
		return Step{Do: Forget, Session: id, Err: err}
	}
	return Step{Do: Start, Session: id, Life: l.life}
}

// Forgotten follows a grant that was not accepted.
func (l *Login) Forgotten(err error) Step {
	if errors.Is(err, errLeaseOver) { // the master still counts on the session
		return Step{Do: Break, Err: err}
	}
	return l.failed(err)
}

// Watch is told the row of the session that the user waits for.
func (l *Login) Watch(row *pb.Session) Step {
	next := Step{Do: Await, Session: row.Id}
	switch phase := desktop.Phase(row.State); {
	case phase == desktop.PhaseStarting:
		return next
	case phase == desktop.PhaseAborting, phase == desktop.PhaseStopping && !l.existing: // Over tells how it ended
		next.Text = "the desktop is being ended"
		return next
	case phase == desktop.PhaseFailed:
		text := fmt.Sprintf("the desktop has failed: %s", row.Why)
		if n := len(row.Serial); n > 0 {
			text += fmt.Sprintf("; the guest's last line: %q", row.Serial[n-1])
		}
		return Step{Do: Refuse, Err: wire.Errorf(wire.Internal, "%s. An administrator clears it away with \"abortuser %s\"", text, l.user.Name)}
	}
	return Step{Do: Answer, Opened: Opened{Session: row, Existing: l.existing}}
}

// Over is told how the session that the user waited for ended.
func (l *Login) Over(how *pb.Ended) Step {
	switch desktop.How(how.How) {
	case desktop.HowAbort, desktop.HowShutdown, desktop.HowGuest:
		return Step{Do: Refuse, Err: wire.Errorf(wire.NotReady, "the desktop was ended before it was ready; log in again")}
	}
	return Step{Do: Refuse, Err: wire.Errorf(wire.Internal, "the desktop could not be started: %s", how.Why)}
}

// failed tries again what may succeed in a moment.
func (l *Login) failed(err error) Step {
	if l.try < settleTries && passing(err) {
		return Step{Do: Pause, Wait: settleWait, Text: "the cluster master does not know everything yet"}
	}
	return Step{Do: Refuse, Err: err}
}

// passing tells whether the same login may succeed in a moment: the master is
// still learning what runs, or the link has changed or broken under the call.
func passing(err error) bool {
	if _, gone := errors.AsType[*noMasterError](err); gone {
		return false
	}
	if errors.Is(err, errOldLink) {
		return true
	}
	switch wire.KindOf(err) {
	case wire.StaleLink, wire.NotReady, wire.Unreachable:
		return true
	}
	return false
}

// noMasterError: there has been no link for so long that logins are refused.
type noMasterError struct{ error }

func (e *noMasterError) Unwrap() error { return e.error }

// noDesktop says to a user what is missing.
func noDesktop(user string, err error) error {
	return wire.Errorf(wire.NotFound, "%s has no desktop that could be started: %v. An administrator publishes and deploys one (see DESKTOPS in the README)", user, err)
}

func clamp(want, limit int) int {
	if limit > 0 && want > limit {
		return limit
	}
	return want
}

// mac is the hardware address of a user's network card: locally administered,
// the same on every server, and never the same for two users of a cluster,
// since the last four bytes are the UID.
func mac(cluster string, uid uint32) string {
	h := sha256.Sum256([]byte(cluster))
	return fmt.Sprintf("52:%02x:%02x:%02x:%02x:%02x", h[0], byte(uid>>24), byte(uid>>16), byte(uid>>8), byte(uid))
}

// UUID is 16 random bytes as a UUID (RFC 9562, version 4).
func UUID(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf8"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
)

const (
	progressEvery = time.Second
	maxName       = 256 // bytes of a login name, as the master takes it
	settleTries   = 20  // while the master still learns that a session has ended here
	settleWait    = 250 * time.Millisecond
	refusedPause  = 250 * time.Millisecond // until the next login of a user who was refused
)

// Opened is what a login came to: a session here, or the place to go to.
type Opened struct {
	Session  *pb.Session
	Existing bool // it was there before
	Referred *pb.Referred
}

// Open gives a user the desktop: the one that runs here, else the one that the
// master says, else a new one. progress is told what is being waited for.
func (m *Manager) Open(ctx context.Context, u desktop.User, client string, progress func(text string)) (Opened, error) {
	if n := len(u.Name); n == 0 || n > maxName || !utf8.ValidString(u.Name) {
		return Opened{}, wire.Errorf(wire.BadRequest, "the account %.40q cannot log in: its name is longer than %d bytes or not UTF-8", u.Name, maxName)
	}
	o, err := m.open(ctx, u, client, progress)
	if err != nil && ctx.Err() == nil {
		m.refuse(u.Name, err)
	}
	return o, err
}

func (m *Manager) open(ctx context.Context, u desktop.User, client string, progress func(text string)) (_ Opened, err error) {
	unlock, err := m.lockLogin(ctx, u.Name)
	if err != nil {
		return Opened{}, wire.Errorf(wire.InUse, "another login of %s is under way here", u.Name)
	}
	defer func() {
		if err != nil { // each refusal is told to the master and written to logs
			time.AfterFunc(refusedPause, unlock)
			return
		}
		unlock()
	}()
	for try := 0; ; try++ {
		if s := m.of(u.Name, u.UID); s != nil {
			if s.ending() {
				progress("the session before is ending")
				select {
				case <-s.over:
					continue
				case <-ctx.Done():
					return Opened{}, ctx.Err()
				}
			}
			return m.await(ctx, s, true, progress)
		}
		s, referred, err := m.place(ctx, u, client, progress)
		switch {
		case err == nil && s != nil:
			return m.await(ctx, s, false, progress)
		case err == nil:
			return Opened{Referred: referred}, nil
		case try < settleTries && passing(err):
			progress("the cluster master does not know everything yet")
			select {
			case <-time.After(settleWait):
			case <-ctx.Done():
				return Opened{}, ctx.Err()
			}
		default:
			return Opened{}, err
		}
	}
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

// errSettling: the master counts on a session here that has just ended.
var errSettling = wire.Errorf(wire.NotReady, "the master has not noted the end of the session before yet; log in again")

// place finds or makes the place of a user without a session here.
func (m *Manager) place(ctx context.Context, u desktop.User, client string, progress func(string)) (*session, *pb.Referred, error) {
	var image desktop.Image
	err := u.Do(func() (err error) {
		image, err = desktop.Resolve(u.Home, m.cfg.DesktopName)
		return err
	})
	if err != nil {
		return nil, nil, noDesktop(u.Name, err)
	}
	memory, cpus := clamp(image.MemoryMiB, m.cfg.MemoryMax), clamp(image.CPUs, m.cfg.CPUsMax)
	alone, err := m.waitForMaster(ctx, progress)
	if err != nil {
		return nil, nil, err
	}
	e := entry{Started: time.Now(), Client: client}
	var link uint64
	id := ""
	if alone {
		n, err := rand.Int(rand.Reader, big.NewInt(1e16))
		if err != nil {
			return nil, nil, err
		}
		id = fmt.Sprintf("s0%016d", n)
		m.cfg.Log.Warn().Str("user", u.Name).Str("session", id).Msg("login without a master (WIN4_VERDE_STANDALONE_LOGIN)")
	} else {
		need := &pb.Need{MemoryBytes: uint64(memory) << 20, Cpus: uint32(cpus), Image: imageName(image), Requires: image.Requires, Avoid: image.Avoid}
		ref, err := m.master.Refer(ctx, &pb.ReferRequest{User: u.Name, Uid: u.UID, Need: need, Client: client})
		if err != nil {
			return nil, nil, err
		}
		if !ref.Here {
			return nil, &pb.Referred{ServerId: ref.ServerId, Name: ref.Name, Address: ref.Address, RemainingS: ref.RemainingS, Existing: ref.Session != ""}, nil
		}
		if ref.Session != "" {
			return nil, nil, errSettling
		}
		reply, on, err := m.master.Claim(ctx, u.Name, u.UID)
		if err != nil {
			return nil, nil, err
		}
		id, link, e.Epoch = reply.Session, on, reply.Epoch
	}
	e.Spec = desktop.Spec{
		Session: id, UUID: newUUID(), User: u, Image: image, Dir: m.dir(u, id),
		MemoryMiB: memory, CPUs: cpus, Name: u.Name, MAC: mac(m.cfg.Cluster, u.UID),
	}
	machine := desktop.NewMachine(m.cfg.Limits, time.Now())
	e.State = machine.State()
	if err := m.journal.put(e); err != nil { // before anything is started
		m.master.Break() // the next inventory tells the master that there is no such session
		return nil, nil, wire.Errorf(wire.Internal, "the session cannot be noted, so it is not started: %v", err)
	}
	s := m.newSession(e, machine)
	s.isCurrent = true
	if err := m.accept(s, link); err != nil {
		if rerr := m.journal.remove(id); rerr != nil {
			m.cfg.Log.Error().Err(rerr).Str("session", id).Msg("journal")
		}
		return nil, nil, err
	}
	m.start(s)
	return s, nil, nil
}

// waitForMaster waits for the link while it is away for a short time only.
// alone is true where the login may go on without a master.
func (m *Manager) waitForMaster(ctx context.Context, progress func(string)) (alone bool, err error) {
	for {
		up, down, why, changed := m.master.Status()
		if up {
			return false, nil
		}
		silent := time.Since(down)
		if left := m.cfg.MasterLost - silent; left > 0 {
			progress(fmt.Sprintf("waiting for the cluster master (%s)", why))
			select {
			case <-changed:
			case <-time.After(left):
			case <-ctx.Done():
				return false, ctx.Err()
			}
			continue
		}
		if m.cfg.Standalone {
			return true, nil
		}
		err = wire.Errorf(wire.Unreachable,
			"the cluster master (%s) cannot be reached since %d s, so no new desktop is started here: another one of yours may run elsewhere. Running desktops go on. Last error: %s",
			m.cfg.Masters, int(silent.Seconds()), why)
		return false, &noMasterError{err}
	}
}

// await waits until the desktop of a session runs, or will not.
func (m *Manager) await(ctx context.Context, s *session, existing bool, progress func(string)) (Opened, error) {
	began := time.Now()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		changed := m.Changed()
		row := s.shown.Load()
		switch phase := desktop.Phase(row.State); {
		case phase == desktop.PhaseStarting:
		case phase == desktop.PhaseAborting, phase == desktop.PhaseStopping && !existing: // s.over tells how it ended
			progress("the desktop is being ended")
		case phase == desktop.PhaseFailed:
			text := fmt.Sprintf("the desktop has failed: %s", row.Why)
			if n := len(row.Serial); n > 0 {
				text += fmt.Sprintf("; the guest's last line: %q", row.Serial[n-1])
			}
			return Opened{}, wire.Errorf(wire.Internal, "%s. An administrator clears it away with \"abortuser %s\"", text, s.spec.User.Name)
		default:
			return Opened{Session: row, Existing: existing}, nil
		}
		select {
		case <-s.over:
			switch desktop.How(s.how.How) {
			case desktop.HowAbort, desktop.HowShutdown, desktop.HowGuest:
				return Opened{}, wire.Errorf(wire.NotReady, "the desktop was ended before it was ready; log in again")
			}
			return Opened{}, wire.Errorf(wire.Internal, "the desktop could not be started: %s", s.how.Why)
		case <-m.ctx.Done():
			return Opened{}, wire.Errorf(wire.Unreachable, "this satellite is being stopped; the desktop goes on, log in again in a moment")
		case <-changed:
		case <-tick.C:
			text := fmt.Sprintf("the desktop is starting (%d s)", int(time.Since(began).Seconds()))
			if row.Why != "" {
				text += ": " + row.Why
			}
			progress(text)
		case <-ctx.Done():
			return Opened{}, ctx.Err()
		}
	}
}

// ending tells whether a session is on its way out: a login waits for its end.
func (s *session) ending() bool {
	p := desktop.Phase(s.shown.Load().State)
	return p == desktop.PhaseAborting || p == desktop.PhaseEnded
}

// lockLogin lets one login of a user at a time pass.
func (m *Manager) lockLogin(ctx context.Context, user string) (unlock func(), err error) {
	m.mu.Lock()
	free := m.logins[user]
	if free == nil {
		free = make(chan struct{}, 1)
		m.logins[user] = free
	}
	m.mu.Unlock()
	select {
	case free <- struct{}{}:
		return func() { <-free }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Screenshot returns what is on the screen of a user's desktop here, as PNG.
func (m *Manager) Screenshot(ctx context.Context, u desktop.User) ([]byte, error) {
	s := m.of(u.Name, u.UID)
	if s == nil {
		return nil, wire.Errorf(wire.NotFound, "%s has no desktop on this satellite", u.Name)
	}
	got := make(chan desktop.Desktop, 1)
	select {
	case s.orders <- func(time.Time) []desktop.Action { got <- s.desk; return nil }:
	case <-s.over:
		return nil, wire.Errorf(wire.NotFound, "the desktop of %s has just ended", u.Name)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var desk desktop.Desktop
	select {
	case desk = <-got:
	case <-s.over:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if desk == nil {
		return nil, wire.Errorf(wire.NotReady, "the desktop of %s is just starting", u.Name)
	}
	return desk.Screenshot(ctx)
}

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

// newUUID is a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

package sim

import (
	"slices"
	"time"

	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/link"
	"verdecmd/satellite/session"
)

// A disk now and then takes its time for a journal entry, and meanwhile things
// happen: one entry of slowOne, up to slowMost.
const (
	slowOne  = 8
	slowMost = 2 * time.Second
)

// login is one login that is under way.
type login struct {
	*session.Login
	id    uint64
	step  session.Step // that is being done; Do 0: it has not begun
	next  session.Step // that is to be done; Do 0: the present one is waited for
	until time.Time    // when the wait ends; zero: with an event alone
	call  uint64       // to the master; 0: none
	life  *life        // the session that it waits for
	slow  bool         // the disk has taken its time for this step
}

// Login implements simulated.Satellite.
func (s *satellite) Login(id uint64, user string, uid uint32) {
	s.now = s.host.Clock()
	u := desktop.User{Name: user, UID: uid, GID: uid, Home: "/home/" + user}
	l, err := session.NewLogin(s.rules, u, "simulated")
	if err != nil {
		s.host.LoggedIn(id, simulated.Outcome{Err: err})
		return
	}
	s.logins = append(s.logins, &login{Login: l, id: id})
	s.settle()
}

// goOn lets every login that can do something do it, in the order in which they
// came, and tells whether any did.
func (s *satellite) goOn() (did bool) {
	for _, l := range slices.Clone(s.logins) {
		step, ok := s.due(l)
		for ok {
			did = true
			l.step, l.next, l.until = step, session.Step{}, time.Time{}
			if s.finish(l, step) {
				break
			}
			step, ok = s.do(l, step)
		}
	}
	return did
}

// due is the step that a login can do now.
func (s *satellite) due(l *login) (session.Step, bool) {
	if l.next.Do != 0 {
		return l.next, true
	}
	late := !l.until.IsZero() && !l.until.After(s.now.Mono)
	switch l.step.Do {
	case 0:
		if !s.first(l) {
			return session.Step{}, false
		}
		return s.look(l), true
	case session.Wait:
		if s.up() || late {
			return l.Linked(s.up(), s.now.Mono.Sub(s.down), s.why), true
		}
	case session.Await:
		if next := s.watch(l); next.Do != session.Await {
			return next, true
		}
	case session.AwaitEnd:
		if l.life.how != nil {
			return s.look(l), true
		}
	case session.Pause:
		if late {
			return s.look(l), true
		}
	case session.Accept:
		if late {
			return l.step, true
		}
	}
	return session.Step{}, false
}

// do does a step and returns the next, if that can be told already.
func (s *satellite) do(l *login, step session.Step) (next session.Step, ok bool) {
	switch step.Do {
	case session.Resolve:
		memory, cpus, requires, err := s.host.Desktop(l.User().Name)
		return l.Resolved(desktop.Image{Name: desktopName, Version: 1, MemoryMiB: memory, CPUs: cpus, Requires: requires}, err), true
	case session.Wait:
		if step.Wait == 0 || s.up() {
			return l.Linked(s.up(), s.now.Mono.Sub(s.down), s.why), true
		}
		l.until = s.now.Mono.Add(step.Wait)
	case session.Refer:
		if !s.up() {
			return l.Referred(link.Referral{}, link.ErrDown), true
		}
		s.ask(l, step.Do)
	case session.Secure:
		return l.Secured(s.secured()), true
	case session.Claim:
		if !s.up() {
			return l.Claimed(nil, 0, s.granted(), link.ErrDown), true
		}
		s.ask(l, step.Do)
	case session.Note:
		l.slow = false
		return l.Noted(s.put(step.Life.Entry())), true
	case session.Accept:
		if !l.slow {
			l.slow = true
			if s.host.Random()%slowOne == 0 {
				l.until = s.now.Mono.Add(time.Duration(s.host.Random() % uint64(slowMost)))
				return next, false
			}
		}
		return l.Accepted(s.known.Accept(step.Life.Row(desktopName), step.Link, s.now.Boot)), true
	case session.Forget:
		_ = s.host.Remove(entries + session.EntryFile(step.Session)) // what stays is found to have no desktop
		return l.Forgotten(step.Err), true
	case session.Start:
		l.life = &life{Life: step.Life, id: step.Session}
		s.lives[step.Session] = l.life
		s.begin(l.life)
		return s.watch(l), true
	case session.Pause:
		l.until = s.now.Mono.Add(step.Wait)
	}
	return next, false
}

// look finds the session of the user here.
func (s *satellite) look(l *login) session.Step {
	u := l.User()
	row := s.known.Of(u.Name, u.UID)
	l.life = nil
	if row != nil {
		l.life = s.lives[row.Id]
	}
	return l.Look(row)
}

// watch looks at the session that a login waits for.
func (s *satellite) watch(l *login) session.Step {
	if l.life.how != nil {
		return l.Over(l.life.how)
	}
	return l.Watch(l.life.Row(desktopName))
}

// finish ends a login with its last step.
func (s *satellite) finish(l *login, step session.Step) bool {
	out := simulated.Outcome{}
	switch step.Do {
	case session.Answer:
		if to := step.Opened.Referred; to != nil {
			out.Server, out.Existing = to.ServerId, to.Existing
		} else {
			out.Session, out.Existing = step.Opened.Session.Id, step.Opened.Existing
		}
	case session.Break:
		s.end("the journal cannot be written")
		out.Err = step.Err
	case session.Refuse:
		out.Err = step.Err
	default:
		return false
	}
	s.logins = slices.DeleteFunc(s.logins, func(x *login) bool { return x == l })
	if out.Err != nil {
		if _, known := out.Err.(*wire.Error); !known {
			out.Err = wire.Errorf(wire.KindOf(out.Err), "%s", out.Err)
		}
		name := l.User().Name
		s.known.Refuse(name, step.Err)
		s.paused[name] = s.now.Mono.Add(session.RefusedPause)
	}
	s.host.LoggedIn(l.id, out)
	return true
}

// first tells whether a login may begin: one of a user at a time, and a pause
// after one that was refused.
func (s *satellite) first(l *login) bool {
	name := l.User().Name
	for _, x := range s.logins {
		if x == l {
			break
		}
		if x.User().Name == name {
			return false
		}
	}
	until, ok := s.paused[name]
	if ok && until.After(s.now.Mono) {
		l.until = until
		return false
	}
	delete(s.paused, name)
	return true
}

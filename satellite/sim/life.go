package sim

import (
	"errors"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/simulated"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/session"
)

// life is one session here.
type life struct {
	*session.Life
	id        string
	findAt    time.Time // when its desktop is looked for again; zero: not
	pingAt    time.Time
	pinging   bool
	leaseOver bool
	how       *pb.Ended // when it is over
}

// begin starts a desktop, or looks for the one that runs.
func (s *satellite) begin(l *life) {
	l.findAt, l.pingAt = time.Time{}, s.now.Mono.Add(s.cfg.PingEvery)
	e := l.Entry()
	if l.Adopt() {
		s.host.Find(l.id, e.Spec.UUID, e.Process.PID)
		return
	}
	s.host.Start(l.id, e.Spec.UUID, e.Spec.User.Name)
}

// tick does what is due in a session.
func (s *satellite) tick(l *life) {
	if at, ok := l.Next(); ok && !at.After(s.now.Mono) {
		s.perform(l, l.Tick(s.now.Mono))
	}
	if l.how != nil {
		return
	}
	if !l.findAt.IsZero() && !l.findAt.After(s.now.Mono) {
		s.begin(l)
	}
	if !l.Exists() || l.pingAt.After(s.now.Mono) {
		return
	}
	l.pingAt = s.now.Mono.Add(s.cfg.PingEvery)
	if l.pinging { // as long as a look at a hypervisor takes at most
		s.perform(l, l.Life.Pinged(s.now.Mono, errNoAnswer))
	}
	l.pinging = true
	s.host.Ping(l.id)
}

var errNoAnswer = errors.New("no answer in time")

// perform does what the rules ask for.
func (s *satellite) perform(l *life, todo []desktop.Action) {
	for _, a := range todo {
		switch {
		case a == desktop.AskPowerDown:
			s.host.PowerDown(l.id)
		case a == desktop.Quit && (l.Exists() || !l.Adopt()):
			s.host.Quit(l.id)
		case a == desktop.Kill && (l.Exists() || !l.Adopt()):
			s.host.Kill(l.id)
		}
	}
	for _, a := range todo {
		switch {
		case a == desktop.Clean:
			s.clean(l)
		case a == desktop.Report && l.Phase() != desktop.PhaseEnded:
			s.write(l)
			s.known.Show(l.Row(desktopName))
			s.known.Touch()
		}
	}
}

// write puts a session into the journal. A disk that does not take it stops
// nothing: what is lost is only news.
func (s *satellite) write(l *life) { _ = s.put(l.Note(s.now.Mono, s.now.Wall)) }

func (s *satellite) put(e session.Entry) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	return s.host.Write(entries+session.EntryFile(e.Spec.Session), b)
}

// clean removes a session whose process is gone.
func (s *satellite) clean(l *life) {
	because := ""
	if l.leaseOver {
		because = session.LeaseOver
	}
	how := l.Ended("", because)
	_ = s.host.Remove(entries + session.EntryFile(l.id)) // else the next start of the program removes it
	l.how = how
	delete(s.lives, l.id)
	s.known.Gone(how)
}

// event handles something that happened to a session's desktop. What comes from
// one that is over already, or is not here, means nothing.
func (s *satellite) event(id string, f func(l *life) []desktop.Action) {
	s.now = s.host.Clock()
	if l := s.lives[id]; l != nil {
		s.perform(l, f(l))
	}
	s.settle()
}

// Started implements simulated.Satellite.
func (s *satellite) Started(id string, pid int, err error) {
	s.event(id, func(l *life) []desktop.Action {
		if l.Adopt() || l.Exists() {
			return nil
		}
		todo, _ := l.Life.Started(s.now.Mono, l.process(pid), err)
		return todo
	})
}

// Found implements simulated.Satellite.
func (s *satellite) Found(id string, pid int, err error) {
	s.event(id, func(l *life) []desktop.Action {
		if !l.Adopt() || l.Exists() || !l.findAt.IsZero() {
			return nil
		}
		if errors.Is(err, simulated.ErrGone) {
			err = desktop.ErrGone
		}
		todo, again := l.Life.Started(s.now.Mono, l.process(pid), err)
		if again {
			l.findAt = s.now.Mono.Add(s.cfg.PingEvery)
		}
		return todo
	})
}

func (l *life) process(pid int) desktop.Process {
	return desktop.Process{PID: pid, UUID: l.Entry().Spec.UUID}
}

// Ready implements simulated.Satellite.
func (s *satellite) Ready(id string) { s.happened(id, desktop.Event{Kind: desktop.Ready}) }

// Stopping implements simulated.Satellite.
func (s *satellite) Stopping(id string) { s.happened(id, desktop.Event{Kind: desktop.Stopping}) }

// Exited implements simulated.Satellite.
func (s *satellite) Exited(id string, guest bool) {
	e := desktop.Event{Kind: desktop.Exited, Reason: desktop.Crashed, Detail: "its process was ended"}
	if guest {
		e = desktop.Event{Kind: desktop.Exited, Reason: desktop.GuestShutdown}
	}
	s.happened(id, e)
}

// happened takes what a desktop tells. One that has not been found yet, or has
// not been handed over by its start, is not heard.
func (s *satellite) happened(id string, e desktop.Event) {
	s.event(id, func(l *life) []desktop.Action {
		if !l.Exists() {
			return nil
		}
		return l.Happened(s.now.Mono, e)
	})
}

// Pinged implements simulated.Satellite.
func (s *satellite) Pinged(id string, err error) {
	s.event(id, func(l *life) []desktop.Action {
		if !l.pinging {
			return nil
		}
		l.pinging = false
		if errors.Is(err, simulated.ErrHalted) {
			err = desktop.ErrHalted
		}
		return l.Life.Pinged(s.now.Mono, err)
	})
}

// order carries out an order of the master.
func (s *satellite) order(o *pb.SessionOrder) error {
	if err := s.known.Find(o.Session); err != nil {
		return err
	}
	if err := session.Orderly(o.Action); err != nil {
		return err
	}
	l := s.lives[o.Session]
	s.perform(l, l.Order(o.Action, time.Duration(o.LimitS)*time.Second, s.now.Mono))
	return nil
}

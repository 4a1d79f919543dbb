package sim

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"verdecmd/proto/simulated"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/guard"
	"verdecmd/satellite/session"
)

// memory is what program and guardian share; see guard.Keeper.
type memory struct{ end, beat time.Duration }

// keeper is what the program knows of its guardian, as guard.Keeper does.
type keeper struct {
	mem   *memory
	told  bool
	pid   int // 0: none
	began time.Duration
	alone bool // the guardians of earlier programs have been dismissed
}

// guard tells the keeper the lease.
func (s *satellite) guard(l session.Lease) {
	s.keeper.told, s.keeper.mem.end = true, l.End()
	s.keep()
}

// keep sees to it that there is a guardian where one is needed.
func (s *satellite) keep() {
	k := &s.keeper
	if !k.told {
		return
	}
	if k.pid != 0 && !slices.Contains(s.host.Guards(s.journal), k.pid) {
		k.pid, k.mem.beat = 0, 0
	}
	switch guard.Next(k.mem.end, k.pid != 0, k.began, k.mem.beat, s.now.Boot) {
	case guard.Remove:
		k.pid = 0
		s.dismiss()
	case guard.Start:
		s.startGuard()
	case guard.Replace:
		s.host.EndGuard(k.pid)
		k.pid = 0
		s.startGuard()
	case guard.Dismiss:
		s.dismiss()
	}
}

func (s *satellite) startGuard() {
	k := &s.keeper
	k.mem.beat = 0
	if pid, err := s.host.Guard(s.journal, &guardian{mem: k.mem, journal: s.journal}); err == nil {
		k.pid, k.began = pid, s.now.Boot
	}
}

// dismiss ends the guardians that are not this program's.
func (s *satellite) dismiss() {
	k := &s.keeper
	if k.alone && k.pid != 0 {
		return
	}
	k.alone = true
	for _, pid := range s.host.Guards(s.journal) {
		if pid != k.pid {
			s.host.EndGuard(pid)
		}
	}
}

// secured tells whether a desktop would end with its lease though this program
// died.
func (s *satellite) secured() error {
	if s.known.Lease().Self == 0 {
		return nil
	}
	return guard.Awake(s.keeper.mem.beat, s.now.Boot)
}

// guardian is a simulated.Guardian.
type guardian struct {
	mem     *memory
	journal string
	list    []guard.Desktop
	post    guard.Post
	read    map[string]noted // by file: what it has read, to be read again when it has changed
}

type noted struct {
	data    []byte
	desktop guard.Desktop
}

// Tick implements simulated.Guardian.
func (g *guardian) Tick(h simulated.GuardHost) bool {
	g.list = guard.Merge(g.list, g.noted(h), func(d guard.Desktop) bool {
		return errors.Is(h.Exists(d.Session, d.Process.UUID, d.Process.PID), simulated.ErrGone)
	})
	now := h.Clock().Boot
	_, leave := g.post.Look(g.mem.end, now, h.Alone(), g.list, func(d guard.Desktop) bool {
		return errors.Is(h.Kill(d.Session, d.Process.UUID, d.Process.PID), simulated.ErrGone)
	})
	g.mem.beat = now
	return !leave
}

// noted is what its journal names, if that is still there.
func (g *guardian) noted(h simulated.GuardHost) (out []guard.Desktop) {
	if id, _ := h.Read(idFile); string(id) != g.journal {
		return nil
	}
	for _, file := range h.Files() {
		name, ok := strings.CutPrefix(file, entries)
		if !ok {
			continue
		}
		b, _ := h.Read(file)
		was, ok := g.read[file]
		if !ok || !bytes.Equal(was.data, b) {
			e, err := session.DecodeEntry(name, b)
			if err != nil {
				continue
			}
			was = noted{b, guard.Desktop{Session: e.Spec.Session, User: e.Spec.User, Process: desktop.Process{PID: e.Process.PID, UUID: e.Spec.UUID}}}
			if g.read == nil {
				g.read = map[string]noted{}
			}
			g.read[file] = was
		}
		out = append(out, was.desktop)
	}
	return out
}

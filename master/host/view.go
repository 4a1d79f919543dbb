package host

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/placement"
	"verdecmd/monitor"
)

// Servers returns all servers by ID. The score is that of the smallest desktop.
func (m *Manager) Servers() []monitor.Server {
	now := m.cfg.Now()
	var out []monitor.Server
	m.cfg.State(func(c *cluster.Cluster) {
		all := c.Servers()
		out = make([]monitor.Server, len(all))
		for i, s := range all {
			out[i] = row(c, s, m.proof(s.ID), now)
		}
	})
	return out
}

// Server returns one, with the users who have sessions there.
func (m *Manager) Server(id uint64) (out monitor.Server, ok bool) {
	now := m.cfg.Now()
	p := m.proof(id)
	m.cfg.State(func(c *cluster.Cluster) {
		s := c.Server(id)
		if s == nil {
			return
		}
		out, ok = row(c, s, p, now), true
		out.Why = c.Why(now, id, placement.Need{})
		if p.Vacant {
			out.Why = fmt.Sprintf("another machine is to take its place; \"replaceserver %d\" makes a new token for that", id)
		}
		for _, x := range c.SessionsOn(id) {
			out.Sessions = append(out.Sessions, x.User)
		}
	})
	return out, ok
}

func row(c *cluster.Cluster, s *cluster.Server, p proof, now time.Time) monitor.Server {
	sessions, reserved := c.Counts(s.ID)
	score, reason := c.Score(s, now, placement.Need{})
	out := monitor.Server{
		ID: s.ID, Name: s.Name, Address: cmp.Or(s.Address, p.Address), State: string(s.State), Reason: s.Reason, Link: c.Link(s, now),
		Users: sessions, Reserved: reserved,
		CPU: 100 * s.Load.CPUBusy, MemTotal: s.Load.MemoryTotal, MemFree: s.Load.MemoryFree,
		Seen: s.Reported, Age: -1, Version: s.Version, Score: score, Eligible: reason == placement.Eligible,
		Since: s.Since, Arch: s.Facts.Arch, CPUs: s.Facts.CPUs, Load1: s.Load.Load1,
		SnapDir: s.Facts.SnapDir, SnapFree: s.Load.SnapFree, SnapKind: s.Facts.SnapKind, HomeFree: s.Load.HomeFree,
		Accelerator: s.Facts.Accelerator, Problems: slices.Clone(s.Facts.Problems),
		UUID: s.UUID, Serial: s.Certificate.Serial, CertUntil: s.Certificate.Until,
	}
	if out.CertUntil.IsZero() { // it has not connected since the master started
		out.Serial, out.CertUntil = p.Serial, p.Until
	}
	for _, p := range []string{s.Mismatch, s.Suspect} {
		if p != "" {
			out.Problems = append(out.Problems, p)
		}
	}
	out.Problems = append(out.Problems, s.Hard...)
	if !s.Reported.IsZero() {
		out.Age = now.Sub(s.Reported)
	}
	return out
}

// Placement tells for each server whether a session with this need would go
// there, best first.
func (m *Manager) Placement(need placement.Need) []monitor.Candidate {
	now := m.cfg.Now()
	var out []monitor.Candidate
	m.cfg.State(func(c *cluster.Cluster) {
		for _, x := range c.Placement(now, need) {
			row := monitor.Candidate{Server: x.ID, Name: c.Server(x.ID).Name, Eligible: x.Reason == placement.Eligible, Score: x.Score, Reason: c.Why(now, x.ID, need)}
			if row.Eligible {
				row.Reason = load(c, c.Server(x.ID))
			}
			out = append(out, row)
		}
	})
	return out
}

// load says in words what the score of a server comes from.
func load(c *cluster.Cluster, s *cluster.Server) string {
	sessions, reserved := c.Counts(s.ID)
	text := fmt.Sprintf("processors %.0f%% busy, %d of %d MiB of memory free, %d %s", 100*s.Load.CPUBusy, s.Load.MemoryFree>>20, s.Load.MemoryTotal>>20, sessions, plural(sessions, "session"))
	if s.Facts.MaxSessions > 0 {
		text += fmt.Sprintf(" of %d", s.Facts.MaxSessions)
	}
	if reserved > 0 {
		text += fmt.Sprintf(", %d places held", reserved)
	}
	return text
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

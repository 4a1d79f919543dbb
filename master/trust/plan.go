package trust

import (
	"fmt"
	"time"
)

// How often bundles are pushed that tell of nothing but servers: each goes to
// all of them, so that of 10,000 servers which come at once each one would cost
// 10,000 messages.
const (
	gatherLeast = time.Second
	gatherEach  = 5 * time.Millisecond // for each server
)

// Gather decides when a change of the bundle is pushed. Who is revoked and which
// authorities there are is told at once, changes of the servers alone wait for
// more of them. The zero value has nothing to push.
type Gather struct {
	pushed          time.Time // the last push; zero: none yet
	changed, urgent bool
}

// Changed notes a change.
func (g *Gather) Changed(urgent bool) { g.changed, g.urgent = true, g.urgent || urgent }

// Wait tells how long the next push waits, at now and with so many servers; due
// is false where there is nothing to push.
func (g *Gather) Wait(now time.Time, servers int) (wait time.Duration, due bool) {
	if !g.changed {
		return 0, false
	}
	if g.urgent || g.pushed.IsZero() {
		return 0, true
	}
	every := max(gatherLeast, time.Duration(servers)*gatherEach)
	return min(every, max(0, g.pushed.Add(every).Sub(now))), true // the clock may have been set back
}

// Pushed notes that all changes so far are pushed, or that there was nothing new
// about them: to look costs something too.
func (g *Gather) Pushed(now time.Time) { *g = Gather{pushed: now} }

// lagAfter is how long a connected satellite may be behind until that is told.
const lagAfter = 30 * time.Second

// Standing is how a server stands to the bundle. The zero value is one that has
// not been connected since the master started.
type Standing struct {
	Up      bool
	Takes   bool      // it knows of bundles
	Version uint64    // that is in force there
	Error   string    // why a newer one was refused there
	Behind  time.Time // since when it has had an older one than the newest; zero: it has the newest, or is not connected
	Root    string    // the authority that has issued the certificate of its last link

	told bool // that it lags
}

// Open notes a new link. version is the bundle that the satellite holds,
// current the newest.
func (s *Standing) Open(now time.Time, takes bool, version, current uint64, root string) {
	told := s.told
	*s = Standing{Up: true, Takes: takes, Version: version, Root: root, told: told}
	s.compare(now, current)
}

// Close notes that the link is down.
func (s *Standing) Close() { s.Up, s.Behind = false, time.Time{} }

// Acked notes what the satellite says. One that says more than there is has a
// bundle of an earlier life of the master, see Manager.Opened.
func (s *Standing) Acked(now time.Time, version uint64, why string, current uint64) {
	s.Version, s.Error = version, why
	s.compare(now, current)
}

// Pushed notes a newer bundle.
func (s *Standing) Pushed(now time.Time, current uint64) { s.compare(now, current) }

func (s *Standing) compare(now time.Time, current uint64) {
	switch {
	case !s.Up || !s.Takes || s.Version >= current:
		s.Behind, s.Error = time.Time{}, ""
	case s.Behind.IsZero():
		s.Behind = now
	}
}

// Lag tells what is news about a server: that it is behind for too long, or that
// it has caught up after that was told.
func (s *Standing) Lag(now time.Time) (lags, caughtUp bool) {
	switch {
	case !s.told && !s.Behind.IsZero() && now.Sub(s.Behind) > lagAfter:
		s.told = true
		return true, false
	case s.told && s.Up && s.Behind.IsZero():
		s.told = false
		return false, true
	}
	return false, false
}

// missing says why a server is not known to have bundle version; empty: it is.
func (s *Standing) missing(version uint64) string {
	switch {
	case s.Takes && s.Version >= version:
		return ""
	case !s.Up:
		return "is not connected"
	case !s.Takes:
		return "runs a version that knows of no trust bundles"
	case s.Error != "":
		return fmt.Sprintf("has bundle %d and refuses a newer one: %s", s.Version, s.Error)
	}
	return fmt.Sprintf("has bundle %d, not yet %d", s.Version, version)
}

// leap is more than the bundles that are made between two copies of the
// database.
const leap = 1 << 20

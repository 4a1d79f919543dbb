package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"verdecmd/master/placement"
)

// Errors about logins.
var (
	ErrNoReservation = errors.New("no live reservation")
	ErrClaimed       = errors.New("the reservation is being claimed already")
	ErrUIDDiffers    = errors.New("user IDs differ")
	// ErrSettling: something about this user is being settled and the same
	// login may succeed in a moment.
	ErrSettling = errors.New("try again in a few seconds")
)

// LostError refuses a login whose user has a session on a silent server.
type LostError struct {
	Session Session
	Server  ServerRecord
	Silent  time.Duration
	Never   bool          // the server has not opened a link since the master started; Silent counts from there
	Waiting time.Duration // > 0: the master has just started; the server may still report within this time
	Lease   time.Duration // > 0: the session counts as ended after this time, with nobody's help
}

func (e *LostError) Error() string {
	if e.Waiting > 0 {
		return fmt.Sprintf("the master has just started and server %d (%s), where %s has session %s, has not reported yet; try again in %d s",
			e.Server.ID, e.Server.Name, e.Session.User, e.Session.ID, seconds(e.Waiting))
	}
	silent := fmt.Sprintf("has been silent for %d s", seconds(e.Silent))
	if e.Never {
		silent = fmt.Sprintf("has not connected since the master started %d s ago", seconds(e.Silent))
	}
	text := fmt.Sprintf("%s has session %s on server %d (%s), which %s; the desktop may still run there, so no second one is started. "+
		"If that host is powered off, an administrator says so with \"fenceserver %d\", or for this user alone with \"abortuser %s force\"",
		e.Session.User, e.Session.ID, e.Server.ID, e.Server.Name, silent, e.Server.ID, e.Session.User)
	if e.Lease > 0 {
		text += fmt.Sprintf("; else the session counts as ended in %d s, when the server has surely stopped it", seconds(e.Lease))
	}
	return text
}

// RefusedError refuses a login because no server can take the session.
type RefusedError struct {
	User    string
	Need    placement.Need
	Servers int                    // known
	Counts  [placement.Reasons]int // servers by reason
	Details []string               // some of them in words, one for each reason at least while there are few
	Asker   string                 // not empty: it is the asking server that gets no more, in words
}

// maxDetails is how many servers a refusal describes.
const maxDetails = 3

func (e *RefusedError) Error() string {
	if e.Asker != "" {
		return e.Asker
	}
	if e.Servers == 0 {
		return "no server has connected to the master yet; \"servers\" shows those that have"
	}
	var counts []string
	for r, n := range e.Counts {
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, placement.Reason(r)))
		}
	}
	who := fmt.Sprintf("none of %d servers can take the session", e.Servers)
	if e.Servers == 1 {
		who = "the only server cannot take the session"
	}
	text := who + ": " + strings.Join(counts, ", ")
	for _, d := range e.Details {
		text += "; " + d
	}
	if more := e.Servers - len(e.Details); more > 0 {
		text += fmt.Sprintf("; \"placement %s\" shows the other %d", e.User, more)
	}
	return text
}

// refused explains why no server takes a login.
func (c *Cluster) refused(now time.Time, l Login) error {
	e := &RefusedError{User: l.User, Need: l.Need, Servers: c.slots.Len()}
	var first [placement.Reasons]int
	e.Counts, first = c.slots.Survey(now.Sub(c.start), &l.Need)
	if e.Servers <= maxDetails {
		for _, s := range c.Servers() {
			e.Details = append(e.Details, c.Why(now, s.ID, l.Need))
		}
		return e
	}
	for _, i := range first {
		if i >= 0 && len(e.Details) < maxDetails {
			e.Details = append(e.Details, c.Why(now, c.slots.Server(i).ID, l.Need))
		}
	}
	return e
}

// lost explains why a user whose session is not reported gets no other one.
func (c *Cluster) lost(now time.Time, x *Session) error {
	s := c.servers[x.Server]
	e := &LostError{Session: *x, Server: s.Record(), Silent: now.Sub(x.LostSince), Never: s.Reported.IsZero()}
	if e.Never {
		e.Waiting = max(0, c.limits.Resync-now.Sub(c.start))
	}
	if t, ok := c.released(x); ok {
		e.Lease = max(time.Second, t.Sub(now))
	}
	return e
}

// Why tells in words what keeps such a session away from a server, with the
// measured and the wanted value and what to do; empty if nothing does.
func (c *Cluster) Why(now time.Time, id uint64, need placement.Need) string {
	s := c.servers[id]
	if s == nil {
		return fmt.Sprintf("no server has the ID %d; \"servers\" shows the IDs", id)
	}
	slot := c.slots.Server(s.slot)
	name := fmt.Sprintf("server %d (%s)", s.ID, s.Name)
	wanted := fmt.Sprintf("%s wanted (%s for the guest, %s beside it)", mib(need.Memory+placement.Overhead), mib(need.Memory), mib(placement.Overhead))
	switch slot.Check(now.Sub(c.start), &need) {
	case placement.Offline, placement.Draining:
		return fmt.Sprintf("%s is %s%s; \"onlineserver %d\" changes that", name, s.State, because(s.Reason), s.ID)
	case placement.Down:
		if s.Reported.IsZero() {
			return fmt.Sprintf("%s has not connected since the master started %d s ago; check its host and its network", name, seconds(now.Sub(c.start)))
		}
		return fmt.Sprintf("%s has had no link for %d s; check its host and its network", name, seconds(now.Sub(s.Since)))
	case placement.Stale:
		return fmt.Sprintf("%s reported last %d s ago, more than 3 intervals of %v; \"server %d\" shows when it reports again", name, seconds(now.Sub(s.Reported)), c.patience(s)/3, s.ID)
	case placement.Unfit:
		return fmt.Sprintf("%s cannot run desktops: %s", name, c.unfit(s))
	case placement.Full:
		return fmt.Sprintf("%s has %d of %d sessions and reservations (WIN4_VERDE_MAX_SESSIONS); \"users server=%d\" shows them", name, s.usage.held, s.Facts.MaxSessions, s.ID)
	case placement.NoMemory:
		if need.Memory+placement.Overhead > slot.Free || need.Memory+placement.Overhead < placement.Overhead {
			return fmt.Sprintf("%s has %s of memory free, %s; \"users server=%d\" shows who runs there", name, mib(slot.Free), wanted, s.ID)
		}
		return fmt.Sprintf("%s has promised %s of its %s of memory, %s; \"users server=%d\" shows to whom", name, mib(slot.Charged), mib(slot.Memory), wanted, s.ID)
	case placement.NoSnap:
		above := ""
		if need.Snap > 0 {
			above = " and " + mib(need.Snap) + " above it"
		}
		return fmt.Sprintf("%s has %s free in %s and wants the reserve of %s%s; free space there or lower WIN4_SNAP_RESERVE",
			name, mib(less(s.Load.SnapFree, s.usage.snap)), s.Facts.SnapDir, mib(s.Facts.SnapReserve), above)
	case placement.Feature:
		return fmt.Sprintf("%s has the features %s; the image requires %s and avoids %s", name, words(s.Facts.Features), words(need.Requires), words(need.Avoid))
	}
	return ""
}

// unfit is the first reason for which a server cannot run desktops at all.
func (c *Cluster) unfit(s *Server) string {
	switch {
	case s.Mismatch != "":
		return s.Mismatch
	case s.Suspect != "":
		return s.Suspect + "; look at the log of that satellite and start it again"
	case len(s.Facts.Problems) > 0:
		return s.Facts.Problems[0]
	case len(s.Hard) > 0:
		return fmt.Sprintf("%s; \"checks %d\" shows all checks, and \"verdecmd doctor\" on that host makes them anew", s.Hard[0], s.ID)
	case !s.Twin.IsZero():
		return "another machine with its identity tries to connect: two machines have copies of one certificate; stop one of them and enrol it anew"
	}
	return "its load is not a number"
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func words(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, " ")
}

func seconds(d time.Duration) int64 { return int64(max(0, d).Round(time.Second) / time.Second) }

func mib(b uint64) string { return fmt.Sprintf("%d MiB", b>>20) }

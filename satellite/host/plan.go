package host

import (
	"slices"
	"strings"
	"time"

	"verdecmd/proto/wire"
)

// Known is what is known of a registration that is under way.
type Known struct {
	Manager bool // where the master is
	Shown   bool // what the master says of itself has been read
	Pinned  bool // the fingerprint of the cluster's authority: from the token, the command line, or confirmed
	Secret  bool // token or password
}

// Step is what comes next in a registration.
type Step int

// The steps, in the order in which they come where nothing is known.
const (
	AskManager Step = iota + 1 // where the master is
	Look                       // read what it shows; nothing is sent
	Confirm                    // is that the fingerprint?
	AskSecret                  // the manager's password
	Join                       // send it, over a connection that has proved the fingerprint
)

// Next is the order of a registration (F-09): the manager's address first, then
// who answers there, and only when that is certain the secret.
func Next(k Known) Step {
	switch {
	case !k.Manager:
		return AskManager
	case !k.Pinned && !k.Shown:
		return Look
	case !k.Pinned:
		return Confirm
	case !k.Secret:
		return AskSecret
	}
	return Join
}

// Settled tells whether a registration that ended with err has certainly changed
// nothing at the master. After any other error the same request must be sent
// again: the certificate may have been made.
func Settled(err error) bool {
	return slices.Contains([]wire.Kind{wire.Denied, wire.TooOften, wire.BadRequest, wire.InUse, wire.NotFound, wire.LostSession, wire.Offline, wire.Revoked}, wire.KindOf(err))
}

// Need is what a certificate needs.
type Need int

// Rest: nothing before its renewal is due. Renew: a new one. Rejoin: a new one,
// and it proves only who asks, since it has ended. Early: the clock, since it has
// not begun.
const (
	Rest Need = iota
	Renew
	Rejoin
	Early
)

// Due is what a certificate needs at now whose renewal is due at renew.
func Due(from, until, renew, now time.Time) Need {
	switch {
	case now.Before(from):
		return Early
	case now.After(until):
		return Rejoin
	case now.Before(renew):
		return Rest
	}
	return Renew
}

// RenewAt is when a certificate is renewed: between half of its life and four
// fifths of it, so that the hosts of a cluster that was made in one hour do not
// come all at once. random is from 0 to 1.
func RenewAt(from, until time.Time, random float64) time.Time {
	return from.Add(time.Duration((0.5 + 0.3*min(max(random, 0), 1)) * float64(until.Sub(from))))
}

// NextRenewal is when a certificate that was just made is renewed. Where the clock
// of this host is ahead it may be in the last part of its life already; a master
// must not be asked without a pause for that.
func NextRenewal(from, until, now time.Time, random float64) time.Time {
	due := RenewAt(from, until, random)
	if pause := now.Add(until.Sub(from) / 20); pause.After(due) {
		return pause
	}
	return due
}

// startSpread is within what time the hosts of a cluster that comes back as a
// whole ask for what was due meanwhile.
const startSpread = 10 * time.Second

// AtStart is how long a host waits with what is due when it starts. random is
// from 0 to 1.
func AtStart(n Need, random float64) time.Duration {
	if n != Renew {
		return 0 // nothing goes without it
	}
	return time.Duration(min(max(random, 0), 1) * float64(startSpread))
}

// How long the next try waits after one that failed.
const (
	renewAgain  = 30 * time.Second // and twice as long each time
	renewMost   = time.Hour
	rejoinAgain = 2 * time.Second // nothing can be done here without it
	rejoinMost  = time.Minute
	refused     = 5 * time.Minute // an administrator must do something first
)

// Again is how long to wait after the nth try in a row, from 1, that has ended
// with err. random is from 0 to 1.
func Again(n Need, tries int, err error, random float64) time.Duration {
	first, most := renewAgain, renewMost
	if n == Rejoin {
		first, most = rejoinAgain, rejoinMost
	}
	wait := most
	if doubled := tries - 1; doubled < 12 {
		wait = min(most, first<<max(0, doubled))
	}
	// A master learns of a host that was enrolled when its link opens.
	if Answered(err) && wire.KindOf(err) != wire.NotFound {
		wait = max(wait, refused)
	}
	return wait/2 + time.Duration(min(max(random, 0), 1)*float64(wait/2))
}

// Answered tells whether err is the word of a master, rather than that none
// was reached.
func Answered(err error) bool {
	return err != nil && !slices.Contains([]wire.Kind{wire.Unreachable, wire.NotReady, wire.Internal, wire.TooOften}, wire.KindOf(err))
}

// Ahead is by how much the master's clock is ahead of this host's: of what it
// said between sent and came. It is 0 where that is not worth a word.
func Ahead(sent, came, master time.Time) time.Duration {
	ahead := master.Sub(sent.Add(came.Sub(sent) / 2)).Round(time.Second)
	if ahead.Abs() <= wire.MaxSkew+came.Sub(sent)/2 {
		return 0
	}
	return ahead
}

// Word is what is meant by an answer in a menu: the number of an entry, or the
// beginning of its name.
func Word(answer string, entries []string) (entry int, ok bool) {
	answer = strings.ToLower(strings.TrimSpace(answer))
	if answer == "" {
		return 0, false
	}
	found := -1
	for i, e := range entries {
		key, name, _ := strings.Cut(strings.ToLower(e), " ")
		if answer == key {
			return i, true
		}
		if strings.HasPrefix(name, answer) {
			if found >= 0 {
				return 0, false // two begin so
			}
			found = i
		}
	}
	return max(found, 0), found >= 0
}

// Yes tells what a person has answered to a question, Enter alone being no; ok is
// false where that is neither.
func Yes(answer string) (yes, ok bool) {
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, true
	case "n", "no", "":
		return false, true
	}
	return false, false
}

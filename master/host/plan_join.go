package host

import (
	"time"

	"verdecmd/proto/wire"
)

// Lives and times of certificates that are made over the network.
const (
	joinedLife  = 30 * 24 * time.Hour
	expiredMost = 365 * 24 * time.Hour // after which nobody may come back by an expired one
)

// owner is the server that has a name which a machine wants to join under.
type owner struct {
	ID     uint64
	Name   string
	LinkUp bool
	Held   int  // sessions and places on it
	Vacant bool // its identity was revoked, and no machine has taken its place yet
}

// place decides whether a machine that has proved that it may join becomes the
// server that has its name; o is nil where none has. permit is the server whose
// place it was given, 0: none. A live name is never taken over, nor one whose
// desktops may still run (S1).
func place(o *owner, permit uint64, name string) (server uint64, err error) {
	switch {
	case o == nil && permit == 0:
		return 0, nil
	case o == nil:
		return 0, wire.Errorf(wire.NotFound, `server %d, whose place this host was to take, is no longer there; "createtoken" on the master makes a token for a new server`, permit)
	case o.LinkUp:
		return 0, wire.Errorf(wire.InUse, "the name %s belongs to server %d, which is connected: a live server is never taken over. Give this host another name", name, o.ID)
	case permit != o.ID || !o.Vacant:
		return 0, wire.Errorf(wire.InUse, `the name %s belongs to server %d. If this host is to take its place: "replaceserver %d" on the master, and register with the token that it shows; else give this host another name`, name, o.ID, o.ID)
	}
	return o.ID, unfenced(o)
}

// unfenced refuses to fill the place of a server whose desktops may still run.
func unfenced(o *owner) error {
	if o.Held > 0 {
		return wire.Errorf(wire.InUse, `server %d (%s) still holds %d sessions or places of the machine before: if that one is powered off, "fenceserver %d" on the master releases them; then register again`, o.ID, o.Name, o.Held, o.ID)
	}
	return nil
}

// comeback decides whether a machine whose certificate ended at end may have a
// new one without an administrator, who allows it within so long.
func comeback(now, end time.Time, within time.Duration, server uint64, name string) error {
	late := now.Sub(end)
	days := func(d time.Duration) int { return int(d / (24 * time.Hour)) }
	switch {
	case late <= 0:
		return nil
	case late > expiredMost:
		return wire.Errorf(wire.Denied, `the certificate of server %d (%s) ended at %s, %d days ago: after a year nobody comes back by it. "replaceserver %d" on the master, and register with the token that it shows`,
			server, name, end.UTC().Format(time.RFC3339), days(late), server)
	case late > within:
		return wire.Errorf(wire.Denied, `the certificate of server %d (%s) ended at %s, %d days ago, and WIN4_VERDE_REJOIN_DAYS is %d: an administrator decides. To let it in: "replaceserver %d" on the master, and register with the token that it shows`,
			server, name, end.UTC().Format(time.RFC3339), days(late), days(within), server)
	}
	return nil
}

// skewed tells how far a machine's clock is ahead of ours, where that is too
// much; 0: it is not, or not told.
func skewed(now time.Time, theirs time.Time) time.Duration {
	if theirs.IsZero() {
		return 0
	}
	if d := theirs.Sub(now); d.Abs() > wire.MaxSkew {
		return d
	}
	return 0
}

// closing tells whether a certificate is in the last fifth of its life.
func closing(now, from, end time.Time) bool {
	return !end.IsZero() && !now.Before(end.Add(-end.Sub(from)/5))
}

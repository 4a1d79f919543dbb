package link

import (
	"errors"
	"fmt"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
)

const (
	// everyFull is how often a report carries the sessions though nothing
	// about them has changed: their load figures go with them.
	everyFull = 5
	// CallWithin is how long a call of the master may take.
	CallWithin = 10 * time.Second
	maxResults = 256
)

// News is what a satellite has to tell.
type News struct {
	Version  uint64 // grows with every change
	Sessions *pb.Sessions
	Ended    []*pb.Ended
	Refused  []*pb.Refused
}

// End is a satellite's end of one welcomed connection, as a plain value: what
// is to be sent, what an order or a lease means. It is not safe for several
// goroutines.
type End struct {
	epoch uint64
	self  time.Duration // lease; 0: none
	told  uint64        // version of the news that were sent last
	seq   uint64
	sent  map[uint64]time.Duration // uptime of reports whose lease is awaited
	done  map[uint64]*pb.Result
}

// Hello is the first message up: all that is here.
func Hello(version, address, instance, journal string, seen uint64, facts *pb.HostFacts, load *pb.Load, n News) *pb.Hello {
	return &pb.Hello{
		Protocol: wire.Protocol, Version: version, Address: address, EpochSeen: seen, Instance: instance, Journal: journal,
		Facts: facts, Report: &pb.Report{Load: load, Sessions: n.Sessions, Ended: n.Ended},
	}
}

// Welcomed checks the first message down. seen is the highest epoch that was
// ever obeyed: no master with a lower one is.
func Welcomed(d *pb.Down, seen uint64) (*pb.Welcome, error) {
	w := d.GetWelcome()
	if w == nil || w.Pace == nil {
		return nil, errors.New("the master did not answer the hello with a welcome")
	}
	if w.Epoch < seen && !planted.Bug("no-epoch-check") {
		return nil, wire.Errorf(wire.OldEpoch, "this master has epoch %d, but epoch %d has been seen: it has been replaced, or its database is an old copy", w.Epoch, seen)
	}
	return w, nil
}

// Skew says in words that this clock, which shows now, is not that of the master
// that has just answered; empty: it is, or the master has not told.
func Skew(w *pb.Welcome, now time.Time) string {
	if w.NowUnixMs == 0 {
		return ""
	}
	off := now.Sub(time.UnixMilli(w.NowUnixMs))
	if off.Abs() <= wire.MaxSkew {
		return ""
	}
	return fmt.Sprintf("the clock of this host is %s the master's: set it, and let it be kept right by NTP", wire.Apart(off))
}

// NewEnd is the end of a connection that was welcomed. told is the version of
// the news that earlier connections have told.
func NewEnd(w *pb.Welcome, told uint64) *End {
	return &End{epoch: w.Epoch, self: Self(w), told: told, sent: map[uint64]time.Duration{}, done: map[uint64]*pb.Result{}}
}

// Self is the lease that a welcome gives, from the moment at which the hello
// was sent; 0: the desktops may run for ever.
func Self(w *pb.Welcome) time.Duration { return time.Duration(w.LeaseSelfMs) * time.Millisecond }

// Told is the version of the news that were sent last.
func (e *End) Told() uint64 { return e.told }

// Report is the next report; nil where nothing has changed and none is due.
// uptime is the time of the host at which it is sent, suspends included.
func (e *End) Report(n News, due bool, uptime time.Duration) *pb.Report {
	if n.Version == e.told {
		if !due {
			return nil
		}
		if e.seq%everyFull != 0 {
			n.Sessions = nil
		}
	}
	e.seq++
	e.told = n.Version
	if e.self > 0 {
		e.sent[e.seq] = uptime
	}
	return &pb.Report{Sessions: n.Sessions, Ended: n.Ended, Refused: n.Refused, Seq: e.seq}
}

// Leased is the lease that the master gives for a report: it counts from the
// uptime at which that was sent. ok is false for a report that is not known, or
// was answered before.
func (e *End) Leased(l *pb.Lease) (from, self time.Duration, ok bool) {
	from, ok = e.sent[l.Report]
	for seq := range e.sent {
		if seq <= l.Report {
			delete(e.sent, seq)
		}
	}
	return from, e.self, ok
}

// Order takes an order in. Either it has a result already, because it came
// before or is refused; or it is to be carried out, and Did tells what came of
// that. seen is the highest epoch that was ever obeyed.
func (e *End) Order(o *pb.Order, seen uint64) (*pb.Result, *pb.SessionOrder) {
	if res := e.done[o.Id]; res != nil {
		return res, nil
	}
	if (o.Epoch < seen || o.Epoch != e.epoch) && !planted.Bug("no-epoch-check") {
		return e.Did(o, wire.Errorf(wire.OldEpoch, "order of epoch %d refused, epoch %d has been seen", o.Epoch, seen)), nil
	}
	s, ok := o.Kind.(*pb.Order_Session)
	if !ok {
		return e.Did(o, wire.Errorf(wire.BadRequest, "this satellite does not know this kind of order; install the same version as on the master")), nil
	}
	return nil, s.Session
}

// Did remembers what came of an order.
func (e *End) Did(o *pb.Order, err error) *pb.Result {
	if len(e.done) >= maxResults {
		clear(e.done) // orders are idempotent; this only saves work
	}
	res := &pb.Result{Order: o.Id, Error: wire.Detail(err)}
	e.done[o.Id] = res
	return res
}

// ClaimUnknown tells whether the outcome of a claim that ended with err is not
// known. The link must then end: the inventory of the next one settles it.
func ClaimUnknown(err error) bool {
	switch wire.KindOf(err) {
	case "", wire.NoReservation, wire.InUse, wire.BadRequest, wire.NoCapacity, wire.Offline, wire.LostSession, wire.NotReady:
		return false
	}
	return true
}

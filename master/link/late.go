package link

import (
	"sync/atomic"
	"time"
)

// LateBounds are the upper bounds of the classes in which late reports are
// counted; a last class has none.
var LateBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
}

// Lateness counts reports by how late they were. The zero value is ready; all
// methods may be called by many goroutines.
type Lateness struct {
	classes [len(LateBounds) + 1]atomic.Uint64
	nanos   atomic.Int64
	worst   atomic.Int64
}

// Late is a Lateness at one instant.
type Late struct {
	Classes [len(LateBounds) + 1]uint64 // one for each of LateBounds, and one for what is later
	Sum     time.Duration
	Worst   time.Duration // since the start
}

// Add counts a report.
func (l *Lateness) Add(late time.Duration) {
	i := 0
	for i < len(LateBounds) && late > LateBounds[i] {
		i++
	}
	l.classes[i].Add(1)
	if late <= 0 {
		return
	}
	l.nanos.Add(int64(late))
	for {
		worst := l.worst.Load()
		if int64(late) <= worst || l.worst.CompareAndSwap(worst, int64(late)) {
			return
		}
	}
}

// Now returns what has been counted.
func (l *Lateness) Now() Late {
	out := Late{Sum: time.Duration(l.nanos.Load()), Worst: time.Duration(l.worst.Load())}
	for i := range l.classes {
		out.Classes[i] = l.classes[i].Load()
	}
	return out
}

// Count is the number of reports.
func (l Late) Count() (n uint64) {
	for _, c := range l.Classes {
		n += c
	}
	return n
}

// Over is the number of reports that were later than bound, one of LateBounds.
func (l Late) Over(bound time.Duration) (n uint64) {
	for i, c := range l.Classes {
		if i == len(LateBounds) || LateBounds[i] > bound {
			n += c
		}
	}
	return n
}

// Due follows when the reports of one link are due. It needs no common clock:
// a report is late by how much more than an interval has passed since the
// instant at which the one before was due. The zero value awaits a first report.
type Due struct {
	at       time.Time
	interval time.Duration
}

// Arrived tells how late the report is that arrives at now, when reports come
// every interval. One that comes early, as news do, begins the count anew.
func (d *Due) Arrived(now time.Time, interval time.Duration) (late time.Duration) {
	due := d.at.Add(interval)
	if d.at.IsZero() || d.interval != interval || !now.After(due) {
		d.at, d.interval = now, interval
		return 0
	}
	late = now.Sub(due)
	if late > interval { // it was away
		d.at = now
		return late
	}
	// A little of it is forgiven each time: clocks run differently fast.
	d.at = due.Add(late / 8)
	return late
}

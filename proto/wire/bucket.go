package wire

import "time"

// Bucket bounds how often something may happen: Burst at once, Rate a second
// in the long run. The zero value of what is not exported is a full bucket. It
// has no lock and never asks the clock.
type Bucket struct {
	Rate, Burst float64 // of things, or bytes
	Extra       float64 // beyond Burst, once

	spent float64
	at    time.Time
}

// fill gives back what time has given back.
func (b *Bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.spent = max(0, b.spent-d.Seconds()*b.Rate)
		b.at = now
	}
}

// Take takes one, and tells whether there was one left.
func (b *Bucket) Take(now time.Time) bool {
	b.fill(now)
	switch {
	case b.spent+1 <= b.Burst:
		b.spent++
	case b.Extra >= 1:
		b.Extra--
	default:
		return false
	}
	return true
}

// Give gives one back that was taken.
func (b *Bucket) Give() { b.spent = max(0, b.spent-1) }

// Spend takes n whether they are there or not, and returns how long it takes
// until they would have been.
func (b *Bucket) Spend(now time.Time, n float64) time.Duration {
	b.fill(now)
	b.spent += n
	return time.Duration(max(0, b.spent-b.Burst) / b.Rate * float64(time.Second))
}

// full tells whether nothing is missing.
func (b *Bucket) full(now time.Time) bool {
	b.fill(now)
	return b.spent == 0
}

// Package sim lets thousands of histories of a whole cluster happen in fake
// time: users, administrators, guests, and faults that a seed draws, around the
// master's real rules and whatever satellite is handed in.
//
// Everything runs on one goroutine after another and nothing asks a clock, so a
// seed is a history: the same seed gives the same trace. What is checked is what
// the desktops did, never what the master believes. The master in it is the real
// one from hub downwards (hub, session, host, cluster, placement, store.Mem);
// modelled are the streams (links.go), the file under the store (disk.go) and
// the waiting of the jobs that end sessions (admin.go). All that is random in a
// history is drawn from the seed and the name of what it is for, so that a step
// can be taken out without changing the others.
package sim

import (
	"encoding/binary"
	"math/bits"
	"time"

	"verdecmd/proto/simulated"
)

// Config is everything a history needs.
type Config struct {
	// Satellite makes the program of a satellite.
	Satellite func(simulated.Config) simulated.Satellite
	// Trace keeps the lines of the trace; else they are only counted into its
	// hash.
	Trace bool
}

// start is the instant at which every history begins.
var start = time.Date(2026, 1, 5, 8, 0, 0, 0, time.UTC)

// event is something that happens at a time.
type event struct {
	at  time.Duration // since start
	seq uint64        // decides between events of the same time
	do  func()
}

// queue is a heap of events.
type queue struct {
	all []event
	seq uint64
}

func (q *queue) less(a, b int) bool {
	x, y := &q.all[a], &q.all[b]
	return x.at < y.at || x.at == y.at && x.seq < y.seq
}

func (q *queue) push(at time.Duration, do func()) {
	q.seq++
	q.all = append(q.all, event{at, q.seq, do})
	for i := len(q.all) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			break
		}
		q.all[i], q.all[up] = q.all[up], q.all[i]
		i = up
	}
}

func (q *queue) pop() event {
	first, last := q.all[0], len(q.all)-1
	q.all[0] = q.all[last]
	q.all[last] = event{}
	q.all = q.all[:last]
	for i := 0; ; {
		down := 2*i + 1
		if down >= last {
			return first
		}
		if down+1 < last && q.less(down+1, down) {
			down++
		}
		if !q.less(down, i) {
			return first
		}
		q.all[i], q.all[down] = q.all[down], q.all[i]
		i = down
	}
}

// dice are numbers that follow from the seed and from what they are for.
type dice uint64

// mix is the finish of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// of returns the dice for something of these numbers.
func (d dice) of(purpose string, numbers ...uint64) dice {
	h := uint64(d)
	for len(purpose) > 0 {
		var b [8]byte
		n := copy(b[:], purpose)
		purpose = purpose[n:]
		h = mix(h ^ binary.LittleEndian.Uint64(b[:]))
	}
	for _, n := range numbers {
		h = mix(h ^ n)
	}
	return dice(h)
}

// roll returns the next dice.
func (d *dice) roll() uint64 {
	*d = dice(mix(uint64(*d)))
	return uint64(*d)
}

// below is a number from 0 to n-1.
func (d *dice) below(n int) int {
	hi, _ := bits.Mul64(d.roll(), uint64(n))
	return int(hi)
}

// chance is true in p of 100 cases.
func (d *dice) chance(p float64) bool { return float64(d.roll()>>11)/(1<<53)*100 < p }

// between is a duration in [a, b).
func (d *dice) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(d.roll()%uint64(b-a))
}

// pick is one of several.
func pick[T any](d *dice, all ...T) T { return all[d.below(len(all))] }

// actor is something that acts when it can: a program, or a host's hardware.
// What comes while it is frozen waits.
type actor struct {
	dead    bool
	frozen  int  // by how many
	late    bool // backlog is about to be worked off
	backlog []func()
}

// at lets a do something at a time, or as soon as it can after that.
func (w *world) at(a *actor, at time.Duration, do func()) {
	w.queue.push(at, func() { w.tell(a, do) })
}

// after is at, in some time from now.
func (w *world) after(a *actor, d time.Duration, do func()) { w.at(a, w.time+d, do) }

// tell lets a do something now, or as soon as it can.
func (w *world) tell(a *actor, do func()) {
	switch {
	case a.dead:
	case a.frozen > 0 || a.late:
		a.backlog = append(a.backlog, do)
	default:
		do()
	}
}

// freeze stops an actor, and thaw lets it go on with what has come meanwhile.
func (w *world) freeze(a *actor) { a.frozen++ }

func (w *world) thaw(a *actor) {
	if a.frozen--; a.frozen == 0 && len(a.backlog) > 0 {
		a.late = true
		w.queue.push(w.time, func() { w.catchUp(a) })
	}
}

func (w *world) catchUp(a *actor) {
	all := a.backlog
	a.backlog, a.late = nil, false
	for i, do := range all {
		if a.frozen > 0 {
			a.backlog = append(all[i:len(all):len(all)], a.backlog...)
			return
		}
		if !a.dead {
			do()
		}
	}
}

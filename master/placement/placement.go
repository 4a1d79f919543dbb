// Package placement chooses the server for a new session and explains the
// choice.
//
// It is pure and exact: every server is looked at, the lowest score wins, and
// the lower ID decides ties, so the same cluster gives the same answer always.
// A flat scan over compact values is fast enough for ten thousand servers and,
// other than a heap, stays exact when requests filter.
package placement

import (
	"math"
	"slices"
	"time"
)

// Overhead is what a desktop takes from its server's memory beyond the memory
// of the guest: the process itself, its display and its buffers. The figure is
// the one of VERDE's capacity planning, 0.128 GB.
const Overhead = 128 << 20

// freshCPU is the part of one processor that a session costs which the last
// load report cannot have seen yet.
const freshCPU = 0.05

// Reason is why a server cannot take a session. The zero value means it can.
type Reason uint8

// What can keep a session away from a server.
const (
	Eligible Reason = iota
	Offline
	Draining
	Down
	Stale
	Unfit // it says of itself that it cannot run desktops, or what it says is impossible
	Full
	NoMemory
	NoSnap
	Feature
	// Reasons is how many values there are.
	Reasons
)

var reasonText = [Reasons]string{
	"eligible", "offline", "draining", "link down", "load report too old", "not able to run desktops",
	"as many sessions as allowed", "not enough memory", "not enough space for snapshots", "not what the image requires",
}

func (r Reason) String() string { return reasonText[r] }

// Server is what placement knows of one satellite.
type Server struct {
	ID         uint64
	FreshUntil time.Duration // the load report is too old after this; on the caller's time axis
	Blocked    Reason        // what keeps every session away, whatever it needs; Eligible: nothing
	Memory     uint64        // bytes
	Charged    uint64        // bytes promised to sessions and reservations, overhead included
	Free       uint64        // bytes free at the last report, less what has been promised since
	CPU        float64       // see CPUShare
	Share      float64       // sessions / allowed sessions, 0 where none is set
	SnapFree   uint64        // bytes beyond the reserve, less what has been promised since; 0: the reserve is reached
	Features   []string      // sorted
}

// CPUShare is the share of its processors that a server has busy, as placement
// counts it: measured busy share (0 to 1) and fresh sessions that the
// measurement has not seen.
func CPUShare(busy float64, fresh, cpus int) float64 {
	return busy + freshCPU*float64(fresh)/float64(max(cpus, 1))
}

// Need is what one session takes.
type Need struct {
	Memory   uint64 // bytes of the guest, without Overhead
	Snap     uint64 // bytes that its overlay may need at the start
	Requires []string
	Avoid    []string
}

// Check tells whether the server can take the session at the time now.
func (s *Server) Check(now time.Duration, need *Need) Reason {
	want := need.Memory + Overhead
	switch {
	case s.Blocked != Eligible:
		return s.Blocked
	case now > s.FreshUntil:
		return Stale
	case want < Overhead: // the sum does not fit 64 bits
		return NoMemory
	case want > s.Free || s.Charged > s.Memory || want > s.Memory-s.Charged:
		return NoMemory
	case s.SnapFree == 0 || need.Snap > s.SnapFree:
		return NoSnap
	}
	for _, f := range need.Requires {
		if _, ok := slices.BinarySearch(s.Features, f); !ok {
			return Feature
		}
	}
	for _, f := range need.Avoid {
		if _, ok := slices.BinarySearch(s.Features, f); ok {
			return Feature
		}
	}
	return Eligible
}

// Table holds the servers among which is chosen. The zero value is empty.
type Table struct {
	all []Server
	// rank holds what the scan reads of each server, and nothing else: half a
	// cache line, where the whole Server is two.
	rank []rank
}

// rank is the score of a server as a function of what a session needs.
type rank struct {
	charged float64 // share of the memory that is promised; infinite where Blocked
	byte    float64 // share of the memory that is one byte
	other   float64 // the largest of the other shares
	id      uint64
}

// score is the load of the server with the session on it, 0 for an idle one
// and 1 for a full one. The largest of the shares counts, so that a server
// which is short of one thing is not made attractive by plenty of another.
// want is the session's memory with Overhead, in bytes.
func (r *rank) score(want float64) float64 {
	memory := r.charged + want*r.byte
	if memory < r.other {
		return r.other
	}
	return memory
}

// Add appends a server and returns its index.
func (t *Table) Add(s Server) int {
	t.all, t.rank = append(t.all, Server{}), append(t.rank, rank{})
	t.Set(len(t.all)-1, s)
	return len(t.all) - 1
}

// Set replaces the server at index i. A server whose shares are no numbers,
// negative or infinite, is Unfit: it must not win every comparison.
func (t *Table) Set(i int, s Server) {
	if s.Blocked == Eligible && !(s.CPU >= 0 && s.Share >= 0 && s.CPU+s.Share <= math.MaxFloat64) {
		s.Blocked = Unfit
	}
	memory := float64(max(s.Memory, 1))
	r := rank{charged: float64(s.Charged) / memory, byte: 1 / memory, other: max(s.CPU, s.Share), id: s.ID}
	if s.Blocked != Eligible {
		r.charged, r.other = math.Inf(1), math.Inf(1)
	}
	t.all[i], t.rank[i] = s, r
}

// Remove takes the server at index i out. The last one takes its index, unless
// it was the last itself.
func (t *Table) Remove(i int) {
	last := len(t.all) - 1
	t.all[i], t.rank[i] = t.all[last], t.rank[last]
	t.all[last] = Server{} // let its features go
	t.all, t.rank = t.all[:last], t.rank[:last]
}

// Len returns the number of servers.
func (t *Table) Len() int { return len(t.all) }

// Server returns the server at index i. It is the table's own: change nothing.
func (t *Table) Server(i int) *Server { return &t.all[i] }

// Score returns the load of the server at index i with the session on it, 1000
// for a full one. It is 0 for one that is Blocked, and means nothing there.
func (t *Table) Score(i int, need *Need) int64 {
	score := t.rank[i].score(want(need))
	if math.IsInf(score, 0) {
		return 0
	}
	return int64(1000 * score)
}

// Choose returns the index of the server that takes the session, or -1. It
// allocates nothing.
func (t *Table) Choose(now time.Duration, need *Need) int {
	best, low, lowID, want := -1, math.Inf(1), uint64(0), want(need)
	ranks := t.rank // by itself, so that the loop need not look for it
	for i := range ranks {
		r := &ranks[i]
		// Few servers are better than the best so far, so most end here, by
		// branches that a processor foresees; a maximum would be none.
		if r.other > low || r.charged+want*r.byte > low {
			continue
		}
		score := r.score(want)
		if score == low && r.id >= lowID {
			continue
		}
		if t.all[i].Check(now, need) == Eligible {
			best, low, lowID = i, score, r.id
		}
	}
	return best
}

func want(need *Need) float64 { return float64(need.Memory) + Overhead }

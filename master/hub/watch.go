package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// tellAgain is how often those who count hear that something is right: what they
// have heard from an earlier master, or from somebody else, may be otherwise.
const tellAgain = time.Minute

// watched is what the hub remembers of servers, so that only changes are told.
type watched struct {
	mu      sync.Mutex // guards what follows; taken after the lock of the cluster
	started bool       // the servers that were known at the start are in away
	seen    map[uint64]*seen
	away    map[uint64]absence // servers without a link, and some that have one again
}

// seen is what a server has reported of itself.
type seen struct {
	low   bool // short of space
	clock skew
	said  time.Time // when it was last told again what is right
}

// absence is a time without a link.
type absence struct {
	since time.Time
	told  bool      // that the server is lost
	said  time.Time // when it was last told again that nobody misses it
}

func (w *watched) forget(server uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, server)
	delete(w.away, server)
}

// down notes that a server has no link.
func (w *watched) down(server uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[server] = absence{}
}

// Run watches until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second + 500*time.Millisecond) // not with the other parts
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tick.Reset(time.Second)
			h.Watch()
		}
	}
}

// Watch tells of servers that have been away for too long. Run does it each
// second.
func (h *Hub) Watch() {
	now := h.cfg.Now()
	w := &h.watched
	w.mu.Lock()
	idle := w.started && len(w.away) == 0
	w.mu.Unlock()
	if idle {
		return
	}
	h.cfg.State(func(c *cluster.Cluster) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.started {
			w.started = true
			for _, s := range c.Servers() {
				w.away[s.ID] = absence{}
			}
		}
		for _, id := range slices.Sorted(maps.Keys(w.away)) {
			h.judge(c, now, id)
		}
	})
}

// judge tells when a server is lost, and when nobody misses it any more. It is
// called under the lock of the cluster, so that what comes after it, a new link
// for example, is told after it; watched.mu is held too.
func (h *Hub) judge(c *cluster.Cluster, now time.Time, id uint64) {
	s, x := c.Server(id), h.watched.away[id]
	if s == nil || s.Attachment != 0 {
		delete(h.watched.away, id)
		return
	}
	if x.since != s.Since {
		x = absence{since: s.Since}
	}
	sessions, _ := c.Counts(id)
	lost := now.Sub(s.Since) >= LostAfter && missed(s.State, sessions)
	told := x.told
	tell := h.cfg.Event
	if lost == told && !lost && now.Sub(s.Since) >= LostAfter && now.Sub(x.said) >= tellAgain {
		tell, x.said = h.cfg.Again, now
	} else if lost == told {
		tell = nil
	}
	x.told = lost
	h.watched.away[id] = x
	switch {
	case tell == nil:
	case lost:
		h.cfg.Event("server.lost", fmt.Sprintf("Server %d (%s) is lost: without a link for more than %d s%s.", id, s.Name, LostAfter/time.Second, unknown(sessions)),
			append(serverPairs(id, s.Name), monitor.Pair{Key: "sessions", Value: sessions})...)
	default:
		tell("server.away", fmt.Sprintf("Server %d (%s) is away, out of service and empty: nobody misses it.", id, s.Name), serverPairs(id, s.Name)...)
	}
}

// reported tells what is wrong with a server by its report, and what is right
// again. It is called under the lock of the cluster, as judge is.
func (h *Hub) reported(s *cluster.Server, now, clock time.Time) {
	w := &h.watched
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.seen[s.ID]
	if x == nil {
		x = &seen{}
		w.seen[s.ID] = x
	}
	right := h.cfg.Again // only those hear of it who have been told otherwise
	if now.Sub(x.said) < tellAgain {
		right = nil
	} else {
		x.said = now
	}
	h.space(s, x, right)
	if !clock.IsZero() {
		h.clock(s, x, now, clock, right)
	}
}

// teller is Config.Event, or Again.
type teller func(typ, text string, pairs ...monitor.Pair)

// space tells when a server has become short of space, and when it has some
// again.
func (h *Hub) space(s *cluster.Server, x *seen, right teller) {
	free, reserve := s.Load.SnapFree, s.Facts.SnapReserve
	tell := right
	if low := free <= reserve; low != x.low {
		x.low, tell = low, h.cfg.Event
	} else if low || tell == nil {
		return
	}
	pairs := append(serverPairs(s.ID, s.Name), monitor.Pair{Key: "snapfree", Value: free}, monitor.Pair{Key: "reserve", Value: reserve})
	if x.low {
		tell("server.nospace", fmt.Sprintf("Server %d (%s) has %d MiB free for snapshots, not more than its reserve of %d MiB: no new sessions go there.", s.ID, s.Name, free>>20, reserve>>20), pairs...)
	} else {
		tell("server.space", fmt.Sprintf("Server %d (%s) has space for snapshots again, %d MiB.", s.ID, s.Name, free>>20), pairs...)
	}
}

// clock tells of a satellite whose clock is wrong, and when it is right again.
func (h *Hub) clock(s *cluster.Server, x *seen, now, clock time.Time, right teller) {
	off, changed := x.clock.take(now, clock)
	tell := right
	if changed {
		tell = h.cfg.Event
	} else if x.clock.told || x.clock.row > 0 || tell == nil {
		return
	}
	pairs := append(serverPairs(s.ID, s.Name), monitor.Pair{Key: "seconds", Value: off.Seconds()})
	if !x.clock.told {
		tell("server.clock", fmt.Sprintf("The clock of server %d (%s) is right again.", s.ID, s.Name), pairs...)
		return
	}
	tell("server.skew", fmt.Sprintf("The clock of server %d (%s) is %s the master's.", s.ID, s.Name, wire.Apart(off)), pairs...)
}

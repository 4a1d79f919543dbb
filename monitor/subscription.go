package monitor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxWaiting is how many events may wait for a connection, PROTOCOL 13.
const maxWaiting = 1024

// subscription is one `events on`. Its goroutine pulls events from the source
// and writes them between replies.
type subscription struct {
	types    []string // patterns
	since    uint64
	numbered bool // text lines begin with the number
	start    bool // the goroutine is to be started once the reply is written
	stop     context.CancelFunc
	done     chan struct{} // closed by the goroutine; nil before its start
}

// matches tells whether the subscription wants events of a type.
func (s *subscription) matches(kind string) bool {
	for _, p := range s.types {
		if p == "*" || p == kind {
			return true
		}
		if head, ok := strings.CutSuffix(p, ".*"); ok && strings.HasPrefix(kind, head+".") {
			return true
		}
	}
	return false
}

// unsubscribe ends the events of the connection; none is written after it.
func (c *conn) unsubscribe() {
	if s := c.events; s != nil && s.done != nil {
		s.stop()
		<-s.done
	}
	c.events = nil
}

// startEvents starts the subscription that the last command has made.
func (c *conn) startEvents() {
	s := c.events
	if s == nil || !s.start {
		return
	}
	s.start = false
	c.mu.Lock()
	c.flush() // the reply comes before the first event
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(c.s.stopping)
	s.stop, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		defer cancel()
		defer func() {
			if v := recover(); v != nil {
				c.internal("events", fmt.Errorf("panic: %v", v), nil)
				c.nc.SetDeadline(time.Unix(1, 0)) // a session without its events must not look whole
			}
		}()
		c.pump(ctx, s)
	}()
}

// pump writes events until the context ends or the client is gone. What the
// caller asked for with since= is never dropped; after that, at most
// maxWaiting events wait for a client that reads too slowly.
func (c *conn) pump(ctx context.Context, s *subscription) {
	source := c.s.cfg.Table.backend
	seq, first := s.since, true
	for ctx.Err() == nil {
		events, lostTo, wait := source.Since(seq)
		lost := [2]uint64{seq + 1, lostTo}
		wanted := make([]Event, 0, len(events))
		for _, e := range events {
			if s.matches(e.Type) {
				wanted = append(wanted, e)
			}
			seq = max(seq, e.Seq)
		}
		seq = max(seq, lostTo)
		if drop := len(wanted) - maxWaiting; drop > 0 && !first {
			if lost[1] == 0 {
				lost[0] = wanted[0].Seq
			}
			lost[1] = wanted[drop-1].Seq
			wanted = wanted[drop:]
		}
		first = false
		c.mu.Lock()
		if ctx.Err() == nil {
			if lost[1] != 0 {
				c.encode(func(r *Row) { r.lost(lost[0], lost[1], s.numbered) })
			}
			for i := range wanted {
				c.encode(func(r *Row) { r.event(&wanted[i], s.numbered) })
			}
			c.flush()
		}
		dead := c.dead
		c.mu.Unlock()
		if dead != nil {
			c.nc.SetReadDeadline(time.Unix(1, 0)) // its own goroutine notices
			return
		}
		select {
		case <-ctx.Done():
		case <-wait:
		}
	}
}

func (r *Row) lost(from, to uint64, numbered bool) {
	r.end(651, []Pair{{"from", from}, {"to", to}}, number(to, numbered)+fmt.Sprintf("Events %d to %d were lost; list anew.", from, to))
}

func (r *Row) event(e *Event, numbered bool) {
	pairs := make([]Pair, 0, 3+len(e.Pairs))
	pairs = append(pairs, Pair{"seq", e.Seq}, Pair{"time", e.Time}, Pair{"type", e.Type})
	pairs = append(pairs, e.Pairs...)
	text := e.Text
	if text == "" {
		text = e.Type
	}
	r.end(650, pairs, number(e.Seq, numbered)+r.human.Clock(e.Time)+" "+text)
}

// number begins a text line of a numbered subscription.
func number(seq uint64, numbered bool) string {
	if !numbered {
		return ""
	}
	return strconv.FormatUint(seq, 10) + " "
}

package monitor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// lost is called when a connection has ended by itself.
func (c *console) lost(w *wire) {
	c.mu.Lock()
	current := c.wire == w
	if current {
		c.wire = nil
	}
	c.mu.Unlock()
	select {
	case <-c.stop:
		return
	default:
	}
	if current {
		fmt.Fprintln(c.out, "The connection to the master is lost; trying again.")
		c.refresh()
		go c.reconnect()
	}
}

func (c *console) refresh() {
	c.setPrompt()
	c.rl.Refresh()
}

// reconnect tries for ever, with growing pauses.
func (c *console) reconnect() {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		select {
		case <-c.stop:
			return
		case <-time.After(pause):
		}
		cl, err := Dial(c.o.socket)
		if err == nil && c.adopt(cl, true) {
			return
		}
	}
}

// adopt makes a new connection the current one and brings it to the present
// state. With tell it says that the master is back.
func (c *console) adopt(cl *Client, tell bool) bool {
	w := c.newWire(cl)
	w.start()
	lines := c.settings()
	// In tsv, hello tells how long the master has been up.
	reqs, err := w.send(append([]string{"hello"}, lines...)...)
	if err != nil {
		return false
	}
	up, lost := "", false
	for i, r := range reqs {
		reply, ok := r.last()
		if !ok || reply[0].Code == 421 {
			for _, r := range reqs {
				r.abandon()
			}
			w.close()
			return false
		}
		if i == 0 {
			up = field(reply[len(reply)-1].Data, "uptime")
		}
		if end := reply[len(reply)-1]; i > 0 && strings.HasPrefix(lines[i-1], "events ") {
			lost = end.Code >= 400
			if seq, _ := eventNumber(end); !lost {
				c.mu.Lock()
				c.state.seq = max(c.state.seq, seq)
				c.mu.Unlock()
			}
		}
	}
	if lost { // the master is not the one that gave the number
		c.mu.Lock()
		c.state.seq = 0
		line := "events on" + c.state.events + " numbered"
		c.mu.Unlock()
		if reqs, err := w.send(line); err == nil {
			if reply, ok := reqs[0].last(); ok {
				seq, _ := eventNumber(reply[len(reply)-1])
				c.mu.Lock()
				c.state.seq = seq
				c.mu.Unlock()
			}
		}
		fmt.Fprintln(c.out, "The master does not know the last event shown here any more: list anew.")
	}
	c.mu.Lock()
	c.wire = w
	c.mu.Unlock()
	w.mu.Lock()
	dead := w.closed
	w.mu.Unlock()
	if dead {
		c.lost(w)
		return true
	}
	if tell {
		d, _ := parseTime(up)
		fmt.Fprintf(c.out, "The master is back (up %s).\n", Human{}.Span(d))
	}
	c.refresh()
	return true
}

// field is a value of a terse end-line that needs no quotation marks.
func field(data, key string) string {
	for _, w := range strings.Fields(data) {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			return v
		}
	}
	return ""
}

// event shows an event above the prompt and remembers its number: after a break
// of the connection, events go on from there.
func (c *console) event(l ReplyLine) {
	seq, text := eventNumber(l)
	fmt.Fprintln(c.out, text)
	if seq != 0 {
		c.mu.Lock()
		c.state.seq = seq
		c.mu.Unlock()
	}
}

// eventNumber takes the number out of a line that has one: first in text, as
// seq or to in the others, where it stays.
func eventNumber(l ReplyLine) (seq uint64, text string) {
	number := func(s string) uint64 { n, _ := strconv.ParseUint(s, 10, 64); return n }
	switch {
	case strings.HasPrefix(l.Data, "{"):
		var v struct{ Seq, To uint64 }
		if json.Unmarshal([]byte(l.Data), &v) != nil {
			return 0, l.Data
		}
		return max(v.Seq, v.To), l.Data
	case keywords[l.Code] != "" && strings.HasPrefix(l.Data, keywords[l.Code]+" "):
		return number(cmp.Or(field(l.Data, "seq"), field(l.Data, "to"))), l.Data
	}
	first, rest, ok := strings.Cut(l.Data, " ")
	if ok && isDigits(first) {
		return number(first), rest
	}
	return 0, l.Data
}

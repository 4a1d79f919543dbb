package monitor

import (
	"fmt"
	"strings"
	"time"
)

// lost is called when a connection has ended by itself.
func (c *console) lost(w *wire) {
	c.mu.Lock()
	current := c.wire == w
	if current {
		c.wire = nil
		c.state.asking = false
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
	c.rl.SetPrompt(c.prompt())
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
	up := ""
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

// event shows an event above the prompt.
func (c *console) event(l ReplyLine) {
	fmt.Fprintln(c.out, l.Data)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.askSeq(c.wire)
}

// askSeq learns the number of the newest event, since their text does not tell
// it: after a break, events go on from there. c.mu is held.
func (c *console) askSeq(w *wire) {
	if w == nil || c.state.asking || !c.state.listens {
		return
	}
	c.state.asking = true
	go func() {
		reply := c.inTSV(w, "events")
		seq := ""
		if len(reply) > 0 {
			seq = field(reply[len(reply)-1].Data, "seq")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state.asking = false
		if seq != "" {
			c.state.seq = seq
		}
	}()
}

// inTSV asks something for the monitor itself, whatever the person's format.
func (c *console) inTSV(w *wire, line string) []ReplyLine {
	c.mu.Lock()
	format := c.state.format
	c.mu.Unlock()
	lines, at := []string{line}, 0
	if format != "tsv" {
		lines, at = []string{"format tsv", line, "format " + format}, 1
	}
	reqs, err := w.send(lines...)
	if err != nil {
		return nil
	}
	var reply []ReplyLine
	for i, r := range reqs {
		got, ok := r.last()
		if !ok {
			for _, r := range reqs[i:] {
				r.abandon()
			}
			return nil
		}
		if i == at {
			reply = got
		}
	}
	return reply
}

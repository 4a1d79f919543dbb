package monitor

import (
	"sync"
)

// wire is one connection of the console. Its goroutine reads all lines and
// gives them to the commands that wait for them, in order; events go to the
// console at any time.
type wire struct {
	cl    *Client
	event func(ReplyLine)
	lost  func(w *wire) // called once, unless close was called first

	mu     sync.Mutex
	queue  []*request // guarded by mu: sent and not yet answered
	closed bool       // guarded by mu
}

// request is one command that was sent. Its lines come one by one; the
// channel is closed after the last one, or when the connection is lost.
type request struct {
	lines chan ReplyLine
	// drop is closed by who does not wait any more; the lines are read away.
	drop chan struct{}
	once sync.Once
}

func (r *request) abandon() { r.once.Do(func() { close(r.drop) }) }

// start begins to read. No more is to be done with cl by others.
func (w *wire) start() { go w.read() }

// send sends lines in one piece and returns their requests.
func (w *wire) send(lines ...string) ([]*request, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reqs := make([]*request, len(lines))
	for i := range reqs {
		reqs[i] = &request{lines: make(chan ReplyLine), drop: make(chan struct{})}
	}
	if w.closed {
		return nil, errNotConnected
	}
	w.queue = append(w.queue, reqs...)
	if err := w.cl.Send(lines...); err != nil {
		w.cl.Close() // the reader ends the requests
		return reqs, nil
	}
	return reqs, nil
}

func (w *wire) read() {
	for {
		l, err := w.cl.Read()
		if err != nil {
			break
		}
		if l.Event() {
			w.event(l)
			continue
		}
		w.mu.Lock()
		var r *request
		if len(w.queue) > 0 {
			r = w.queue[0]
			if l.End() && l.Code != 331 {
				w.queue = w.queue[1:]
			}
		}
		w.mu.Unlock()
		if r == nil {
			continue // 421 without a command
		}
		select {
		case r.lines <- l:
		case <-r.drop:
		}
		if l.End() && l.Code != 331 {
			close(r.lines)
		}
	}
	w.mu.Lock()
	queue, told := w.queue, w.closed
	w.queue, w.closed = nil, true
	w.mu.Unlock()
	w.cl.Close()
	if !told {
		w.lost(w)
	}
	for _, r := range queue {
		close(r.lines)
	}
}

// close ends the connection without calling lost.
func (w *wire) close() {
	w.mu.Lock()
	w.closed = true
	for _, r := range w.queue {
		r.abandon()
	}
	w.mu.Unlock()
	w.cl.Close()
}

// last reads a reply to its end and returns all lines; ok is false where the
// connection was lost.
func (r *request) last() (lines []ReplyLine, ok bool) {
	for l := range r.lines {
		lines = append(lines, l)
	}
	return lines, len(lines) > 0 && lines[len(lines)-1].End()
}

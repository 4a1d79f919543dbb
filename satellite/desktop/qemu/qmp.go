package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	maxLine      = 1 << 20         // longest line that is read from QEMU or a guest, in bytes
	writeTimeout = 5 * time.Second // a peer that does not take a short line is as good as gone
)

var errClosed = errors.New("the QMP connection is closed")

// qmpError is QEMU's refusal of a command.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return fmt.Sprintf("QEMU: %.300s", e.Desc) }

// qmpEvent is something that QEMU tells by itself.
type qmpEvent struct {
	Name string
	Data json.RawMessage
}

type qmpReply struct {
	value json.RawMessage
	err   error
}

// qmp is one connection to QEMU's control socket. QEMU and everything that it
// sends are not trusted: lines are bounded, waiting ends with the context.
type qmp struct {
	conn   net.Conn
	onEvt  func(qmpEvent) // in the reading goroutine; must not block
	done   chan struct{}  // closed when the reader has ended
	writes sync.Mutex     // one line at a time

	mu      sync.Mutex // guards the fields below
	last    uint64
	pending map[uint64]chan qmpReply
	err     error // why the reader ended
}

// newQMP reads the greeting and leaves negotiation mode. It owns conn, and
// closes it where it fails. The reader runs until close or the peer's end.
func newQMP(ctx context.Context, conn net.Conn, onEvent func(qmpEvent)) (*qmp, error) {
	q := &qmp{conn: conn, onEvt: onEvent, done: make(chan struct{}), pending: map[uint64]chan qmpReply{}}
	greeting := make(chan struct{})
	go q.read(greeting)
	fail := func(err error) (*qmp, error) {
		q.close()
		return nil, err
	}
	select {
	case <-greeting:
	case <-q.done:
		return fail(fmt.Errorf("QMP: no greeting: %w", q.err))
	case <-ctx.Done():
		return fail(fmt.Errorf("QMP: no greeting: %w", ctx.Err()))
	}
	if err := q.call(ctx, "qmp_capabilities", nil, nil); err != nil {
		return fail(err)
	}
	return q, nil
}

// close ends the connection and waits for the reader.
func (q *qmp) close() {
	q.conn.Close()
	<-q.done
}

// call runs one command. result may be nil.
func (q *qmp) call(ctx context.Context, command string, args, result any) error {
	ch := make(chan qmpReply, 1)
	q.mu.Lock()
	if q.err != nil {
		q.mu.Unlock()
		return fmt.Errorf("QMP %s: %w", command, q.err)
	}
	q.last++
	id := q.last
	q.pending[id] = ch
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.pending, id)
		q.mu.Unlock()
	}()

	line, err := json.Marshal(struct {
		Execute string `json:"execute"`
		Args    any    `json:"arguments,omitempty"`
		ID      uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	if err := q.write(append(line, '\n')); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case r := <-ch:
		if r.err == nil && result != nil {
			r.err = json.Unmarshal(r.value, result)
		}
		if r.err != nil {
			return fmt.Errorf("QMP %s: %w", command, r.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: no answer: %w", command, ctx.Err())
	}
}

// write sends one line. A line that went out only in part has broken the
// stream: the connection is closed.
func (q *qmp) write(line []byte) error {
	q.writes.Lock()
	defer q.writes.Unlock()
	if err := q.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := q.conn.Write(line); err != nil {
		q.conn.Close()
		return err
	}
	return nil
}

// read distributes what comes until the connection ends.
func (q *qmp) read(greeting chan struct{}) {
	defer close(q.done)
	sc := bufio.NewScanner(q.conn)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	greeted := false
	for sc.Scan() {
		m, err := parseQMP(sc.Bytes())
		if err != nil {
			q.fail(err)
			return
		}
		switch {
		case m.Greeting != nil && !greeted:
			greeted = true
			close(greeting)
		case m.Event != "":
			q.onEvt(qmpEvent{m.Event, m.Data})
		case m.ID != nil:
			q.mu.Lock()
			ch := q.pending[*m.ID]
			delete(q.pending, *m.ID)
			q.mu.Unlock()
			if ch == nil {
				continue // its caller has given up
			}
			if m.Error != nil {
				ch <- qmpReply{err: m.Error}
			} else {
				ch <- qmpReply{value: m.Return}
			}
		}
	}
	err := sc.Err()
	if err == nil {
		err = io.EOF
	}
	q.fail(err)
}

// fail ends all calls.
func (q *qmp) fail(err error) {
	q.conn.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = fmt.Errorf("%w: %v", errClosed, err)
	for id, ch := range q.pending {
		ch <- qmpReply{err: q.err}
		delete(q.pending, id)
	}
}

// qmpMessage is any line that QEMU sends.
type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       *uint64         `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *qmpError       `json:"error"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
}

func parseQMP(line []byte) (qmpMessage, error) {
	var m qmpMessage
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("not QMP: %.100q: %w", line, err)
	}
	return m, nil
}

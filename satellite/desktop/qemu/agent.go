package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

// agent speaks to the guest agent over one connection. The other end is the
// guest, so nothing that comes is believed: it is bounded in size and time.
type agent struct {
	conn net.Conn
	r    *bufio.Reader
}

// newAgent synchronises with the agent behind conn; ctx must have a deadline.
// The caller closes conn.
func newAgent(ctx context.Context, conn net.Conn) (*agent, error) {
	a := &agent{conn: conn, r: bufio.NewReaderSize(io.LimitReader(conn, maxLine), 4096)}
	id := rand.Int64N(1 << 52)
	// The byte 0xff makes the agent forget half a command of somebody before.
	if err := a.send(ctx, "\xff", "guest-sync-delimited", map[string]any{"id": id}); err != nil {
		return nil, err
	}
	for {
		// Before the agent's 0xff there may be answers meant for somebody else.
		if _, err := a.skipTo(0xff); err != nil {
			return nil, err
		}
		var got int64
		if err := a.receive(&got); err == nil && got == id {
			return a, nil
		} else if err != nil && !errors.As(err, new(*qmpError)) && !errors.As(err, new(*json.UnmarshalTypeError)) {
			return nil, err
		}
	}
}

// ping returns nil if the agent answers.
func (a *agent) ping(ctx context.Context) error {
	if err := a.send(ctx, "", "guest-ping", nil); err != nil {
		return err
	}
	return a.receive(nil)
}

// shutdown asks the guest to power off. The agent does not answer this.
func (a *agent) shutdown(ctx context.Context) error {
	return a.send(ctx, "", "guest-shutdown", map[string]any{"mode": "powerdown"})
}

// setTime sets the guest's clock, after it was stopped for a while.
func (a *agent) setTime(ctx context.Context, now time.Time) error {
	if err := a.send(ctx, "", "guest-set-time", map[string]any{"time": now.UnixNano()}); err != nil {
		return err
	}
	return a.receive(nil)
}

func (a *agent) send(ctx context.Context, before, command string, args map[string]any) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return fmt.Errorf("guest agent: %s without a time limit", command)
	}
	if err := a.conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	m := map[string]any{"execute": command}
	if args != nil {
		m["arguments"] = args
	}
	line, err := json.Marshal(m)
	if err == nil {
		_, err = a.conn.Write(append(append([]byte(before), line...), '\n'))
	}
	if err != nil {
		return fmt.Errorf("guest agent: %s: %w", command, err)
	}
	return nil
}

func (a *agent) skipTo(delim byte) ([]byte, error) {
	var all []byte
	for {
		part, err := a.r.ReadSlice(delim)
		all = append(all, part...)
		if err == nil {
			return all, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) { // the LimitReader bounds all
			return nil, fmt.Errorf("guest agent: %w", err)
		}
	}
}

// receive reads one answer into result, which may be nil.
func (a *agent) receive(result any) error {
	line, err := a.skipTo('\n')
	if err != nil {
		return err
	}
	var m struct {
		Return json.RawMessage `json:"return"`
		Error  *qmpError       `json:"error"`
	}
	if err := json.Unmarshal(bytes.TrimLeft(line, "\xff"), &m); err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	switch {
	case m.Error != nil:
		return fmt.Errorf("guest agent: %w", m.Error)
	case m.Return == nil:
		return errors.New("guest agent: neither a result nor an error")
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("guest agent: %w", err)
	}
	return nil
}

package qemu

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// What goes on beside the calls of a running desktop: the guest agent, the
// picture and the console.

// agentOpen: the guest has opened or closed the agent's port. The first answer
// to follow makes the desktop ready.
func (r *running) agentOpen(open bool) {
	r.mu.Lock()
	r.agentUp = open
	ask := open && !r.ready && !r.asking
	r.asking = r.asking || ask
	r.mu.Unlock()
	if !ask {
		return
	}
	r.background(func() {
		defer func() {
			r.mu.Lock()
			r.asking = false
			r.mu.Unlock()
		}()
		for range agentTries {
			err := r.withAgent(r.ctx, func(ctx context.Context, a *agent) error { return a.ping(ctx) })
			if err == nil {
				r.tell(&r.ready, desktop.Ready)
				return
			}
			r.log.Debug().Err(err).Msg("guest agent")
			select {
			case <-time.After(time.Second):
			case <-r.ctx.Done():
				return
			}
		}
	})
}

// withAgent runs one conversation with the guest agent.
func (r *running) withAgent(ctx context.Context, f func(context.Context, *agent) error) error {
	r.agentMu.Lock()
	defer r.agentMu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	conn, peer, err := r.dir.dial(agentSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if peer != r.proc.PID {
		return fmt.Errorf("process %d listens in place of the guest agent", peer)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	a, err := newAgent(ctx, conn)
	if err != nil {
		return err
	}
	return f(ctx, a)
}

// setTime sets the guest's clock after it stood still.
func (r *running) setTime() {
	if !r.spec.Image.Agent {
		return
	}
	err := r.withAgent(r.ctx, func(ctx context.Context, a *agent) error { return a.setTime(ctx, time.Now()) })
	if err != nil {
		r.log.Debug().Err(err).Msg("the guest's clock was not set")
	}
}

// watchPicture makes a guest without an agent ready when its picture changes.
func (r *running) watchPicture() {
	var first [sha256.Size]byte
	seen := false
	for {
		select {
		case <-time.After(pictureEvery):
		case <-r.ctx.Done():
			return
		}
		png, err := r.Screenshot(r.ctx)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(png)
		if seen && sum != first {
			r.tell(&r.ready, desktop.Ready)
			return
		}
		first, seen = sum, true
	}
}

// guard keeps a guest from filling the disk through its console.
func (r *running) guard() {
	for {
		select {
		case <-time.After(guardEvery):
		case <-r.ctx.Done():
			return
		}
		if err := r.cutSerial(); err != nil && !errors.Is(err, desktop.ErrGone) {
			r.log.Debug().Err(err).Msg("console file")
		}
	}
}

// cutSerial drops all but the end of a console file that has grown large.
// QEMU appends, so it goes on at the new end.
func (r *running) cutSerial() error {
	f, err := r.dir.open(serialFile, unix.O_RDWR|unix.O_APPEND)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() <= maxSerial {
		return err
	}
	tail := make([]byte, keepSerial)
	n, err := f.ReadAt(tail, st.Size()-keepSerial)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.Write(tail[:n])
	return err
}

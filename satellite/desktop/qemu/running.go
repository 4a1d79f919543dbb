package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

const (
	maxShot      = 16 << 20 // a screenshot, in bytes: all of the card's memory
	maxSerial    = 1 << 20  // the console file is cut when it is larger
	keepSerial   = 64 << 10 // and this much of its end is kept
	guardEvery   = 5 * time.Second
	pictureEvery = time.Second
	agentTimeout = 3 * time.Second // a guest agent that lives answers within that, also on a busy host
	agentTries   = 5
)

// running is one QEMU process, started or adopted.
type running struct {
	driver *Driver
	log    zerolog.Logger
	spec   desktop.Spec
	proc   desktop.Process
	dir    *sessionDir
	pidfd  *os.File

	events chan desktop.Event // three kinds, each once: never blocks
	status chan string        // the exit status, for a process that we started
	work   sync.WaitGroup     // goroutines that end with the context
	ctx    context.Context    // until the end or Release
	cancel context.CancelFunc
	ended  chan struct{} // closed after the end or Release

	// Written before ended is closed by the end.
	detail string
	serial []byte
	stderr []byte

	connSem chan struct{} // guards qmp and serialises connecting; waiting for it can be given up
	qmp     *qmp

	agentMu sync.Mutex // one conversation with the agent at a time
	shotMu  sync.Mutex // one screenshot at a time
	pingMu  sync.Mutex // guards ping
	ping    *flight

	mu       sync.Mutex // guards the fields below, and sending on events
	ready    bool
	stopping bool
	released bool
	reason   string // of the last SHUTDOWN
	agentUp  bool   // the port is open inside
	asking   bool   // waiting for the agent's first answer
}

// watch starts waiting for the end. Exited comes even where nothing else works.
func (r *running) watch() {
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		if err := waitExit(r.pidfd); err != nil {
			return // Release closed it
		}
		r.finish()
	}()
}

// begin starts what tells of the guest, once the process is accepted.
func (r *running) begin() {
	r.background(r.guard)
	if !r.spec.Image.Agent {
		r.background(r.watchPicture)
		return
	}
	r.background(func() { // an adopted guest's port is open already
		var devs []struct {
			Label string `json:"label"`
			Open  bool   `json:"frontend-open"`
		}
		for r.call(r.ctx, "query-chardev", nil, &devs) != nil { // adopted without its directory
			select {
			case <-time.After(guardEvery):
			case <-r.ctx.Done():
				return
			}
		}
		for _, d := range devs {
			if d.Label == "ga" && d.Open {
				r.agentOpen(true)
			}
		}
	})
}

// finish runs once, when the process is gone.
func (r *running) finish() {
	late, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()
	if r.lock(late) == nil {
		q := r.qmp
		r.unlock()
		if q != nil {
			select { // the last events are still on their way
			case <-q.done:
			case <-late.Done():
			}
		}
	}
	r.mu.Lock() // nobody is just beginning something in the background
	r.cancel()
	r.mu.Unlock()
	r.disconnect()
	r.work.Wait()
	r.serial = r.dir.tail(serialFile, keepSerial)
	r.stderr = r.dir.tail(stderrFile, 4096)
	r.dir.close()
	status := ""
	select {
	case status = <-r.status:
	case <-time.After(time.Second): // never seen; the end is told in any case
	}
	r.driver.cgroup.remove(r.spec.Session)

	r.mu.Lock()
	defer r.mu.Unlock()
	e := desktop.Event{Kind: desktop.Exited, Reason: desktop.Crashed, Detail: status}
	switch r.reason {
	case "guest-shutdown", "guest-reset":
		e.Reason = desktop.GuestShutdown
	case "host-qmp-quit", "host-signal", "host-ui":
		e.Reason = desktop.HostQuit
	}
	if text := words(r.stderr); text != "" {
		e.Detail = strings.TrimPrefix(e.Detail+"; QEMU: "+text, "; ")
	}
	r.detail = e.Detail
	if !r.released {
		r.released = true
		r.events <- e
		close(r.events)
		close(r.ended)
	}
	r.pidfd.Close()
}

// words are the last lines of QEMU's errors as one text.
func words(stderr []byte) string { return strings.Join(lines(stderr, 3), " | ") }

// Release implements desktop.Desktop.
func (r *running) Release() {
	r.mu.Lock()
	if r.released {
		r.mu.Unlock()
		return
	}
	r.released = true
	close(r.events)
	r.mu.Unlock()
	r.cancel()
	r.pidfd.Close()
	r.disconnect()
	r.work.Wait()
	r.dir.close()
	close(r.ended)
}

// lock and unlock guard r.qmp.
func (r *running) lock(ctx context.Context) error {
	select {
	case r.connSem <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("QEMU does not answer: %w", ctx.Err())
	}
}

func (r *running) unlock() { <-r.connSem }

// disconnect comes after cancel, which makes everybody else give the lock back.
func (r *running) disconnect() {
	_ = r.lock(context.Background())
	defer r.unlock()
	if r.qmp != nil {
		r.qmp.close()
	}
}

// connect makes conn the QMP connection, if it leads to our process.
func (r *running) connect(ctx context.Context, conn net.Conn, peer int) error {
	if peer != r.proc.PID {
		conn.Close()
		return fmt.Errorf("%s: process %d listens there, not QEMU with process %d", filepath.Join(r.dir.path, qmpSocket), peer, r.proc.PID)
	}
	q, err := newQMP(ctx, conn, r.event)
	if err != nil {
		return err
	}
	if err := r.lock(ctx); err != nil {
		q.close()
		return err
	}
	defer r.unlock()
	r.qmp = q
	return nil
}

// control is the QMP connection, made anew where it was lost.
func (r *running) control(ctx context.Context) (*qmp, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	if r.ctx.Err() != nil {
		return nil, desktop.ErrGone
	}
	if r.qmp != nil {
		select {
		case <-r.qmp.done:
		default:
			return r.qmp, nil
		}
	}
	conn, peer, err := r.dir.dial(qmpSocket)
	if err != nil {
		return nil, err
	}
	if peer != r.proc.PID {
		conn.Close()
		return nil, fmt.Errorf("process %d listens in place of QEMU", peer)
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)() // a Release does not wait for the caller
	q, err := newQMP(both, conn, r.event)
	if err != nil {
		return nil, err
	}
	r.qmp = q
	return q, nil
}

func (r *running) call(ctx context.Context, command string, args, result any) error {
	q, err := r.control(ctx)
	if err != nil {
		return err
	}
	err = q.call(ctx, command, args, result)
	if err != nil && r.ctx.Err() != nil {
		return fmt.Errorf("%w: %v", desktop.ErrGone, err)
	}
	return err
}

// event takes what QEMU tells; it does not block.
func (r *running) event(e qmpEvent) {
	switch e.Name {
	case "SHUTDOWN":
		var data struct {
			Guest  bool   `json:"guest"`
			Reason string `json:"reason"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return
		}
		r.mu.Lock()
		r.reason = data.Reason
		r.mu.Unlock()
		if data.Guest {
			r.tell(&r.stopping, desktop.Stopping)
		}
	case "VSERPORT_CHANGE":
		var data struct {
			ID   string `json:"id"`
			Open bool   `json:"open"`
		}
		if err := json.Unmarshal(e.Data, &data); err == nil && data.ID == agentPort {
			r.agentOpen(data.Open)
		}
	case "RESUME":
		r.background(r.setTime)
	}
}

// tell sends an event once.
func (r *running) tell(once *bool, kind desktop.EventKind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if *once || r.released {
		return
	}
	*once = true
	r.events <- desktop.Event{Kind: kind}
}

// background runs f, which ends with r.ctx. It returns false where that has
// ended already.
func (r *running) background(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.released || r.ctx.Err() != nil {
		return false
	}
	r.work.Add(1)
	go func() {
		defer r.work.Done()
		f()
	}()
	return true
}

// Process implements desktop.Desktop.
func (r *running) Process() desktop.Process { return r.proc }

// Events implements desktop.Desktop.
func (r *running) Events() <-chan desktop.Event { return r.events }

// Display implements desktop.Desktop.
func (r *running) Display() string { return "vnc+unix:" + filepath.Join(r.spec.Dir, vncSocket) }

// PowerDown implements desktop.Desktop.
func (r *running) PowerDown(ctx context.Context) error {
	r.mu.Lock()
	up := r.agentUp
	r.mu.Unlock()
	if up && r.ctx.Err() == nil {
		err := r.withAgent(ctx, func(ctx context.Context, a *agent) error { return a.shutdown(ctx) })
		if err == nil {
			return nil
		}
		r.log.Debug().Err(err).Msg("guest agent does not shut down, trying the power button")
	}
	return r.call(ctx, "system_powerdown", nil, nil)
}

// Quit implements desktop.Desktop. Where QMP is lost SIGTERM does the same.
func (r *running) Quit(ctx context.Context) error {
	err := r.call(ctx, "quit", nil, nil)
	switch {
	case err == nil, errors.Is(err, errClosed), errors.Is(err, desktop.ErrGone):
		return nil // it ends faster than it answers
	case ctx.Err() != nil:
		return err
	}
	return signal(r.pidfd, r.proc.PID, unix.SIGTERM, false)
}

// Kill implements desktop.Desktop.
func (r *running) Kill() error {
	err := signal(r.pidfd, r.proc.PID, unix.SIGKILL, true)
	if errors.Is(err, desktop.ErrGone) {
		return nil
	}
	return err
}

// flight is one ping that several callers wait for.
type flight struct {
	done chan struct{}
	err  error
}

// Ping implements desktop.Desktop. While one is unanswered no second is sent:
// a hung QEMU would let them pile up.
func (r *running) Ping(ctx context.Context) error {
	r.pingMu.Lock()
	f := r.ping
	if f == nil {
		f = &flight{done: make(chan struct{})}
		started := r.background(func() {
			f.err = r.look()
			r.pingMu.Lock()
			r.ping = nil
			r.pingMu.Unlock()
			close(f.done)
		})
		if !started {
			r.pingMu.Unlock()
			return desktop.ErrGone
		}
		r.ping = f
	}
	r.pingMu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("QEMU does not answer: %w", ctx.Err())
	}
}

// look asks QEMU how it is. A guest that was halted by a full disk tries its
// write again, and QEMU halts it again if there is still no space.
func (r *running) look() error {
	var now struct {
		Status string `json:"status"`
	}
	if err := r.call(r.ctx, "query-status", nil, &now); err != nil || now.Status != "io-error" {
		return err
	}
	if err := r.call(r.ctx, "cont", nil, nil); err != nil {
		r.log.Debug().Err(err).Msg("a halted guest cannot be continued")
	}
	return fmt.Errorf("%w: %w in %s; it goes on when there is some: free some, or end other desktops there",
		desktop.ErrHalted, desktop.ErrNoSpace, filepath.Dir(r.spec.Dir))
}

var pngMagic = []byte("\x89PNG\r\n\x1a\n")

// Screenshot implements desktop.Desktop.
func (r *running) Screenshot(ctx context.Context) ([]byte, error) {
	r.shotMu.Lock()
	defer r.shotMu.Unlock()
	defer r.dir.unlink(shotFile)
	r.dir.unlink(shotFile)
	if err := r.call(ctx, "screendump", map[string]any{"filename": shotFile, "format": "png"}, nil); err != nil {
		return nil, err
	}
	png, err := r.dir.read(shotFile, maxShot)
	if err == nil && !bytes.HasPrefix(png, pngMagic) {
		err = errors.New("screenshot: not a PNG file")
	}
	if err != nil {
		return nil, err
	}
	return png, nil
}

// Serial implements desktop.Desktop.
func (r *running) Serial(n int) []string {
	text := r.dir.tail(serialFile, keepSerial)
	if text == nil {
		select {
		case <-r.ended:
			text = r.serial
		default:
		}
	}
	return lines(text, n)
}

// CPUTime implements desktop.Desktop.
func (r *running) CPUTime() (time.Duration, error) {
	st, err := readStat(r.proc.PID)
	if err == nil && (st.dead || st.startTime != r.proc.StartTime) {
		err = desktop.ErrGone
	}
	return st.cpu, err
}

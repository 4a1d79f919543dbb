package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

const (
	restartAfter = time.Second      // between the end of a part and its next start
	endLimit     = 15 * time.Second // a part that was told to end is killed after it
	afterLimit   = 5 * time.Second  // a part is started though what it should wait for is not there
)

// holder returns the process that holds the lock on a pid file, 0 for none. It
// asks the kernel, so a number that a dead supervisor left means nothing.
func holder(path string) (pid int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, err
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// part is a program that the supervisor keeps running.
type part struct {
	name string // master, satellite-1; also names its log
	args []string
	// after is a file that should be there before the first start; empty: none.
	after string
}

// parts are the master and the satellites that run.
func (l layout) parts(p plan) []part {
	all := []part{{name: "master", args: []string{"master", "--settings", l.settings()}}}
	for n := 1; n <= p.Run; n++ {
		s := part{name: fmt.Sprintf("satellite-%d", n), args: []string{"satellite", "--settings", filepath.Join(l.satellite(n), "settings.global")}}
		if n > 1 { // so that sat1 becomes server 1: the one before has connected
			s.after = filepath.Join(l.satellite(n-1), "state", "satellite", "epoch")
		}
		all = append(all, s)
	}
	return all
}

// running is what parts.json tells of a part.
type running struct {
	PID    int       `json:"pid"`
	Starts int       `json:"starts"`
	Since  time.Time `json:"since"`
}

// supervisor keeps the parts of one demo running. Desktops are not its business:
// they belong to the satellites and live on without them.
type supervisor struct {
	layout
	exe string
	log zerolog.Logger

	mu    sync.Mutex // guards state and the writing of parts.json
	state map[string]running
}

// supervise runs the supervisor until SIGTERM or SIGINT.
func supervise(l layout, exe string, out io.Writer) error {
	s := &supervisor{layout: l, exe: exe, log: zerolog.New(out).With().Timestamp().Logger(), state: map[string]running{}}
	p, ok, err := loadPlan(l)
	if err == nil && !ok {
		err = fmt.Errorf("%s holds no demo", l.dir)
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.pidFile(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	// The lock ends with the process or with any closing of the file by it.
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}); err != nil {
		return fmt.Errorf("%s: another supervisor runs: %w", l.pidFile(), err)
	}
	if err := errors.Join(f.Truncate(0), writeString(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return err
	}
	defer f.Truncate(0)

	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s.log.Info().Int("pid", os.Getpid()).Msg("supervisor started")
	s.work(ctx, l.parts(p))
	os.Remove(l.partsFile())
	s.log.Info().Msg("supervisor ended")
	return nil
}

func writeString(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// work keeps all parts running until ctx ends. Then the satellites end first,
// so that the master hears from them, and the master after them.
func (s *supervisor) work(ctx context.Context, parts []part) {
	masterCtx, endMaster := context.WithCancel(context.WithoutCancel(ctx))
	defer endMaster()
	var master, satellites sync.WaitGroup
	master.Go(func() { s.keep(masterCtx, parts[0]) })
	for _, p := range parts[1:] {
		satellites.Go(func() { s.keep(ctx, p) })
	}
	<-ctx.Done()
	satellites.Wait()
	endMaster()
	master.Wait()
}

// keep starts a part again whenever it ends, until ctx does.
func (s *supervisor) keep(ctx context.Context, p part) {
	// The kernel ends a part when the thread that started it is gone: the
	// thread must be this goroutine's alone, and so a part never outlives the
	// supervisor.
	runtime.LockOSThread()
	for waited := time.Duration(0); p.after != "" && waited < afterLimit && ctx.Err() == nil; waited += lookEvery {
		if _, err := os.Stat(p.after); err == nil {
			break
		}
		time.Sleep(lookEvery)
	}
	for ctx.Err() == nil {
		err := s.once(ctx, p)
		if ctx.Err() != nil {
			s.log.Info().Str("part", p.name).Msg("ended as asked")
			return
		}
		s.log.Warn().Str("part", p.name).Err(err).Stringer("in", restartAfter).Msg("ended by itself, will be started again")
		select {
		case <-ctx.Done():
		case <-time.After(restartAfter):
		}
	}
}

func (s *supervisor) once(ctx context.Context, p part) error {
	out, err := os.OpenFile(s.layout.log(p.name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, s.exe, p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = s.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endLimit
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.note(p.name, cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// note logs a start and writes it down for --status.
func (s *supervisor) note(name string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := running{PID: pid, Starts: s.state[name].Starts + 1, Since: time.Now().Truncate(time.Second)}
	s.state[name] = r
	s.log.Info().Str("part", name).Int("pid", pid).Int("starts", r.Starts).Msg("started")
	if err := writeJSON(s.partsFile(), s.state); err != nil {
		s.log.Warn().Err(err).Msg("writing what runs")
	}
}

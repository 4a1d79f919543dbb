package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Role is the argument by which the program becomes a guardian. DirFlag names
// the satellite's directory, and JournalFlag the journal in it: a guardian knows
// no other.
const (
	Role        = "guardian"
	DirFlag     = "--dir"
	JournalFlag = "--journal"
)

// ParentEnv is the variable that tells a guardian the process of its satellite.
const ParentEnv = "VERDECMD_SATELLITE_PID"

// MemoryFD is the descriptor at which a guardian finds the shared memory.
const MemoryFD = 3

const (
	keepEvery = 250 * time.Millisecond
	startWait = time.Second // between two guardians that could not be started
	mostLog   = 1 << 20
)

// Keeper keeps a guardian for the desktops of one satellite as long as there is
// a lease. Use NewKeeper, then Run.
type Keeper struct {
	dir, journal string
	log          zerolog.Logger
	mem          *memory

	kick chan struct{}

	mu   sync.Mutex // guards what follows
	told bool       // the lease is known
	why  error      // why there is no guardian

	// What follows is Run's alone.
	pid    int // of the guardian, a child of ours; 0: none
	began  time.Duration
	alone  bool // the guardians of earlier programs have been dismissed
	failed time.Duration
	met    bool // it has shown itself
	stuck  bool // it was told that an earlier guardian stays
}

// NewKeeper is the keeper for the satellite whose directory is dir; journal is
// the name of the journal in it.
func NewKeeper(dir, journal string, log zerolog.Logger) (*Keeper, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	mem, err := newMemory()
	if err != nil {
		return nil, err
	}
	return &Keeper{dir: dir, journal: journal, log: log, mem: mem, kick: make(chan struct{}, 1)}, nil
}

// Lease implements session.Guard. It may be called at any time.
func (k *Keeper) Lease(end time.Duration) {
	k.mem.setEnd(end)
	k.mu.Lock()
	k.told = true
	k.mu.Unlock()
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Awake implements session.Guard.
func (k *Keeper) Awake() error {
	k.mu.Lock()
	why := k.why
	k.mu.Unlock()
	if why != nil {
		return why
	}
	return Awake(k.mem.beat(), bootTime())
}

// Run starts guardians as they are needed, until ctx ends. The last one stays:
// this program is going to be away; but see Leave.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-tick.C:
		}
		k.mu.Lock()
		told := k.told
		k.mu.Unlock()
		if told {
			k.keep(bootTime())
		}
	}
}

// keep does what is due now.
func (k *Keeper) keep(now time.Duration) {
	k.reap()
	beat := k.mem.beat()
	if beat > 0 && k.pid != 0 && !k.met {
		k.met = true
		k.log.Info().Int("pid", k.pid).Msg("the guardian of the desktops is at work: it ends them with their lease if this program cannot")
	}
	switch Next(k.mem.end(), k.pid != 0, k.began, beat, now) {
	case Remove:
		if k.pid != 0 {
			k.log.Info().Msg("there are no leases any more, the guardian of the desktops goes")
		}
		k.end()
		k.dismiss()
	case Start:
		if k.failed == 0 || now-k.failed >= startWait {
			k.start(now)
		}
	case Replace:
		k.log.Error().Int("pid", k.pid).Msg("the guardian of the desktops does not stir, another takes its place")
		k.end()
		k.start(now)
	case Dismiss:
		k.dismiss()
	}
}

// Leave ends the guardians where there is nothing to guard. Call it after Run,
// when the program is sure that it has left no desktop.
func (k *Keeper) Leave() {
	k.end()
	k.alone = false
	k.dismiss()
}

// reap notices the end of the guardian.
func (k *Keeper) reap() {
	if k.pid == 0 {
		return
	}
	var status unix.WaitStatus
	if pid, err := unix.Wait4(k.pid, &status, unix.WNOHANG, nil); pid == k.pid || errors.Is(err, unix.ECHILD) {
		k.log.Error().Int("pid", k.pid).Int("signal", int(status.Signal())).Int("exit", status.ExitStatus()).
			Str("log", k.logFile()).Msg("the guardian of the desktops has ended, another takes its place")
		k.pid = 0
		k.mem.setBeat(0)
	}
}

// end ends the present guardian.
func (k *Keeper) end() {
	if k.pid == 0 {
		return
	}
	_ = unix.Kill(k.pid, unix.SIGKILL) // a child that was not waited for keeps its number
	for {
		if _, err := unix.Wait4(k.pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	k.pid = 0
	k.mem.setBeat(0)
}

func (k *Keeper) logFile() string { return filepath.Join(k.dir, "guardian.log") }

// start starts a guardian.
func (k *Keeper) start(now time.Duration) {
	k.mem.setBeat(0)
	pid, err := k.launch()
	k.mu.Lock()
	k.why = nil
	if err != nil {
		k.why = fmt.Errorf("the guardian of the desktops cannot be started: %w", err)
	}
	k.mu.Unlock()
	if err != nil {
		if k.failed == 0 {
			k.log.Error().Err(err).Msg("the guardian of the desktops cannot be started: no new ones until it can")
		}
		k.failed = now
		return
	}
	k.pid, k.began, k.failed, k.met = pid, now, 0, false
	// What the kernel ends when memory is short shall not be this.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-900"), 0)
}

// launch starts this very program as a guardian: in a session of its own, with
// no rights but those of seeing and ending processes of others.
func (k *Keeper) launch() (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if info, err := os.Stat(k.logFile()); err == nil && info.Size() > mostLog {
		_ = os.Truncate(k.logFile(), 0)
	}
	out, err := os.OpenFile(k.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil { // a disk that is full keeps no guardian away
		out = null
	} else {
		defer out.Close()
	}
	attr := &os.ProcAttr{
		Dir: "/",
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "GORACE=" + os.Getenv("GORACE"),
			ParentEnv + "=" + strconv.Itoa(os.Getpid())},
		Files: []*os.File{null, null, out, k.mem.file},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// What is given up here is this thread's and its child's; the thread ends
		// with the goroutine.
		runtime.LockOSThread()
		if err = onlyWatch(); err != nil {
			return
		}
		var p *os.Process
		// The file that runs, whatever is installed under its name by now.
		if p, err = os.StartProcess("/proc/self/exe", append([]string{"verdecmd"}, k.args()...), attr); err == nil {
			pid = p.Pid
			_ = p.Release() // reap waits
		}
	}()
	<-done
	return pid, err
}

func (k *Keeper) args() []string {
	return []string{Role, DirFlag, k.dir, JournalFlag, k.journal}
}

// onlyWatch takes from the calling thread what a guardian does not need. Where
// /proc hides processes (hidepid), CAP_SYS_PTRACE is the right to see them: to
// who has it not, all desktops look as if they were gone.
func onlyWatch() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for c := uintptr(0); ; c++ {
		if c == unix.CAP_KILL || c == unix.CAP_SYS_PTRACE {
			continue
		}
		// EINVAL: there are no more. EPERM: not root, then there is nothing to lose.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return nil
		}
	}
}

// dismiss ends the guardians that earlier programs have left: they know of no
// renewal. One of another journal stays: nobody else knows of its desktops.
func (k *Keeper) dismiss() {
	if k.alone {
		return
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return // again at the next look
	}
	alone := true
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == k.pid || !k.ours(pid) {
			continue
		}
		switch err := k.killOurs(pid); {
		case err == nil:
			k.log.Info().Int("pid", pid).Msg("the guardian of an earlier start of this program was dismissed")
		case !errors.Is(err, unix.ESRCH):
			alone = false // again at the next look
			if !k.stuck {
				k.stuck = true
				k.log.Error().Err(err).Int("pid", pid).Msg("the guardian of an earlier start of this program cannot be ended: it will end the desktops with the lease that it knows, kill it by hand")
			}
		}
	}
	k.alone = alone
}

// killOurs kills a guardian of this journal; ESRCH: it is gone.
func (k *Keeper) killOurs(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !k.ours(pid) { // else the number means the process behind fd, or nothing
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// ours tells whether a process is a guardian of this journal, by whatever path it
// was started: the directory may have been moved since.
func (k *Keeper) ours(pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	_, args, _ := bytes.Cut(line, []byte{0})
	if err != nil || !bytes.HasPrefix(args, []byte(Role+"\x00")) || !bytes.HasSuffix(args, []byte("\x00"+JournalFlag+"\x00"+k.journal+"\x00")) {
		return false
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

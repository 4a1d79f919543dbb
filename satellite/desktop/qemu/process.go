package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// launch is one process to be started.
type launch struct {
	path   string
	args   []string // without the program's name
	dir    string
	user   *desktop.User // nil: as the caller
	groups []uint32      // beside the user's
	stderr *os.File
	extra  []*os.File // from descriptor 3 on
	cgroup *os.File   // nil: the caller's
	newNet bool       // a network name space of its own
}

// start starts the process in a session of its own, so that it outlives the
// satellite, without any capability and without a way to get one.
func (l launch) start() (proc *os.Process, pidfd *os.File, err error) {
	attr := &os.ProcAttr{
		Dir: l.dir,
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=" + l.dir, "TMPDIR=" + l.dir},
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	attr.Files = append([]*os.File{null, null, l.stderr}, l.extra...)
	if l.user != nil {
		groups := append([]uint32{l.user.GID}, l.user.Groups...)
		attr.Sys.Credential = &syscall.Credential{Uid: l.user.UID, Gid: l.user.GID, Groups: append(groups, l.groups...)}
	}
	if l.cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(l.cgroup.Fd())
	}
	if l.newNet {
		attr.Sys.Cloneflags = syscall.CLONE_NEWNET
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// What is given up here is this thread's and its child's; the thread
		// ends with the goroutine.
		runtime.LockOSThread()
		if err = giveUp(); err != nil {
			return
		}
		args := append([]string{l.path}, l.args...)
		proc, err = os.StartProcess(l.path, args, attr)
		if l.cgroup == nil || !errors.Is(err, unix.ENOSYS) {
			return
		}
		// clone3, which starts a process in its group, does not exist where name
		// spaces are restricted (RestrictNamespaces of a unit): it is moved then.
		attr.Sys.UseCgroupFD = false
		if proc, err = os.StartProcess(l.path, args, attr); err != nil {
			return
		}
		if err = moveTo(l.cgroup, proc.Pid); err != nil {
			_ = proc.Kill()
			_, _ = proc.Wait()
		}
	}()
	<-done
	if err != nil {
		return nil, nil, err
	}
	// The child is not reaped before the caller waits, so its number is still
	// its own. The descriptor that proc has is not for sharing: one that can be
	// waited on without a thread makes its Wait fail.
	fd, err := unix.PidfdOpen(proc.Pid, 0)
	if err != nil {
		_ = proc.Kill()
		_, _ = proc.Wait()
		return nil, nil, fmt.Errorf("pidfd: %w", err)
	}
	return proc, newPidfd(fd), nil
}

// giveUp takes from the calling thread what a desktop must not inherit.
func giveUp() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	for c := uintptr(0); ; c++ {
		// EINVAL: there are no more. EPERM: not root, then there is nothing to lose.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			break
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&head, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}

// newPidfd makes the descriptor of a process one that Go can wait on without
// a thread.
func newPidfd(fd int) *os.File {
	_ = unix.SetNonblock(fd, true) // cannot fail on a descriptor that is open
	return os.NewFile(uintptr(fd), "pidfd")
}

// waitExit returns nil when the process has ended, and an error when pidfd was
// closed.
func waitExit(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return exited(int(fd)) })
}

func exited(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1
}

// signal sends to the very process behind pidfd, whoever has its number now.
// group also reaches what it may have started.
func signal(pidfd *os.File, pid int, sig unix.Signal, group bool) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return desktop.ErrGone
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		if group {
			const processGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
			_, _, e := unix.Syscall6(unix.SYS_PIDFD_SEND_SIGNAL, fd, uintptr(sig), 0, processGroup, 0, 0)
			if e == 0 {
				return
			}
			// The leader of a group that still lives keeps the number from
			// being given away.
			if !exited(int(fd)) {
				_ = unix.Kill(-pid, sig)
			}
		}
		serr = unix.PidfdSendSignal(int(fd), sig, nil, 0)
	})
	switch {
	case err != nil, errors.Is(serr, unix.ESRCH):
		return desktop.ErrGone
	case serr != nil:
		return fmt.Errorf("signal to process %d: %w", pid, serr)
	}
	return nil
}

// stat is what /proc tells of a process.
type stat struct {
	dead      bool          // it has ended
	startTime uint64        // clock ticks after boot
	cpu       time.Duration // user and system time
}

// clockTicks is USER_HZ, which Linux fixes at 100 on all that we run on.
const clockTicks = 100

func readStat(pid int) (stat, error) {
	data, err := readProc(pid, "stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(data)
}

func parseStat(data []byte) (stat, error) {
	// The name, field 2, is in parentheses and may contain anything.
	i := bytes.LastIndexByte(data, ')')
	f := strings.Fields(string(data[i+1:]))
	if i < 0 || len(f) < 20 {
		return stat{}, fmt.Errorf("/proc/PID/stat: %.100q", data)
	}
	var n [3]uint64
	for k, field := range []int{11, 12, 19} { // fields 14, 15, 22
		v, err := strconv.ParseUint(f[field], 10, 63)
		if err != nil {
			return stat{}, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		n[k] = v
	}
	// Divided first: nanoseconds of ticks would overflow after three years of
	// processor time, which a busy desktop has used in some months.
	const tick, most = time.Second / clockTicks, math.MaxInt64 / uint64(time.Second/clockTicks)
	dead := f[0] == "Z" || f[0] == "X" // its parent has not looked yet
	return stat{dead: dead, startTime: n[2], cpu: time.Duration(min(n[0]+n[1], most)) * tick}, nil
}

// readProc reads at most 64 KiB of a file of a process. ErrGone is certain: any
// other trouble, such as too many open files, is another error.
func readProc(pid int, name string) ([]byte, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, name))
	if err != nil {
		return nil, ended(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return data, ended(err)
}

// ended makes ErrGone of the errors that the kernel gives for a process that
// does not exist.
func ended(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return desktop.ErrGone
	}
	return err
}

// isDesktop says whether the process was started for this session: its command
// line has the UUID, and it runs as that user.
func isDesktop(pid int, uuid string, user desktop.User) (bool, error) {
	cmdline, err := readProc(pid, "cmdline")
	if err != nil || !bytes.Contains(cmdline, []byte("\x00-uuid\x00"+uuid+"\x00")) {
		return false, notGone(err)
	}
	status, err := readProc(pid, "status")
	return err == nil && bytes.Contains(status, fmt.Appendf(nil, "\nUid:\t%d\t%d\t", user.UID, user.UID)), notGone(err)
}

func notGone(err error) error {
	if errors.Is(err, desktop.ErrGone) {
		return nil
	}
	return err
}

// find is the pid of the process that was started for a session, 0 for none.
// The UUID is to be seen by everybody once the process runs, so the oldest
// process with it is the real one. With an error nothing is known.
func find(uuid string, user desktop.User) (pid int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	oldest := uint64(0)
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		is, err := isDesktop(n, uuid, user)
		if err != nil {
			return 0, err
		}
		if !is {
			continue
		}
		st, err := readStat(n)
		if notGone(err) != nil {
			return 0, err
		}
		if err == nil && (pid == 0 || st.startTime < oldest) {
			pid, oldest = n, st.startTime
		}
	}
	return pid, nil
}

// Kill ends the process of a desktop by SIGKILL, whoever has started it and
// whoever looks after it. Like Driver.Adopt it takes no other process for it,
// and returns desktop.ErrGone where it is proven that there is none.
func Kill(p desktop.Process, u desktop.User) error {
	return with(p, u, func(r *running) error { return signal(r.pidfd, r.proc.PID, unix.SIGKILL, true) })
}

// Exists is nil if the process of a desktop is there, and desktop.ErrGone where
// it is proven that it is not.
func Exists(p desktop.Process, u desktop.User) error {
	return with(p, u, func(*running) error { return nil })
}

// with calls f with the very process of a desktop. PID 0 is as in Driver.Adopt.
func with(p desktop.Process, u desktop.User, f func(*running) error) error {
	if p.PID == 0 {
		pid, err := find(p.UUID, u)
		if err != nil {
			return err
		}
		p.PID, p.StartTime = pid, 0
	}
	r := &running{spec: desktop.Spec{UUID: p.UUID, User: u}}
	err := r.identify(p)
	if err == nil {
		err = f(r)
	}
	if r.pidfd != nil {
		r.pidfd.Close()
	}
	return err
}

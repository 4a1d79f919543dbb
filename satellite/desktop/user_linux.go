package desktop

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Do calls f with the user's rights on files: what f creates is the user's,
// and f can open only what the user can, also on a file server that gives root
// no rights. Without root it only calls f.
//
// It is not a sandbox: f keeps the process' other rights. f must do its work
// in its own goroutine, for the rights belong to the thread.
func (u User) Do(f func() error) error {
	if os.Geteuid() != 0 {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with this goroutine and takes the
		// changed identity along.
		runtime.LockOSThread()
		if err := u.assume(); err != nil {
			done <- fmt.Errorf("taking the rights of user %s (uid %d): %w", u.Name, u.UID, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// assume changes what the thread may do with files. The calls are made
// directly since the wrappers change all threads.
func (u User) assume() error {
	groups := append([]uint32{u.GID}, u.Groups...)
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	runtime.KeepAlive(groups)
	// The kernel takes the capabilities on files away with the uid 0. These
	// two calls report no errors: asking for an impossible id tells the present one.
	for _, call := range []struct{ nr, id uintptr }{{unix.SYS_SETFSGID, uintptr(u.GID)}, {unix.SYS_SETFSUID, uintptr(u.UID)}} {
		unix.RawSyscall(call.nr, call.id, 0, 0)
		if now, _, _ := unix.RawSyscall(call.nr, ^uintptr(0), 0, 0); uint32(now) != uint32(call.id) {
			return unix.EPERM
		}
	}
	return nil
}

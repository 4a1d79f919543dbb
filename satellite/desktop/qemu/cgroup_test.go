package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// restrictedEnv names the control group for the child of TestRestricted.
const restrictedEnv = "VERDECMD_TEST_GROUP"

// RELIABILITY 1.2: a desktop gets into its control group, also under a unit
// with RestrictNamespaces, where the kernel seems to have no clone3.
func TestRestricted(t *testing.T) {
	if dir := os.Getenv(restrictedEnv); dir != "" {
		restrict(t)
		startIn(t, dir)
		return
	}
	needRoot(t)
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	root := findCgroup2(string(mounts))
	if root == "" {
		t.Skip("needs cgroup2")
	}
	dir := filepath.Join(root, fmt.Sprintf("verdecmd-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs cgroup2: %v", err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	startIn(t, dir)
	child := exec.Command(os.Args[0], "-test.run=^TestRestricted$", "-test.v")
	child.Env = append(os.Environ(), restrictedEnv+"="+dir)
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS: TestRestricted") {
		t.Errorf("without clone3: %v: %s", err, out)
	}
}

// startIn starts a process in a control group.
func startIn(t *testing.T, dir string) {
	t.Helper()
	group, err := os.Open(dir)
	must(t, err)
	defer group.Close()
	proc, pidfd, err := launch{path: "/bin/sleep", args: []string{"600"}, dir: "/", stderr: os.Stderr, cgroup: group}.start()
	must(t, err)
	defer pidfd.Close()
	at, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", proc.Pid))
	must(t, proc.Kill(), err)
	_, err = proc.Wait()
	must(t, err)
	if !strings.Contains(string(at), "0::/"+filepath.Base(dir)+"\n") {
		t.Errorf("got into %s", at)
	}
}

// restrict takes clone3 from this process as systemd does.
func restrict(t *testing.T) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_CLONE3},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		t.Fatalf("seccomp: %v", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_CLONE3, 0, 0, 0); e != unix.ENOSYS {
		t.Fatalf("clone3: got %v", e)
	}
}

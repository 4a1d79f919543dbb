package main

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"verdecmd/packaging/guest/guesttest"
)

func TestMain(m *testing.M) {
	// Under -race each program would wait for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	program := func() { os.Exit(run(os.Args)) }
	testscript.Main(m, map[string]func(){"verdecmd": program, "verdecmon": program, "win4": program, "fakeqemu": fakeQEMU})
}

// TestScript runs the program as users see it: the real binary, real sockets
// and files. Scripts that start with "guest" also run real desktops.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// Sockets have short paths; the script's own directory has not.
			dir, err := os.MkdirTemp("", "v")
			if err != nil {
				return err
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Defer(func() { stopDemo(t, e.Getenv("PATH"), filepath.Join(dir, "d")) })
			e.Setenv("D", dir)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("PORT", freePort(t))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ready":   ready,
			"guest":   func(ts *testscript.TestScript, _ bool, _ []string) { ts.Setenv("GUEST", guesttest.Dir(t)) },
			"signal":  signalPID,
			"gone":    gone,
			"until":   until,
			"capture": capture,
			"fill":    fill,
		},
	})
}

// Ports for tests: below those that the kernel gives to connections by itself, so
// that one is still free when its program is started again.
const firstPort, mostPorts = 10000, 20000

// portsBegin is anywhere among them, for other tests may run beside these;
// portsGiven counts.
var (
	portsBegin = rand.IntN(mostPorts)
	portsGiven atomic.Int64
)

// freePort returns a TCP port that nobody used just now and that no other test
// here gets.
func freePort(t *testing.T) string {
	t.Helper()
	for range mostPorts {
		port := strconv.Itoa(firstPort + (portsBegin+int(portsGiven.Add(1)))%mostPorts)
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// stopDemo ends what a script that failed has left running.
func stopDemo(t *testing.T, path, dir string) {
	if _, err := os.Stat(filepath.Join(dir, "demo.pid")); err != nil {
		return
	}
	cmd := exec.Command("/bin/sh", "-c", "exec verdecmd demo --stop --dir "+dir)
	cmd.Env = append(os.Environ(), "PATH="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("verdecmd demo --stop: %v\n%s", err, out)
	}
}

// ready SOCKET waits until somebody listens on a Unix socket.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready SOCKET")
	}
	poll(ts, "a listener on "+args[0], func() bool {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// signalPID NAME FILE sends a signal to the process whose number is in a file.
func signalPID(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "HUP": syscall.SIGHUP}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal NAME PIDFILE")
	}
	ts.Check(syscall.Kill(pidIn(ts, args[1]), signals[args[0]]))
}

// gone FILE waits until the process whose number is in a file has ended; with !
// it must be alive.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: gone PIDFILE")
	}
	pid := pidIn(ts, args[0])
	ended := func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		return err != nil || strings.Contains(string(b), ") Z ")
	}
	if neg {
		if ended() {
			ts.Fatalf("process %d has ended", pid)
		}
		return
	}
	poll(ts, "the end of process "+strconv.Itoa(pid), ended)
}

// until TEXT COMMAND... repeats a command until its output contains the text.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND...")
	}
	var last string
	defer func() { ts.Logf("[last output]\n%s", last) }()
	poll(ts, strconv.Quote(args[0])+" from "+strings.Join(args[1:], " "), func() bool {
		cmd := exec.Command(args[1], args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"))
		out, _ := cmd.CombinedOutput() // a failure shows in the output
		last = string(out)
		return strings.Contains(last, args[0])
	})
}

// capture FILE KEY writes the value of a key in the last output ("key<tab>value")
// to a file.
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture FILE KEY")
	}
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && k == args[1] {
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(v), 0o600))
			return
		}
	}
	ts.Fatalf("no key %s in the last output", args[1])
}

// fill FILE... replaces $NAME in files by the value of the variable.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	for _, f := range args {
		text := os.Expand(ts.ReadFile(f), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(f), []byte(text), 0o644))
	}
}

func pidIn(ts *testscript.TestScript, file string) int {
	b, err := os.ReadFile(ts.MkAbs(file))
	ts.Check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	ts.Check(err)
	if pid <= 1 {
		ts.Fatalf("%s holds %d", file, pid)
	}
	return pid
}

// poll waits for something that another process does.
func poll(ts *testscript.TestScript, what string, ok func() bool) {
	deadline := time.Now().Add(90 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			ts.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

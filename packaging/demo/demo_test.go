package demo

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const testLimit = 3 * time.Minute

// cluster is a demo of the fake program below a directory of its own.
type cluster struct {
	t *testing.T
	layout
	guest string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "demo")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	guest := filepath.Join(dir, "guest")
	if err := os.Mkdir(guest, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"desktop.conf", "disk.qcow2"} {
		if err := os.WriteFile(filepath.Join(guest, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := &cluster{t: t, layout: layout{filepath.Join(dir, "d")}, guest: guest}
	t.Cleanup(func() {
		c.command("--stop").Run()
		os.RemoveAll(dir)
	})
	return c
}

func (c *cluster) command(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"demo", "--dir", c.dir, "--guest", c.guest}, args...)...)
	// The race detector would hold each process for a second at its end.
	cmd.Env = append(os.Environ(), "VERDECMD_DEMO_FAKE=yes", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// demo runs the command and returns its standard output and error.
func (c *cluster) demo(args ...string) (out, errs string, err error) {
	cmd := c.command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

func (c *cluster) must(args ...string) (out, errs string) {
	c.t.Helper()
	out, errs, err := c.demo(args...)
	if err != nil {
		c.t.Fatalf("demo %v: %v\n%s", args, err, errs)
	}
	return out, errs
}

func (c *cluster) parts() map[string]running {
	var parts map[string]running
	text, _ := os.ReadFile(c.partsFile())
	json.Unmarshal(text, &parts)
	return parts
}

func (c *cluster) desktop(user string) int { return readPID(filepath.Join(c.dir, "desktop-"+user)) }

func (c *cluster) until(what string, done func() bool) {
	c.t.Helper()
	limit := time.NewTimer(testLimit)
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-limit.C:
			c.t.Fatalf("not within %v: %s", testLimit, what)
		case <-look.C:
		}
	}
}

// TestLife goes through the life of a demo: start, restarts of dead parts,
// death of the supervisor, stop with and without desktops (issue 2, point 1).
func TestLife(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out, progress := c.must("--detach")
	if want := c.socket() + "\n"; out != want {
		t.Errorf("--detach: got %q, want %q", out, want)
	}
	for _, want := range []string{"carol logged in on sat2", "3 desktops running after"} {
		if !strings.Contains(progress, want) {
			t.Errorf("progress: got %q, want %q in it", progress, want)
		}
	}
	if root := os.Getuid() == 0; root != strings.Contains(progress, "as its own user: uid of alice 20001, bob 20002, carol 20003") {
		t.Errorf("progress: got %q, want it to say as whom the desktops run", progress)
	}
	supervisor := readPID(c.pidFile())
	status, _ := c.must("--status")
	for _, want := range []string{"master", "satellite-2", strconv.Itoa(supervisor), "alice"} {
		if !strings.Contains(status, want) {
			t.Errorf("--status: got %q, want %q in it", status, want)
		}
	}

	// A second start finds it running.
	if _, progress = c.must("--detach"); !strings.Contains(progress, "it runs already") {
		t.Errorf("start of a running demo: got %q", progress)
	}
	if _, _, err := c.demo("--detach", "--satellites", "3"); err == nil {
		t.Error("another number of satellites while it runs: got no error")
	}

	// Dead parts come back, desktops are not touched.
	before, desktop := c.parts(), c.desktop("alice")
	for _, part := range []string{"master", "satellite-1"} {
		syscall.Kill(before[part].PID, syscall.SIGKILL)
		c.until(part+" is started again", func() bool {
			now := c.parts()[part]
			return now.Starts == before[part].Starts+1 && now.PID != before[part].PID
		})
	}
	if log := tail(c.layout.log("supervisor"), 20); !strings.Contains(log, `"part":"master"`) || !strings.Contains(log, "will be started again") {
		t.Errorf("supervisor's log: got %q, want the restart in it", log)
	}
	if !alive(desktop) {
		t.Error("the restart of a satellite ended a desktop")
	}

	// No part outlives the supervisor, desktops do.
	before = c.parts()
	syscall.Kill(supervisor, syscall.SIGKILL)
	c.until("master and satellites ended", func() bool { return !alive(before["master"].PID) && !alive(before["satellite-2"].PID) })
	if _, _, err := c.demo("--status"); err == nil {
		t.Error("--status without a supervisor: got no error")
	}
	c.must("--detach")
	if got := c.desktop("alice"); got != desktop || !alive(got) {
		t.Errorf("desktop after the supervisor's death and a start: got process %d, want %d", got, desktop)
	}

	// Stop, keeping desktops; the next start has the same ones.
	before = c.parts()
	c.must("--stop", "--desktops=keep")
	if !alive(desktop) || alive(before["master"].PID) || alive(before["satellite-1"].PID) {
		t.Error("--stop --desktops=keep: want desktops alone to live")
	}
	c.must("--detach")
	if got := c.desktop("alice"); got != desktop {
		t.Errorf("desktop after a stop that keeps: got process %d, want %d", got, desktop)
	}

	before = c.parts()
	_, progress = c.must("--stop")
	if !strings.Contains(progress, "alice: shut down") || alive(before["master"].PID) {
		t.Errorf("--stop: progress %q", progress)
	}
	c.until("the desktop that was killed has ended", func() bool { return !alive(desktop) })
	if _, err := os.Stat(c.pki()); err != nil {
		t.Errorf("state after a stop: %v", err)
	}
	if _, progress = c.must("--stop"); !strings.Contains(progress, "no demo runs") {
		t.Errorf("second stop: got %q", progress)
	}

	// More satellites and users; an obstinate guest is aborted.
	c.must("--detach", "--satellites", "3", "--users", "alice,dave")
	if _, progress = c.must("--stop"); !strings.Contains(progress, "dave: aborted") {
		t.Errorf("--stop with a guest that ignores it: got %q", progress)
	}
}

func TestSeveralDemos(t *testing.T) {
	t.Parallel()
	a, b := newCluster(t), newCluster(t)
	a.must("--detach", "--users", "alice")
	b.must("--detach", "--users", "alice")
	pa, _, _ := loadPlan(a.layout)
	pb, _, _ := loadPlan(b.layout)
	if pa.Master == pb.Master {
		t.Errorf("masters of two demos: both at %s", pa.Master)
	}
	a.must("--stop")
	if _, _, err := b.demo("--status"); err != nil {
		t.Errorf("the second demo after the stop of the first: %v", err)
	}
}

// TestInterrupted: Ctrl-C while it starts leaves nothing behind.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cmd := c.command("--detach", "--users", "slow")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.until("the desktop starts", func() bool { return alive(c.desktop("slow")) })
	before, desktop := c.parts(), c.desktop("slow")
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err == nil {
		t.Error("interrupted start: got success")
	}
	if pid, _ := holder(c.pidFile()); pid != 0 || alive(before["master"].PID) {
		t.Errorf("after the interruption: supervisor %d, master %v; want none; %s", pid, alive(before["master"].PID), &errs)
	}
	c.until("the desktop that was killed has ended", func() bool { return !alive(desktop) })
}

// TestLoginRefused: the reason is told and the cluster stays for a look.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	_, errs, err := c.demo("--detach", "--users", "refused")
	if err == nil || !strings.Contains(errs, "login of refused") || !strings.Contains(errs, "runs on") {
		t.Errorf("got %v and %q, want a refusal that says what goes on", err, errs)
	}
}

// TestQuestion: leaving the monitor asks, and "y" stops.
func TestQuestion(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("--detach", "--users", "alice")
	for _, tt := range []struct {
		answer string
		runs   bool
	}{{"", true}, {"no\n", true}, {"y\n", false}} {
		script, err := exec.LookPath("script")
		if err != nil {
			t.Fatal(err)
		}
		inner := c.command("--users", "alice")
		line := "sleep 0; '" + strings.Join(inner.Args, "' '") + "'"
		cmd := exec.Command(script, "-qec", line, "/dev/null")
		cmd.Env = inner.Env
		cmd.Stdin = strings.NewReader(tt.answer)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "interactive monitor") || !strings.Contains(string(out), "Stop the demo") {
			t.Errorf("answer %q: got %v and %q", tt.answer, err, out)
		}
		if pid, _ := holder(c.pidFile()); (pid != 0) != tt.runs {
			t.Errorf("answer %q: runs %v, want %v", tt.answer, pid != 0, tt.runs)
		}
	}
}

package monitor

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// monitorProcess is the monitor as a process of its own: this test binary.
func monitorProcess(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "VERDECMON_TEST_MAIN=1", "VERDECMON_SOCKET="+path, "VERDECMON_HISTORY=", "TERM=xterm")
	return cmd
}

func runMonitor(t *testing.T, path, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := monitorProcess(path, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// PROTOCOL 17, 14: into a pipe, no escape byte and no prompt; each exit code.
func TestOneShot(t *testing.T) {
	f := newFake()
	f.boot = -1
	ts := serve(t, f, func(cfg *Config) { cfg.Progress = 50 * time.Millisecond })
	tests := []struct {
		name           string
		args           []string
		stdin          string
		stdout, stderr string
		status         int
	}{
		{"list", []string{"servers", "link=down"}, "", "#id\tname\taddress\tstate\tlink\tusers\treserved\tcpu\tmemtotal\tmemfree\tage\tversion\tscore\n3\tsat3\t192.0.2.13\tonline\tdown\t0\t0\t-\t-\t-\t-\t-\t-\n", "", 0},
		{"text", []string{"-f", "text", "offlineserver", "2", "reason=East wing"}, "", "Server 2 (sat2.example.com) is offline. 1 session goes on there.\n", "", 0},
		{"quoted by us", []string{"ping", `a "b" c`}, "", "", "", 0},
		{"unchanged", []string{"offlineserver", "2"}, "", "", "", 0},
		{"json", []string{"-f", "json", "complete", "ping"}, "", `{"word":"ping","summary":"answer, to show that the master is alive"}` + "\n", "", 0},
		{"what was made", []string{"createtoken", "ttl=30m"}, "", "created id=1 token=vd1-fake-1-secret expires=2026-11-21T08:45:02Z\n", "", 0},
		{"not found", []string{"server", "9"}, "", "", "verdecmon: 550 not-found kind=server id=9 msg=\"no server has this ID\"\n", 5},
		{"text not found", []string{"-f", "text", "server", "9"}, "", "", "verdecmon: 550 No server has the ID 9. Type \"servers\" to see the known ones.\n", 5},
		{"refused", []string{"fenceserver", "1"}, "", "", "verdecmon: 554 ", 1},
		{"usage", []string{"server"}, "", "", "verdecmon: 501 bad-arguments", 2},
		{"not built", []string{"images"}, "", "", "verdecmon: 502 ", 2},
		{"bad option", []string{"--nonsense"}, "", "", "verdecmon: unknown flag", 2},
		{"bad format", []string{"-f", "xml", "servers"}, "", "", "verdecmon: --format xml", 2},
		{"read only", []string{"-r", "offlineserver", "1"}, "", "", "verdecmon: 530 denied", 4},
		{"timed out there", []string{"shutdownuser", "bob", "timeout=0.1"}, "", "", "verdecmon: 443 timed-out", 6},
		{"timed out here", []string{"-t", "0.2", "shutdownuser", "bob", "timeout=9"}, "", "", "verdecmon: no reply in time", 6},
		{"quiet", []string{"-q", "server", "9"}, "", "", "", 5},
		{"progress", []string{"-f", "text", "shutdownuser", "alice", "timeout=0.2"}, "", "", "verdecmon: 150 Asking the guest of alice", 6},
		{"codes", []string{"--codes", "ping"}, "", "200 ok\n", "", 0},
		{"lines", []string{"-e", "ping", "-e", "server 9", "-e", "servers"}, "", "", "verdecmon: 550 ", 5},
		{"batch", nil, "ping\n# comment\n\nusers state=failed\n", "#user\tuid\tserver\tdesktop\timage\tstate\tstarted\tclient\tsession\n", "", 0},
		{"batch stops", nil, "server 9\nusers\n", "", "verdecmon: 550 ", 5},
		{"batch goes on", []string{"-k"}, "server 9\nserver x\nusers state=failed\n", "#user\t", "verdecmon: 550 ", 5},
		{"batch quits", nil, "quit\nserver 9\n", "", "", 0},
		{"last line without end", nil, "offlineserver 2", "", "", 0},
		{"events", []string{"-t", "3", "events", "on", "since=4711"}, "", "event seq=4712 time=", "", 0},
		{"events and nothing else", []string{"events"}, "", "", "", 0},
		{"help", []string{"--help"}, "", "Administers the cluster", "", 0},
		{"version", []string{"-V"}, "", "verdecmon test (protocol 1)\n", "", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, status := runMonitor(t, ts.path, test.stdin, test.args...)
			if !strings.HasPrefix(stdout, test.stdout) || test.stdout == "" && stdout != "" {
				t.Errorf("stdout:\n got %q\nwant %q", stdout, test.stdout)
			}
			if !strings.HasPrefix(stderr, test.stderr) || test.stderr == "" && stderr != "" {
				t.Errorf("stderr:\n got %q\nwant %q", stderr, test.stderr)
			}
			if status != test.status {
				t.Errorf("exit code: got %d, want %d", status, test.status)
			}
			if strings.Contains(stdout+stderr, "\x1b") || strings.Contains(stdout, "verdecmd>") {
				t.Errorf("escape byte or prompt in %q", stdout+stderr)
			}
		})
	}
}

func TestMonitorWithoutMaster(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "s")
	_, stderr, status := runMonitor(t, missing, "", "servers")
	want := "verdecmon: cannot reach the cluster master at " + missing + ": no such file.\nIs the master running on this computer? See: systemctl status verdecmd\n"
	if status != 3 || stderr != want {
		t.Errorf("no socket: %d %q", status, stderr)
	}
	dead := filepath.Join(dir, "dead")
	l, err := Listen(ListenConfig{Path: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.(*listener).Listener.Close()
	if _, stderr, status := runMonitor(t, dead, "", "servers"); status != 3 || !strings.Contains(stderr, "connection refused") {
		t.Errorf("nobody listens: %d %q", status, stderr)
	}
	if _, _, status := runMonitor(t, filepath.Join(dir, strings.Repeat("x", 120)), "", "servers"); status != 3 {
		t.Errorf("long path: %d", status)
	}
}

// V-05: who may not open the socket is told what is missing.
func TestMonitorWithoutPermission(t *testing.T) {
	dir, err := os.MkdirTemp("", "verdecmd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	path := filepath.Join(dir, "s")
	serveAt(t, newFake(), path, nil)
	bin := filepath.Join(dir, "monitor") // where another user may execute it
	raw, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := monitorProcess(path, "servers")
	cmd.Path = bin
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.CombinedOutput()
	want := "verdecmon: you may not use " + path + " (owner root:root). Try as root, or see VERDECMD_CONN_GID.\n"
	if cmd.ProcessState.ExitCode() != 4 || string(out) != want {
		t.Errorf("got %d %q, want 4 %q", cmd.ProcessState.ExitCode(), out, want)
	}
}

func TestMonitorWaitsForTheMaster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cmd := monitorProcess(path, "-w", "120", "--codes", "ping", "x")
	out := &safeBuffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serveAt(t, newFake(), path, nil)
	if err := cmd.Wait(); err != nil || out.String() != "200 ok pong=x\n" {
		t.Errorf("got %v, %q", err, out.String())
	}
}

// PROTOCOL 14.2: exit 7 where the outcome is not known, 130 after Ctrl-C.
func TestMonitorLosesTheConnection(t *testing.T) {
	f := newFake()
	f.boot = -1
	ts := serve(t, f, nil)
	for _, test := range []struct {
		name string
		end  func(*exec.Cmd)
		want int
	}{
		{"interrupted", func(cmd *exec.Cmd) { cmd.Process.Signal(os.Interrupt) }, 130},
		{"master stops", func(*exec.Cmd) { ts.stop() }, 6},
	} {
		cmd := monitorProcess(ts.path, "shutdownuser", map[string]string{"interrupted": "alice"}[test.name]+map[string]string{"master stops": "bob"}[test.name])
		before := len(ts.running())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(mostWait); len(ts.running()) == before && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		test.end(cmd)
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

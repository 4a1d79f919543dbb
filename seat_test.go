package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lonely is a master without satellites, as a process.
type lonely struct {
	t        *testing.T
	dir      string
	socket   string
	settings string
	cmd      *exec.Cmd
	log      bytes.Buffer
}

func alone(t *testing.T) *lonely {
	t.Helper()
	dir, err := os.MkdirTemp("", "v") // sockets have short paths
	if err != nil {
		t.Fatal(err)
	}
	l := &lonely{t: t, dir: dir, socket: filepath.Join(dir, "sock"), settings: filepath.Join(dir, "settings.global")}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf("VERDECMD_SOCKET=%s\nWIN4_STATE_DIR=%s/state\nWIN4_VERDE_LISTEN=127.0.0.1:%s\n", l.socket, dir, freePort(t))
	if err := os.WriteFile(l.settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("verdecmd", "init", "--settings", l.settings).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	l.start()
	t.Cleanup(l.kill)
	return l
}

func (l *lonely) start() {
	l.t.Helper()
	l.cmd = exec.Command("verdecmd", "master", "--settings", l.settings)
	l.cmd.Stderr = &l.log
	if err := l.cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	patiently(l.t, "the socket", func() bool {
		c, err := net.Dial("unix", l.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill ends the master as a power failure would, and waits for its end.
func (l *lonely) kill() {
	l.cmd.Process.Kill()
	l.cmd.Wait()
}

func patiently(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(mostWait); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// pane is a program in a terminal of tmux.
type pane struct {
	t    *testing.T
	name string // of the server of tmux
}

func tmux(t *testing.T, command string) pane {
	t.Helper()
	p := pane{t, fmt.Sprintf("verdecmd-test-%d-%s", os.Getpid(), t.Name())}
	p.do("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", "env VERDECMON_HISTORY= "+command)
	t.Cleanup(func() { exec.Command("tmux", "-L", p.name, "kill-server").Run() }) // it may have ended
	return p
}

func (p pane) do(args ...string) string {
	p.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-L", p.name}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %q: %v: %s (packaging/setup/setup --need test installs it)", args, err, out)
	}
	return string(out)
}

func (p pane) keys(keys ...string) { p.do(append([]string{"send-keys"}, keys...)...) }

func (p pane) screen() string { return p.do("capture-pane", "-p", "-J", "-S", "-500") }

// until waits until the screen ends with a text, but for blanks.
func (p pane) until(text string) {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			p.t.Logf("the screen is:\n%s", p.screen())
		}
	}()
	patiently(p.t, fmt.Sprintf("%q", text), func() bool { return strings.Contains(p.screen(), text) })
}

func (p pane) prompt(text string) {
	p.t.Helper()
	patiently(p.t, "the prompt "+text, func() bool { return strings.HasSuffix(strings.TrimRight(p.screen(), " \n"), text) })
}

// complete presses Tab until the prompt is completed to this: a master that does
// not answer within a moment completes nothing.
func (p pane) complete(text string) {
	p.t.Helper()
	var pressed time.Time
	patiently(p.t, "the completion "+text, func() bool {
		if strings.HasSuffix(strings.TrimRight(p.screen(), " \n"), text) {
			return true
		}
		if time.Since(pressed) > 5*time.Second {
			pressed = time.Now()
			p.keys("Tab")
		}
		return false
	})
}

// PROTOCOL 17, 11, 12 and 13: the monitor in tmux with the real master,
// which is killed with -9 while a command is in flight and events are on.
func TestMonitorInTmux(t *testing.T) {
	l := alone(t)
	p := tmux(t, "verdecmon -s "+l.socket)
	p.until("Your level is admin.")
	p.prompt("verdecmd>")

	p.keys("offl", "Tab")
	p.prompt("verdecmd> offlineserver")
	p.keys("C-u", "sett", "Tab")
	p.prompt("verdecmd> setting")
	p.keys("Tab", "Tab")
	p.until("settings  list the settings of the master")
	p.keys(" VERDECMD_LOGOFF")
	p.complete("verdecmd> setting VERDECMD_LOGOFF_WAIT")
	p.keys("7", "Enter")
	p.until(`VERDECMD_LOGOFF_WAIT is "7" now. It counts already.`)
	p.prompt("verdecmd>")
	p.keys("日本語x", "BSpace", "C-a", "ping ", "C-e", "Enter")
	p.until("Pong: 日本語")
	p.keys("events on", "Enter")
	p.until("Events are on: *.")
	p.prompt("verdecmd>")

	// A stopped master takes the command and does not answer.
	if err := l.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.keys("loglevel debug", "Enter")
	patiently(t, "the command to be sent", func() bool { return strings.TrimSpace(p.do("display-message", "-p", "#{cursor_x}")) == "0" })
	time.Sleep(time.Second) // it is sent a moment after that
	l.kill()
	p.until("The connection to the master is lost; trying again.")
	p.until(`The connection was lost before the reply. Check with "jobs" whether it was done.`)
	p.prompt("verdecmd(offline)>")
	p.keys("users", "Enter")
	p.until("The master is away; the command was not sent.")
	l.start()
	p.until("The master is back (up ")
	p.until("were lost; list anew.") // 651: the number is from before the start
	p.prompt("verdecmd>")
	p.keys("loglevel", "Enter")
	p.until("The log level is info.")
	p.keys("setting VERDECMD_LOGOFF_WAIT 8", "Enter")
	p.until(`has set VERDECMD_LOGOFF_WAIT to "8".`) // the events go on
	p.until(`VERDECMD_LOGOFF_WAIT is "8" now.`)     // which may come before the reply
	p.prompt("verdecmd>")
	p.keys("C-d")
	patiently(t, "the end of the monitor", func() bool {
		return exec.Command("tmux", "-L", p.name, "has-session").Run() != nil
	})
	l.kill()
	if log := l.log.String(); strings.Contains(log, "loglevel debug") || !strings.Contains(log, `"line":"setting VERDECMD_LOGOFF_WAIT 8"`) {
		t.Errorf("the log of the masters:\n%s", log)
	}
}

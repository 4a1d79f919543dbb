package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// seat is a monitor in a pseudo-terminal, and who sits before it.
type seat struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{}

	mu   sync.Mutex
	cond *sync.Cond
	seen string // what came and was not waited for yet
	all  string
}

func sit(t *testing.T, path string, env []string, args ...string) *seat {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 120})
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &seat{t: t, master: master, cmd: monitorProcess(path, args...), done: make(chan struct{})}
	s.cond = sync.NewCond(&s.mu)
	s.cmd.Env = append(s.cmd.Env, env...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, tty
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	go func() {
		defer close(s.done)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.seen += string(buf[:n])
			s.all += string(buf[:n])
			s.cond.Broadcast()
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		master.Close()
		<-s.done
	})
	return s
}

func (s *seat) typeKeys(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for a text on the screen and forgets what stood before it.
func (s *seat) until(text string) string {
	s.t.Helper()
	before, ok := s.within(mostWait, text)
	if !ok {
		s.t.Fatalf("%q did not come; on the screen:\n%s", text, s.screen())
	}
	return before
}

// tab presses Tab until a text is on the screen: a slow master has not answered
// in time.
func (s *seat) tab(text string) {
	s.t.Helper()
	for end := time.Now().Add(mostWait); time.Now().Before(end); {
		s.typeKeys("\t")
		if _, ok := s.within(500*time.Millisecond, text); ok {
			return
		}
	}
	s.t.Fatalf("%q did not come; on the screen:\n%s", text, s.screen())
}

// within is until for so long.
func (s *seat) within(limit time.Duration, text string) (before string, ok bool) {
	end := time.Now().Add(limit)
	late := time.AfterFunc(limit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cond.Broadcast()
	})
	defer late.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if i := strings.Index(s.seen, text); i >= 0 {
			before := s.seen[:i]
			s.seen = s.seen[i+len(text):]
			return before, true
		}
		if !time.Now().Before(end) {
			return "", false
		}
		s.cond.Wait()
	}
}

// screen is all that has come.
func (s *seat) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}

func (s *seat) exit() int {
	s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

const ready = "verdecmd> "

// PROTOCOL 17, 13; V-67, V-73: a person at a terminal.
func TestConsole(t *testing.T) {
	f := newFake()
	f.boot = -1
	ts := serve(t, f, func(cfg *Config) { cfg.Progress = 100 * time.Millisecond })
	history := filepath.Join(t.TempDir(), "history")
	s := sit(t, ts.path, []string{"VERDECMON_HISTORY=" + history})
	s.until("verdecmd 1.0.0 cluster master on cm.example.com, up 1 day 2 h.")
	s.until("Your level is admin.")
	s.until(ready)

	s.typeKeys("servers\r")
	s.until("3 servers, 2 online.")
	s.until(ready)

	// Tab: one match is inserted, with a blank; a second Tab lists several.
	s.typeKeys("offl\t")
	s.until("offlineserver ")
	s.tab("sat2.example.com")
	s.typeKeys("2\r")
	s.until("Server 2 (sat2.example.com) is offline.")
	s.until(ready)
	s.typeKeys("users st")
	s.tab("users state=")
	s.typeKeys("ru")
	s.tab("users state=running")
	s.typeKeys("\r")
	s.until("3 users.")
	s.until(ready)

	// Abbreviations.
	s.typeKeys("onl 2\r")
	s.until("onlineserver 2\r\n")
	s.until("Server 2 (sat2.example.com) is online.")
	s.typeKeys("serv\r")
	s.until(`"serv" may be servers or server.`)
	s.typeKeys("abortu alice\r")
	s.until("Type abortuser in full.")
	s.until(ready)

	// Questions.
	s.typeKeys("deleteversion win4 3\r")
	s.until("Really deleteversion win4 3? [y/N] ")
	s.typeKeys("n\r")
	s.until(ready)

	// Events come above the prompt while something is being typed.
	s.typeKeys("events on\r")
	s.until("Events are on: *.")
	s.until(ready)
	s.typeKeys("pingg")
	f.emit("session.started", "alice logged in.")
	s.until("alice logged in.")
	s.typeKeys("\x7f\r")
	s.until("Pong.")
	s.typeKeys("events off\r")
	s.until("Events are off.")
	s.until(ready)

	// Ctrl-C at the prompt and in a waiting command.
	s.typeKeys("abortuser alice\x03")
	s.until(ready)
	s.typeKeys("shutdownuser bob timeout=600\r")
	s.until("(job 19).")
	s.until("Waiting for the guest")
	s.typeKeys("\x03")
	s.until(`Still running as job 19; see "job 19".`)
	s.until(ready)
	s.typeKeys("jobs\r")
	s.until("shutdownuser")
	s.until(ready)

	// CJK, and what is not kept in the history.
	s.typeKeys("ping 日本語\r")
	s.until("Pong: 日本語")
	s.typeKeys(" ping hidden\r")
	s.until("Pong: hidden")
	s.typeKeys("ping twice\r")
	s.until("Pong: twice")
	s.typeKeys("ping twice\r")
	s.until("Pong: twice")
	for name, says := range map[string]string{"ma": "Usage: managerpassword.", "managerpaswsord": "Did you mean"} {
		s.typeKeys(name + " planted\r")
		s.until(says)
		s.until(ready)
	}
	s.typeKeys("help\r")
	s.until("Monitor")
	s.until("watch [SECONDS] COMMAND")
	s.until(ready)
	s.typeKeys("watch 0.2 users\r")
	s.until("(any key ends)")
	s.until("(any key ends)")
	s.typeKeys("x")
	s.until(ready)
	s.typeKeys("level viewer\r")
	s.until("verdecmd(viewer)> ")
	s.typeKeys("server 9\r")
	s.until("\x1b[31mNo server has the ID 9.")
	s.until("verdecmd(viewer)> ")
	s.typeKeys("\x04") // Ctrl-D
	if got := s.exit(); got != 0 {
		t.Errorf("exit code %d", got)
	}
	at, err := os.Stat(history)
	if err != nil || at.Mode() != 0o600 {
		t.Fatalf("history: %v, %v", at.Mode(), err)
	}
	raw, _ := os.ReadFile(history)
	if got := string(raw); !strings.Contains(got, "ping 日本語\n") || strings.Contains(got, "hidden") || strings.Contains(got, "planted") || !strings.Contains(got, "ma\n") || strings.Count(got, "ping twice") != 1 {
		t.Errorf("history:\n%s", got)
	}
}

// PROTOCOL 17, 12 and 14.6: the master goes and comes back.
func TestConsoleReconnects(t *testing.T) {
	f := newFake()
	f.boot = -1
	path := filepath.Join(t.TempDir(), "s")
	ts := serveAt(t, f, path, nil)
	s := sit(t, path, nil)
	s.until(ready)
	s.typeKeys("level operator\r")
	s.until("verdecmd(operator)> ")
	s.typeKeys("events on\r")
	s.until("Events are on")
	s.until("verdecmd(operator)> ")
	f.emit("session.started", "first event.")
	s.until("first event.")
	s.typeKeys("shutdownuser bob timeout=600\r")
	s.until("(job 19).")
	ts.stop()
	s.until("The cluster master is stopping")
	s.until("The connection to the master is lost; trying again.")
	s.until("verdecmd(offline)> ")
	s.typeKeys("users\r")
	s.until("The master is away; the command was not sent.")
	f.emit("session.started", "while away.")
	second := serveAt(t, f, path, nil)
	s.until("The master is back (up 1 day 2 h).")
	s.until("verdecmd(operator)> ")
	if !strings.Contains(s.screen(), "while away.") {
		s.until("while away.")
	}
	s.typeKeys("jobs\r")
	s.until("shutdownuser")
	if n := len(f.running()); n != 1 {
		t.Errorf("%d jobs: the command in flight was sent again", n)
	}
	s.typeKeys("fenceserver 3\r")
	s.until("This needs the level admin; yours is operator.")
	s.typeKeys("quit\r")
	s.until("Bye.")
	if got := s.exit(); got != 0 {
		t.Errorf("exit code %d", got)
	}
	second.stop()
}

// The terminal is left as it was when the monitor is killed in a friendly way.
func TestConsoleIsToldToEnd(t *testing.T) {
	ts := serve(t, newFake(), nil)
	s := sit(t, ts.path, nil)
	s.until(ready)
	s.cmd.Process.Signal(syscall.SIGTERM)
	if got := s.exit(); got != 0 {
		t.Errorf("exit code %d", got)
	}
}

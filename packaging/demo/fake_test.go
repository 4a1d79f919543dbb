package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"verdecmd/settings"
)

// The test binary is also the program that the demo executes: a cluster that
// behaves as far as the demo can see, with "sleep" for desktops.
//
// carol's desktops are always on sat2; dave's ignores a shut down; slow's never
// gets further than starting; the rest run where they log in.
func TestMain(m *testing.M) {
	if os.Getenv("VERDECMD_DEMO_FAKE") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	code, err := fake(ctx, os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func fake(ctx context.Context, role string, args []string) (int, error) {
	switch role {
	case "demo":
		c := Command("")
		c.SilenceErrors, c.SilenceUsage = true, true
		c.SetArgs(args)
		return 0, c.ExecuteContext(context.Background())
	case "init":
		v, err := settings.Load(flagValue(args, "--settings"))
		if err != nil {
			return 1, err
		}
		return 0, os.Mkdir(settings.PKI(v), 0o700)
	case "enrol":
		return 0, os.Mkdir(flagValue(args, "--out"), 0o700)
	case "master":
		return 0, fakeMaster(ctx, flagValue(args, "--settings"))
	case "satellite":
		return 0, fakeSatellite(ctx, flagValue(args, "--settings"))
	case "monitor":
		i := 2
		if len(args) > 2 && args[2] == "--format" {
			i = 4
		}
		if len(args) == i {
			fmt.Println("interactive monitor")
			return 0, nil
		}
		return ask(args[1], strings.Join(args[i:], " "))
	case "win4":
		return ask(flagValue(args, "--satellite"), flagValue(args, "--user"))
	}
	return 2, errors.New("unknown role " + role)
}

func flagValue(args []string, name string) string {
	for i, a := range args {
		if a == name {
			return args[i+1]
		}
	}
	return ""
}

// ask sends a line to a fake daemon, which answers with an exit code and text.
func ask(socket, line string) (int, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 3, err
	}
	defer c.Close()
	fmt.Fprintln(c, line)
	r := bufio.NewReader(c)
	code, err := r.ReadString('\n')
	if err != nil {
		return 7, err
	}
	io.Copy(os.Stdout, r)
	return strconv.Atoi(strings.TrimSpace(code))
}

func answer(ctx context.Context, socket string, reply func(words []string) (int, string)) error {
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer c.Close()
			line, _ := bufio.NewReader(c).ReadString('\n')
			code, text := reply(strings.Fields(line))
			fmt.Fprintf(c, "%d\n%s", code, text)
		}()
	}
}

func fakeMaster(ctx context.Context, path string) error {
	v, err := settings.Load(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	return answer(ctx, v.String(settings.Socket), func(words []string) (int, string) {
		switch words[0] {
		case "servers":
			text := "#id\tname\tlink\n"
			for n := 1; n <= 4; n++ {
				link := "down"
				if pid := readPID(filepath.Join(dir, "s", strconv.Itoa(n), "up")); alive(pid) {
					link = "up"
				}
				text += fmt.Sprintf("%d\tsat%d\t%s\n", n, n, link)
			}
			return 0, text
		case "users":
			text := "#user\tuid\tstate\n"
			files, _ := filepath.Glob(filepath.Join(dir, "desktop-*"))
			for _, f := range files {
				user := strings.TrimPrefix(filepath.Base(f), "desktop-")
				if alive(readPID(f)) {
					state := "running"
					if user == "slow" {
						state = "starting"
					}
					text += user + "\t1\t" + state + "\n"
				}
			}
			return 0, text
		case "shutdownuser", "abortuser":
			if words[1] == "dave" && words[0] == "shutdownuser" {
				return 6, "443 timed-out"
			}
			file := filepath.Join(dir, "desktop-"+words[1])
			syscall.Kill(readPID(file), syscall.SIGKILL)
			os.Remove(file)
		}
		return 0, ""
	})
}

func fakeSatellite(ctx context.Context, path string) error {
	v, err := settings.Load(path)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	n := filepath.Base(dir)
	up := filepath.Join(dir, "up")
	if err := os.WriteFile(up, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	return answer(ctx, v.String(settings.SatSocket), func(words []string) (int, string) {
		user := words[0]
		if user == "carol" && n != "2" {
			return referredElsewhere, "Your desktop is on sat2.\nreferred 2 sat2 127.77.0.0\n"
		}
		if user == "refused" {
			return 1, ""
		}
		desktop := exec.Command("sleep", "1000")
		desktop.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := desktop.Start(); err != nil {
			return 1, err.Error()
		}
		go desktop.Wait()
		os.WriteFile(filepath.Join(dir, "../..", "desktop-"+user), []byte(strconv.Itoa(desktop.Process.Pid)), 0o644)
		return 0, ""
	})
}

func readPID(path string) int {
	text, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// alive tells whether a process exists and is no zombie.
func alive(pid int) bool {
	if pid == 0 {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

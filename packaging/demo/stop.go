package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/settings"
)

const (
	shutdownLimit   = 10 * time.Second // of a desktop, before it is aborted
	supervisorLimit = 60 * time.Second
)

// errNoDemo is the answer to --status and --stop where there is nothing.
var errNoDemo = errors.New("no demo runs")

// stop ends desktops, satellites, master and supervisor, in this order. With
// keep the desktops stay, and the next start finds them again.
func (d *demo) stop(ctx context.Context, keep bool) error {
	ctx, end := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer end()
	if _, err := os.Stat(d.lockFile()); err != nil {
		return fmt.Errorf("%w in %s", errNoDemo, d.dir)
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	pid, err := holder(d.pidFile())
	if err != nil {
		return err
	}
	if pid == 0 {
		d.say("%v", d.nothing())
		return nil
	}
	var desktops error
	if keep {
		d.say("the desktops stay; %q finds them again", d.commandLine(""))
		if v, err := settings.Load(d.settings()); err == nil && v.String(settings.LostSessions) == "lease" {
			d.say("%s is lease: they end in about %v if it is not started again before", settings.LostSessions, v.Duration(settings.LeaseSelf))
		}
	} else {
		desktops = d.endDesktops(ctx)
		if ctx.Err() != nil {
			return errors.New("interrupted, the demo runs on")
		}
	}
	if err := d.endSupervisor(ctx, pid); err != nil {
		return errors.Join(desktops, err)
	}
	if desktops != nil {
		return fmt.Errorf("master and satellites are stopped, but not all desktops: %w", desktops)
	}
	d.say("stopped; disks and state stay in %s", d.dir)
	return nil
}

// endDesktops shuts all desktops down, and aborts those that take too long.
func (d *demo) endDesktops(ctx context.Context) error {
	states := map[string]string{}
	err := d.wait(ctx, "the master", 15*time.Second, func() (bool, string, error) {
		s, err := d.states(ctx)
		states = s
		return err == nil, "", ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("the master, who knows them, does not answer: %w", err)
	}
	if len(states) == 0 {
		return nil
	}
	users := slices.Sorted(maps.Keys(states))
	d.say("shutting down %s: %s", count(len(users), "desktop"), strings.Join(users, ", "))
	errs := make([]error, len(users))
	var all sync.WaitGroup
	for i, u := range users {
		all.Go(func() {
			limit := fmt.Sprintf("timeout=%.0f", shutdownLimit.Seconds())
			if _, err := d.monitor(ctx, "shutdownuser", u, limit); err == nil {
				d.say("%s: shut down", u)
				return
			}
			if _, err := d.monitor(ctx, "abortuser", u); err != nil {
				errs[i] = fmt.Errorf("the desktop of %s: %w", u, err)
				return
			}
			d.say("%s: aborted", u)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// endSupervisor asks the supervisor to end, which ends satellites and master
// first.
func (d *demo) endSupervisor(ctx context.Context, pid int) error {
	// A handle of the process, so that a number used again is never meant.
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		if now, _ := holder(d.pidFile()); now != pid {
			return nil // it has just ended
		}
		err = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("supervisor %d: %w", pid, err)
	}
	d.say("stopping satellites and master")
	return d.wait(ctx, fmt.Sprintf("the supervisor (%d) to end", pid), supervisorLimit, func() (bool, string, error) {
		now, err := holder(d.pidFile())
		return now == 0, "", err
	})
}

// nothing says that no demo runs, and which desktops do all the same: those
// that a stop kept, or that outlived a killed supervisor.
func (d *demo) nothing() error {
	err := fmt.Errorf("%w in %s", errNoDemo, d.dir)
	if n := d.leftDesktops(); n > 0 {
		return fmt.Errorf("%w, but %s of the last one run on: %q finds them again, and --stop then ends them", err, count(n, "desktop"), d.commandLine(""))
	}
	return err
}

// leftDesktops counts the desktops' processes, as their session directories
// tell.
func (d *demo) leftDesktops() int {
	n := 0
	files, _ := filepath.Glob(filepath.Join(d.dir, "s", "*", "snap", "*", "pid"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		pid, perr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || perr != nil || pid <= 0 {
			continue
		}
		// The number may have been used again since.
		args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && strings.Contains(string(args), "guest="+filepath.Base(filepath.Dir(f))+"\x00") {
			n++
		}
	}
	return n
}

// status says what runs.
func (d *demo) status(ctx context.Context) error {
	pid, err := holder(d.pidFile())
	if err != nil {
		return err
	}
	if pid == 0 {
		return d.nothing()
	}
	fmt.Fprintf(d.out, "demo in %s\nsocket %s\n\n", d.dir, d.socket())
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "PART\tPID\tSINCE\tSTARTS\nsupervisor\t%d\t\t\n", pid)
	var parts map[string]running
	text, err := os.ReadFile(d.partsFile())
	if err == nil {
		err = json.Unmarshal(text, &parts)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", name, p.PID, p.Since.Format(time.DateTime), p.Starts)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	users, err := d.run(ctx, "monitor", "--socket", d.socket(), "--format", "text", "users")
	if err != nil {
		fmt.Fprintf(d.out, "\nThe master does not answer: %v\n", err)
		return nil
	}
	fmt.Fprintf(d.out, "\n%s", users)
	return nil
}

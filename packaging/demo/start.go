package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	masterLimit  = 60 * time.Second
	linkLimit    = 60 * time.Second
	desktopLimit = 5 * time.Minute
)

// start brings the demo up, or finds it running, and opens the monitor.
func (d *demo) start(ctx context.Context) error {
	if err := d.checkLength(d.opt.satellites); err != nil {
		return err
	}
	if err := d.claim(d.uid); err != nil {
		return err
	}
	if d.note != "" {
		d.say("%s", d.note)
	}
	up, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	started, err := d.up(up)
	interrupted := up.Err() != nil && ctx.Err() == nil
	stop() // from here Ctrl-C ends us as usual
	if err != nil {
		if interrupted && started {
			d.say("interrupted: stopping what was started (Ctrl-C again leaves it)")
			return errors.Join(errors.New("interrupted"), d.stop(ctx, false))
		}
		if interrupted {
			return errors.New("interrupted before anything was started")
		}
		if started {
			return fmt.Errorf("%w\nThe cluster runs on in %s: look around with %q, end it with %q",
				err, d.dir, d.monitorLine(), d.commandLine("--stop"))
		}
		return err
	}
	if d.opt.detach || !d.terminal {
		d.hints()
		fmt.Fprintln(d.out, d.socket())
		return nil
	}
	return d.openMonitor(ctx)
}

// up makes the demo run; started is true from the moment on that a supervisor
// is there because of us.
func (d *demo) up(ctx context.Context) (started bool, err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	old, again, err := loadPlan(d.layout)
	if err != nil {
		return false, err
	}
	if again { // a demo goes on as it was, unless a flag says otherwise
		if !d.changed("satellites") {
			d.opt.satellites = old.Run
		}
		if !d.changed("users") {
			d.opt.users = old.Users
		}
	}
	pid, err := holder(d.pidFile())
	if err != nil {
		return false, err
	}
	if pid != 0 {
		return false, d.alreadyRuns(ctx, old, pid)
	}

	p, err := old.with(d.dir, d.opt.satellites, d.opt.users, free)
	if err != nil {
		return false, err
	}
	d.say("in %s: a master, %s, %s for %s", d.dir, count(p.Run, "satellite"), count(len(p.Users), "desktop"), strings.Join(p.Users, ", "))
	if err := d.prepare(ctx, p); err != nil {
		return false, err
	}
	dead, err := d.startSupervisor()
	if err != nil {
		return false, err
	}
	if err := d.waitMaster(ctx, dead); err != nil {
		return true, err
	}
	if err := d.waitSatellites(ctx, p); err != nil {
		return true, err
	}
	if err := d.logins(ctx, p); err != nil {
		return true, err
	}
	if err := d.waitDesktops(ctx, p); err != nil {
		return true, err
	}
	d.say("%s after %.0f s", count(len(p.Users), "desktop running"), time.Since(d.began).Seconds())
	return true, nil
}

// alreadyRuns accepts a running demo where it is the one that was asked for.
func (d *demo) alreadyRuns(ctx context.Context, p plan, pid int) error {
	if d.changed("satellites") && d.opt.satellites != p.Run || d.changed("users") && !slices.Equal(d.opt.users, p.Users) {
		return fmt.Errorf("it runs already, with %s and the users %s; stop it first: %s",
			count(p.Run, "satellite"), strings.Join(p.Users, ","), d.commandLine("--stop"))
	}
	d.say("it runs already in %s (supervisor %d)", d.dir, pid)
	if err := d.waitMaster(ctx, nil); err != nil {
		return err
	}
	return nil
}

// prepare makes everything below the directory; all of it may be there already.
func (d *demo) prepare(ctx context.Context, p plan) error {
	owners, err := d.accounts(p.Users)
	if err != nil {
		return err
	}
	if d.root {
		var uids []string
		for _, u := range p.Users {
			uids = append(uids, fmt.Sprintf("%s %d", u, owners[u].uid))
		}
		d.say("each desktop runs as its own user: uid of %s", strings.Join(uids, ", "))
	} else {
		d.say("not root, so all desktops run as you (uid %d)", d.uid)
	}
	version, err := d.publish(owners[publisher])
	if err != nil {
		return err
	}
	d.say("the guest is version %d of the image win4 of %s", version, publisher)
	if err := d.configure(p); err != nil {
		return err
	}
	if err := d.credentials(ctx, p); err != nil {
		return err
	}
	return p.save(d.layout)
}

// startSupervisor starts the supervisor in a session of its own, where neither
// Ctrl-C nor a closed terminal reaches it. dead is closed when it ends.
func (d *demo) startSupervisor() (dead <-chan struct{}, err error) {
	out, err := os.OpenFile(d.layout.log("supervisor"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(d.exe, "demo", "--supervise", "--dir", d.dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.say("supervisor %d starts master and satellites", cmd.Process.Pid)
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	return ended, nil
}

// waitMaster waits until the master answers on its socket.
func (d *demo) waitMaster(ctx context.Context, dead <-chan struct{}) error {
	err := d.wait(ctx, "the master", masterLimit, func() (bool, string, error) {
		select {
		case <-dead:
			return false, "", fmt.Errorf("the supervisor ended:\n%s", tail(d.layout.log("supervisor"), 5))
		default:
		}
		if _, err := d.monitor(ctx, "ping"); err != nil {
			return false, "", ctx.Err()
		}
		return true, "the master answers", nil
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w; the end of %s:\n%s", err, d.layout.log("master"), tail(d.layout.log("master"), 5))
	}
	return err
}

// waitSatellites waits until all are connected.
func (d *demo) waitSatellites(ctx context.Context, p plan) error {
	missing := 0 // the first one that is not connected, from 1
	err := d.wait(ctx, "the satellites", linkLimit, func() (bool, string, error) {
		up, err := d.linked(ctx)
		if err != nil {
			return false, "", ctx.Err() // a master that restarts is waited for
		}
		have := 0
		missing = 0
		for i, s := range p.Satellites[:p.Run] {
			if up[s.Name] {
				have++
			} else if missing == 0 {
				missing = i + 1
			}
		}
		return missing == 0, fmt.Sprintf("%d of %s connected", have, count(p.Run, "satellite")), nil
	})
	if err != nil && ctx.Err() == nil && missing != 0 {
		log := d.layout.log(fmt.Sprintf("satellite-%d", missing))
		return fmt.Errorf("%w; the end of %s:\n%s", err, log, tail(log, 5))
	}
	return err
}

// logins logs in everybody who has no desktop; the others' desktops were kept
// and are adopted.
func (d *demo) logins(ctx context.Context, p plan) error {
	have, err := d.states(ctx)
	if err != nil {
		return err
	}
	type result struct {
		user, where string
		err         error
	}
	results := make(chan result)
	pending := 0
	for i, u := range p.Users {
		if s := have[u]; s != "" && s != "failed" {
			d.say("%s has a desktop (%s)", u, s)
			continue
		}
		pending++
		// Each begins at another satellite, as people do.
		go func() {
			where, err := d.login(ctx, p, u, i%p.Run+1)
			results <- result{u, where, err}
		}()
	}
	var errs []error
	began := time.Now()
	tick := time.NewTicker(speakEvery)
	defer tick.Stop()
	for pending > 0 {
		select {
		case <-tick.C:
			d.say("still waiting for %s, %.0f s", count(pending, "desktop to start"), time.Since(began).Seconds())
		case r := <-results:
			pending--
			if r.err != nil {
				errs = append(errs, r.err)
				continue
			}
			d.say("%s logged in on %s", r.user, r.where)
		}
	}
	return errors.Join(errs...)
}

// waitDesktops waits until all users' desktops run.
func (d *demo) waitDesktops(ctx context.Context, p plan) error {
	return d.wait(ctx, "the desktops", desktopLimit, func() (bool, string, error) {
		states, err := d.states(ctx)
		if err != nil {
			return false, "", ctx.Err() // a master that restarts is waited for
		}
		all, words := true, make([]string, 0, len(p.Users))
		for _, u := range p.Users {
			s := states[u]
			if s == "failed" {
				why, _ := d.run(ctx, "monitor", "--socket", d.socket(), "--format", "text", "user", u)
				return false, "", fmt.Errorf("the desktop of %s does not start:\n%s", u, strings.TrimSpace(why))
			}
			all = all && s == "running"
			if s == "" {
				s = "none"
			}
			words = append(words, u+" "+s)
		}
		return all, "desktops: " + strings.Join(words, ", "), nil
	})
}

// openMonitor hands the terminal to the monitor, and asks at its end what is to
// become of the demo.
func (d *demo) openMonitor(ctx context.Context) error {
	d.hints()
	d.say("the monitor; \"help\" lists the commands, Ctrl-D leaves")
	cmd := exec.Command(d.exe, "monitor", "--socket", d.socket())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = d.in, d.out, d.err
	// Ctrl-C in the monitor is the monitor's.
	ints := make(chan os.Signal, 1)
	signal.Notify(ints, syscall.SIGINT)
	err := cmd.Run()
	signal.Stop(ints)
	if err != nil {
		d.say("the monitor ended: %v", err)
	}
	fmt.Fprintf(d.err, "Stop the demo, with its desktops? [y/N] ")
	answer, err := bufio.NewReader(d.in).ReadString('\n')
	if err != nil {
		fmt.Fprintln(d.err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return d.stop(ctx, false)
	}
	d.say("it runs on; come back with %q, end it with %q", d.commandLine(""), d.commandLine("--stop"))
	return nil
}

func (d *demo) hints() {
	d.say("monitor: %s", d.monitorLine())
	d.say("stop:    %s", d.commandLine("--stop"))
	d.say("logs:    %s", d.layout.log("*"))
}

// commandLine is how to call this demo again.
func (d *demo) commandLine(flags string) string {
	return strings.TrimSpace(strings.TrimSpace(d.exe+" demo "+flags) + " --dir " + d.dir)
}

func (d *demo) monitorLine() string { return d.exe + " monitor --socket " + d.socket() }

// count is "1 satellite", "2 satellites"; only the first word takes the plural.
func count(n int, what string) string {
	first, rest, _ := strings.Cut(what, " ")
	if n != 1 {
		first += "s"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", n, first, rest))
}

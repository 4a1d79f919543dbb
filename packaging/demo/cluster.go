package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// run executes our own binary and returns its standard output. The error says
// what standard error did; exitCode finds the code in it.
func (d *demo) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.exe, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// Ctrl-C is for us: we end what we started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err != nil {
		if ctx.Err() != nil {
			return out.String(), ctx.Err()
		}
		text := strings.TrimSpace(errs.String())
		if text == "" {
			text = strings.TrimSpace(out.String())
		}
		if text == "" {
			return out.String(), err
		}
		return out.String(), &commandError{code: exitCode(err), text: text}
	}
	return out.String(), nil
}

// commandError is what a command of ours said when it failed.
type commandError struct {
	code int
	text string
}

func (e *commandError) Error() string { return e.text }

// exitCode is the exit status in an error of run, -1 for another error.
func exitCode(err error) int {
	var c *commandError
	var x *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &c):
		return c.code
	case errors.As(err, &x):
		return x.ExitCode()
	}
	return -1
}

// monitor runs one monitor command and returns its rows as tsv.
func (d *demo) monitor(ctx context.Context, command ...string) (string, error) {
	return d.run(ctx, append([]string{"monitor", "--socket", d.socket(), "--format", "tsv"}, command...)...)
}

// rows reads tsv with its header line: one map from column to value for each
// row. Users' and servers' names need no unescaping.
func rows(tsv string) []map[string]string {
	var header []string
	var all []map[string]string
	for line := range strings.Lines(tsv) {
		fields := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		if header == nil {
			header = fields
			header[0] = strings.TrimPrefix(header[0], "#")
			continue
		}
		row := map[string]string{}
		for i, f := range fields[:min(len(fields), len(header))] {
			row[header[i]] = f
		}
		all = append(all, row)
	}
	return all
}

// states returns the state of the session of each user who has one.
func (d *demo) states(ctx context.Context) (map[string]string, error) {
	out, err := d.monitor(ctx, "users")
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, row := range rows(out) {
		states[row["user"]] = row["state"]
	}
	return states, nil
}

// linked returns the names of the servers whose link is up.
func (d *demo) linked(ctx context.Context) (map[string]bool, error) {
	out, err := d.monitor(ctx, "servers")
	if err != nil {
		return nil, err
	}
	up := map[string]bool{}
	for _, row := range rows(out) {
		if row["link"] == "up" {
			up[row["name"]] = true
		}
	}
	return up, nil
}

// referredElsewhere is the exit code of win4 where another satellite is the
// session point; its last line is then "referred ID NAME ADDRESS".
const referredElsewhere = 3

// login runs win4 as a user on the nth satellite and follows the referral.
// where is the name of the satellite that has the session.
func (d *demo) login(ctx context.Context, p plan, user string, n int) (where string, err error) {
	for range 4 {
		out, err := d.run(ctx, "win4", "--satellite", d.satSocket(n), "--user", user)
		if err == nil {
			return p.Satellites[n-1].Name, nil
		}
		next := 0
		if exitCode(err) == referredElsewhere {
			next = referral(out, p)
		}
		if next == 0 {
			lines := strings.Split(err.Error(), "\n") // all but the last tell of the waiting
			last := strings.TrimPrefix(lines[len(lines)-1], "verdecmd: ")
			return "", fmt.Errorf("login of %s on %s: %s", user, p.Satellites[n-1].Name, last)
		}
		n = next
	}
	return "", fmt.Errorf("login of %s: referred from one satellite to the next without end", user)
}

// referral finds the satellite that win4's last line names, counted from 1; 0
// where there is none of ours.
func referral(out string, p plan) int {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	f := strings.Fields(lines[len(lines)-1])
	if len(f) != 4 || f[0] != "referred" {
		return 0
	}
	for i, s := range p.Satellites[:p.Run] {
		if s.Name == f[2] || s.Address == f[3] {
			return i + 1
		}
	}
	return 0
}

// tail returns the last lines of a log, for an error.
func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

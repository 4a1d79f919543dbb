package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runner goes round the steps.
type runner struct {
	dir, commit string
	end         time.Time
	stop        <-chan os.Signal
	out         io.Writer
	save        func([]row) error // what was done so far

	stopped bool
	done    []row
}

// share is the longest that a step may ask for at once, so that each has its
// turn also in a short run.
const share = 4 * time.Minute

// round carries out one step after another until the end; found: one has failed.
func (r *runner) round(steps []step) (found bool, err error) {
	for i := 0; !r.stopped && time.Now().Before(r.end); i++ {
		s := steps[i%len(steps)]
		began := time.Now()
		counts, ok := r.step(s)
		took := time.Since(began)
		found = found || !ok
		bad := 0
		if !ok {
			bad = 1
		}
		for _, kind := range slices.Sorted(maps.Keys(counts)) {
			r.done = append(r.done, row{date: began.UTC().Format(time.DateOnly), commit: r.commit, kind: kind, count: counts[kind], violations: 0, took: took})
		}
		if bad > 0 || len(counts) == 0 && !r.stopped {
			r.done = append(r.done, row{date: began.UTC().Format(time.DateOnly), commit: r.commit, kind: s.name, violations: bad, took: took})
		}
		fmt.Fprintf(r.out, "soak: %s: %v in %v\n", s.name, counts, took.Round(time.Second))
		if err := r.save(r.rows()); err != nil {
			return found, err
		}
	}
	return found, nil
}

// rows are what was done, one row for each kind. Kinds of one step share its
// time, so the minutes of a row are those in which it was tried.
func (r *runner) rows() []row {
	var out []row
	for _, d := range r.done {
		i := slices.IndexFunc(out, func(o row) bool { return o.kind == d.kind })
		if i < 0 {
			out = append(out, d)
			continue
		}
		out[i].count += d.count
		out[i].violations += d.violations
		out[i].took += d.took
	}
	return out
}

// step carries out one step and returns what it is worth.
func (r *runner) step(s step) (counts map[string]int, ok bool) {
	minutes := max(1, int(min(share, time.Until(r.end))/time.Minute))
	seed := strconv.Itoa(1 + rand.IntN(1_000_000_000))
	expand := strings.NewReplacer("$DIR", r.dir, "$SEED", seed, "$MINUTES", strconv.Itoa(minutes)).Replace
	var args []string
	for _, a := range s.args {
		args = append(args, expand(a))
	}
	counted := filepath.Join(r.dir, "counts")
	_ = os.Remove(counted)
	output, err := os.CreateTemp(r.dir, s.name+"-*.log")
	if err != nil {
		fmt.Fprintln(r.out, "soak:", err)
		return nil, false
	}
	defer output.Close()
	if filepath.IsLocal(args[0]) { // from here, not from s.in
		if args[0], err = filepath.Abs(args[0]); err != nil {
			fmt.Fprintln(r.out, "soak:", err)
			return nil, false
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.in, output, output
	cmd.Env = os.Environ()
	for _, e := range s.env {
		cmd.Env = append(cmd.Env, expand(e))
	}
	// A group of its own: Ctrl-C is for this program alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	fmt.Fprintf(r.out, "soak: %s, seed %s\n", s.name, seed)
	err = cmd.Start()
	if err == nil {
		err = r.wait(cmd, s)
	}
	counts = map[string]int{}
	text, _ := os.ReadFile(counted)
	for kind := range strings.Lines(string(text)) {
		counts[strings.TrimSpace(kind)]++
	}
	switch {
	case err == nil:
		if s.kind != "" {
			counts[s.kind] += s.count
		}
		os.Remove(output.Name())
		return counts, true
	case r.stopped: // cut off: what it would have found is not known
		os.Remove(output.Name())
		return counts, true
	}
	fmt.Fprintf(r.out, "soak: VIOLATION: %s: %v: see %s\n", s.name, err, output.Name())
	return counts, false
}

// wait returns when the program has ended.
func (r *runner) wait(cmd *exec.Cmd, s step) error {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			return err
		case <-r.stop:
		}
		if r.stopped {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			continue
		}
		r.stopped = true
		fmt.Fprintf(r.out, "\nsoak: %s comes to its end; once more Ctrl-C kills it\n", s.name)
		if s.stops {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	}
}

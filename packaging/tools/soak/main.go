// Command soak goes round all the checks that are better the longer they run,
// with another seed each time, until its minutes are over or Ctrl-C, and adds
// what was survived to a file. Run it by "make soak MINUTES=N": many short runs
// are as good as a long one.
//
// What is asked for is in the table of steps, and what the sum of all runs is to
// be. A step that fails is a violation: its output is kept, the rest goes on, and
// the program ends with 1. Ctrl-C ends the step that is under way as soon as
// that leaves nothing behind; a second one kills it. What was counted until then
// is in the file.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	minutes := flag.Int("minutes", 60, "how long")
	file := flag.String("file", "docs/soak.tsv", "what the counts are added to")
	dir := flag.String("dir", "build/soak", "where test programs and the output of failures go")
	only := flag.String("only", "", "names of steps, separated by commas; empty: all")
	flag.Parse()
	ok, err := soak(*minutes, *file, *dir, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// soak is ok when nothing was found.
func soak(minutes int, file, dir, only string) (ok bool, err error) {
	if minutes < 1 {
		return false, fmt.Errorf("-minutes %d: want at least 1", minutes)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	steps, err := choose(only)
	if err != nil {
		return false, err
	}
	for _, b := range builds {
		if err := b.run(dir); err != nil {
			return false, err
		}
	}
	commit, err := exec.Command("git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return false, fmt.Errorf("git: %w", err)
	}
	rows, err := readRows(file)
	if err != nil {
		return false, err
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	r := &runner{dir: dir, commit: strings.TrimSpace(string(commit)), end: time.Now().Add(time.Duration(minutes) * time.Minute), stop: interrupted, out: os.Stdout,
		save: func(done []row) error { return writeRows(file, append(slices.Clip(rows), done...)) }}
	found, err := r.round(steps)
	if err != nil {
		return false, err
	}
	printSums(os.Stdout, append(rows, r.rows()...))
	return !found, nil
}

// choose returns the steps of these names.
func choose(names string) ([]step, error) {
	if names == "" {
		return steps, nil
	}
	var out []step
	for _, n := range strings.Split(names, ",") {
		i := 0
		for i < len(steps) && steps[i].name != n {
			i++
		}
		if i == len(steps) {
			return nil, fmt.Errorf("no step %q", n)
		}
		out = append(out, steps[i])
	}
	return out, nil
}

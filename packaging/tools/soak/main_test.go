package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What runs have counted is added up over runs; what fails is a violation, and
// the rest goes on.
func TestRounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "soak.tsv")
	steps := []step{
		{name: "good", in: ".", args: []string{"/bin/true"}, kind: "histories", count: 2000},
		{name: "itself", in: ".", args: []string{"/bin/sh", "-c", "printf 'freeze\\nfreeze\\npartition\\n' >$DIR/counts"}},
		{name: "bad", in: ".", args: []string{"/bin/sh", "-c", "echo seed $SEED; exit 1"}, kind: "histories", count: 2000},
	}
	for run := range 2 {
		var out bytes.Buffer
		stop := make(chan os.Signal, 1)
		r := &runner{dir: dir, commit: "abc", end: time.Now().Add(time.Hour), stop: stop, out: &out}
		for _, s := range steps { // one round
			one := &runner{dir: dir, commit: "abc", end: time.Now().Add(time.Hour), stop: stop, out: &out}
			counts, ok := one.step(s)
			if ok == (s.name == "bad") {
				t.Errorf("%s: ok is %v: %s", s.name, ok, &out)
			}
			for kind, n := range counts {
				r.done = append(r.done, row{date: "2026-01-02", commit: "abc", kind: kind, count: n, took: time.Minute})
			}
		}
		if !strings.Contains(out.String(), "VIOLATION: bad") {
			t.Errorf("run %d: got %s, want the violation", run, &out)
		}
		before, err := readRows(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeRows(file, append(before, r.rows()...)); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := readRows(file)
	if err != nil || len(rows) != 6 {
		t.Fatalf("%d rows: %v", len(rows), err)
	}
	var sums bytes.Buffer
	printSums(&sums, rows)
	for _, want := range []string{"histories                  4000     100000          0       2.0", "freeze                        4        300", "partition                     2        200", "kill-master                   0       1000"} {
		if !strings.Contains(sums.String(), want) {
			t.Errorf("got %s, want %q in it", &sums, want)
		}
	}
	if logs, _ := filepath.Glob(filepath.Join(dir, "*.log")); len(logs) != 2 {
		t.Errorf("kept output: %v, want that of two failures", logs)
	}
}

// Ctrl-C: the step ends in order, what it has counted stays, nothing new begins.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stop := make(chan os.Signal, 1)
	var out bytes.Buffer
	r := &runner{dir: dir, commit: "abc", end: time.Now().Add(time.Hour), stop: stop, out: &out}
	saved := 0
	r.save = func(rows []row) error { saved = len(rows); return nil }
	go func() {
		for { // until it has counted
			if text, _ := os.ReadFile(filepath.Join(dir, "counts")); len(text) > 0 {
				stop <- syscall.SIGINT
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	found, err := r.round([]step{
		{name: "long", in: ".", stops: true, args: []string{"/bin/sh", "-c", "trap 'echo freeze >>$DIR/counts; exit 3' INT; echo freeze >$DIR/counts; while :; do sleep 0.05; done"}},
		{name: "next", in: ".", args: []string{"/bin/true"}, kind: "histories", count: 1},
	})
	rows := r.rows()
	if err != nil || found || saved != 1 || len(rows) != 1 || rows[0].kind != "freeze" || rows[0].count != 2 {
		t.Errorf("found %v, %v, saved %d, rows %v, want two freezes alone: %s", found, err, saved, rows, &out)
	}
}

// A file that is none of ours is not added to.
func TestForeignFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"x\n", header + "2026-01-02\tabc\tfreeze\n", header + "2026-01-02\tabc\tfreeze\tmany\t0\t1.0\n"} {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if rows, err := readRows(file); err == nil {
			t.Errorf("%q: got %v, want an error", text, rows)
		}
	}
	if rows, err := readRows(filepath.Join(t.TempDir(), "none")); err != nil || rows != nil {
		t.Errorf("no file: got %v, %v", rows, err)
	}
	if _, err := choose("chaos,histories"); err != nil {
		t.Error(err)
	}
	if _, err := choose("chaos,nothing"); err == nil {
		t.Error("a step that is none was chosen")
	}
}

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// row is a line of the file: what one run has survived of one kind.
type row struct {
	date, commit, kind string
	count, violations  int
	took               time.Duration // in whole tenths of minutes in the file
}

const header = "date\tcommit\tkind\tcount\tviolations\tminutes\n"

func (r row) String() string {
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%.1f\n", r.date, r.commit, r.kind, r.count, r.violations, r.took.Minutes())
}

// readRows reads the file; one that is not there has no rows.
func readRows(file string) ([]row, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(string(text), header)
	if !ok {
		return nil, fmt.Errorf("%s does not begin with %q", file, header)
	}
	var rows []row
	for line := range strings.Lines(rest) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("%s: %q has not six fields", file, line)
		}
		r := row{date: f[0], commit: f[1], kind: f[2]}
		var errs [3]error
		var minutes float64
		r.count, errs[0] = strconv.Atoi(f[3])
		r.violations, errs[1] = strconv.Atoi(f[4])
		minutes, errs[2] = strconv.ParseFloat(f[5], 64)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		r.took = time.Duration(minutes * float64(time.Minute))
		rows = append(rows, r)
	}
	return rows, nil
}

// writeRows replaces the file as a whole.
func writeRows(file string, rows []row) error {
	text := header
	for _, r := range rows {
		text += r.String()
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// printSums prints what all runs together have survived, beside what is wanted.
func printSums(w io.Writer, rows []row) {
	fmt.Fprintf(w, "\n%-20s %10s %10s %10s %9s\n", "all runs", "survived", "wanted", "violations", "minutes")
	known := map[string]bool{}
	line := func(kind, want, what string) {
		known[kind] = true
		var sum row
		for _, r := range rows {
			if r.kind == kind {
				sum.count, sum.violations, sum.took = sum.count+r.count, sum.violations+r.violations, sum.took+r.took
			}
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-20s %10d %10s %10d %9.1f  %s", kind, sum.count, want, sum.violations, sum.took.Minutes(), what), " "))
	}
	for _, k := range wanted {
		want := "-"
		if k.count > 0 {
			want = strconv.Itoa(k.count)
		}
		line(k.kind, want, k.what)
	}
	for _, r := range rows { // a step that failed, or a kind that is no more
		if !known[r.kind] {
			line(r.kind, "-", "")
		}
	}
}

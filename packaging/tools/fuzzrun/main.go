// Command fuzzrun runs the fuzz targets of the module one after the other, each
// for some time, and stops at the first that fails with the command that plays
// the failure again. Run it by "make fuzz"; "make test" has it pick some.
//
// The targets are found in the source, so nothing is compiled that does not run.
// What go test finds worth keeping stays in its cache; what fails is written
// into testdata/fuzz beside the target, where every later test plays it.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"time"
)

func main() {
	each := flag.Duration("time", 10*time.Second, "how long each target runs")
	only := flag.String("run", "", "run the targets alone whose package and name, as in ./monitor FuzzLine, match this `expression`")
	some := flag.Int("pick", 0, "run only so many targets, chosen by -by; 0: all")
	by := flag.String("by", "", "what -pick chooses by: the `hash` of a commit")
	parallel := flag.Int("parallel", 2, "processes that try inputs at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	match, err := regexp.Compile(*only)
	var all []target
	if err == nil {
		all, err = find(".", match)
	}
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no fuzz target matches %q", *only)
	}
	if err == nil {
		if *some > 0 {
			all = pick(all, *some, *by)
		}
		err = run(ctx, all, *each, *parallel, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzrun:", err)
		os.Exit(1)
	}
}

// target is one fuzz target: its package as go test wants it, and its name.
type target struct{ dir, name string }

func (t target) String() string { return t.dir + " " + t.name }

var declared = regexp.MustCompile(`(?m)^func (Fuzz[A-Z]\w*)\(\w+ \*testing\.F\)`)

// find returns the targets below dir that match, sorted. Other modules, hidden
// directories, testdata and what make leaves behind are left out.
func find(dir string, match *regexp.Regexp) ([]target, error) {
	var all []target
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if path != dir && (err == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "build") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		below, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			t := target{"./" + filepath.ToSlash(below), m[1]}
			if match.MatchString(t.String()) {
				all = append(all, t)
			}
		}
		return nil
	})
	sort.Slice(all, func(a, b int) bool { return all[a].String() < all[b].String() })
	return all, err
}

// pick chooses n targets by a hash: others for another hash, the same for the
// same one.
func pick(all []target, n int, hash string) []target {
	h := uint64(14695981039346656037)
	for _, b := range []byte(hash) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	rest := append([]target(nil), all...)
	var out []target
	for ; n > 0 && len(rest) > 0; n-- {
		i := int(h % uint64(len(rest)))
		out = append(out, rest[i])
		rest = append(rest[:i], rest[i+1:]...)
		h = h*6364136223846793005 + 1442695040888963407
	}
	return out
}

// run fuzzes one target after the other until all have had their time, one
// fails, or ctx ends.
func run(ctx context.Context, all []target, each time.Duration, parallel int, out io.Writer) error {
	for i, t := range all {
		fmt.Fprintf(out, "fuzz %d/%d %v for %v: ", i+1, len(all), t, each)
		began := time.Now()
		text, err := fuzz(ctx, t, each, parallel)
		if ctx.Err() != nil {
			fmt.Fprintln(out, "interrupted")
			return fmt.Errorf("interrupted; %d of %d targets have had their time", i, len(all))
		}
		if err != nil {
			fmt.Fprintln(out, "FAILED")
			return fmt.Errorf("%v: %w\n%s\n%s", t, err, strings.TrimSpace(text), again(t, text))
		}
		runs, found := counts(text)
		fmt.Fprintf(out, "%s inputs tried, %s found worth keeping, %.0f s\n", runs, found, time.Since(began).Seconds())
	}
	fmt.Fprintf(out, "fuzz: %d targets, nothing failed\n", len(all))
	return nil
}

// fuzz runs one target and returns what go test has said. Inputs are made small
// with a hundred tries only: by default go test may spend all the time on one.
func fuzz(ctx context.Context, t target, each time.Duration, parallel int) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "-fuzzminimizetime", "100x",
		"-parallel", fmt.Sprint(parallel), t.dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets go test end its workers
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && overrun(string(out)) {
		err = nil
	}
	return string(out), err
}

var late = regexp.MustCompile(`(?m)^--- FAIL: Fuzz\w+ \([^)]*\)\n\s+context deadline exceeded$`)

// overrun tells whether all that failed is the end of go test's own time, which it
// takes for a failure now and then (golang/go issue 75804): no input was found.
func overrun(text string) bool {
	return late.MatchString(text) && tried.MatchString(text) && strings.Count(text, "--- FAIL") == 1 && !entry.MatchString(text)
}

var (
	tried = regexp.MustCompile(`execs: (\d+)`)
	kept  = regexp.MustCompile(`new interesting: (\d+)`)
	entry = regexp.MustCompile(`testdata/fuzz/(\w+)/(\w+)`)
)

// counts reads how much was tried and found from go test's last words about it.
func counts(text string) (runs, found string) {
	runs, found = "0", "0"
	for in := bufio.NewScanner(strings.NewReader(text)); in.Scan(); {
		if m := tried.FindStringSubmatch(in.Text()); m != nil {
			runs = m[1]
		}
		if m := kept.FindStringSubmatch(in.Text()); m != nil {
			found = m[1]
		}
	}
	return runs, found
}

// again is how the failure is played again.
func again(t target, text string) string {
	if m := entry.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("play it again with:\n\tgo test %s -run '^%s$/^%s$'", t.dir, m[1], m[2])
	}
	return fmt.Sprintf("a seed of the target fails, or it does not compile; play it again with:\n\tgo test %s -run '^%s$'", t.dir, t.name)
}

// Command testrun runs "go test" with its arguments and says at the end what a
// reader wants to know: which tests were skipped and why, and how many passed.
// Run it by "make test".
//
// A test that cannot run says what is missing by t.Skip("needs kvm") and the
// like. With CI=true in the environment only what a build machine cannot have
// may be missing; any other skip is a failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sort"
	"strings"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
	s := summary{out: os.Stdout, strict: os.Getenv("CI") == "true"}
	s.read(out)
	ok := s.end()
	if err := cmd.Wait(); err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// summary prints what matters of the events as they come, and counts.
type summary struct {
	out    io.Writer
	strict bool // a skip that is not excused is a failure

	passed, failed int
	skips          []string
	unexcused      int
	text           map[string]map[string][]string // package, test: its output so far
	broken         map[string]bool                // packages with a failed test
}

// excused are the needs that a build machine may lack.
var excused = regexp.MustCompile(`needs (kvm|cgroup2|nfs|systemd)\b`)

func (s *summary) read(r io.Reader) {
	s.text, s.broken = map[string]map[string][]string{}, map[string]bool{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				s.event(e)
			} else {
				s.out.Write(line)
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *summary) event(e event) {
	switch {
	case e.Action == "build-output":
		fmt.Fprint(s.out, e.Output)
	case e.Action == "output" && e.Test == "":
		if e.Output != "PASS\n" && !strings.Contains(e.Output, "[no test files]") {
			fmt.Fprint(s.out, e.Output)
		}
	case e.Action == "output":
		if s.text[e.Package] == nil {
			s.text[e.Package] = map[string][]string{}
		}
		s.text[e.Package][e.Test] = append(s.text[e.Package][e.Test], e.Output)
	case e.Action == "pass" && e.Test != "":
		s.passed++
		delete(s.text[e.Package], e.Test)
	case e.Action == "fail" && e.Test != "":
		s.failed++
		s.broken[e.Package] = true
		s.flush(e.Package, e.Test)
	case e.Action == "skip" && e.Test != "":
		why := reason(s.text[e.Package][e.Test])
		if !excused.MatchString(why) {
			s.unexcused++
		}
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", e.Package, e.Test, why))
		delete(s.text[e.Package], e.Test)
	case e.Action == "fail":
		// A package that did not compile, or whose test binary died, counts
		// as one failure; the latter leaves tests without an end.
		if !s.broken[e.Package] {
			s.failed++
		}
		var left []string
		for test := range s.text[e.Package] {
			left = append(left, test)
		}
		sort.Strings(left)
		for _, test := range left {
			s.flush(e.Package, test)
		}
	}
}

func (s *summary) flush(pkg, test string) {
	for _, line := range s.text[pkg][test] {
		fmt.Fprint(s.out, line)
	}
	delete(s.text[pkg], test)
}

// reason finds what a test said when it skipped: its last line that is not
// go test's own.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		l := strings.TrimSpace(lines[i])
		if l != "" && !strings.HasPrefix(l, "---") && !strings.HasPrefix(l, "===") {
			return l
		}
	}
	return "no reason given"
}

// end prints the skips and the numbers; it returns false where something was
// skipped that must not be.
func (s *summary) end() bool {
	sort.Strings(s.skips)
	if len(s.skips) > 0 {
		fmt.Fprintln(s.out, "skipped:")
		for _, skip := range s.skips {
			fmt.Fprintln(s.out, "  "+skip)
		}
	}
	ok := true
	if s.strict && s.unexcused > 0 {
		ok = false
		fmt.Fprintf(s.out, "%d skipped for a need that this machine must meet (all but kvm, cgroup2, nfs, systemd)\n", s.unexcused)
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, len(s.skips))
	return ok
}

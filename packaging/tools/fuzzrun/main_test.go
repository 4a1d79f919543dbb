package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	const two = "package x\n\nfunc FuzzB(f *testing.F) {\n}\nfunc FuzzA(fuzz *testing.F) {}\n// func FuzzNot(f *testing.F)\nfunc Fuzzy() {}\n"
	for _, name := range []string{"x_test.go", "b/x_test.go", "b/x.go", "tool/x_test.go", "b/testdata/x_test.go", ".git/x_test.go", "build/x_test.go"} {
		write(t, dir, name, two)
	}
	write(t, dir, "go.mod", "module x\n")
	write(t, dir, "tool/go.mod", "module y\n")
	for match, want := range map[string]string{
		"":      "[./. FuzzA ./. FuzzB ./b FuzzA ./b FuzzB]",
		"b Fuz": "[./b FuzzA ./b FuzzB]",
		"A$":    "[./. FuzzA ./b FuzzA]",
		"none":  "[]",
	} {
		got, err := find(dir, regexp.MustCompile(match))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: got %v, %v, want %s", match, got, err, want)
		}
	}
}

// Each target is picked by some hash, none twice by one, and always the same by
// the same one.
func TestPick(t *testing.T) {
	var all []target
	for i := range 30 {
		all = append(all, target{"./x", fmt.Sprint(i)})
	}
	seen := map[target]bool{}
	for i := range 400 {
		hash := fmt.Sprintf("%x", i*7919)
		got := pick(all, 2, hash)
		if len(got) != 2 || got[0] == got[1] || fmt.Sprint(pick(all, 2, hash)) != fmt.Sprint(got) {
			t.Fatalf("%s: got %v", hash, got)
		}
		seen[got[0]], seen[got[1]] = true, true
	}
	if len(seen) != len(all) {
		t.Errorf("%d of %d are ever picked", len(seen), len(all))
	}
	if got := pick(all[:1], 2, "x"); len(got) != 1 {
		t.Errorf("of one: got %v", got)
	}
}

// A target that fails ends the run, with the command that plays it again; one
// that does not has its numbers shown.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module x\n\ngo 1.24\n")
	write(t, dir, "x_test.go", `package x

import "testing"

func FuzzGood(f *testing.F) { f.Fuzz(func(t *testing.T, s string) {}) }

func FuzzBad(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2 {
			t.Error("long")
		}
	})
}

func FuzzSeed(f *testing.F) {
	f.Add("x")
	f.Fuzz(func(t *testing.T, s string) { t.Error("always") })
}
`)
	t.Chdir(dir)
	run := func(ctx context.Context, names ...string) (string, error) {
		var all []target
		for _, n := range names {
			all = append(all, target{"./.", n})
		}
		var out bytes.Buffer
		err := run(ctx, all, 10*time.Second, 1, &out)
		return out.String(), err
	}
	out, err := run(t.Context(), "FuzzGood")
	if err != nil || !regexp.MustCompile(`fuzz 1/1 \./\. FuzzGood for 10s: [1-9]\d* inputs tried, \d+ found`).MatchString(out) {
		t.Errorf("good: got %q, %v", out, err)
	}
	out, err = run(t.Context(), "FuzzBad", "FuzzGood")
	if err == nil || !strings.Contains(err.Error(), "go test ./. -run '^FuzzBad$/^") || strings.Contains(out, "FuzzGood") {
		t.Errorf("bad: got %q, %v", out, err)
	}
	if _, err = run(t.Context(), "FuzzSeed"); err == nil || !strings.Contains(err.Error(), "-run '^FuzzSeed") {
		t.Errorf("seed: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = run(ctx, "FuzzGood"); err == nil || !strings.Contains(err.Error(), "0 of 1 targets") {
		t.Errorf("interrupted: got %v", err)
	}
}

// A failure of go test's own, for which there is no input, is told from one of a
// target.
func TestOverrun(t *testing.T) {
	const ran = "fuzz: elapsed: 3s, execs: 40304 (13431/sec), new interesting: 104 (total: 108)\n"
	for text, want := range map[string]bool{
		ran + "--- FAIL: FuzzA (3.20s)\n    context deadline exceeded\nFAIL\nexit status 1\nFAIL\tx\t3.202s\n": true,
		ran + "PASS\nok  \tx\t3.202s\n":                                  false,
		"--- FAIL: FuzzA (3.20s)\n    context deadline exceeded\nFAIL\n": false,
		ran + "--- FAIL: FuzzA (3.20s)\n    --- FAIL: FuzzA (0.00s)\n        x_test.go:9: context deadline exceeded\nFAIL\n":                      false,
		ran + "--- FAIL: FuzzA (3.20s)\n    context deadline exceeded: of ours\nFAIL\n":                                                           false,
		ran + "--- FAIL: FuzzA (3.20s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzA/771e938e4458e983\nFAIL\n": false,
		ran + "--- FAIL: FuzzA (3.20s)\n    fuzzing process hung or terminated unexpectedly: exit status 2\nFAIL\n":                               false,
	} {
		if got := overrun(text); got != want {
			t.Errorf("got %v, want %v for\n%s", got, want, text)
		}
	}
}

//go:build mutants

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"verdecmd/proto/planted"
)

// mutantHistories is how many histories of the simulator may pass before a
// planted bug must have been found.
const mutantHistories = 2000

// violation is how the simulator names what it has found.
var violation = regexp.MustCompile(`(?m)^seed (\d+): (\S+) at ([^:]*): (.*)$`)

// TestMutants plants each bug of proto/planted and lets the checkers that are to
// find it look for it alone: the histories of the simulator, real programs under
// faults, images of crashed disks. Without a bug they must find nothing. Run it
// by "make mutants"; -update writes the table into docs/mutants.md.
func TestMutants(t *testing.T) {
	program := filepath.Join(t.TempDir(), "verdecmd")
	build := exec.Command("go", "build", "-tags", "mutants", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var table strings.Builder
	table.WriteString("| planted bug | what it does | found by | in | took |\n| --- | --- | --- | --- | --- |\n")
	if text, found := mutant(t, program, planted.Described{By: planted.Simulator}); found {
		t.Fatalf("without a bug the simulator finds one: %s", text)
	}
	for _, b := range planted.Bugs() {
		began := time.Now()
		text, found := mutant(t, program, b)
		if !found {
			t.Errorf("%s was not found", b.Name)
			text = "**not found** | "
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %.0f s |\n", b.Name, b.What, text, time.Since(began).Seconds())
		t.Logf("%-24s %s", b.Name, text)
	}
	fmt.Print(table.String())
	if *update {
		text := "# Bugs that were planted, and what found them\n\nWritten by `make mutants`; [reliability.md](reliability.md) says what this is for. The unit tests had no part in it.\n\n" + table.String()
		if err := os.WriteFile("docs/mutants.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// mutant lets the checkers of a bug look for it. text is two cells of the
// table: who found it, and after how much.
func mutant(t *testing.T, program string, b planted.Described) (text string, found bool) {
	t.Helper()
	args := map[string][]string{
		planted.Simulator: {program, "simulate", "--check", "--histories", strconv.Itoa(mutantHistories), "--seed", "1", "--shrink=false"},
		planted.Chaos:     {"go", "test", "-tags", "mutants", "-count=1", "-run", "^TestChaos$", ".", "-chaos.only", "stranger,satellitekills"},
		planted.Images:    {"go", "test", "-tags", "mutants", "-count=1", "-run", "^Test(CrashImages|Damage)$", "./master/store"},
	}[b.By]
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "VERDECMD_MUTANT="+string(b.Name))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("%s: %v: %s", b.Name, err, out)
	}
	if b.By == planted.Simulator {
		m := violation.FindSubmatch(out)
		if m == nil {
			if err != nil {
				t.Fatalf("%s: the run failed without a violation: %s", b.Name, out)
			}
			return "", false
		}
		seed, _ := strconv.Atoi(string(m[1]))
		return fmt.Sprintf("simulator, %s | history %d", m[2], seed), true
	}
	if err == nil {
		return "", false
	}
	failed := regexp.MustCompile(`--- FAIL: (\S+)`).FindSubmatch(out)
	if failed == nil {
		t.Fatalf("%s: %s", b.Name, out)
	}
	return fmt.Sprintf("%s, `%s` | ", b.By, failed[1]), true
}

package store

import (
	"bufio"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func child(t *testing.T, what, arg string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], arg)
	c.Env = append(os.Environ(), childEnv+"="+what)
	c.Stderr = os.Stderr
	return c
}

// killed starts a child, kills it after some of its output, and returns the
// whole lines that it wrote.
func killed(t *testing.T, c *exec.Cmd, after time.Duration) []string {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	var lines []string
	var once bool
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			break // a last half line was not acknowledged
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
		if !once {
			once = true
			timer := time.AfterFunc(after, func() { c.Process.Kill() })
			defer timer.Stop()
		}
	}
	c.Wait()
	return lines
}

// S5: what was acknowledged survives kill -9, what was not is there wholly or
// not at all, and nothing is there without what was acknowledged before it.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "verdecmd.db")
	acked := map[string]bool{}
	for cycle := range 15 {
		before := len(acked)
		for _, line := range killed(t, child(t, "write", path), time.Duration(5+rand.IntN(60))*time.Millisecond) {
			if strings.HasPrefix(line, "error") {
				t.Fatalf("cycle %d: %s", cycle, line)
			}
			acked[line] = true
		}
		if len(acked) == before {
			t.Fatalf("cycle %d: nothing was acknowledged, the test proves nothing", cycle)
		}
		b := openTest(t, path)
		left, right := map[string]bool{}, map[string]bool{}
		err := b.View(t.Context(), func(s Snapshot) error {
			for id, v := range s.All("left") {
				left[id] = string(v) == id
			}
			for id, v := range s.All("right") {
				right[id] = string(v) == id
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for id := range acked {
			if !left[id] || !right[id] {
				t.Fatalf("cycle %d: %s was acknowledged and is lost", cycle, id)
			}
		}
		if len(left) != len(right) {
			t.Fatalf("cycle %d: half of a commit: %d left, %d right", cycle, len(left), len(right))
		}
		if extra := len(left) - len(acked); extra < 0 || extra > (cycle+1)*writers {
			t.Fatalf("cycle %d: %d records were not acknowledged, at most one for each writer and kill is possible", cycle, extra)
		}
		if got, want := b.Epoch(), Epoch(2*(cycle+1)); got != want {
			t.Fatalf("cycle %d: epoch %d, want %d: one for each start", cycle, got, want)
		}
		b.Close()
	}
	t.Logf("%d acknowledged commits, 15 kills", len(acked))
}

// A crash while the file is made leaves no file or a good one.
func TestKillWhileCreating(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files []string
	within := 30 * time.Millisecond
	for n := 0; n < 10 || len(files) == 0 && n < 20; n++ {
		lines := killed(t, child(t, "create", dir), rand.N(within))
		if got := strings.Join(lines, " "); got != "started" {
			t.Fatalf("child says %q", got)
		}
		if files, _ = filepath.Glob(filepath.Join(dir, "*.db")); len(files) == 0 {
			within += within / 2 // a slow disk
		}
	}
	if len(files) == 0 {
		t.Fatal("no database was made, the test proves nothing")
	}
	for _, f := range files {
		if err := Verify(f); err != nil {
			t.Error(err)
		}
	}
	// What a crash leaves is cleared away by the next start.
	path := filepath.Join(dir, "a[1]*.db")
	if err := os.WriteFile(path+newSuffix+"123", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	openTest(t, path)
	if left, _ := filepath.Glob(escape(path) + newSuffix + "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// S20: a full disk refuses writes by name, harms no reading, and is over
// without a restart.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	out, err := child(t, "full", filepath.Join(t.TempDir(), "verdecmd.db")).Output()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

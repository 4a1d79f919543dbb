package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// V-01, V-70, F-08, F-11: the README's steps for real servers, word by word, on two hosts
// that are namespaces; and the monitor at the original's path.
func TestQuickStart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the hosts are namespaces") // CI is root
	}
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, heading := range map[string]string{"master": "On the master,", "satellite": "The token lets one machine in,", "desktop": "A first desktop,"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(steps(t, string(readme), heading)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	// With its first process the namespace ends, and all that runs in it.
	cmd := exec.CommandContext(ctx, "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "testdata/quickstart/run", repo, dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{" is registered: server 1 of cluster ", "This host is ready.", "Your desktop runs here: session s1, image win4/1.", "alice\t20001\t1\twin4\twin4/1\trunning"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("got\n%s\nwant in it %q", out, want)
		}
	}
}

// steps is the indented block that follows a paragraph of the README.
func steps(t *testing.T, readme, paragraph string) string {
	t.Helper()
	_, rest, ok := strings.Cut(readme, "\n"+paragraph)
	if !ok {
		t.Fatalf("the README has no paragraph that begins with %q", paragraph)
	}
	var b strings.Builder
	for line := range strings.Lines(rest) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			b.WriteString(code)
		} else if b.Len() > 0 {
			break
		}
	}
	return b.String()
}

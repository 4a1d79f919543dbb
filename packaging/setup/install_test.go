package setup

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// files lists a tree: paths with their modes, and where links lead.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, dir) + " " + info.Mode().String()
		if to, err := os.Readlink(path); err == nil {
			line = strings.TrimPrefix(path, dir) + " -> " + to
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// writeFile writes a file that may be executed at once: a process that another
// test starts meanwhile would hold it open for writing for a moment.
func writeFile(path, text string, mode fs.FileMode) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), mode)
}

// V-27: installing is done once or ten times, keeps what an administrator has
// written, and can be taken back.
func TestInstall(t *testing.T) {
	t.Parallel()
	// The umask of a careful root must not close the program to others.
	tool := func(dest string, args ...string) (string, error) {
		cmd := exec.Command("sh", append([]string{"-c", `umask 077; exec "$@"`, "sh", "./install"}, args...)...)
		cmd.Env = append(os.Environ(), "DESTDIR="+dest)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// It need not be where the script is called: a path from the top.
	program := filepath.Join(t.TempDir(), "verdecmd")
	write := func(path, text string, mode fs.FileMode) {
		if err := writeFile(path, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(program, "#!/bin/sh\n[ \"$*\" = 'settings sample' ] && echo '#WIN4_A=1'\n", 0o755)
	dest := t.TempDir()
	for _, round := range []string{"first", "second"} {
		if out, err := tool(dest, program); err != nil || out != "" {
			t.Fatalf("%s time: %v: %s", round, err, out)
		}
		got := files(t, dest)
		for _, want := range []string{
			"/usr/bin/verdecmd -> ../lib/win4linpro/bin/verdecmd", "/usr/bin/verdecmon -> ../lib/win4linpro/bin/verdecmon",
			"/usr/bin/win4 -> ../lib/win4linpro/bin/win4", "/usr/lib/win4linpro/bin/win4 -> verdecmd",
			"/usr/lib/win4linpro/bin/verdecmd -rwxr-xr-x", "/usr/lib/systemd/system/verdecmd.service -rw-r--r--",
			"/usr/lib/systemd/system/verdecmd-satellite.service -rw-r--r--", "/usr/lib/systemd/system/verdecmd-directory.service -rw-r--r--",
			"/usr/share/man/man8/verdecmon.8 -rw-r--r--", "/usr/share/man/man5/settings.global.5 -rw-r--r--", "/usr/share/man/man1/win4.1 -rw-r--r--",
			"/usr/share/bash-completion/completions/verdecmd -rw-r--r--", "/var/lib/win4linpro/settings.global -rw-r--r--",
		} {
			if !slices.Contains(got, want) {
				t.Errorf("%s time: no %s", round, want)
			}
		}
		if len(got) != 17 {
			t.Errorf("%s time: %d files: %q", round, len(got), got)
		}
		for _, dir := range []string{"/usr/lib/win4linpro/bin", "/usr/share/man/man1", "/var/lib/win4linpro"} {
			if info, err := os.Stat(dest + dir); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v, %v", dir, info, err)
			}
		}
	}
	global := dest + "/var/lib/win4linpro/settings.global"
	write(global, "WIN4_A=2\n", 0o644)
	if out, err := tool(dest, program); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := tool(dest, "--remove")
	if got := files(t, dest); err != nil || len(got) != 1 || !strings.Contains(out, "settings, keys and database stay in") {
		t.Errorf("removed: %v: %s; left: %q", err, out, got)
	}
	if text, err := os.ReadFile(global); err != nil || string(text) != "WIN4_A=2\n" {
		t.Errorf("settings: got %q, %v", text, err)
	}
	if out, err := tool(dest, "--remove"); err != nil {
		t.Errorf("removed again: %v: %s", err, out)
	}
	for _, args := range [][]string{{}, {"--remove", "x"}} {
		if out, err := tool(dest, args...); err == nil || !strings.Contains(out, "usage: ") {
			t.Errorf("%q: got %v: %s", args, err, out)
		}
	}
	if out, err := tool(dest, "/no/such/program"); err == nil {
		t.Errorf("no program: got %s", out)
	}
}

package settings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func set(name, value string) func(*File) error {
	return func(f *File) error { return f.Set(name, value) }
}

// V-26: owner and mode stay, a link stays a link, nothing is left beside it.
func TestEditKeepsOwnerModeAndLink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(path, []byte("A=1\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 12345, 54321
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if err := Edit(link, set("A", "2")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode() != 0o640 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("got mode %o, owner %d:%d, want 640, %d:%d", info.Mode(), st.Uid, st.Gid, uid, gid)
	}
	if data, _ := os.ReadFile(path); string(data) != "A=\"2\"\n" {
		t.Errorf("got %q", data)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link: got %v, %v", info, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("got %v beside the file", entries)
	}
}

func TestEditMakesTheFileButNoDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "new")
	if err := Edit(path, set("A", "1")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("got %v, %v, want mode 0644", info, err)
	}
	err = Edit(filepath.Join(dir, "sub", "new"), set("A", "1"))
	if err == nil || !strings.Contains(err.Error(), "make it with: install -d -m 0755 "+dir+"/sub") {
		t.Errorf("no directory: got %v", err)
	}
}

func TestEditLeavesAWrongFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const text = "A=$(x)\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var fe *FileError
	if err := Edit(path, set("B", "1")); !errors.As(err, &fe) {
		t.Errorf("got %v, want a FileError", err)
	}
	if data, _ := os.ReadFile(path); string(data) != text {
		t.Errorf("got the file changed to %q", data)
	}
}

// No change of several editors at once is lost.
func TestEditsWaitForEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := Edit(path, set(fmt.Sprintf("N%d", i), "x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(mustParse(t, string(data)).Names()); got != 20 {
		t.Errorf("got %d names, want 20", got)
	}
}

func run(args ...string) (out, errOut string, err error) {
	var o, e strings.Builder
	cmd := Command()
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.Execute()
	return o.String(), e.String(), err
}

func TestCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.global")
	if err := os.WriteFile(path, []byte("# mine\nWIN4_SNAP_DIR=/a # fast\nOTHER=x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		args                 []string
		out, errOut, wantErr string
	}{
		{args: []string{"get", "WIN4_SNAP_DIR"}, out: "/a\n"},
		{args: []string{"get", "WIN4_ACCEL"}, out: "kvm\n"},
		{args: []string{"get", "OTHER"}, out: "x\n"},
		{args: []string{"get", "WIN4_SNAPDIR"}, wantErr: `unknown setting "WIN4_SNAPDIR" (did you mean WIN4_SNAP_DIR?)`},
		{args: []string{"set", "WIN4_SNAP_DIR", "b"}, wantErr: `WIN4_SNAP_DIR is "b": wants an absolute path`},
		{args: []string{"set", "WIN4_SNAP_DIR", "/b"}},
		{args: []string{"get", "WIN4_SNAP_DIR"}, out: "/b\n"},
		{args: []string{"set", "WIN4_VERDE_CLUSTER_MASTER", "yes"}},
		{args: []string{"list", "--changed"}, out: "NAME                       VALUE  SOURCE  DEFAULT\n" +
			"WIN4_VERDE_CLUSTER_MASTER  yes    line 4  no\nWIN4_SNAP_DIR              /b     line 2  -\n"},
		{args: []string{"set", "WIN4_FOO", "1"}, wantErr: "--force writes it nevertheless"},
		{args: []string{"set", "--force", "WIN4_FOO", "1"}, errOut: "unknown setting WIN4_FOO is ignored"},
		{args: []string{"unset", "WIN4_FOO"}},
		{args: []string{"unset", "WIN4_ACCEL"}},
		{args: []string{"unset", "WIN4_ACCELL"}, wantErr: "did you mean WIN4_ACCEL?"},
		{args: []string{"set", "WIN4_PASSWD_FILE", "/p"}, errOut: "warning: written, but no program will start with this file"},
		{args: []string{"unset", "WIN4_PASSWD_FILE"}},
		{args: []string{"unset", "WIN4_SNAP_DIR"}},
		{args: []string{"set", "WIN4_ACCEL"}, wantErr: "usage: settings set NAME VALUE"},
	}
	for _, s := range steps {
		out, errOut, err := run(append([]string{"--settings", path}, s.args...)...)
		if out != s.out || !strings.Contains(errOut, s.errOut) || s.errOut == "" && errOut != "" {
			t.Errorf("%v: got %q, %q, want %q, %q", s.args, out, errOut, s.out, s.errOut)
		}
		if (err != nil) != (s.wantErr != "") || err != nil && !strings.Contains(err.Error(), s.wantErr) {
			t.Errorf("%v: got %v, want %q", s.args, err, s.wantErr)
		}
	}
	data, _ := os.ReadFile(path)
	if got, want := string(data), "# mine\nOTHER=x\nWIN4_VERDE_CLUSTER_MASTER=\"yes\"\n"; got != want {
		t.Errorf("in the end got %q, want %q", got, want)
	}
}

// A wrong value in the file can be seen and mended with the command.
func TestCommandMendsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.global")
	if err := os.WriteFile(path, []byte("WIN4_ACCEL=xen\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _, err := run("list", "--changed", "--settings", path)
	if err == nil || !strings.Contains(out, "WIN4_ACCEL  xen    line 1, wrong  kvm") {
		t.Errorf("list: got %q, %v", out, err)
	}
	if _, _, err := run("get", "WIN4_ACCEL", "--settings", path); err == nil || !strings.Contains(err.Error(), path+":1: WIN4_ACCEL is") {
		t.Errorf("get: got %v", err)
	}
	if _, _, err := run("set", "WIN4_ACCEL", "tcg", "--settings", path); err != nil {
		t.Error(err)
	}
	if v, err := Load(path); err != nil || v.String(Accel) != "tcg" {
		t.Errorf("after: got %v, %v", v, err)
	}
}

func TestCommandWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing")
	for _, args := range [][]string{{"list"}, {"get", "WIN4_ACCEL"}, {"unset", "WIN4_ACCEL"}} {
		_, _, err := run(append(slices.Clone(args), "--settings", path)...)
		if err == nil || !strings.Contains(err.Error(), "verdecmd settings sample > "+path) {
			t.Errorf("%v: got %v", args, err)
		}
	}
	if out, _, err := run("sample"); err != nil || out != string(Sample()) {
		t.Errorf("sample: got %v", err)
	}
	if _, _, err := run("set", "WIN4_ACCEL", "tcg", "--settings", path); err != nil {
		t.Errorf("set: got %v", err)
	}
}

package demo

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestCheckLength(t *testing.T) {
	t.Parallel()
	const rest = len("/s/2/snap/s1234567/rescue")
	tests := map[string]struct {
		length  int
		wantErr bool
	}{
		"short":       {length: 20},
		"just right":  {length: maxSocketPath - rest},
		"one too far": {length: maxSocketPath - rest + 1, wantErr: true},
		"150 bytes":   {length: 150, wantErr: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := layout{"/" + strings.Repeat("d", tt.length-1)}.checkLength(2)
			if (err != nil) != tt.wantErr {
				t.Errorf("got %v, want an error %v", err, tt.wantErr)
			}
			if err != nil && !strings.Contains(err.Error(), "at most 82 bytes") {
				t.Errorf("got %q, want the possible length in it", err)
			}
		})
	}
}

func TestNewLayout(t *testing.T) {
	t.Parallel()
	top, err := os.MkdirTemp("/tmp", "layout")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	open, closed := filepath.Join(top, "open"), filepath.Join(top, "closed")
	if err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(open, 0o755), os.Mkdir(closed, 0o700), os.Symlink("closed", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		dir     string
		root    bool
		want    string
		wantErr bool
	}{
		"searchable":                     {dir: open + "/a/b", root: true, want: open + "/a/b"},
		"below a closed directory":       {dir: closed + "/a", root: true, wantErr: true},
		"by a link below a closed one":   {dir: top + "/link/a", root: true, wantErr: true},
		"closed, but nobody else passes": {dir: top + "/link/a", want: closed + "/a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l, _, err := newLayout(tt.dir, tt.root, 7)
			if (err != nil) != tt.wantErr || err == nil && l.dir != tt.want {
				t.Errorf("got %q, %v, want %q, an error %v", l.dir, err, tt.want, tt.wantErr)
			}
		})
	}
}

// TestDefaultDir is by itself: it changes the working directory.
func TestDefaultDir(t *testing.T) {
	top, err := os.MkdirTemp("/tmp", "layout")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	t.Chdir(top) // 0700
	l, note, err := newLayout("", true, 7)
	if want := "/var/tmp/verdecmd-demo-7"; err != nil || l.dir != want || !strings.Contains(note, want) {
		t.Errorf("as root: got %q, %q, %v, want %q and a note", l.dir, note, err, want)
	}
	l, note, err = newLayout("", false, 7)
	if want := top + "/run/demo"; err != nil || l.dir != want || note != "" {
		t.Errorf("as a user: got %q, %q, %v, want %q", l.dir, note, err, want)
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	uid := os.Getuid()
	made := layout{filepath.Join(top, "a/b")}
	if err := made.claim(uid); err != nil {
		t.Fatal(err)
	}
	if err := made.claim(uid); err != nil {
		t.Errorf("an empty directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(made.dir, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := made.claim(uid); err == nil {
		t.Error("a directory with something else in it: got no error")
	}
	if err := os.WriteFile(made.lockFile(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := made.claim(uid); err != nil {
		t.Errorf("a demo's directory: %v", err)
	}
	if err := made.claim(uid + 1); err == nil {
		t.Error("somebody else's directory: got no error")
	}
	if err := (layout{made.lockFile()}).claim(uid); err == nil {
		t.Error("a file: got no error")
	}
}

func TestFreeAddresses(t *testing.T) {
	t.Parallel()
	taken := map[string]bool{}
	free := func(ip string) error {
		if taken[ip] {
			return errors.New("taken")
		}
		return nil
	}
	first, err := freeAddresses("/d", 3, free)
	if err != nil || len(first) != 3 {
		t.Fatalf("got %v, %v, want 3 addresses", first, err)
	}
	taken[first[1]] = true
	second, err := freeAddresses("/d", 3, free)
	if err != nil || second[0] != first[0] || second[1] != first[2] {
		t.Errorf("got %v, %v, want those of %v but the second", second, err, first)
	}
	if _, err := freeAddresses("/d", 1, func(string) error { return errors.New("taken") }); err == nil {
		t.Error("nothing free: got no error")
	}
}

// Desktops that outlived their supervisor are counted, and a number that was
// used again is not one.
func TestLeftDesktops(t *testing.T) {
	d := &demo{layout: layout{t.TempDir()}}
	if err := d.nothing(); err.Error() != "no demo runs in "+d.dir {
		t.Errorf("nothing left: got %v", err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.Args = []string{"guest=s1", "60"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for _, s := range []string{"s1", "s2"} {
		dir := filepath.Join(d.satellite(1), "snap", s)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.nothing(); !errors.Is(err, errNoDemo) || !strings.Contains(err.Error(), "but 1 desktop of the last one") {
		t.Errorf("one left: got %v", err)
	}
}

package qemu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// needRoot: what a satellite does as root can be tried by root alone. CI is root.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// V-36: made safely in a directory where everybody may write.
func TestMakeDir(t *testing.T) {
	needRoot(t)
	tests := map[string]struct {
		make func(t *testing.T, snap string)
		err  string // empty: it works
	}{
		"sticky and open to all": {make: func(*testing.T, string) {}},
		"a link is waiting there": {
			make: func(t *testing.T, snap string) { must(t, os.Symlink(filepath.Dir(snap), snap+"/s1")) },
			err:  "exists already",
		},
		"a dead link is waiting there": {
			make: func(t *testing.T, snap string) { must(t, os.Symlink("/nowhere", snap+"/s1")) },
			err:  "exists already",
		},
		"a directory is waiting there": {
			make: func(t *testing.T, snap string) { must(t, os.Mkdir(snap+"/s1", 0o777)) },
			err:  "exists already",
		},
		"others could replace it": {
			make: func(t *testing.T, snap string) { must(t, os.Chmod(snap, 0o777)) },
			err:  "chmod 0755 or 1777",
		},
		"there is no snap directory": {
			make: func(t *testing.T, snap string) { must(t, os.Remove(snap)) },
			err:  "WIN4_SNAP_DIR",
		},
		"the user cannot get there": {
			make: func(t *testing.T, snap string) { must(t, os.Chmod(filepath.Dir(snap), 0o700)) },
			err:  "chmod o+x",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			path := filepath.Join(s.snap(), "s1")
			tt.make(t, s.snap())
			before, _ := os.Lstat(path)
			d, err := makeDir(path, s.user, true)
			if err != nil {
				if tt.err == "" || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				after, _ := os.Lstat(path)
				if (before == nil) != (after == nil) || before != nil && before.Mode() != after.Mode() {
					t.Errorf("got %v afterwards, want what was there before, %v", after, before)
				}
				return
			}
			defer d.close()
			if tt.err != "" {
				t.Fatalf("got no error, want %q", tt.err)
			}
			var st unix.Stat_t
			must(t, unix.Lstat(path, &st))
			if st.Mode != unix.S_IFDIR|0o700 || st.Uid != testUID || st.Gid != testGID {
				t.Errorf("got mode %o, owner %d:%d, want a directory 0700, %d:%d", st.Mode, st.Uid, st.Gid, testUID, testGID)
			}
			f, err := d.create("x", 0)
			must(t, err, f.Close(), unix.Lstat(path+"/x", &st))
			if st.Uid != testUID || st.Mode&0o777 != 0o600 {
				t.Errorf("a file in it: got mode %o of %d, want 0600 of the user", st.Mode, st.Uid)
			}
		})
	}
}

// V-37, V-36: without a snap directory the session is in the home, made and
// removed with the user's rights alone, whatever links the user has put there.
func TestMakeHomeDir(t *testing.T) {
	needRoot(t)
	s := newSite(t)
	parent := desktop.HomeSnap(s.user.Home)
	path := filepath.Join(parent, "s1")
	d, err := makeDir(path, s.user, true)
	must(t, err)
	var st unix.Stat_t
	for _, p := range []string{parent, path} {
		must(t, unix.Lstat(p, &st))
		if st.Mode != unix.S_IFDIR|0o700 || st.Uid != testUID {
			t.Errorf("%s: got mode %o of %d, want a directory 0700 of the user", p, st.Mode, st.Uid)
		}
	}
	if _, err := makeDir(path, s.user, true); !errors.Is(err, desktop.ErrInUse) {
		t.Errorf("a second time: got %v, want ErrInUse", err)
	}
	must(t, d.remove())
	if _, err := os.Lstat(path); err == nil {
		t.Error("it is still there after remove")
	}

	// Where root could write and the user cannot.
	others := filepath.Join(s.dir, "others")
	must(t, os.MkdirAll(others+"/s1/precious", 0o755), os.Remove(parent), os.Symlink(others, parent))
	if _, err := makeDir(filepath.Join(parent, "s2"), s.user, true); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("through a link: got %v, want an error with the fix", err)
	}
	if err := s.user.RemoveDir(path); err == nil {
		t.Error("removing through a link: got nil, want an error")
	}
	if entries, _ := os.ReadDir(others); len(entries) != 1 {
		t.Errorf("the link was followed: %v", entries)
	}
	if _, err := os.Stat(others + "/s1/precious"); err != nil {
		t.Errorf("the link was followed: %v", err)
	}
}

// The user owns the directory and may put anything there; root is not led by it.
func TestHostileDir(t *testing.T) {
	needRoot(t)
	s := newSite(t)
	must(t, os.WriteFile(s.dir+"/secret", []byte("root's\n"), 0o600), os.Chmod(s.dir+"/secret", 0o600))
	d, err := makeDir(filepath.Join(s.snap(), "s1"), s.user, true)
	must(t, err)
	defer d.close()
	path := func(name string) string { return filepath.Join(d.path, name) }
	must(t,
		os.Symlink(s.dir+"/secret", path("link")),
		os.Link(s.dir+"/secret", path("hard")),
		unix.Mkfifo(path("pipe"), 0o666),
		os.Mkdir(path("dir"), 0o777),
		os.WriteFile(path("large"), make([]byte, 4096), 0o644),
		os.WriteFile(path("fine"), []byte("yes"), 0o644))
	for _, name := range []string{"link", "hard", "pipe", "dir", "large", "missing", "../../secret"} {
		if got, err := d.read(name, 1000); err == nil {
			t.Errorf("%s: got %q, want an error", name, got)
		}
	}
	if got, err := d.read("fine", 1000); err != nil || string(got) != "yes" {
		t.Errorf("got %q, %v, want yes", got, err)
	}
	if _, err := d.create("link", 0); !errors.Is(err, unix.EEXIST) {
		t.Errorf("creating over a link: got %v, want EEXIST", err)
	}
	// A socket of root's is not dialled for the user.
	l, err := net.Listen("unix", s.dir+"/root.sock")
	must(t, err)
	defer l.Close()
	must(t, os.Chmod(s.dir+"/root.sock", 0o600), os.Symlink(s.dir+"/root.sock", path("qmp")))
	if _, _, err := d.dial("qmp"); !errors.Is(err, unix.EACCES) {
		t.Errorf("dialling root's socket through the user's link: got %v, want permission denied", err)
	}
	must(t, d.remove())
	if _, err := os.Stat(s.dir + "/secret"); err != nil {
		t.Errorf("removing the directory followed a link: %v", err)
	}
	if _, err := d.read("fine", 10); !errors.Is(err, desktop.ErrGone) {
		t.Errorf("after close: got %v, want ErrGone", err)
	}
}

// Only what is named like a session is ever removed, and no link is followed.
func TestRemoveDir(t *testing.T) {
	s := newSite(t)
	for _, d := range []string{"s3/x", "precious", "s4x", ".s5"} {
		must(t, os.MkdirAll(filepath.Join(s.snap(), d), 0o700))
	}
	must(t, os.Symlink(s.snap()+"/precious", s.snap()+"/s7"), os.Symlink(s.snap()+"/precious", s.snap()+"/s3/link"))
	for _, name := range []string{"s3", "s7", "s8"} { // the last was never there
		must(t, desktop.RemoveDir(filepath.Join(s.snap(), name)))
	}
	for _, name := range []string{"precious", "s4x", ".s5", ""} {
		if err := desktop.RemoveDir(filepath.Join(s.snap(), name)); err == nil {
			t.Errorf("removing %q, which is no session: got nil, want an error", name)
		}
	}
	entries, err := os.ReadDir(s.snap())
	must(t, err)
	if got, want := fmt.Sprint(entries), "[d .s5/ d precious/ d s4x/]"; got != want {
		t.Errorf("left: got %s, want %s", got, want)
	}
}

// V-46, D6: a session's overlay is a copy of one that was made once per base.
func TestOverlay(t *testing.T) {
	s := newSite(t)
	base := filepath.Join(s.dir, "a,b:c disk.qcow2") // no syntax of QEMU's gets in the way
	img := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("qemu-img", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("qemu-img %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	img("create", "-q", "-f", "qcow2", base, "8M")
	must(t, os.Chmod(base, 0o444))
	d := s.driver()
	first, err := d.prepare(t.Context(), base, s.user)
	must(t, err)
	again, err := d.prepare(t.Context(), base, s.user)
	must(t, err)
	if first != again {
		t.Errorf("got another overlay for the same base: %s, %s", first, again)
	}
	dir, err := makeDir(filepath.Join(s.snap(), "s1"), s.user, s.cfg.AsRoot)
	must(t, err, copyOverlay(first, dir))
	defer dir.close()
	copied := filepath.Join(dir.path, overlayFile)
	info := img("info", "--output=json", copied)
	for _, want := range []string{`"full-backing-filename": "` + base + `"`, `"virtual-size": 8388608`, `"backing-filename-format": "qcow2"`} {
		if !strings.Contains(info, want) {
			t.Errorf("got %s, want %s in it", info, want)
		}
	}
	img("check", "-q", copied)

	must(t, os.Remove(base)) // published anew under the same name
	img("create", "-q", "-f", "qcow2", base, "16M")
	changed, err := d.prepare(t.Context(), base, s.user)
	must(t, err)
	if changed == first {
		t.Error("the base was replaced: got the old overlay")
	}
	for i := range keepPrepared + 5 {
		must(t, os.WriteFile(fmt.Sprintf("%s/old%d.qcow2", s.cfg.PreparedDir, i), nil, 0o600))
	}
	must(t, os.Chtimes(base, unixTime(1), unixTime(1)))
	_, err = d.prepare(t.Context(), base, s.user)
	must(t, err)
	left, err := filepath.Glob(s.cfg.PreparedDir + "/*")
	must(t, err)
	if len(left) != keepPrepared {
		t.Errorf("got %d prepared overlays, want %d", len(left), keepPrepared)
	}
}

func TestBadBase(t *testing.T) {
	header := func(change func(h []byte)) []byte {
		h := make([]byte, 104)
		copy(h, "QFI\xfb")
		binary.BigEndian.PutUint32(h[4:], 3)
		binary.BigEndian.PutUint64(h[24:], 1<<30)
		change(h)
		return h
	}
	tests := map[string]struct {
		data []byte
		err  string // empty: fine
	}{
		"fine":              {data: header(func([]byte) {})},
		"raw":               {data: make([]byte, 4096), err: "not a qcow2 file"},
		"empty":             {data: nil, err: "not a qcow2 file"},
		"cut off":           {data: header(func([]byte) {})[:75], err: "cut off"},
		"version 9":         {data: header(func(h []byte) { h[7] = 9 }), err: "version 9"},
		"an overlay itself": {data: header(func(h []byte) { h[15] = 1 }), err: "overlay of another"},
		"external data":     {data: header(func(h []byte) { h[79] = 4 }), err: "in another file"},
		"encrypted":         {data: header(func(h []byte) { h[35] = 1 }), err: "encrypted"},
		"absurdly large":    {data: header(func(h []byte) { h[24] = 0xff }), err: "a disk of"},
		"no size":           {data: header(func(h []byte) { clear(h[24:32]) }), err: "a disk of"},
	}
	s := newSite(t)
	d := s.driver()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			base := filepath.Join(place(t), "disk.qcow2")
			must(t, os.WriteFile(base, tt.data, 0o644))
			_, err := d.prepare(t.Context(), base, s.user)
			if tt.err == "" {
				must(t, err)
			} else if !errors.Is(err, desktop.ErrNoImage) || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), base) {
				t.Errorf("got %v, want ErrNoImage with %q and the path", err, tt.err)
			}
		})
	}
	if _, err := d.prepare(t.Context(), "/nowhere/disk.qcow2", s.user); !errors.Is(err, desktop.ErrNoImage) {
		t.Errorf("got %v, want ErrNoImage", err)
	}
}

func TestLines(t *testing.T) {
	got := lines([]byte("one\r\n\x1b[1;31mtwo\x1b[0m\tx\x07\n\n\x1b]0;title\x07three \xff\nfour\n"), 3)
	if want := []string{"two x", "three ?", "four"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func listen(t testing.TB, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	must(t, os.Chmod(path, 0o666))
	l.(*net.UnixListener).SetUnlinkOnClose(true)
	return l
}

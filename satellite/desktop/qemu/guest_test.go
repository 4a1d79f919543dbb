package qemu

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/packaging/guest/guesttest"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/desktoptest"
)

const bootLimit = 2 * time.Minute // an emulated processor on a busy machine

// The desktops of the tests belong to a user that no system has.
const testUID, testGID = 64123, 64124

// top is a directory that every user can enter, for the whole test binary.
var top = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vq")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := top(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// place is a directory of the test's own that every user can enter.
func place(t testing.TB) string {
	t.Helper()
	dir, err := top()
	if err == nil {
		dir, err = os.MkdirTemp(dir, "")
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

var guestCopy struct {
	once sync.Once
	img  desktop.Image
	err  error
}

// guestImage is the tiny guest where the desktops' user can read it: the
// working copy may lie in a directory that is closed to others.
func guestImage(t testing.TB) desktop.Image {
	t.Helper()
	from := guesttest.Dir(t)
	guestCopy.once.Do(func() {
		guestCopy.err = func() error {
			dir, err := top()
			if err != nil {
				return err
			}
			to := filepath.Join(dir, "pub", "win4")
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			for _, name := range []string{"desktop.conf", "vmlinux", "initrd", "disk.qcow2"} {
				if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
					return err
				}
			}
			guestCopy.img, err = desktop.Resolve(filepath.Join(dir, "pub"), "win4")
			return err
		}()
	})
	if guestCopy.err != nil {
		t.Fatal(guestCopy.err)
	}
	return guestCopy.img
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// site is one satellite's directories and its user.
type site struct {
	t        testing.TB
	dir      string
	user     desktop.User
	sessions int
	cfg      Config
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: place(t), user: desktop.User{Name: "alice", UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}}
	s.cfg = Config{Accel: "tcg", PreparedDir: filepath.Join(s.dir, "prepared"), Log: zerolog.New(zerolog.NewTestWriter(t))}
	s.user.Home = filepath.Join(s.dir, "home,alice") // with a comma: they are allowed
	for _, d := range []string{s.user.Home, s.snap()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		s.cfg.AsRoot = true
		s.user.UID, s.user.GID, s.user.Groups = testUID, testGID, []uint32{testGID + 1}
		if err := os.Chown(s.user.Home, testUID, testGID); err != nil {
			t.Fatal(err)
		}
		// Like /tmp (V-36).
		if err := os.Chmod(s.snap(), 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) snap() string { return filepath.Join(s.dir, "snap") }

func (s *site) driver() *Driver {
	s.t.Helper()
	d, err := New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

var allSessions atomic.Int64

// spec is a new session of the tiny guest; words go to its command line.
func (s *site) spec(words string) desktop.Spec {
	s.t.Helper()
	s.sessions++
	n := allSessions.Add(1)
	img := guestImage(s.t)
	img.Append += " " + words
	return desktop.Spec{
		Session: fmt.Sprintf("s%d", s.sessions), UUID: fmt.Sprintf("4fd7d6f1-c0de-4d0e-8000-%06x%06x", os.Getpid(), n),
		User: s.user, Image: img, Dir: filepath.Join(s.snap(), fmt.Sprintf("s%d", s.sessions)),
		MemoryMiB: img.MemoryMiB, CPUs: 1, Name: "alice", MAC: fmt.Sprintf("52:54:00:00:00:%02x", s.sessions),
	}
}

// TestDriver: the suite that the fake passes too.
func TestDriver(t *testing.T) {
	desktoptest.Run(t, func(t *testing.T) desktoptest.Setup {
		s := newSite(t)
		return desktoptest.Setup{
			Driver: func() desktop.Driver { return s.driver() },
			Spec:   func() desktop.Spec { return s.spec("") },
			Limit:  bootLimit,
		}
	})
}

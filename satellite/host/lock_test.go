package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	pb "verdecmd/proto"
	"verdecmd/settings"
)

// looseNode is a file or directory of a file server that is not right: what its
// locks do, tests say.
type looseNode struct {
	fs.LoopbackNode
	s *looseServer
}

type looseServer struct {
	lock   func() syscall.Errno // answers whoever wants a lock
	create syscall.Errno        // answers who makes a file in the top directory
}

func (n *looseNode) Setlk(context.Context, fs.FileHandle, uint64, *fuse.FileLock, uint32) syscall.Errno {
	return n.s.lock()
}

func (n *looseNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if n.s.create != 0 && n.IsRoot() {
		return nil, nil, 0, n.s.create
	}
	return n.LoopbackNode.Create(ctx, name, flags, mode, out)
}

// mountLoose mounts such a file system and returns its directory, with a home in
// it.
func mountLoose(t *testing.T, s *looseServer) (dir string, home Home) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts") // CI is root
	}
	back, err := os.MkdirTemp("", "v")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(back) })
	dir = filepath.Join(back, "mnt")
	must(t, os.Chmod(back, 0o755), os.MkdirAll(filepath.Join(back, "data/alice"), 0o755), os.Chown(filepath.Join(back, "data/alice"), 31000, 31000), os.Mkdir(dir, 0o755))
	root := &fs.LoopbackRoot{Path: filepath.Join(back, "data")}
	root.NewNode = func(data *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &looseNode{LoopbackNode: fs.LoopbackNode{RootData: data}, s: s}
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(root.Path, &st))
	root.Dev = uint64(st.Dev)
	node := root.NewNode(root, nil, "", &st)
	root.RootNode = node
	server, err := fs.Mount(dir, node, &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, EnableLocks: true, AllowOther: true, FsName: "files:/home"}})
	must(t, err)
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return dir, Home{Name: "alice", Dir: filepath.Join(dir, "alice"), Owner: 31000, Group: 31000}
}

// V-22: locks are believed only when another process is really refused. The
// directory on a FUSE file system whose locks do not exclude stands for an NFS
// server without them.
func TestLocks(t *testing.T) {
	allow := func() syscall.Errno { return 0 }
	tests := map[string]struct {
		server *looseServer // nil: an ordinary directory
		want   Locks        // None and Error: begin with
		shared bool
	}{
		"they exclude":                    {want: Locks{Excludes: true}, shared: true},
		"they do not":                     {server: &looseServer{lock: allow}, shared: true},
		"there are none":                  {server: &looseServer{lock: func() syscall.Errno { return syscall.ENOLCK }}, want: Locks{None: "no locks there"}, shared: true},
		"root may not write to the homes": {server: &looseServer{lock: allow, create: syscall.EACCES}},
		"nobody may":                      {server: &looseServer{lock: allow, create: syscall.ENOSPC}, want: Locks{Error: "open a file in /"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, home := t.TempDir(), Home{}
			if tt.server != nil {
				dir, home = mountLoose(t, tt.server)
			}
			got, err := tryLocks(t.Context(), holder(), dir, []Home{home})
			must(t, err)
			if got.held != nil {
				if got.held.shared != tt.shared {
					t.Errorf("shared: got %v in %s", got.held.shared, got.held.dir)
				}
				got.close()
			}
			l := got.locks
			if l.Excludes != tt.want.Excludes || !strings.HasPrefix(l.None, tt.want.None) || !strings.HasPrefix(l.Error, tt.want.Error) || (l.None == "") != (tt.want.None == "") || (l.Error == "") != (tt.want.Error == "") {
				t.Errorf("got %+v, want %+v", l, tt.want)
			}
			if text := l.None + l.Error; strings.Contains(text, lockPrefix) {
				t.Errorf("the text differs each time: %q", text)
			}
			for _, d := range []string{dir, home.Dir} {
				if left, _ := filepath.Glob(filepath.Join(d, lockPrefix+"*")); d != "" && len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}

// Whose time is over has no answer about locks.
func TestLocksInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if got, err := tryLocks(ctx, holder(), dir, nil); !errors.Is(err, context.Canceled) || got.held != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A file server that is dead, while a lock is asked for: the checks go on, also
// where the process that waits cannot be killed.
func TestLocksOfADeadServer(t *testing.T) {
	t.Parallel()
	answer := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(answer) }) }
	dir, home := mountLoose(t, &looseServer{lock: func() syscall.Errno { <-answer; return 0 }})
	defer free()
	m := newMeasurer()
	m.begin(nil)
	began := time.Now()
	came := make(chan struct{})
	_, ok := within(t.Context(), m, checkLocks, askFor, func(ctx context.Context) (tried, error) {
		defer close(came)
		return tryLocks(ctx, holder(), dir, []Home{home})
	})
	if ok || m.failed[checkLocks] != "no answer within 5 s" || time.Since(began) > 30*time.Second {
		t.Errorf("got %v, %q after %v", ok, m.failed, time.Since(began))
	}
	l := &LockTrial{roots: func() []string { return []string{dir} }, free: make(chan struct{}, 1)}
	must(t, os.WriteFile(filepath.Join(dir, lockPrefix+"x"), []byte("content"), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for range 2 { // the second one is not even begun
		if r := l.Try(ctx, &pb.TryLockRequest{File: lockPrefix + "x", Content: "content"}); !strings.Contains(r.Error, "does not answer") {
			t.Errorf("another host asks: got %v", r)
		}
	}
	free()
	<-came
	l.free <- struct{}{} // until the first one is done
}

// What other hosts may ask for: a lock on such a file, and nothing else.
func TestLockTrial(t *testing.T) {
	dir := t.TempDir()
	h, err := hold(t.Context(), holder(), dir, nil)
	must(t, err)
	defer h.close()
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, []byte("x"), 0o600), os.Symlink(secret, filepath.Join(dir, lockPrefix+"link")), os.WriteFile(filepath.Join(dir, lockPrefix+"free"), []byte("x"), 0o600))
	must(t, syscall.Mkfifo(filepath.Join(dir, lockPrefix+"fifo"), 0o600))
	l := &LockTrial{roots: func() []string { return []string{"/no/such/directory", dir} }, free: make(chan struct{}, 1)}
	tests := map[string]struct {
		file, content string
		want          *pb.TryLockReply // Error: any text
	}{
		"held":               {h.name, h.content, &pb.TryLockReply{Found: true, Locked: true}},
		"free":               {lockPrefix + "free", "x", &pb.TryLockReply{Found: true}},
		"another file":       {h.name, "other", &pb.TryLockReply{}},
		"not there":          {lockPrefix + "none", "x", &pb.TryLockReply{}},
		"a link":             {lockPrefix + "link", "x", &pb.TryLockReply{Error: "x"}},
		"a fifo":             {lockPrefix + "fifo", "x", &pb.TryLockReply{}},
		"any other file":     {"secret", "x", &pb.TryLockReply{Error: "x"}},
		"above":              {"../" + lockPrefix + "free", "x", &pb.TryLockReply{Error: "x"}},
		"below":              {lockPrefix + "a/../../secret", "x", &pb.TryLockReply{Error: "x"}},
		"nothing":            {"", "", &pb.TryLockReply{Error: "x"}},
		"without content":    {lockPrefix + "free", "", &pb.TryLockReply{Error: "x"}},
		"with much content":  {lockPrefix + "free", strings.Repeat("x", 101), &pb.TryLockReply{Error: "x"}},
		"a name that is odd": {lockPrefix + "\x00", "x", &pb.TryLockReply{Error: "x"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := l.Try(t.Context(), &pb.TryLockRequest{File: tt.file, Content: tt.content})
			if got.Found != tt.want.Found || got.Locked != tt.want.Locked || (got.Error == "") != (tt.want.Error == "") {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// What a crash has left is removed, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * lockLeft)
	for name, age := range map[string]time.Time{lockPrefix + "me-1": old, lockPrefix + "me-2": time.Now(), lockPrefix + "you-1": old, "file": old} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600), os.Chtimes(filepath.Join(dir, name), age, age))
	}
	sweep(dir, lockPrefix+"me-")
	names, _, err := readDir(dir)
	must(t, err)
	if got := strings.Join(names, " "); got != lockPrefix+"me-2 "+lockPrefix+"you-1 file" {
		t.Errorf("left are %s", got)
	}
}

// Homes are where the accounts say, and in /home unless accounts come from a
// file.
func TestHomeRoots(t *testing.T) {
	dir := t.TempDir()
	passwd := filepath.Join(dir, "passwd")
	must(t, os.WriteFile(passwd, []byte("a:x:1:1::/h/a:/\nb:x:2:2::/h/b:/\nc:x:3:3::/i/c:/\nd:x:4:4::/d:/\n"), 0o644))
	v, err := settings.Parse("x", []byte("WIN4_PASSWD_FILE=\""+passwd+"\"\nWIN4_STATE_DIR=\""+dir+"\"\n"))
	must(t, err)
	if got := strings.Join(homeRoots(v), " "); got != "/h /i" {
		t.Errorf("got %s", got)
	}
	v, err = settings.Parse("x", nil)
	must(t, err)
	if got := homeRoots(v); len(got) == 0 || got[0] != "/home" {
		t.Errorf("got %v", got)
	}
}

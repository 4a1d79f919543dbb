package store

import (
	"context"
	"encoding/gob"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// op is one thing that a program has asked of the disk, in the order in which
// the disk has carried them out.
type op struct {
	Kind  opKind
	Inode uint64 // of the file; opEntry: what the name stands for, 0: nothing; opSync: also of a directory
	Off   int64  // opWrite; opSize: the size
	Data  []byte // opWrite, opNote
	Dir   uint64 // opEntry: the directory
	Name  string // opEntry
	IsDir bool   // opEntry
}

type opKind byte

const (
	opWrite opKind = iota + 1
	opSize
	opSync
	opEntry
	opNote // what the program says itself: see notes
)

// notes is the file to which a program on the disk writes what it has
// promised, so that it stands among the writes. control is the file that makes
// the disk misbehave.
const (
	notes   = "notes"
	control = "control"
	rootIno = 1
)

// disk is a file system in memory, mounted by FUSE, that writes down what is
// done to it and can be told to fail. It is served by a process of its own: a
// thread that waits for a page of a memory map is one that the Go runtime does
// not know to be waiting.
type disk struct {
	mu   sync.Mutex // guards all below
	last uint64     // inode
	ops  []op
	sync string        // "", "eio", "hang"
	go_  chan struct{} // closed when a hang is over
}

// record notes an op; d.mu is held.
func (d *disk) record(o op) { d.ops = append(d.ops, o) }

func (d *disk) command(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sync == "hang" {
		close(d.go_)
	}
	if d.sync = text; text == "hang" {
		d.go_ = make(chan struct{})
	}
}

type diskNode struct {
	fs.Inode
	d    *disk
	ino  uint64
	name string
	data []byte // guarded by d.mu
}

func (n *diskNode) child(ctx context.Context, name string, mode uint32) *fs.Inode {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.last++
	c := &diskNode{d: n.d, ino: n.d.last, name: name}
	n.d.record(op{Kind: opEntry, Inode: c.ino, Dir: n.ino, Name: name, IsDir: mode&syscall.S_IFDIR != 0})
	return n.NewPersistentInode(ctx, c, fs.StableAttr{Mode: mode &^ 0o7777, Ino: c.ino})
}

func (n *diskNode) entry(name string, ino uint64) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.d.record(op{Kind: opEntry, Inode: ino, Dir: n.ino, Name: name})
}

func (n *diskNode) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	c := n.child(ctx, name, syscall.S_IFREG)
	return c, nil, c.Operations().(*diskNode).flags(), 0
}

func (n *diskNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.child(ctx, name, syscall.S_IFDIR), 0
}

func (n *diskNode) Link(_ context.Context, target fs.InodeEmbedder, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.entry(name, target.(*diskNode).ino)
	return target.EmbeddedInode(), 0
}

func (n *diskNode) Unlink(_ context.Context, name string) syscall.Errno {
	n.entry(name, 0)
	return 0
}

func (n *diskNode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.ENOTSUP
	}
	to.(*diskNode).entry(newName, n.GetChild(name).Operations().(*diskNode).ino)
	n.entry(name, 0)
	return 0
}

func (n *diskNode) flags() uint32 {
	if n.name == notes || n.name == control {
		return fuse.FOPEN_DIRECT_IO
	}
	return fuse.FOPEN_KEEP_CACHE
}

func (n *diskNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, n.flags(), 0
}

func (n *diskNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	off = min(off, int64(len(n.data)))
	return fuse.ReadResultData(dest[:copy(dest, n.data[off:])]), 0
}

func (n *diskNode) Write(_ context.Context, _ fs.FileHandle, b []byte, off int64) (uint32, syscall.Errno) {
	if n.name == control {
		n.d.command(string(b))
		return uint32(len(b)), 0
	}
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	own := append([]byte{}, b...)
	if n.name == notes {
		n.d.record(op{Kind: opNote, Data: own})
		return uint32(len(b)), 0
	}
	n.resize(max(int64(len(n.data)), off+int64(len(b))))
	copy(n.data[off:], b)
	n.d.record(op{Kind: opWrite, Inode: n.ino, Off: off, Data: own})
	return uint32(len(b)), 0
}

func (n *diskNode) resize(size int64) {
	if grow := size - int64(len(n.data)); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	n.data = n.data[:size]
}

func (n *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	n.attr(out)
	return 0
}

func (n *diskNode) attr(out *fuse.AttrOut) {
	out.Mode, out.Size, out.Nlink = n.Mode()|0o600, uint64(len(n.data)), 1
	if n.Mode() == syscall.S_IFDIR {
		out.Mode = n.Mode() | 0o700
	}
}

func (n *diskNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		if int64(size) < int64(len(n.data)) {
			return syscall.ENOTSUP // images knows nothing of it
		}
		n.resize(int64(size))
		n.d.record(op{Kind: opSize, Inode: n.ino, Off: int64(size)})
	}
	n.attr(out)
	return 0
}

// Fsync is that of files and of directories.
func (n *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	for n.d.sync == "hang" {
		wait := n.d.go_
		n.d.mu.Unlock()
		<-wait
		n.d.mu.Lock()
	}
	if n.d.sync == "eio" {
		return syscall.EIO
	}
	n.d.record(op{Kind: opSync, Inode: n.ino})
	return 0
}

// childDisk mounts a disk, runs the other child named by what on it, and
// leaves what it has written down in dir/log.
func childDisk(what string) error {
	dir, err := os.MkdirTemp("", "verdecmd-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		return err
	}
	d := &disk{last: rootIno}
	server, err := fs.Mount(mnt, &diskNode{d: d, ino: rootIno}, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, DisableXAttrs: true, FsName: "verdecmd-test", MaxWrite: 1 << 20,
	}})
	if err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	for _, name := range []string{notes, control} {
		if err := os.WriteFile(filepath.Join(mnt, name), nil, 0o600); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.ops = nil
	d.mu.Unlock()
	c := exec.Command(os.Args[0], mnt)
	c.Env = append(os.Environ(), childEnv+"="+what)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	if err := c.Run(); err != nil {
		unix.Unmount(mnt, unix.MNT_DETACH)
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := server.Unmount(); err != nil {
		return err
	}
	return gob.NewEncoder(os.Stdout).Encode(d.ops)
}

// onDisk runs a child on a disk of its own and returns what was written to it.
// The mount is in a name space of its own and goes away with the processes.
func onDisk(t testing.TB, what string, env ...string) []op {
	t.Helper()
	needFUSE(t)
	c := exec.CommandContext(t.Context(), os.Args[0], what)
	c.Env = append(append(os.Environ(), childEnv+"=disk", "TMPDIR="+t.TempDir()), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	said := &limited{}
	c.Stderr = said
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var ops []op
	derr := gob.NewDecoder(out).Decode(&ops)
	if err := c.Wait(); err != nil || derr != nil {
		t.Fatalf("%s: %v, %v\n%s", what, err, derr, said.b)
	}
	return ops
}

// limited keeps the first words of a child.
type limited struct{ b []byte }

func (l *limited) Write(b []byte) (int, error) {
	l.b = append(l.b, b[:min(len(b), 1<<16-len(l.b))]...)
	return len(b), nil
}

func needFUSE(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("needs fuse: %v", err)
	} else {
		f.Close()
	}
}

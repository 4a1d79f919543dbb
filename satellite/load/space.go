package load

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is the kind of a file system, as far as desktops are concerned.
type Kind string

const (
	Local   Kind = "local"
	Tmpfs   Kind = "tmpfs"   // in memory: what desktops write there takes memory from them
	Network Kind = "network" // of another computer, or shared with others: slower
)

// network holds the file systems whose data may be on another computer, by the
// magic number of statfs(2). FUSE may be anything; most that is mounted for
// servers is remote. OCFS2 and GFS2 are on disks that several computers share.
var network = map[uint32]bool{
	0x6969:     true, // NFS
	0x517b:     true, // SMB
	0xff534d42: true, // CIFS
	0xfe534d42: true, // SMB2
	0x01021997: true, // 9p
	0x65735546: true, // FUSE
	0x7461636f: true, // OCFS2
	0x01161970: true, // GFS2
	0x00c36400: true, // Ceph
	0x5346414f: true, // AFS
	0x6b414653: true, // kAFS
	0x73757245: true, // Coda
	0x0bd00bd0: true, // Lustre
	0x47504653: true, // GPFS
	0x19830326: true, // BeeGFS
	0x786f4256: true, // VirtualBox shared folder
}

func kindOf(magic uint32) Kind {
	switch {
	case magic == 0x01021994 || magic == 0x858458f6: // tmpfs, ramfs
		return Tmpfs
	case network[magic]:
		return Network
	}
	return Local
}

// KindOf is the kind of the file system that a path is on. It waits a second at
// most for a file system that does not answer.
func KindOf(path string) (Kind, error) {
	info, err := newSpace(path).ask(askFor)
	return info.kind, err
}

// Space is how many bytes unprivileged users may still write where a path is,
// and the kind of the file system. It waits like KindOf.
func Space(path string) (free uint64, kind Kind, err error) {
	info, err := newSpace(path).ask(askFor)
	return info.free, info.kind, err
}

// askFor is how long a file system may take to answer.
const askFor = time.Second

var errNoAnswer = errors.New("the file system does not answer")

type spaceInfo struct {
	free uint64 // bytes for unprivileged users
	kind Kind
	err  error
}

// space asks one file system for its free space. The kernel lets a process wait
// for a dead NFS server without end, so a goroutine asks; there is never more
// than one, and while it waits the file system counts as one without space.
type space struct {
	dir    string
	statfs func(path string, st *unix.Statfs_t) error

	mu      sync.Mutex     // guards pending
	pending chan spaceInfo // of the goroutine that asks; nil if there is none
}

func newSpace(dir string) *space { return &space{dir: dir, statfs: unix.Statfs} }

// ask waits at most limit for the answer.
func (s *space) ask(limit time.Duration) (spaceInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		pending := make(chan spaceInfo, 1) // so that nobody needs to wait for it
		s.pending = pending
		go func() { pending <- s.read() }()
	} else {
		limit = 0 // it has had its time
	}
	if info, ok := receive(s.pending, limit); ok {
		s.pending = nil
		return info, info.err
	}
	return spaceInfo{}, fmt.Errorf("%s: %w: is its server down? (see: stat -f %s)", s.dir, errNoAnswer, s.dir)
}

// receive waits at most limit. An answer that is already there is always taken.
func receive(c <-chan spaceInfo, limit time.Duration) (spaceInfo, bool) {
	select {
	case info := <-c:
		return info, true
	default:
	}
	if limit == 0 {
		return spaceInfo{}, false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case info := <-c:
		return info, true
	case <-timer.C:
		return spaceInfo{}, false
	}
}

func (s *space) read() spaceInfo {
	var st unix.Statfs_t
	err := s.statfs(s.dir, &st)
	for errors.Is(err, unix.EINTR) {
		err = s.statfs(s.dir, &st)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return spaceInfo{err: fmt.Errorf("%s: %w: make the directory or name another in the settings", s.dir, fs.ErrNotExist)}
	}
	if err != nil {
		return spaceInfo{err: fmt.Errorf("%s: %w", s.dir, err)}
	}
	return spaceInfo{free: st.Bavail * uint64(st.Bsize), kind: kindOf(uint32(st.Type))}
}

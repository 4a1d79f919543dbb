package guard

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is what satellite and guardian share: it outlives the satellite's
// program, needs no disk, and nobody waits for the other in it.
type memory struct {
	file *os.File
	data []byte
}

// Its contents: two times since the computer started, in nanoseconds.
const (
	endAt      = 0 // when the lease is over, written by the satellite; 0: none
	beatAt     = 8 // when the guardian has looked last, written by it
	memorySize = 4096
)

func newMemory() (*memory, error) {
	fd, err := unix.MemfdCreate("verdecmd-guardian", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memory of the guardian: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guardian")
	if err := f.Truncate(memorySize); err != nil {
		f.Close()
		return nil, fmt.Errorf("memory of the guardian: %w", err)
	}
	// Without this, who shortens it ends the other by SIGBUS.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		f.Close()
		return nil, fmt.Errorf("memory of the guardian: %w", err)
	}
	return openMemory(f)
}

// openMemory maps the memory of another program.
func openMemory(f *os.File) (*memory, error) {
	info, err := f.Stat()
	if err == nil && info.Size() != memorySize {
		err = fmt.Errorf("it has %d bytes, not %d", info.Size(), memorySize)
	}
	var data []byte
	if err == nil {
		data, err = unix.Mmap(int(f.Fd()), 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("memory of the guardian: %w", err)
	}
	return &memory{file: f, data: data}, nil
}

func (m *memory) close() {
	_ = unix.Munmap(m.data)
	m.file.Close()
}

func (m *memory) word(at int) *int64 { return (*int64)(unsafe.Pointer(&m.data[at])) }

func (m *memory) end() time.Duration        { return time.Duration(atomic.LoadInt64(m.word(endAt))) }
func (m *memory) setEnd(d time.Duration)    { atomic.StoreInt64(m.word(endAt), int64(d)) }
func (m *memory) beat() time.Duration       { return time.Duration(atomic.LoadInt64(m.word(beatAt))) }
func (m *memory) setBeat(now time.Duration) { atomic.StoreInt64(m.word(beatAt), int64(now)) }

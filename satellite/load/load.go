// Package load measures how busy a satellite's computer is and what kind of
// computer it is.
//
// Everything comes from the kernel, most of it by gopsutil (system.go, the only
// file that knows it). Shares are numbers from 0 to 1 and never NaN, whatever
// the kernel says: they decide where users go. A file system that does not
// answer, such as a dead NFS server, never holds a sample up: see space.go.
package load

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"
)

// Load is one sample. Sizes are bytes, shares are of the whole machine.
type Load struct {
	CPUBusy  float64 // 0 to 1, over the time since the sample before; waiting for disks is not busy
	Load1    float64 // load average over one minute
	MemTotal uint64
	MemFree  uint64 // available to new processes without swapping
	SnapFree uint64 // for unprivileged users; 0 where the directory cannot be asked
	HomeFree uint64 // as SnapFree

	// Pressure is the share of the last 10 s in which some process had to wait.
	// HasPressure is false on kernels without it.
	HasPressure                 bool
	PressureCPU, PressureMemory float64
	PressureIO                  float64
}

// minWindow is the shortest time over which CPUBusy is measured: the kernel
// counts in hundredths of a second, and reports on a change may follow each
// other at once.
const minWindow = time.Second

// Sampler takes samples. Its methods may be called from any goroutine, and wait
// for each other.
type Sampler struct {
	kernel     kernel
	snap, home *space

	mu     sync.Mutex // guards what follows
	base   cpuTimes   // where the current window begins
	baseAt time.Time
	busy   float64 // of the last window that was long enough
}

// New makes a sampler for the file systems of these directories; an empty
// snapDir is the same as homeDir. The first sample measures from here on.
func New(snapDir, homeDir string) *Sampler {
	return newSampler(kernel{proc: "/proc"}, snapDir, homeDir, time.Now())
}

func newSampler(k kernel, snapDir, homeDir string, now time.Time) *Sampler {
	s := &Sampler{kernel: k, home: newSpace(homeDir)}
	s.snap = s.home
	if snapDir != "" && snapDir != homeDir {
		s.snap = newSpace(snapDir)
	}
	s.base, _ = k.cpu() // an error comes again with the first sample
	s.baseAt = now
	return s
}

// Sample measures now. With an error, the rest of the sample is right. What could
// not be measured has the value that keeps users away, and the error names it.
func (s *Sampler) Sample(now time.Time) (Load, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l Load
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	cpu, err := s.kernel.cpu()
	note("processor time", err)
	l.CPUBusy = 1 // what cannot be measured must not attract users
	if err == nil {
		l.CPUBusy = s.cpuBusy(now, cpu)
	}
	l.Load1, err = s.kernel.load1()
	note("load average", err)
	l.MemTotal, l.MemFree, err = s.kernel.memory()
	note("memory", err)
	info, err := s.home.ask(askFor)
	note("home directories", err)
	l.HomeFree, l.SnapFree = info.free, info.free
	if s.snap != s.home {
		info, err = s.snap.ask(askFor)
		note("snap directory", err)
		l.SnapFree = info.free
	}
	note("pressure", s.pressure(&l))
	return l.sane(), errors.Join(errs...)
}

// cpuBusy is the busy share of the window that ends now. A window shorter than
// minWindow is left open and the share of the one before is given again.
func (s *Sampler) cpuBusy(now time.Time, cpu cpuTimes) float64 {
	window := now.Sub(s.baseAt)
	busy, total := cpu.busy-s.base.busy, cpu.total-s.base.total
	switch {
	case window < 0 || total < 0:
		s.base, s.baseAt = cpu, now // counters of the kernel went back
	case window >= minWindow && total > 0:
		s.busy = share(busy / total)
		s.base, s.baseAt = cpu, now
	}
	return s.busy
}

// pressure fills in the stall times, where the kernel offers them.
func (s *Sampler) pressure(l *Load) error {
	for _, p := range []struct {
		name  string
		value *float64
	}{{"cpu", &l.PressureCPU}, {"memory", &l.PressureMemory}, {"io", &l.PressureIO}} {
		data, err := os.ReadFile(s.kernel.proc + "/pressure/" + p.name)
		if err != nil {
			// Kernels without it have no such file; with psi=0 they have one
			// that cannot be read. Neither is a fault.
			*l = l.withoutPressure()
			return nil
		}
		if *p.value, err = parsePressure(data); err != nil {
			*l = l.withoutPressure()
			return err
		}
	}
	l.HasPressure = true
	return nil
}

func (l Load) withoutPressure() Load {
	l.HasPressure, l.PressureCPU, l.PressureMemory, l.PressureIO = false, 0, 0, 0
	return l
}

// sane is the last gate: nothing leaves that a comparison could stumble over.
func (l Load) sane() Load {
	l.CPUBusy = share(l.CPUBusy)
	l.PressureCPU, l.PressureMemory, l.PressureIO = share(l.PressureCPU), share(l.PressureMemory), share(l.PressureIO)
	if !(l.Load1 >= 0) || math.IsInf(l.Load1, 0) {
		l.Load1 = 0
	}
	l.MemFree = min(l.MemFree, l.MemTotal)
	return l
}

// share brings a number into 0 to 1; what is not a number is 0.
func share(x float64) float64 {
	if !(x > 0) {
		return 0
	}
	return min(x, 1)
}

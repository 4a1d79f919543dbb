package cluster

import (
	"fmt"
	"time"
)

// Bounds of what can be true. They are wide: their purpose is to keep a broken
// or lying satellite from winning every comparison, not to judge hardware.
const (
	maxCPUs   = 1 << 16
	maxMemory = 1 << 50 // bytes
	maxDisk   = 1 << 60 // bytes
	maxLoad   = 1 << 20
	// rounding is by how much a share may pass 1 and is taken for 1.
	rounding = 0.01
)

// believable returns a load of which every figure can be true: those that
// cannot are 0, and problem tells the first of them in words. It may be empty.
func believable(l Load, f Facts) (out Load, problem string) {
	note := func(format string, args ...any) {
		if problem == "" {
			problem = fmt.Sprintf("its load report is impossible: "+format, args...)
		}
	}
	share := func(name string, v float64) float64 {
		if v >= 0 && v <= 1+rounding {
			return min(v, 1)
		}
		note("%s is %v, and a share is 0 to 1", name, v)
		return 0
	}
	disk := func(name string, v uint64) uint64 {
		if v <= maxDisk {
			return v
		}
		note("%s has %d bytes free", name, v)
		return 0
	}
	out = l
	out.CPUBusy = share("the busy share of its processors", l.CPUBusy)
	out.PressureCPU = share("processor pressure", l.PressureCPU)
	out.PressureMem = share("memory pressure", l.PressureMem)
	out.PressureIO = share("input and output pressure", l.PressureIO)
	if !(l.Load1 >= 0 && l.Load1 <= maxLoad) {
		note("its load average is %v", l.Load1)
		out.Load1 = 0
	}
	switch {
	case l.MemoryTotal == 0 || l.MemoryTotal > maxMemory:
		note("it has %d bytes of memory", l.MemoryTotal)
		out.MemoryTotal, out.MemoryFree = 0, 0
	case l.MemoryFree > l.MemoryTotal:
		note("%d MiB of its %d MiB of memory are free", l.MemoryFree>>20, l.MemoryTotal>>20)
		out.MemoryFree = 0
	}
	out.SnapFree = disk("its snap directory", l.SnapFree)
	out.HomeFree = disk("the file system of its homes", l.HomeFree)
	switch {
	case f.CPUs < 0 || f.CPUs > maxCPUs:
		note("it has %d processors", f.CPUs)
	case f.MaxSessions < 0:
		note("it allows %d sessions", f.MaxSessions)
	case f.SnapReserve > maxDisk:
		note("its reserve in the snap directory is %d bytes", f.SnapReserve)
	}
	return out, problem
}

// twinGone is after what time a machine that does not come again counts as
// stopped. Satellites that are refused come again within seconds.
const twinGone = 30 * time.Second

// loaded takes in a load sample.
func (c *Cluster) loaded(now time.Time, s *Server, l Load) {
	s.Load, s.Suspect = believable(l, s.Facts)
	s.Reported, s.every = now, c.limits.Interval
	if now.Sub(s.Twin) > twinGone {
		s.Twin = time.Time{}
	}
	c.refit(s)
}

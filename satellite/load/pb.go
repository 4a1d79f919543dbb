package load

import (
	pb "verdecmd/proto"
)

// Proto is the sample as it is sent to the master.
func (l Load) Proto() *pb.Load {
	l = l.sane()
	return &pb.Load{
		CpuBusy:        l.CPUBusy,
		Load1:          l.Load1,
		MemoryTotal:    l.MemTotal,
		MemoryFree:     l.MemFree,
		SnapFree:       l.SnapFree,
		HomeFree:       l.HomeFree,
		HasPressure:    l.HasPressure,
		PressureCpu:    l.PressureCPU,
		PressureMemory: l.PressureMemory,
		PressureIo:     l.PressureIO,
	}
}

// Proto is the facts as they are sent to the master. The caller fills in the
// fields about the hypervisor and the settings.
func (f Facts) Proto() *pb.HostFacts {
	return &pb.HostFacts{
		Hostname:    f.Hostname,
		Arch:        f.Arch,
		Kernel:      f.Kernel,
		CpuVendor:   f.CPUVendor,
		Cpus:        uint32(f.CPUs),
		MemoryBytes: f.MemoryBytes,
		SnapDir:     f.SnapDir,
		SnapKind:    string(f.SnapKind),
		BootId:      f.BootID,
	}
}

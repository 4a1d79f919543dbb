package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/cpu"
	loadavg "github.com/shirou/gopsutil/v3/load"
	"github.com/shirou/gopsutil/v3/mem"
	"golang.org/x/sys/unix"
)

// kernel asks the kernel. proc is /proc, or a copy of it in tests.
type kernel struct {
	proc string
}

// cpuTimes are seconds of all processors together since the computer started.
type cpuTimes struct {
	busy, total float64
}

func (k kernel) context() context.Context {
	return context.WithValue(context.Background(), common.EnvKey, common.EnvMap{common.HostProcEnvKey: k.proc})
}

// noPanic makes an error of a panic: gopsutil believes what it reads, and in
// containers /proc may come from a program whose files are cut off or empty.
func noPanic(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("what the kernel says cannot be read: %v", v)
	}
}

// cpu adds up the counters. User time contains the time of guests. Stolen time
// counts as busy: the processor was wanted and not there.
func (k kernel) cpu() (_ cpuTimes, err error) {
	defer noPanic(&err)
	list, err := cpu.TimesWithContext(k.context(), false)
	if err != nil {
		return cpuTimes{}, err
	}
	if len(list) == 0 {
		return cpuTimes{}, errors.New("no line cpu in " + k.proc + "/stat")
	}
	t := list[0]
	busy := t.User + t.Nice + t.System + t.Irq + t.Softirq + t.Steal
	return cpuTimes{busy: busy, total: busy + t.Idle + t.Iowait}, nil
}

func (k kernel) load1() (_ float64, err error) {
	defer noPanic(&err)
	avg, err := loadavg.AvgWithContext(k.context())
	if err != nil {
		return 0, err
	}
	return avg.Load1, nil
}

func (k kernel) memory() (total, available uint64, err error) {
	defer noPanic(&err)
	m, err := mem.VirtualMemoryWithContext(k.context())
	if err != nil {
		return 0, 0, err
	}
	if m.Total == 0 {
		return 0, 0, errors.New("no MemTotal in " + k.proc + "/meminfo")
	}
	return m.Total, m.Available, nil
}

// vendor is who made the processor; empty where the kernel does not say.
func (k kernel) vendor() string {
	var err error
	defer noPanic(&err)
	infos, err := cpu.InfoWithContext(k.context())
	if err != nil || len(infos) == 0 {
		return ""
	}
	return text(infos[0].VendorID)
}

// text lets no bytes through that a message cannot carry: one that is not UTF-8
// would keep the satellite off its master for ever.
func text(s string) string { return strings.ToValidUTF8(s, "?") }

// Facts do not change while the program runs.
type Facts struct {
	Hostname    string
	Arch        string // as uname -m
	Kernel      string // as uname -r
	CPUVendor   string // GenuineIntel, AuthenticAMD, ...; empty where the kernel does not say
	CPUs        int    // that this process may use
	MemoryBytes uint64
	BootID      string // another one after each start of the computer; empty where there is none
	SnapDir     string
	SnapKind    Kind
}

// Facts asks for what does not change. With an error, the rest is right.
func (s *Sampler) Facts() (Facts, error) {
	f := Facts{CPUs: runtime.NumCPU(), SnapDir: s.snap.dir}
	var errs []error
	var err error
	if f.Hostname, err = os.Hostname(); err != nil {
		errs = append(errs, err)
	}
	f.Hostname = text(f.Hostname)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		errs = append(errs, err)
	}
	f.Arch, f.Kernel = unix.ByteSliceToString(u.Machine[:]), unix.ByteSliceToString(u.Release[:])
	f.CPUVendor = s.kernel.vendor()
	if f.MemoryBytes, _, err = s.kernel.memory(); err != nil {
		errs = append(errs, err)
	}
	if id, err := os.ReadFile(s.kernel.proc + "/sys/kernel/random/boot_id"); err == nil {
		f.BootID = text(strings.TrimSpace(string(id)))
	}
	info, err := s.snap.ask(askFor)
	if err != nil {
		errs = append(errs, err)
	}
	f.SnapKind = info.kind
	return f, errors.Join(errs...)
}

package load

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

// FuzzProc: whatever /proc says, a sample has shares from 0 to 1, finite numbers
// and no more free memory than there is; what could not be measured keeps users
// away and is named in the error (S21).
func FuzzProc(f *testing.F) {
	files := []string{"stat", "loadavg", "meminfo", "pressure/cpu", "cpuinfo"}
	seed := procFiles()
	f.Add([]byte(seed["stat"]), []byte(seed["loadavg"]), []byte(seed["meminfo"]), []byte(seed["pressure/cpu"]), []byte(seed["cpuinfo"]))
	var real [5][]byte // of the computer that runs the test
	for i, name := range files {
		real[i], _ = os.ReadFile("/proc/" + name)
	}
	f.Add(real[0], real[1], real[2], real[3], real[4][:min(len(real[4]), 1500)])
	f.Add([]byte("cpu  -1 18446744073709551615 nan 0"), []byte("1e309 x"), []byte("MemTotal: 18446744073709551615 kB\nMemAvailable: -1 kB\n"), []byte("some avg10=1e400"), []byte("vendor_id\t: \xff\n"))
	f.Add([]byte("cpu"), []byte(""), []byte("MemTotal:\nMemTotal"), []byte("\x00"), []byte("processor: x"))
	proc := f.TempDir()
	for name, text := range seed {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			f.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, stat, loadavg, meminfo, pressure, cpuinfo []byte) {
		s := newSampler(kernel{proc: proc}, "", proc, start)
		for i, data := range [][]byte{stat, loadavg, meminfo, pressure, cpuinfo} {
			if err := os.WriteFile(filepath.Join(proc, files[i]), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := s.Sample(start.Add(3 * time.Second))
		for _, x := range []float64{l.CPUBusy, l.PressureCPU, l.PressureMemory, l.PressureIO} {
			if !(x >= 0 && x <= 1) {
				t.Errorf("share %v in %+v", x, l)
			}
		}
		if !(l.Load1 >= 0) || math.IsInf(l.Load1, 0) || l.MemFree > l.MemTotal || l.HomeFree == 0 {
			t.Errorf("got %+v", l)
		}
		if l.MemTotal == 0 && err == nil {
			t.Errorf("no memory and no error: %+v", l)
		}
		if err != nil && err.Error() == "" {
			t.Error("an empty error")
		}
		p := l.Proto()
		if p.MemoryFree > p.MemoryTotal || !(p.CpuBusy <= 1) {
			t.Errorf("proto %v", p)
		}
		facts, _ := s.Facts()
		if _, err := proto.Marshal(facts.Proto()); err != nil {
			t.Errorf("%+v cannot be sent: %v", facts, err)
		}
	})
}

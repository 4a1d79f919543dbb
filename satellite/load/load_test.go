package load

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeProc makes a /proc with these files; later calls change it.
func fakeProc(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// procFiles are from a real computer. The counters of stat are hundredths of a
// second: user nice system idle iowait irq softirq steal guest guest_nice.
func procFiles() map[string]string {
	return map[string]string{
		"stat":                      "cpu  1000 0 500 8000 500 0 0 0 900 0\ncpu0 1000 0 500 8000 500 0 0 0 900 0\n",
		"loadavg":                   "1.25 0.80 0.60 2/345 6789\n",
		"meminfo":                   "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   6000000 kB\nBuffers: 1 kB\nCached: 2 kB\n",
		"cpuinfo":                   "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: test\n\n",
		"sys/kernel/random/boot_id": "c2486568-fc3b-468e-82e1-bb5baee2086c\n",
		"pressure/cpu":              "some avg10=12.50 avg60=0.38 avg300=0.89 total=10\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/memory":           "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/io":               "some avg10=100.00 avg60=0.00 avg300=0.00 total=0\n",
	}
}

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newTest(t *testing.T) (*Sampler, string) {
	t.Helper()
	proc := t.TempDir()
	fakeProc(t, proc, procFiles())
	return newSampler(kernel{proc: proc}, "", t.TempDir(), start), proc
}

func TestSample(t *testing.T) {
	s, proc := newTest(t)
	// 4 s pass: 1 s user (of it guests), 1 s stolen, 1 s idle, 1 s waiting for disks.
	fakeProc(t, proc, map[string]string{"stat": "cpu  1100 0 500 8100 600 0 0 100 1000 0\n"})
	got, err := s.Sample(start.Add(4 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if got.SnapFree == 0 || got.SnapFree != got.HomeFree { // one directory, asked once
		t.Errorf("free: got %d and %d", got.SnapFree, got.HomeFree)
	}
	got.SnapFree, got.HomeFree = 0, 0
	want := Load{CPUBusy: 0.5, Load1: 1.25, MemTotal: 8000000 << 10, MemFree: 6000000 << 10,
		HasPressure: true, PressureCPU: 0.125, PressureMemory: 0, PressureIO: 1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p := got.Proto()
	if p.CpuBusy != 0.5 || p.Load1 != 1.25 || p.MemoryTotal != want.MemTotal || p.MemoryFree != want.MemFree || !p.HasPressure || p.PressureCpu != 0.125 || p.PressureIo != 1 {
		t.Errorf("proto: got %v", p)
	}
}

func TestCPUBusy(t *testing.T) {
	type step struct {
		at          time.Duration
		busy, total float64 // counters in seconds
		want        float64
	}
	tests := map[string][]step{
		"over the window":              {{3 * time.Second, 1, 4, 0.25}, {6 * time.Second, 4, 7, 1}},
		"a short window is left open":  {{2 * time.Second, 1, 2, 0.5}, {2010 * time.Millisecond, 1.01, 2.01, 0.5}, {4 * time.Second, 2, 4, 0.5}},
		"first report at once":         {{time.Millisecond, 1, 1, 0}},
		"counters go back":             {{2 * time.Second, 1, 2, 0.5}, {4 * time.Second, 0.1, 0.2, 0.5}, {6 * time.Second, 2.1, 2.2, 1}},
		"busy goes back alone":         {{2 * time.Second, -1, 2, 0}},
		"no time passes in the kernel": {{2 * time.Second, 1, 2, 0.5}, {5 * time.Second, 1, 2, 0.5}},
		"the clock goes back":          {{2 * time.Second, 1, 2, 0.5}, {time.Second, 1.5, 2.5, 0.5}, {3 * time.Second, 1.5, 4.5, 0}},
		"not a number":                 {{2 * time.Second, math.NaN(), 2, 0}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			s := &Sampler{baseAt: start}
			for i, st := range steps {
				if got := s.cpuBusy(start.Add(st.at), cpuTimes{st.busy, st.total}); math.Abs(got-st.want) > 1e-9 {
					t.Errorf("step %d: got %v, want %v", i, got, st.want)
				}
			}
		})
	}
}

// A kernel without pressure, or with nonsense in its files, costs that part only.
func TestSampleWithMissingParts(t *testing.T) {
	tests := map[string]struct {
		file, text string // empty text: removed
		wantErr    string
		check      func(Load) bool
	}{
		"no pressure":       {"pressure/io", "", "", func(l Load) bool { return !l.HasPressure && l.PressureCPU == 0 && l.Load1 == 1.25 }},
		"garbage pressure":  {"pressure/memory", "some avg10=NaN\n", "pressure: avg10", func(l Load) bool { return !l.HasPressure && l.PressureCPU == 0 }},
		"no processor time": {"stat", "nonsense\n", "processor time: no line cpu", func(l Load) bool { return l.CPUBusy == 1 && l.MemFree > 0 }},
		"NaN load":          {"loadavg", "NaN 0 0 1/2 3\n", "", func(l Load) bool { return l.Load1 == 0 }},
		"negative load":     {"loadavg", "-3 0 0 1/2 3\n", "", func(l Load) bool { return l.Load1 == 0 }},
		"no memory":         {"meminfo", "", "memory: ", func(l Load) bool { return l.MemFree == 0 && l.MemTotal == 0 }},
		"more free than is": {"meminfo", "MemTotal: 10 kB\nMemAvailable: 20 kB\n", "", func(l Load) bool { return l.MemFree == 10<<10 }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, proc := newTest(t)
			if tt.text == "" {
				if err := os.Remove(filepath.Join(proc, tt.file)); err != nil {
					t.Fatal(err)
				}
			} else {
				fakeProc(t, proc, map[string]string{tt.file: tt.text})
			}
			got, err := s.Sample(start.Add(3 * time.Second))
			if (err != nil) != (tt.wantErr != "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error: got %v, want %q", err, tt.wantErr)
			}
			if !tt.check(got) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	s, _ := newTest(t)
	f, err := s.Facts()
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUVendor != "AuthenticAMD" || f.MemoryBytes != 8000000<<10 || f.BootID != "c2486568-fc3b-468e-82e1-bb5baee2086c" ||
		f.CPUs < 1 || f.Arch == "" || f.Kernel == "" || f.Hostname == "" || f.SnapKind == "" {
		t.Errorf("got %+v", f)
	}
	if p := f.Proto(); p.CpuVendor != f.CPUVendor || p.SnapKind != string(f.SnapKind) || p.BootId != f.BootID || p.Cpus != uint32(f.CPUs) || p.Arch != f.Arch {
		t.Errorf("proto: got %v", p)
	}
}

// The real /proc of the computer that runs the test.
func TestSampleOfThisComputer(t *testing.T) {
	s := New("/dev/shm", "/")
	l, err := s.Sample(time.Now().Add(minWindow))
	if err != nil {
		t.Fatal(err)
	}
	if l.MemTotal == 0 || l.MemFree == 0 || l.HomeFree == 0 || l.CPUBusy < 0 || l.CPUBusy > 1 {
		t.Errorf("got %+v", l)
	}
	if f, err := s.Facts(); err != nil || f.SnapKind != Tmpfs || f.SnapDir != "/dev/shm" {
		t.Errorf("facts: got %+v, %v", f, err)
	}
}

// V-37: which file systems are slow, and which are memory.
func TestKindOf(t *testing.T) {
	for magic, want := range map[uint32]Kind{
		unix.NFS_SUPER_MAGIC: Network, unix.CIFS_SUPER_MAGIC: Network, unix.SMB2_SUPER_MAGIC: Network, unix.SMB_SUPER_MAGIC: Network,
		unix.V9FS_MAGIC: Network, unix.FUSE_SUPER_MAGIC: Network, unix.OCFS2_SUPER_MAGIC: Network, unix.CEPH_SUPER_MAGIC: Network,
		unix.AFS_SUPER_MAGIC: Network, unix.AFS_FS_MAGIC: Network, unix.CODA_SUPER_MAGIC: Network,
		unix.TMPFS_MAGIC: Tmpfs, unix.RAMFS_MAGIC: Tmpfs,
		unix.EXT4_SUPER_MAGIC: Local, unix.XFS_SUPER_MAGIC: Local, unix.BTRFS_SUPER_MAGIC: Local, unix.OVERLAYFS_SUPER_MAGIC: Local,
	} {
		if got := kindOf(magic); got != want {
			t.Errorf("%#x: got %s, want %s", magic, got, want)
		}
	}
	if _, err := KindOf("/no/such/directory"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make the directory") {
		t.Errorf("missing: got %v", err)
	}
}

// A file system that hangs holds a sample up once, for a second, keeps one
// goroutine, and is believed again when it answers.
func TestSpaceOfADeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		asked := 0
		s := newSpace("/home")
		s.statfs = func(_ string, st *unix.Statfs_t) error {
			asked++
			<-answer
			st.Bavail, st.Bsize, st.Type = 10, 4096, unix.NFS_SUPER_MAGIC
			return nil
		}
		for i, want := range []time.Duration{askFor, 0, 0} {
			before := time.Now()
			info, err := s.ask(askFor)
			if !errors.Is(err, errNoAnswer) || info.free != 0 {
				t.Errorf("ask %d: got %v, %v", i, info, err)
			}
			if got := time.Since(before); got != want {
				t.Errorf("ask %d took %v, want %v", i, got, want)
			}
		}
		close(answer)
		synctest.Wait()
		info, err := s.ask(askFor)
		if err != nil || info.free != 40960 || info.kind != Network {
			t.Errorf("after it came back: got %v, %v", info, err)
		}
		if asked != 1 {
			t.Errorf("asked %d times, want once", asked)
		}
	})
}

func TestParsePressure(t *testing.T) {
	tests := map[string]struct {
		text string
		want float64
		ok   bool
	}{
		"usual":            {"some avg10=1.50 avg60=0.87 avg300=0.73 total=123\nfull avg10=9 avg60=0 avg300=0 total=0\n", 0.015, true},
		"full first":       {"full avg10=9.00\nsome avg60=3 avg10=2.00", 0.02, true},
		"over a hundred":   {"some avg10=100.01", 1, true},
		"empty":            {"", 0, false},
		"only full":        {"full avg10=9.00", 0, false},
		"no number":        {"some avg10=", 0, false},
		"not a number":     {"some avg10=NaN", 0, false},
		"infinite":         {"some avg10=+Inf", 0, false},
		"negative":         {"some avg10=-1", 0, false},
		"beyond all sense": {"some avg10=1e300", 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parsePressure([]byte(tt.text))
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("got %v, %v, want %v, ok %v", got, err, tt.want, tt.ok)
			}
		})
	}
}

func FuzzParsePressure(f *testing.F) {
	f.Add([]byte("some avg10=1.50 avg60=0.87 avg300=0.73 total=123\nfull avg10=9\n"))
	f.Add([]byte("some avg10=NaN"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := parsePressure(data); !(got >= 0 && got <= 1) || err != nil && got != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

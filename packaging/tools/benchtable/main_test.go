package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Figures are medians, and a goal that is missed says so.
func TestTable(t *testing.T) {
	in := `goos: linux
BenchmarkChoose/1000-2     100  4000 ns/op  0 B/op
BenchmarkChoose/1000-2     100  1000 ns/op
BenchmarkChoose/1000-2     100  3000 ns/op
BenchmarkFloor/1000-2      100  1000 ns/op
BenchmarkChoose/10000-2    100  15000 ns/op
BenchmarkFloor/10000-2     100  10000 ns/op
BenchmarkPing/C1-2         100  26000 ns/op
BenchmarkPing/C1-floor-2   100  25000 ns/op
BenchmarkServers10k/C2-2         1  2600000 ns/op
BenchmarkServers10k/C2-floor-2   1  2500000 ns/op
BenchmarkStart-2   1  5 ns/op  50.0 bare-ms  52.0 ours-ms
BenchmarkCommit/A5-floor-2    1  500000 ns/op
BenchmarkCommit/A5-2    1  600000 ns/op
BenchmarkCommit/A6-floor-2    1  30000 ns/op
BenchmarkCommit/A6-2    1  40000 ns/op
BenchmarkOpen/A7-floor-2    1  50000000 ns/op
BenchmarkOpen/A7-2    1  150000000 ns/op
BenchmarkBoot-2    1  5 ns/op  4000 bare-ms  4040 ours-ms
PASS
`
	in = strings.ReplaceAll(in, "-2 ", suffix()+" ")
	figures, err := read(strings.NewReader(in))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "p.md")
	if err := write(path, figures); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| 3.0 µs | 1.0 µs | flat scan of float32 scores | 3.00 |", "no allocation | no |", "| 52 ms | 50 ms |", "| 1.01 |"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("got\n%s\nwant in it %q", b, want)
		}
	}
	delete(figures, "BenchmarkBoot")
	if err := write(path, figures); err == nil || !strings.Contains(err.Error(), "D5") {
		t.Errorf("got %v, want an error that names the row D5", err)
	}
}

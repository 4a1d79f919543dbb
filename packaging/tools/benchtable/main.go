// Command benchtable reads the output of "go test -bench" on standard input,
// prints it on, and writes the table of docs/performance.md: ours beside the
// floor of the same run, and the ratio between them. Run it by "make bench". With
// -scale it makes docs/scale.md of what "verdecmd simulate --json" prints; run
// that by "make scale".
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is one line of the table. The figures are medians over all runs.
type row struct {
	id, what        string
	ours, floor     string // benchmark names, as printed, without the -N of the processors
	oursU, floorU   string // units: the columns of the benchmark's line
	floorIs, target string
	ratio           float64 // the goal: at most this; 0: none
	added           float64 // the goal: at most this more than the floor, in oursU; 0: none
}

var rows = []row{
	{id: "A5", what: "a durable change, one caller", ours: "BenchmarkCommit/A5", floor: "BenchmarkCommit/A5-floor", floorIs: "one bbolt Update", target: "≤ 1.5 × the Update", ratio: 1.5},
	{id: "A6", what: "a durable change, 128 callers", ours: "BenchmarkCommit/A6", floor: "BenchmarkCommit/A6-floor", floorIs: "bbolt Batch, closed at 128", target: "≤ 2 × the Batch", ratio: 2},
	{id: "A7", what: "opening a database of 1,000,000 records", ours: "BenchmarkOpen/A7", floor: "BenchmarkOpen/A7-floor", floorIs: "one scan of the file", target: "≤ 4 × the scan", ratio: 4},
	{id: "B", what: "choose among 1,000 servers", ours: "BenchmarkChoose/1000", floor: "BenchmarkFloor/1000", floorIs: "flat scan of float32 scores", target: "≤ 2 × the scan, ≤ 10 µs, no allocation", ratio: 2},
	{id: "B", what: "choose among 10,000 servers", ours: "BenchmarkChoose/10000", floor: "BenchmarkFloor/10000", floorIs: "flat scan of float32 scores", target: "≤ 2 × the scan, ≤ 100 µs, no allocation", ratio: 2},
	{id: "C1", what: "`ping` over the admin socket", ours: "BenchmarkPing/C1", floor: "BenchmarkPing/C1-floor", floorIs: "ping-pong over a Unix socket", target: "≤ 1.3 × the ping-pong", ratio: 1.3},
	{id: "C2", what: "`servers` with 10,000 rows", ours: "BenchmarkServers10k/C2", floor: "BenchmarkServers10k/C2-floor", floorIs: "append formatting and big writes", target: "≤ 2 × the formatting", ratio: 2},
	{id: "D1", what: "start of a desktop, to the first QMP answer", ours: "BenchmarkStart", floor: "BenchmarkStart", oursU: "ours-ms", floorU: "bare-ms", floorIs: "bare QEMU, same arguments", target: "≤ 3 ms more", added: 3},
	{id: "D5", what: "full boot of the guest", ours: "BenchmarkBoot", floor: "BenchmarkBoot", oursU: "ours-ms", floorU: "bare-ms", floorIs: "bare QEMU, same arguments", target: "≤ 1.02 × bare QEMU", ratio: 1.02},
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "-scale" {
		if err := scale(os.Stdin, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "benchtable:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -bench . ... | benchtable FILE.md, or verdecmd simulate --satellites N --json ... | benchtable -scale FILE.md")
		os.Exit(2)
	}
	figures, err := read(io.TeeReader(os.Stdin, os.Stdout))
	if err == nil {
		err = write(os.Args[1], figures)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchtable:", err)
		os.Exit(1)
	}
}

// read collects benchmark -> unit -> figures.
func read(r io.Reader) (map[string]map[string][]float64, error) {
	out := map[string]map[string][]float64{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimSuffix(f[0], suffix())
		if out[name] == nil {
			out[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("figure of %s: %w", name, err)
			}
			out[name][f[i+1]] = append(out[name][f[i+1]], v)
		}
	}
	return out, s.Err()
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// show writes a figure with a unit that reads well.
func show(v float64, unit string) string {
	switch {
	case unit == "ns/op" && v >= 1e6:
		return fmt.Sprintf("%.2f ms", v/1e6)
	case unit == "ns/op" && v >= 1e3:
		return fmt.Sprintf("%.1f µs", v/1e3)
	case unit == "ns/op":
		return fmt.Sprintf("%.0f ns", v)
	}
	return fmt.Sprintf("%.0f ms", v)
}

func write(path string, figures map[string]map[string][]float64) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# What it costs

Each line is ours beside a floor that was measured in the same run on the same machine: only the ratio travels. Figures are
medians. Made by %smake bench%s on %s, %s, %d processors, %s.

| row | what | ours | floor | floor is | ratio | goal | met |
| --- | --- | --- | --- | --- | --- | --- | --- |
`, "`", "`", time.Now().UTC().Format("2006-01-02"), processor(), runtime.NumCPU(), qemu())
	for _, r := range rows {
		unit := func(u string) string {
			if u == "" {
				return "ns/op"
			}
			return u
		}
		ours, floor := figures[r.ours][unit(r.oursU)], figures[r.floor][unit(r.floorU)]
		if len(ours) == 0 || len(floor) == 0 {
			return fmt.Errorf("row %s: no figures of %s and %s in this run", r.id, r.ours, r.floor)
		}
		o, f := median(ours), median(floor)
		met := "yes"
		if r.ratio > 0 && o > r.ratio*f || r.added > 0 && o-f > r.added {
			met = "no"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.2f | %s | %s |\n", r.id, r.what, show(o, unit(r.oursU)), show(f, unit(r.floorU)), r.floorIs, o/f, r.target, met)
	}
	b.WriteString("\nRow names are those of the project's list of floors and peers. Desktops were run without hardware virtualisation (TCG).\n")
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				return strings.TrimSpace(v)
			}
		}
	}
	return runtime.GOARCH
}

func qemu() string {
	out, err := exec.Command("qemu-system-x86_64", "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		return "no QEMU"
	}
	return line
}

// suffix is what "go test" appends to the names of benchmarks.
func suffix() string {
	if n := runtime.GOMAXPROCS(0); n > 1 {
		return "-" + strconv.Itoa(n)
	}
	return ""
}

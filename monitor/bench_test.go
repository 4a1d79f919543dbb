package monitor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkPing is PERFORMANCE C1: a trivial command beside a ping-pong over
// the same kind of socket.
func BenchmarkPing(b *testing.B) {
	b.Run("C1-floor", func(b *testing.B) {
		l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(nc)
			for {
				if _, err := r.ReadSlice('\n'); err != nil {
					return
				}
				nc.Write([]byte("200 ok\n"))
			}
		}()
		pingPong(b, l.Addr().String())
	})
	b.Run("C1", func(b *testing.B) {
		ts := serve(b, newFake(), nil)
		pingPong(b, ts.path)
	})
}

// pingPong lets a client that is a process of its own, as all clients are, ask
// b.N times.
func pingPong(b *testing.B, path string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "VERDECMON_TEST_PING="+path+" "+strconv.Itoa(b.N))
	b.ResetTimer()
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	p50, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(p50, "p50-ns")
}

// pingForTest is that client; it prints the median of the round trips.
func pingForTest(path string, n int) int {
	nc, err := net.Dial("unix", path)
	if err != nil {
		return 1
	}
	r := bufio.NewReader(nc)
	line := []byte("ping\n")
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		nc.Write(line)
		if _, err := r.ReadSlice('\n'); err != nil {
			return 1
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	fmt.Println(took[n/2].Nanoseconds())
	return 0
}

// BenchmarkServers10k is PERFORMANCE C2: a listing beside the bare formatting
// of the same rows, both written to a socket that is read.
func BenchmarkServers10k(b *testing.B) {
	rows := make([]Server, 10000)
	for i := range rows {
		rows[i] = Server{ID: uint64(i + 1), Name: fmt.Sprintf("sat-%05d.example.net", i), Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255),
			State: Online, Link: LinkUp, Users: i % 40, CPU: float64(i%977) / 10, MemTotal: 8589934592, MemFree: uint64(i) * 54321,
			Age: time.Duration(i%4) * time.Second, Version: "1.0.0", Score: int64(i % 1000), Eligible: true}
	}
	b.Run("C2-floor", func(b *testing.B) {
		l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		go func() {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(nc)
			var out []byte
			for {
				if _, err := r.ReadSlice('\n'); err != nil {
					return
				}
				out = out[:0]
				for i := range rows {
					out = appendFloor(out, &rows[i])
				}
				nc.Write(append(out, "210 ok count=10000\n"...))
			}
		}()
		listing(b, l.Addr().String())
	})
	b.Run("C2", func(b *testing.B) {
		ts := serve(b, newFake(), func(cfg *Config) { cfg.Table = NewTable(&bigMaster{newFake(), rows}) })
		listing(b, ts.path)
	})
}

// bigMaster has its list ready, so that the benchmark measures the socket.
type bigMaster struct {
	*fakeMaster
	rows []Server
}

func (m *bigMaster) Servers() ([]Server, uint64) { return m.rows, 1 }

func appendFloor(b []byte, s *Server) []byte {
	b = append(b, "210-"...)
	b = append(strconv.AppendUint(b, s.ID, 10), '\t')
	b = append(append(b, s.Name...), '\t')
	b = append(append(b, s.Address...), '\t')
	b = append(append(b, s.State...), '\t')
	b = append(append(b, s.Link...), '\t')
	b = append(strconv.AppendInt(b, int64(s.Users), 10), '\t')
	b = append(strconv.AppendInt(b, int64(s.Reserved), 10), '\t')
	b = append(strconv.AppendFloat(b, s.CPU, 'f', 1, 64), '\t')
	b = append(strconv.AppendUint(b, s.MemTotal, 10), '\t')
	b = append(strconv.AppendUint(b, s.MemFree, 10), '\t')
	b = append(strconv.AppendInt(b, int64(s.Age/time.Second), 10), '\t')
	b = append(append(b, s.Version...), '\t')
	return append(strconv.AppendInt(b, s.Score, 10), '\n')
}

func listing(b *testing.B, path string) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	r := bufio.NewReaderSize(nc, 1<<18)
	for b.Loop() {
		io.WriteString(nc, "servers\n")
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if line[3] == ' ' {
				break
			}
		}
	}
}

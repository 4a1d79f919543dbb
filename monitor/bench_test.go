package monitor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
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

func pingPong(b *testing.B, path string) {
	nc, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	r := bufio.NewReader(nc)
	line := []byte("ping\n")
	for b.Loop() {
		nc.Write(line)
		if _, err := r.ReadSlice('\n'); err != nil {
			b.Fatal(err)
		}
	}
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

package main

import (
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"verdecmd/monitor"
)

// oracle is what a writer knows of one server from the answers alone.
type oracle struct {
	server         int
	n              int    // changes asked for
	acked, pending string // "state reason"; pending is what was asked and not answered
}

// tell sends one command and returns the code and the data of its last line.
func tell(c *monitor.Client, line string) (int, string, error) {
	if err := c.Send(line); err != nil {
		return 0, "", err
	}
	for {
		l, err := c.Read()
		if err != nil {
			return 0, "", err
		}
		if l.End() {
			return l.Code, l.Data, nil
		}
	}
}

// findRow is the row of a server.
func findRow(table, name string) string {
	for line := range strings.Lines(table) {
		if strings.Contains(line, "\t"+name+"\t") {
			return line
		}
	}
	return "0"
}

// S21, S18: garbage and silence on the administrators' socket, on the port for
// satellites and on the local socket for users. The daemons live, answer
// meanwhile, and have afterwards what they had before.
func TestRealGarbage(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	s := r.satellite(1, nil, "")
	r.win4(0, 1, "alice")
	const conns, size = 24, 64 << 10
	flood := func(seed uint64) {
		var wg sync.WaitGroup
		for _, to := range [][2]string{{"unix", r.path("sock")}, {"tcp", "127.0.0.1:" + r.port}, {"unix", r.path("sat1")}} {
			for i := range uint64(conns) {
				wg.Go(func() {
					c, err := net.Dial(to[0], to[1])
					if err != nil {
						return // refused: there may be too many
					}
					defer c.Close()
					junk := make([]byte, size)
					src := rand.NewChaCha8([32]byte{byte(seed), byte(i)})
					src.Read(junk)
					switch i % 4 {
					case 0: // lines
						for k := range junk {
							junk[k] = "servers \"\n\\\x00\xff=,"[junk[k]%15]
						}
					case 1: // begins like TLS
						copy(junk, "\x16\x03\x01\xff\xff\x01")
					case 2: // begins like HTTP/2
						copy(junk, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
					case 3: // says nothing for a while
						junk = nil
					}
					c.SetDeadline(time.Now().Add(2 * time.Second))
					c.Write(junk)
					buf := make([]byte, 4096)
					for {
						if _, err := c.Read(buf); err != nil {
							return
						}
					}
				})
			}
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		for worst := time.Duration(0); ; {
			began := time.Now()
			if _, code := r.try("verdecmon", "-s", r.path("sock"), "ping"); code != 0 {
				t.Error("no ping meanwhile")
			}
			worst = max(worst, time.Since(began))
			select {
			case <-done:
				if worst > 10*time.Second { // the program's start on a busy machine included
					t.Errorf("ping took %v meanwhile", worst)
				}
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	files := []int{m.files(), s.files()}
	flood(1)
	settled := func() bool { return m.files() <= files[0]+1 && s.files() <= files[1]+1 }
	r.until("the end of the connections", settled)
	memory := []int{m.memory("VmRSS"), s.memory("VmRSS")}
	flood(2)
	r.until("the end of the connections", settled)
	for i, d := range []*daemon{m, s} {
		// 64 KiB for each bad connection; the runtime gives memory back late.
		if now := d.memory("VmRSS"); now > memory[i]+3*conns*64<<10+32<<20 {
			t.Errorf("%s has %d KiB after the second flood and had %d after the first", d.name, now>>10, memory[i]>>10)
		}
	}
	r.win4(0, 1, "alice")
	r.win4(0, 1, "bob")
	r.until("the satellite's link", func() bool { return r.link(1) == "up" }) // a report may be late
}

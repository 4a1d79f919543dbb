package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// S5, S6, V-78, V-79: the real master is killed under more than 50 changes a
// second. What it has acknowledged is so after the restart; what it has not is
// there wholly or not at all.
func TestRealMasterKilled(t *testing.T) {
	t.Parallel()
	const writers, each, kills = 6, 2, 8
	r := newReal(t)
	m := r.master(nil, "")
	var all []*oracle
	for i := range writers * each {
		l := r.puppet(t, i+1, nil)
		defer l.end()
		r.until("a link", func() bool { return l.ups.Load() > 0 })
		id, err := strconv.Atoi(strings.Fields(findRow(r.admin("servers"), "sat"+strconv.Itoa(i+1)))[0])
		check(t, err)
		all = append(all, &oracle{server: id, acked: "online -"})
	}
	var changes, in atomic.Int64
	rnd := rand.New(rand.NewPCG(5, 5))
	for kill := range kills {
		var wg sync.WaitGroup
		began := time.Now()
		for w := range writers {
			own := all[w*each : (w+1)*each]
			wg.Go(func() {
				c, err := monitor.Dial(r.path("sock"))
				if err != nil {
					return
				}
				defer c.Close()
				for i := 0; ; i++ {
					o := own[i%each]
					n := in.Add(1)
					line := fmt.Sprintf("offlineserver %d reason=r%d", o.server, n)
					o.pending = fmt.Sprintf("offline r%d", n)
					if strings.HasPrefix(o.acked, "offline") {
						line, o.pending = fmt.Sprintf("onlineserver %d", o.server), "online -"
					}
					code, _, err := tell(c, line)
					switch {
					case err != nil:
						return // maybe done, maybe not
					case code/100 == 2:
						o.acked = o.pending
						changes.Add(1)
					}
					o.pending = o.acked
				}
			})
		}
		time.Sleep(time.Duration(200+rnd.IntN(300)) * time.Millisecond) // the instant of the kill
		m.kill()
		wg.Wait()
		if rate := float64(changes.Swap(0)) / time.Since(began).Seconds(); rate < 50 {
			t.Errorf("kill %d: %.0f changes a second, want 50: it proves little", kill, rate)
		}
		restart := time.Now()
		m.start()
		r.until("the socket", r.ready)
		if took := time.Since(restart); took > 5*time.Second {
			t.Errorf("back after %v", took)
		}
		maybe := 0
		for _, o := range all {
			id := strconv.Itoa(o.server)
			got := r.value("state", "server", id) + " " + r.value("reason", "server", id)
			if got != o.acked && got != o.pending {
				t.Errorf("kill %d: server %d is %q; acknowledged was %q, asked was %q", kill, o.server, got, o.acked, o.pending)
			}
			if o.acked != o.pending {
				maybe++
			}
			o.acked, o.pending = got, got
		}
		if maybe == 0 {
			t.Logf("kill %d: no change was under way", kill)
		}
		r.until("the links", func() bool { return strings.Count(r.admin("servers"), "\tup\t") == len(all) })
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

// S20: the disk of the database is full. What there is can be read, changes are
// refused by name and leave nothing, and it is over without a restart.
func TestRealFullDisk(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	check(t, os.MkdirAll(r.path("master/master"), 0o700))
	m := r.master(nil, "mount -t tmpfs -o size=4m,mode=700 none "+r.path("master/master"))
	const servers = 60 // so many records that the file of the database must grow
	for n := range servers {
		defer r.puppet(t, n+1, nil).end()
	}
	r.until("the links", func() bool { return strings.Count(r.admin("servers"), "\tup\t") == servers })
	filler := m.inside(r.path("master/master/filler"))
	f, err := os.Create(filler)
	check(t, err)
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	f.Close()
	// The file of the database has some room inside.
	c, err := monitor.Dial(r.path("sock"))
	check(t, err)
	defer c.Close()
	code, out, n := 200, "", 0
	for code/100 == 2 && n < servers {
		n++
		code, out, err = tell(c, fmt.Sprintf("offlineserver %d reason=%s", n, strings.Repeat("x", 200)))
		check(t, err)
	}
	if code/100 == 2 || !strings.Contains(out, "space") {
		t.Errorf("after %d changes: %d %s", n, code, out)
	}
	if got := r.value("state", "server", strconv.Itoa(n)); got != "online" {
		t.Errorf("what was refused is there: %s", got)
	}
	if got := strings.Count(r.admin("servers"), "\toffline\t"); got != n-1 {
		t.Errorf("%d servers are offline, acknowledged were %d", got, n-1)
	}
	r.admin("ping")
	r.admin("users")
	check(t, os.Remove(filler))
	free := time.Now()
	r.until("changes again", func() bool {
		code, _, err := tell(c, fmt.Sprintf("offlineserver %d", n))
		check(t, err)
		return code/100 == 2
	})
	if took := time.Since(free); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
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
				if worst > 3*time.Second { // the program's start on a busy machine included
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
	memory := []int{resident(r, m), resident(r, s)}
	flood(2)
	r.until("the end of the connections", settled)
	for i, d := range []*daemon{m, s} {
		// 64 KiB for each bad connection; the runtime gives memory back late.
		if now := resident(r, d); now > memory[i]+3*conns*64+32<<10 {
			t.Errorf("%s has %d KiB after the second flood and had %d after the first", d.name, now, memory[i])
		}
	}
	r.win4(0, 1, "alice")
	r.win4(0, 1, "bob")
	if up := r.link(1); up != "up" {
		t.Errorf("the satellite's link is %s", up)
	}
}

// resident is the memory of a daemon in KiB.
func resident(r *real, d *daemon) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	check(r.t, err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			check(r.t, err)
			return n
		}
	}
	return 0
}

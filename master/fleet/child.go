package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/shirou/gopsutil/v3/process"

	"verdecmd/master/host"
	"verdecmd/master/link"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// child is the process that is measured, which may be started several times:
// the master or the floor.
type child struct {
	o     Options
	floor bool
	dir   string
	addr  string

	cmd  *exec.Cmd
	ask  io.Writer // floor: a line asks
	tell *bufio.Reader
	log  *tail

	mu   sync.Mutex
	died chan struct{} // closed when the present process has ended; guarded by mu
	want bool          // that it ends; guarded by mu
}

// newChild makes a directory with the keys of a cluster, and settings.
func newChild(o Options, floor bool) (c *child, authority *wire.Authority, err error) {
	c = &child{o: o, floor: floor, log: &tail{}}
	if c.dir, err = os.MkdirTemp(o.Dir, "verdecmd-fleet-"); err != nil {
		return nil, nil, fmt.Errorf("making the temporary state directory: %w; --dir names a directory that exists and may be written to", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(c.dir)
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	c.addr = l.Addr().String()
	l.Close()
	pki := filepath.Join(c.dir, "pki")
	if _, err := host.Init(pki, time.Now()); err != nil {
		return nil, nil, err
	}
	cert, err := os.ReadFile(filepath.Join(pki, wire.CAFile))
	if err != nil {
		return nil, nil, err
	}
	key, err := os.ReadFile(filepath.Join(pki, "ca.key"))
	if err != nil {
		return nil, nil, err
	}
	if authority, err = wire.ParseAuthority(cert, key); err != nil {
		return nil, nil, err
	}
	text := fmt.Sprintf("WIN4_VERDE_CLUSTER_MASTER=yes\nWIN4_STATE_DIR=%q\nVERDECMD_SOCKET=%q\nWIN4_VERDE_LISTEN=%q\nWIN4_VERDE_STATS_INTERVAL=%d\nWIN4_VERDE_RESERVATION_TIMEOUT=600\nVERDECMD_CONN_UID=%d\nVERDECMD_CONN_GID=%d\n",
		c.dir, c.socket(), c.addr, int(o.Interval.Seconds()), os.Getuid(), os.Getgid()) // who is not root measures too
	return c, authority, os.WriteFile(c.settings(), []byte(text), 0o600)
}

func (c *child) socket() string   { return filepath.Join(c.dir, "socket") }
func (c *child) settings() string { return filepath.Join(c.dir, "settings") }

// start starts the process and waits until it answers.
func (c *child) start(ctx context.Context) (took time.Duration, err error) {
	args := []string{"master", "--settings", c.settings()}
	if c.o.Profile != "" {
		args = append(args, "--profile", c.o.Profile)
	}
	if c.floor {
		spec, err := json.Marshal(floorSpec{Dir: c.dir, Addr: c.addr, Interval: c.o.Interval, TLS: c.o.TLS})
		if err != nil {
			return 0, err
		}
		args = []string{"simulate", "--serve-floor", string(spec)}
	}
	cmd := exec.Command(c.o.Program[0], append(c.o.Program[1:len(c.o.Program):len(c.o.Program)], args...)...)
	cmd.Args[0] = "verdecmd" // the role goes by the first argument
	// The end of this process, however it comes, is the end of that one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = c.log
	if c.floor {
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		outPipe, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		c.ask, c.tell = in, bufio.NewReader(outPipe)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	died := make(chan struct{})
	c.mu.Lock()
	c.cmd, c.died, c.want = cmd, died, false
	c.mu.Unlock()
	go func() {
		_ = cmd.Wait() // what it said is in the log
		close(died)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if c.answers() {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-died:
			return 0, c.dead()
		case <-tick.C:
		}
		if time.Since(began) > time.Minute {
			return 0, fmt.Errorf("it gave no answer within a minute: %s", c.log)
		}
	}
}

func (c *child) answers() bool {
	if c.floor {
		nc, err := net.Dial("tcp", c.addr)
		if err == nil {
			nc.Close()
		}
		return err == nil
	}
	m, err := monitor.Dial(c.socket())
	if err != nil {
		return false
	}
	defer m.Close()
	if m.Send("ping") != nil {
		return false
	}
	r, err := m.Read()
	return err == nil && r.Code == 200
}

// watch ends the context when the process dies without being asked.
func (c *child) watch(ctx context.Context, end context.CancelCauseFunc) {
	for {
		c.mu.Lock()
		died := c.died
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-died:
		}
		c.mu.Lock()
		same, want := c.died == died, c.want
		c.mu.Unlock()
		if same && !want {
			end(c.dead())
			return
		}
		select { // a restart is under way
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *child) dead() error {
	what := "the master"
	if c.floor {
		what = "the floor"
	}
	return fmt.Errorf("%s has died; its last words: %s", what, c.log)
}

// kill ends it as a crash does.
func (c *child) kill() {
	c.mu.Lock()
	cmd, died := c.cmd, c.died
	c.want = true
	c.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // it may be dead
	<-died
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) } // it may be dead

// end ends it in order, for its profile's sake, and then by force.
func (c *child) end() {
	c.mu.Lock()
	cmd, died := c.cmd, c.died
	c.want = true
	c.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be dead
		select {
		case <-died:
		case <-time.After(5 * time.Second):
			c.kill()
		}
	}
	os.RemoveAll(c.dir)
}

// cpu is the time of processors that it has used.
func (c *child) cpu() time.Duration { return cpuOf(c.cmd.Process.Pid) }

// cpuOf is the processor time of a process, exact to clock ticks; 0: it is gone.
func cpuOf(pid int) time.Duration {
	t, err := (&process.Process{Pid: int32(pid)}).Times()
	if err != nil {
		return 0
	}
	return time.Duration((t.User + t.System) * float64(time.Second))
}

// rss is its resident memory in bytes; 0: it is gone.
func (c *child) rss() int64 {
	m, err := (&process.Process{Pid: int32(c.cmd.Process.Pid)}).MemoryInfo()
	if err != nil {
		return 0
	}
	return int64(m.RSS)
}

// figures are what the process tells about itself.
type figures struct {
	late     link.Late
	ages     []float64 // seconds; not of the floor
	interval float64   // in force
}

func (c *child) figures() (f figures, err error) {
	if c.floor {
		if _, err := io.WriteString(c.ask, "stats\n"); err != nil {
			return f, err
		}
		line, err := c.tell.ReadBytes('\n')
		if err != nil {
			return f, err
		}
		f.interval = c.o.Interval.Seconds()
		return f, json.Unmarshal(line, &f.late)
	}
	lines, err := c.list("metrics")
	if err != nil {
		return f, err
	}
	sum := uint64(0)
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue // a comment
		}
		switch {
		case strings.HasPrefix(name, "verdecmd_server_report_age_seconds{"):
			f.ages = append(f.ages, v)
		case name == "verdecmd_report_interval_seconds":
			f.interval = v
		case name == "verdecmd_report_late_seconds_sum":
			f.late.Sum = time.Duration(v * 1e9)
		case name == "verdecmd_report_late_worst_seconds":
			f.late.Worst = time.Duration(v * 1e9)
		case strings.HasPrefix(name, "verdecmd_report_late_seconds_bucket{"):
			i := bucketOf(name)
			f.late.Classes[i] = uint64(v) - sum
			sum = uint64(v)
		}
	}
	return f, nil
}

// bucketOf finds the class of a histogram's sample.
func bucketOf(name string) int {
	for i, b := range link.LateBounds {
		if strings.Contains(name, `le="`+strconv.FormatFloat(b.Seconds(), 'g', -1, 64)+`"`) {
			return i
		}
	}
	return len(link.LateBounds)
}

// list sends a command to the admin socket and returns the lines of its reply
// without the last one.
func (c *child) list(command string) (lines []string, err error) {
	m, err := monitor.Dial(c.socket())
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return ask(m, command)
}

func ask(m *monitor.Client, command string) (lines []string, err error) {
	if err := m.Send(command); err != nil {
		return nil, err
	}
	for {
		r, err := m.Read()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", command, err)
		case r.Event():
		case r.End() && r.Code >= 400:
			return nil, fmt.Errorf("%s: %s", command, r)
		case r.End():
			return lines, nil
		default:
			lines = append(lines, r.Data)
		}
	}
}

// tail keeps the last words of a process.
type tail struct {
	mu   sync.Mutex
	last []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	if len(t.last) > 4096 {
		t.last = append(t.last[:0], t.last[len(t.last)-2048:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.last)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

var errLost = errors.New("not what the fleet did")

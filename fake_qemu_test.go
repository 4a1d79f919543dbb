package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fakeQEMU stands in for QEMU where real programs are tried and no guest is
// needed: it takes QEMU's command line, listens on its sockets, speaks QMP and
// answers as a guest's agent does. It is also the witness: it locks its user's
// disk, and tells in the directory "witness" beside the program what happens to
// it, several times a second (see life).
func fakeQEMU() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("QEMU emulator version 7.2.0 (no real one)")
		return
	}
	if slices.Contains(os.Args, "stdio") { // it is only tried
		fmt.Print(`{"QMP": {}}` + "\n" + `{"return": {"running": false}}` + "\n")
		return
	}
	q := phantom{paths: map[string]string{}}
	for i, a := range os.Args {
		if i+1 == len(os.Args) {
			break
		}
		next := os.Args[i+1]
		switch a {
		case "-uuid":
			q.uuid = next
		case "-fw_cfg":
			if v, ok := strings.CutPrefix(next, "name=opt/org.verdecmd/user,string="); ok {
				q.user = v
			}
		case "-chardev":
			fields := strings.Split(next, ",")
			for _, f := range fields {
				id, ok := strings.CutPrefix(f, "id=")
				if path, last := strings.CutPrefix(fields[len(fields)-1], "path="); ok && last && fields[0] == "socket" {
					q.paths[id] = path
				}
			}
		}
	}
	q.witness()
	serve := func(id string, f func(net.Conn)) {
		l, err := net.Listen("unix", q.paths[id])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go f(c)
			}
		}()
	}
	serve("ga", q.agent)
	serve("rescue", q.qmp)
	serve("qmp", q.qmp)
	select {}
}

type phantom struct {
	uuid, user string
	paths      map[string]string // of sockets, by id
	mu         sync.Mutex        // guards conns and writing to them
	conns      []net.Conn
	log, disk  *os.File // held open for ever: with disk goes its lock
}

// heartbeat is how often a desktop tells that it lives.
const heartbeat = 100 * time.Millisecond

// witness takes the lock of the user's disk, as a real one does, and begins to
// tell. The log and its directory belong to the test; disks to their users.
func (q *phantom) witness() {
	self, err := os.Executable()
	dir := filepath.Join(filepath.Dir(self), "witness")
	if err == nil {
		q.log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	}
	if err == nil {
		q.disk, err = os.OpenFile(filepath.Join(dir, "disk."+q.user), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
	q.tell("start")
	if err := syscall.Flock(int(q.disk.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		q.tell("locked") // a real one would end; this one stays, to be seen
	}
	go func() {
		for range time.Tick(heartbeat) {
			q.tell("beat")
		}
	}()
}

// tell writes one record; see readLives. The directory of the session tells
// which one it is and on which satellite.
func (q *phantom) tell(what string) {
	dir, _ := os.Getwd()
	fmt.Fprintf(q.log, "%d %s %s %s %s %s %d\n", sinceBoot(), what, q.user, filepath.Base(dir), q.uuid,
		strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "snap"), os.Getpid())
}

// sinceBoot is the clock of all that is told: the same for all programs of this
// computer, and nobody sets it.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// end tells why and exits.
func (q *phantom) end(reason string, guest bool) {
	q.mu.Lock()
	for _, c := range q.conns {
		fmt.Fprintf(c, `{"event":"SHUTDOWN","data":{"guest":%t,"reason":%q}}`+"\n", guest, reason)
	}
	q.tell("end")
	syscall.Exit(0) // os.Exit takes a second under -race
}

func (q *phantom) qmp(c net.Conn) {
	q.mu.Lock()
	fmt.Fprintln(c, `{"QMP":{"version":{},"capabilities":[]}}`)
	q.conns = append(q.conns, c)
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.conns = slices.DeleteFunc(q.conns, func(o net.Conn) bool { return o == c })
		q.mu.Unlock()
		c.Close()
	}()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		var m struct {
			Execute string
			ID      json.RawMessage
		}
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			return
		}
		reply := `{}`
		if !strings.HasPrefix(m.Execute, "query-") && m.Execute != "qmp_capabilities" {
			q.tell(m.Execute)
		}
		switch m.Execute {
		case "query-uuid":
			reply = fmt.Sprintf(`{"UUID":%q}`, q.uuid)
		case "query-status":
			reply = `{"status":"running"}`
		case "query-chardev":
			reply = `[{"label":"ga","frontend-open":true}]`
		}
		q.mu.Lock()
		fmt.Fprintf(c, `{"return":%s,"id":%s}`+"\n", reply, m.ID)
		q.mu.Unlock()
		switch m.Execute {
		case "quit":
			q.end("host-qmp-quit", false)
		case "system_powerdown":
			q.end("guest-shutdown", true)
		}
	}
}

func (q *phantom) agent(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		var m struct {
			Execute   string
			Arguments struct{ ID int64 }
		}
		if json.Unmarshal(bytes.TrimLeft(lines.Bytes(), "\xff"), &m) != nil {
			continue
		}
		switch m.Execute {
		case "guest-sync-delimited":
			fmt.Fprintf(c, "\xff{\"return\":%d}\n", m.Arguments.ID)
		case "guest-shutdown":
			q.tell("guest-shutdown")
			q.end("guest-shutdown", true)
		default:
			fmt.Fprintln(c, `{"return":{}}`)
		}
	}
}

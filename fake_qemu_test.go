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
)

// fakeQEMU stands in for QEMU where real programs are tried and no guest is
// needed: it takes QEMU's command line, listens on its sockets, speaks QMP and
// answers as a guest's agent does. It is also the witness of S1: each locks a
// file in the directory "witness" beside the program for as long as it lives,
// and tells in "violations" there if its user has another one.
func fakeQEMU() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("QEMU emulator version 7.2.0 (no real one)")
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
}

// witness takes the lock, and then looks for others of the same user: of two
// that start at once, one at least sees the other.
func (q *phantom) witness() {
	self, err := os.Executable()
	dir := filepath.Join(filepath.Dir(self), "witness")
	own := fmt.Sprintf("%s.%d", q.user, os.Getpid())
	var f *os.File
	if err == nil {
		f, err = os.OpenFile(filepath.Join(dir, own), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
	others, _ := filepath.Glob(filepath.Join(dir, q.user+".*"))
	for _, path := range others {
		o, err := os.Open(path)
		if err != nil || filepath.Base(path) == own {
			continue
		}
		if syscall.Flock(int(o.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			v, err := os.OpenFile(filepath.Join(dir, "violations"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
			if err == nil {
				fmt.Fprintf(v, "%s runs beside %s\n", own, filepath.Base(path))
			}
		}
		o.Close()
	}
	keepOpen = f
}

var keepOpen *os.File // a file that nobody holds is closed, and its lock gone

// end tells why and exits.
func (q *phantom) end(reason string, guest bool) {
	q.mu.Lock()
	for _, c := range q.conns {
		fmt.Fprintf(c, `{"event":"SHUTDOWN","data":{"guest":%t,"reason":%q}}`+"\n", guest, reason)
	}
	os.Exit(0)
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
			q.end("guest-shutdown", true)
		default:
			fmt.Fprintln(c, `{"return":{}}`)
		}
	}
}

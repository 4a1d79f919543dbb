package demo

import (
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// layout names the files of one demo.
type layout struct {
	dir string // absolute, links resolved
}

func (l layout) socket() string      { return filepath.Join(l.dir, "verdecmd-socket") }
func (l layout) settings() string    { return filepath.Join(l.dir, "settings.global") }
func (l layout) pki() string         { return filepath.Join(l.dir, "pki") }
func (l layout) passwd() string      { return filepath.Join(l.dir, "passwd") }
func (l layout) home() string        { return filepath.Join(l.dir, "home") }
func (l layout) planFile() string    { return filepath.Join(l.dir, "demo.json") }
func (l layout) pidFile() string     { return filepath.Join(l.dir, "demo.pid") }
func (l layout) lockFile() string    { return filepath.Join(l.dir, "demo.lock") }
func (l layout) partsFile() string   { return filepath.Join(l.dir, "parts.json") }
func (l layout) log(s string) string { return filepath.Join(l.dir, "log", s+".log") }

// satellite is the directory of the nth satellite, counted from 1. It is short
// because sockets are below it.
func (l layout) satellite(n int) string { return filepath.Join(l.dir, "s", strconv.Itoa(n)) }

func (l layout) satSocket(n int) string { return filepath.Join(l.satellite(n), "sat") }

// maxSocketPath is what fits into the address of a Unix socket, in bytes.
const maxSocketPath = 107

// checkLength makes sure that the longest socket path is possible: the one that
// a desktop has for its administrators.
func (l layout) checkLength(satellites int) error {
	rest := strings.TrimPrefix(filepath.Join(layout{"/"}.satellite(satellites), "snap", "s1234567", "rescue"), "/")
	if n := len(l.dir) + 1 + len(rest); n > maxSocketPath {
		return fmt.Errorf("the directory %s is too long: sockets below it would have paths of %d bytes and %d are possible; take a --dir of at most %d bytes",
			l.dir, n, maxSocketPath, maxSocketPath-1-len(rest))
	}
	return nil
}

// defaultDir is below the working directory.
const defaultDir = "run/demo"

// newLayout finds the directory. An empty dir is the default: ./run/demo or,
// where other users cannot get there but must as desktops run as them, one
// below /var/tmp; note then says so.
func newLayout(dir string, root bool, uid int) (l layout, note string, err error) {
	chosen := dir != ""
	if !chosen {
		dir = defaultDir
	}
	abs, err := resolve(dir)
	if err != nil {
		return l, "", err
	}
	if st, err := os.Stat(abs); err == nil && !st.IsDir() {
		return l, "", fmt.Errorf("%s is not a directory; take another --dir", abs)
	}
	if closed := notSearchable(abs); root && closed != "" {
		if chosen {
			return l, "", fmt.Errorf("desktops run as their users, and %s does not let other users pass to %s: run chmod o+x %s, or take another --dir", closed, abs, closed)
		}
		other := fmt.Sprintf("/var/tmp/verdecmd-demo-%d", uid)
		note = fmt.Sprintf("%s does not let other users pass, so the demo is in %s", closed, other)
		abs = other
	}
	return layout{abs}, note, nil
}

// resolve makes a path absolute and resolves links in the part that exists.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for at := abs; ; at = filepath.Dir(at) {
		real, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !os.IsNotExist(err) || at == "/" {
			return "", err
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// notSearchable returns the first directory on the way to path, path included,
// through which other users cannot pass; empty: they can pass through all that
// exist.
func notSearchable(path string) string {
	at := "/"
	for _, part := range append([]string{""}, strings.Split(strings.Trim(path, "/"), "/")...) {
		at = filepath.Join(at, part)
		info, err := os.Stat(at)
		if err != nil {
			return ""
		}
		if info.Mode().Perm()&0o001 == 0 {
			return at
		}
	}
	return ""
}

// freeAddresses finds n loopback addresses on which nothing uses our ports,
// one after the other. The search begins at a place that follows from the
// directory, so that demos beside each other do not meet.
func freeAddresses(dir string, n int, free func(ip string) error) ([]string, error) {
	h := fnv.New32a()
	h.Write([]byte(dir))
	var found []string
	var last error
	for i := range uint32(65536) {
		at := (h.Sum32() + i) % 65536
		if low := at & 0xff; low == 0 || low == 0xff {
			continue
		}
		ip := net.IPv4(127, 77, byte(at>>8), byte(at)).String()
		if last = free(ip); last != nil {
			continue
		}
		if found = append(found, ip); len(found) == n {
			return found, nil
		}
	}
	return nil, fmt.Errorf("no free loopback address among 127.77.0.1 to 127.77.255.254: %w", last)
}

// ports are those of master, portal and satellites' talk with each other.
var ports = [...]int{8442, 8443, 8444}

// free tells by listening whether all our ports are free at an address.
func free(ip string) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

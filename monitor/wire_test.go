package monitor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// testServer is Serve over a real socket. A connection lingers so long that none
// is closed in the middle of a test on a slow machine.
type testServer struct {
	*fakeMaster
	path string
	log  *safeBuffer
	stop func() // stops and waits
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func serve(t testing.TB, f *fakeMaster, change func(*Config)) *testServer {
	t.Helper()
	return serveAt(t, f, filepath.Join(t.TempDir(), "s"), change)
}

func serveAt(t testing.TB, f *fakeMaster, path string, change func(*Config)) *testServer {
	t.Helper()
	l, err := Listen(ListenConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{fakeMaster: f, path: path, log: &safeBuffer{}}
	cfg := Config{Table: NewTable(f), Log: zerolog.New(ts.log), Tuning: Tuning{Linger: 5 * time.Minute}, Human: Human{Location: time.UTC}, Audit: f.audit}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, cfg) }()
	var once sync.Once
	ts.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(ts.stop)
	return ts
}

// strict is a client that accepts nothing but what PROTOCOL 2 allows.
type strict struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

func (ts *testServer) dial(t testing.TB) *strict {
	t.Helper()
	nc, err := net.Dial("unix", ts.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return newStrict(t, nc)
}

func newStrict(t testing.TB, nc net.Conn) *strict {
	return &strict{t: t, nc: nc, r: bufio.NewReaderSize(nc, 1<<20)}
}

var lineForm = regexp.MustCompile(`^([1-6][0-9]{2})([- ])(.*)$`)

// strictLine checks one line as it came, with its end.
func strictLine(raw string) (code, mark, data string, err error) {
	line, ok := strings.CutSuffix(raw, "\n")
	m := lineForm.FindStringSubmatch(line)
	if !ok || m == nil {
		return "", "", "", fmt.Errorf("not a line of the protocol: %q", raw)
	}
	if len(line) > maxReply {
		return "", "", "", fmt.Errorf("a line of %d bytes", len(line))
	}
	if !utf8.ValidString(line) {
		return "", "", "", fmt.Errorf("not UTF-8: %q", line)
	}
	for _, r := range line {
		if r != '\t' && (r < 0x20 || r >= 0x7f && r <= 0x9f) {
			return "", "", "", fmt.Errorf("control character %U in %q", r, line)
		}
	}
	if strings.ContainsAny(m[1][:1], "16") && m[2] != " " {
		return "", "", "", fmt.Errorf("event or progress with the mark -: %q", line)
	}
	return m[1], m[2], m[3], nil
}

// answer is one whole reply.
type answer struct {
	code  string
	rows  []string
	end   string
	extra []string // events and progress before or between
}

// mostWait is how long something may take on a machine that is slow and busy.
const mostWait = 2 * time.Minute

func (s *strict) line() (code, mark, data string) {
	s.t.Helper()
	s.nc.SetReadDeadline(time.Now().Add(mostWait))
	raw, err := s.r.ReadString('\n')
	if err != nil {
		s.t.Fatalf("reading: %v (%q)", err, raw)
	}
	code, mark, data, err = strictLine(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	return code, mark, data
}

// reply reads one reply.
func (s *strict) reply() answer {
	s.t.Helper()
	var a answer
	for {
		code, mark, data := s.line()
		if code[0] == '1' || code[0] == '6' {
			if code[0] == '6' && len(a.rows) > 0 {
				s.t.Fatalf("an event inside a reply: %s %s", code, data)
			}
			a.extra = append(a.extra, code+" "+data)
			continue
		}
		if a.code != "" && a.code != code {
			s.t.Fatalf("code %s after %s in one reply", code, a.code)
		}
		a.code = code
		if mark == " " {
			a.end = data
			return a
		}
		a.rows = append(a.rows, data)
	}
}

func (s *strict) send(text string) {
	s.t.Helper()
	if _, err := s.nc.Write([]byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *strict) ask(line string) answer {
	s.t.Helper()
	s.send(line + "\n")
	return s.reply()
}

// want asks and compares code and end.
func (s *strict) want(line, want string) answer {
	s.t.Helper()
	a := s.ask(line)
	if got := a.code + " " + a.end; untimed(got) != untimed(want) {
		s.t.Errorf("%s:\n got %s\nwant %s", line, got, want)
	}
	return a
}

var elapsed = regexp.MustCompile(`\belapsed=\d+`)

// untimed is a line in which how long something took is no part of a comparison.
func untimed(line string) string { return elapsed.ReplaceAllString(line, "elapsed=N") }

// wantEOF reads until the master closes.
func (s *strict) wantEOF() {
	s.t.Helper()
	s.nc.SetReadDeadline(time.Now().Add(mostWait))
	if raw, err := s.r.ReadString('\n'); raw != "" || err == nil {
		s.t.Errorf("got %q, %v, want the end of the stream", raw, err)
	}
}

// checkRows checks the rows of a reply in its format.
func checkRows(t testing.TB, format string, a answer) {
	t.Helper()
	if a.code == "216" {
		return // the same in every format
	}
	switch format {
	case "json":
		for _, l := range append(a.rows, a.end) {
			if !json.Valid([]byte(l)) || l[0] != '{' {
				t.Errorf("%s: not a JSON object: %s", a.code, l)
			}
		}
	case "tsv":
		if len(a.rows) == 0 {
			return
		}
		head := strings.Split(a.rows[0], "\t")
		if !strings.HasPrefix(head[0], "#") {
			t.Errorf("%s: no header: %q", a.code, a.rows[0])
		}
		for _, r := range a.rows[1:] {
			if n := strings.Count(r, "\t") + 1; n != len(head) || strings.HasPrefix(r, "#") {
				t.Errorf("%s: %d fields under %d heads: %q", a.code, n, len(head), r)
			}
		}
	}
}

package monitor

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// V-71: every command has help with its usage; what is none gets the nearest.
func TestHelpOfEveryCommand(t *testing.T) {
	s := serve(t, newFake(), nil).dial(t)
	list := strings.Join(s.ask("help").rows, "\n")
	for _, cmd := range NewTable(newFake()).Commands() {
		if !strings.Contains(list, cmd.Name+"\t") && !strings.Contains(list, cmd.Name+" ") {
			t.Errorf("help does not list %s", cmd.Name)
		}
		a := s.ask("help " + cmd.Name)
		if a.code[0] != '2' || !strings.Contains(strings.Join(append(a.rows, a.end), "\n"), cmd.Name) {
			t.Errorf("help %s: %s %s %q", cmd.Name, a.code, a.end, a.rows)
		}
	}
	if a := s.ask("offlneserver 2"); a.code != "500" || !strings.Contains(a.end, "near=offlineserver") {
		t.Errorf("what is no command: %s %s", a.code, a.end)
	}
	s.ask("verbose on")
	if a := s.ask("help offlneserver"); a.code != "550" || !strings.Contains(a.end, "Did you mean offlineserver") {
		t.Errorf("help of what is no command: %s %s", a.code, a.end)
	}
}

// V-77: 10,000 sessions are one list, sorted, complete, by server where wanted,
// and what was made for a list is not kept when it was sent.
func TestTenThousandUsers(t *testing.T) {
	const n = 10000
	f := newFake()
	f.sessions = nil
	for i := range n {
		f.sessions = append(f.sessions, Session{User: fmt.Sprintf("user%05d", i), UID: uint32(2000 + i), Server: uint64(1 + i%2), Desktop: "win4",
			Image: "win4/7", State: "running", Started: fakeStart, Client: "198.51.100.7", ID: fmt.Sprintf("s%d", i)})
	}
	s := serve(t, f, nil).dial(t)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	list := func() {
		t.Helper()
		a := s.ask("users")
		if a.code != "210" || len(a.rows) != n+1 {
			t.Fatalf("%s %s, %d rows", a.code, a.end, len(a.rows))
		}
		for i, row := range a.rows[1:] {
			if !strings.HasPrefix(row, fmt.Sprintf("user%05d\t", i)) {
				t.Fatalf("row %d: %s", i, row)
			}
		}
		if a := s.ask("users server=2"); len(a.rows) != n/2+1 {
			t.Errorf("of one server: %d rows", len(a.rows))
		}
	}
	list()
	before := memory()
	for range 3 {
		list()
	}
	if after := memory(); after > before+1<<20 {
		t.Errorf("%d KiB more after three lists", (after-before)>>10)
	}
}

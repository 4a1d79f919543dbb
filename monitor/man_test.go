package monitor

import (
	"strings"
	"testing"
)

// Every command can be learned from the manual: what it does, each argument,
// an example that the command itself accepts, and names that exist.
func TestManual(t *testing.T) {
	table := NewTable(nil)
	for _, m := range table.Manual() {
		cmd, ok := table.Lookup(m.Name)
		if !ok || m.Usage == "" || m.Summary == "" || len(m.About) == 0 || m.Example == "" || len(m.See) == 0 {
			t.Errorf("%s: something is missing: %+v", m.Name, m)
			continue
		}
		if strings.HasSuffix(m.Summary, ".") || m.Summary[0] != strings.ToLower(m.Summary)[0] {
			t.Errorf("%s: the summary %q is to begin small and have no full stop", m.Name, m.Summary)
		}
		for _, p := range m.About {
			if last := p[len(p)-1]; last != '.' && !strings.Contains(p, "verdecmon ") {
				t.Errorf("%s: %q is no sentence", m.Name, p)
			}
		}
		if len(m.Args) != len(cmd.Args) {
			t.Errorf("%s: %d arguments, want %d", m.Name, len(m.Args), len(cmd.Args))
		}
		for _, a := range m.Args {
			if a[0] == "" || a[1] == "" || strings.ContainsAny(a[0], "[]") {
				t.Errorf("%s: the argument %q is explained as %q", m.Name, a[0], a[1])
			}
		}
		for _, see := range m.See {
			if _, ok := table.Lookup(see); !ok || see == m.Name {
				t.Errorf("%s: see also %q", m.Name, see)
			}
		}
	}
}

// The examples of the manual are understood by a master: refused perhaps, for
// nobody is called so here, but not for their form.
func TestManualExamples(t *testing.T) {
	ts := serve(t, newFake(), nil)
	for _, m := range NewTable(nil).Manual() {
		s := ts.dial(t)
		if a := s.ask(m.Example); a.code >= "500" && a.code <= "506" || a.code == "553" {
			t.Errorf("%s: %s %s", m.Example, a.code, a.end)
		}
		s.nc.Close()
	}
}

// The exit codes of the manual are those of the program.
func TestManualExits(t *testing.T) {
	when := map[int]string{}
	for _, e := range Exits() {
		if when[e.Status] != "" || e.When == "" {
			t.Errorf("the exit code %d is there twice, or not explained", e.Status)
		}
		when[e.Status] = e.When
	}
	for _, c := range Codes() {
		if c.Code < 200 || c.Code >= 600 || c.Code/100 == 3 {
			continue
		}
		if when[exitCode(c.Code)] == "" {
			t.Errorf("the exit code %d of the reply %d is not in the manual", exitCode(c.Code), c.Code)
		}
	}
	for _, status := range []int{0, exitUnreachable, exitLost, exitInterrupted} {
		if when[status] == "" {
			t.Errorf("the exit code %d is not in the manual", status)
		}
	}
}

package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// document is what "doctor --json" writes, as somebody else's program would
// read it.
type document struct {
	Findings []struct {
		Check, Level, Measured, Wanted, Fix string
		Hard                                bool
	}
	Survey map[string]any
}

// doctor runs the checks with these settings, in a mount name space in which the
// commands have been executed.
func (r *real) doctor(code int, settings, before string, args ...string) document {
	r.t.Helper()
	line := "exec verdecmd doctor --json --settings " + r.path(settings) + " " + strings.Join(args, " ")
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", before+"\n"+line)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("doctor: exit code %d, want %d: %v\n%s%s", got, code, err, out, stderr.String())
	}
	var d document
	if err := json.Unmarshal(out, &d); err != nil {
		r.t.Fatalf("doctor --json: %v: %s", err, out)
	}
	return d
}

// finding is what a document says about a check.
func (d document) finding(check string) (level, text string) {
	for _, f := range d.Findings {
		if f.Check == check {
			return f.Level, f.Measured
		}
	}
	return "", ""
}

// checked waits until the master keeps a check of a server with this level, and
// returns what it says.
func (r *real) checked(server, check, level string) (row string) {
	r.t.Helper()
	r.until("check "+check+" of server "+server+": "+level, func() bool {
		for line := range strings.Lines(r.admin("checks", server)) {
			if f := strings.Split(line, "\t"); f[0] == check && f[1] == level {
				row = line
				return true
			}
		}
		return false
	})
	return row
}

func TestRealDoctor(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	r.satellite(1, nil, "")
	t.Log(r.checked("1", "locks", "pass"))
	t.Log(r.admin("checks", "1"))
	t.Log(r.admin("server", "1"))
}

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/monitor"
)

// V-12, V-40: a real master, driven by the command that users have, takes in
// every report of 50 satellites and knows all of 500 sessions, also after it was
// killed and all came back at once. Times are measured and not judged: the
// machine of a test may be busy.
func TestFleet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("verdecmd", "simulate", "--satellites", "50", "--sessions", "500", "--seconds", "6", "--interval", "2s", "--floor", "--json", "--dir", dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	type figures struct {
		Reports  uint64  `json:"reports"`
		Lost     int64   `json:"reports_lost"`
		Memory   int64   `json:"rss_per_satellite"`
		InForce  float64 `json:"interval_s"`
		Rows     int     `json:"list_users_rows"`
		ClaimsPS float64 `json:"claims_per_s"`
		BackS    float64 `json:"back_s"`
		KnownS   float64 `json:"known_s"`
		Login    struct {
			N int `json:"n"`
		} `json:"login"`
	}
	var r struct {
		Satellites  int `json:"satellites"`
		Ours, Floor *figures
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Satellites != 50 || r.Ours == nil || r.Floor == nil {
		t.Fatalf("got %s, want figures of 50 satellites, ours and the floor's", out)
	}
	for name, f := range map[string]*figures{"ours": r.Ours, "floor": r.Floor} {
		// 6 s of one report each 2 s, and what a busy machine shifts.
		if f.Lost != 0 || f.Reports < 50 || f.Memory <= 0 || f.InForce < 2 || f.ClaimsPS <= 0 || f.Login.N == 0 || f.BackS <= 0 {
			t.Errorf("%s: got %+v, want no report lost and every figure measured", name, *f)
		}
	}
	if r.Ours.Rows < 500 || r.Ours.KnownS < r.Ours.BackS {
		t.Errorf("got %+v, want 500 users listed, and sessions known once all satellites are back", *r.Ours)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An interrupt, and the death of the master, end a fleet with nothing left.
func TestFleetEnds(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		end  func(t *testing.T, fleet *os.Process, dir string)
		want string
	}{
		"interrupted": {func(t *testing.T, fleet *os.Process, _ string) { _ = fleet.Signal(syscall.SIGINT) }, "interrupted; all is removed"},
		"its master dies": {func(t *testing.T, _ *os.Process, dir string) {
			pid := fleetMaster(t, dir)
			if err := exec.Command("kill", "-KILL", pid).Run(); err != nil {
				t.Error(err)
			}
		}, "the master has died"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			cmd := exec.Command("verdecmd", "simulate", "--satellites", "5", "--seconds", "60", "--dir", top)
			var out logBuffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var dirs []string
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for end := time.Now().Add(mostWait); ; <-tick.C {
				if dirs, _ = filepath.Glob(filepath.Join(top, "*")); len(dirs) == 1 {
					if c, err := monitor.Dial(filepath.Join(dirs[0], "socket")); err == nil {
						c.Close()
						break
					}
				}
				if time.Now().After(end) {
					t.Fatalf("no master came: %s", out.String())
				}
			}
			master := fleetMaster(t, dirs[0])
			test.end(t, cmd.Process, dirs[0])
			err := cmd.Wait()
			if err == nil || !strings.Contains(out.String(), test.want) {
				t.Errorf("got %v and %q, want a failure that says %q", err, out.String(), test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(top, "*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if line, err := os.ReadFile("/proc/" + master + "/cmdline"); err == nil && strings.Contains(string(line), top) {
				t.Errorf("the master, pid %s, lives on", master)
			}
		})
	}
}

// fleetMaster is the pid of the master that works in dir.
func fleetMaster(t *testing.T, dir string) string {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join(dir, "verdecmd.lock"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pid))
}

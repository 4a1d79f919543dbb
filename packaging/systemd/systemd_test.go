// Package systemd has only tests: of the units beside them and of the script
// that checks them. What no systemd is needed for is tried by the programs
// themselves, in real_unit_test.go.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// copyUnits copies the units, each after change.
func copyUnits(t *testing.T, change func(name, text string) string) string {
	t.Helper()
	units, err := filepath.Glob("*.service")
	if err != nil || len(units) != 3 {
		t.Fatalf("got %q, %v, want three units: master, satellite and directory", units, err)
	}
	dir := t.TempDir()
	for _, u := range units {
		text, err := os.ReadFile(u)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, u), []byte(change(u, string(text))), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// V-27, RELIABILITY 1.2: systemd understands the units, and what a broken
// program could do under them is bounded. The check finds what it is for.
func TestLint(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Fatal("systemd-analyze is missing: packaging/setup/setup --need test")
	}
	const master, satellite = "verdecmd.service", "verdecmd-satellite.service"
	tests := map[string]struct{ unit, old, new, want string }{
		"as they are":              {},
		"a key with a mistake":     {master, "ProtectHome=", "ProtectHomes=", "'ProtectHomes'"},
		"a value with a mistake":   {satellite, "Type=notify", "Type=notified", "Failed to parse service type"},
		"an order that nobody has": {master, "ExecStart=/usr/lib/win4linpro/bin/verdecmd master --service", "", "Service has no ExecStart"},
		"another program":          {master, "/bin/kill", "/bin/no-such-program", "/bin/no-such-program is not executable"},
		"a master that may all":    {master, "CapabilityBoundingSet=CAP_CHOWN", "", "more than 2.0: "},
		"a satellite open to all":  {satellite, "RestrictNamespaces=net", "", "more than 5.0: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := copyUnits(t, func(unit, text string) string {
				if unit == tt.unit && !strings.Contains(text, tt.old) {
					t.Errorf("%s has no %s", unit, tt.old)
				}
				if unit == tt.unit {
					return strings.Replace(text, tt.old, tt.new, 1)
				}
				return text
			})
			out, err := exec.Command("./lint", dir).CombinedOutput()
			if (err == nil) != (tt.want == "") || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v: %s\nwant %q", err, out, tt.want)
			}
		})
	}
}

// What other parts of the program count on.
func TestUnits(t *testing.T) {
	want := map[string][]string{
		"verdecmd.service": {
			"ExecStart=/usr/lib/win4linpro/bin/verdecmd master --service", // ends at once where it is not the master
			"Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "Restart=on-failure", "CapabilityBoundingSet=CAP_CHOWN",
			"ReadWritePaths=/var/lib/win4linpro /run/win4linpro -/etc/verdecmd", "Requires=verdecmd-directory.service",
		},
		"verdecmd-satellite.service": {
			"ExecStart=/usr/lib/win4linpro/bin/verdecmd satellite", "Type=notify", "Restart=always",
			"KillMode=process", "OOMPolicy=continue", "TasksMax=infinity", // desktops and guardian outlive it
			"Requires=verdecmd-directory.service",
		},
		"verdecmd-directory.service": {"ExecStart=/usr/bin/install -d -o root -g root -m 0755 /run/win4linpro", "RemainAfterExit=yes"},
	}
	copyUnits(t, func(unit, text string) string {
		for _, line := range want[unit] {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s has no line %s", unit, line)
			}
		}
		return text
	})
	for _, never := range []string{"PrivateTmp=", "MemoryDenyWriteExecute=", "ProtectHome=", "ExecReload="} {
		text, err := os.ReadFile("verdecmd-satellite.service")
		if err != nil || strings.Contains(string(text), "\n"+never) {
			t.Errorf("the satellite's unit has %s: desktops, homes or sockets in /tmp would not work (%v)", never, err)
		}
	}
}

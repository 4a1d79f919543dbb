package host

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/master/pki"
	"verdecmd/proto/wire"
)

var testNow = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func initTest(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state", "pki")
	if _, err := Init(dir, testNow); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInit(t *testing.T) {
	dir := initTest(t)
	for name, want := range map[string]os.FileMode{"": 0o700, pki.KeyFile: 0o600, wire.CAFile: 0o644, wire.IdentityFile: 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("%s: mode %04o, want %04o", name, got, want)
		}
	}
	c, err := wire.Load(dir, wire.Master)
	if err != nil {
		t.Fatal(err)
	}
	c.Now = func() time.Time { return testNow.Add(9 * 365 * 24 * time.Hour) }
	if err := c.Check(); err != nil {
		t.Errorf("after 9 years: %v", err)
	}
	before, _ := os.ReadFile(filepath.Join(dir, pki.KeyFile))
	if _, err := Init(dir, testNow); !errors.Is(err, ErrInitialised) || !strings.Contains(err.Error(), c.Identity.Cluster) {
		t.Errorf("again: got %v, want %v and the cluster's id", err, ErrInitialised)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, pki.KeyFile)); !bytes.Equal(before, after) {
		t.Error("the second init changed the key")
	}
	if left, _ := filepath.Glob(dir + ".new-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestInitRefusals(t *testing.T) {
	tests := map[string]struct {
		prepare func(dir string)
		want    string
	}{
		"an empty directory":     {func(dir string) { os.Mkdir(dir, 0o755) }, ""},
		"something else":         {func(dir string) { os.Mkdir(dir, 0o755); os.WriteFile(dir+"/x", nil, 0o644) }, "is not empty (it holds x)"},
		"half a cluster":         {func(dir string) { os.Mkdir(dir, 0o755); os.WriteFile(dir+"/ca.key", nil, 0o600) }, "is not empty"},
		"a file":                 {func(dir string) { os.WriteFile(dir, nil, 0o600) }, "pki"},
		"directory of a file":    {func(dir string) { os.RemoveAll(filepath.Dir(dir)); os.WriteFile(filepath.Dir(dir), nil, 0o600) }, "not a directory"},
		"nothing there":          {func(string) {}, ""},
		"directories in between": {func(dir string) { os.RemoveAll(filepath.Dir(dir)) }, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "pki")
			os.MkdirAll(filepath.Dir(dir), 0o755)
			test.prepare(dir)
			_, err := Init(dir, testNow)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if st, err := os.Stat(dir); test.want == "" && (err != nil || st.Mode().Perm() != 0o700) {
				t.Errorf("directory: %v %v, want mode 0700", st, err)
			}
		})
	}
}

func TestEnrol(t *testing.T) {
	dir := initTest(t)
	e, err := Enrol(dir, "sat1.example.com", "", testNow)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(e.Dir); e.Again || st.Mode().Perm() != 0o700 || filepath.Dir(filepath.Dir(e.Dir)) != dir {
		t.Errorf("got %+v with mode %v", e, st.Mode())
	}
	master, err := wire.Load(dir, wire.Master)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.Load(e.Dir, wire.Satellite)
	if err != nil {
		t.Fatal(err)
	}
	if want := (wire.Identity{Cluster: master.Identity.Cluster, Role: wire.Satellite, ID: e.ID, Name: "sat1.example.com", Serial: c.Serial()}); c.Identity != want {
		t.Errorf("got %+v, want %+v", c.Identity, want)
	}

	// Again, elsewhere, later: the same server with a new certificate.
	out := filepath.Join(t.TempDir(), "out")
	later := testNow.Add(100 * 24 * time.Hour)
	again, err := Enrol(dir, "sat1.example.com", out, later)
	if err != nil || again.ID != e.ID || !again.Again || again.Dir != out || !again.Until.Equal(later.Add(satelliteLife)) {
		t.Errorf("again: got %+v, %v", again, err)
	}
	// And over the old files.
	if _, err := Enrol(dir, "sat1.example.com", out, later); err != nil {
		t.Errorf("over the old files: %v", err)
	}
	other, err := Enrol(dir, "sat2", "", testNow)
	if err != nil || other.ID == e.ID {
		t.Errorf("another name: got %+v, %v", other, err)
	}
	files, _ := os.ReadDir(out)
	if len(files) != 2 {
		t.Errorf("got %v, want two files", files)
	}

	refused := map[string]struct {
		pki, name, out, want string
	}{
		"not the master's computer": {pki: out, name: "sat3", want: `"verdecmd init" was not run`},
		"over the master's own":     {pki: dir, name: "sat3", out: dir, want: "choose another directory"},
		"over another satellite's":  {pki: dir, name: "sat3", out: out, want: "choose another directory"},
		"no name":                   {pki: dir, name: "", want: "is no name for a satellite"},
		"path as a name":            {pki: dir, name: "../sat", want: "is no name for a satellite"},
		"dots":                      {pki: dir, name: "..", want: "is no name for a satellite"},
		"capitals":                  {pki: dir, name: "Sat", want: "small letters"},
		"line end":                  {pki: dir, name: "sat\n", want: "is no name for a satellite"},
		"long":                      {pki: dir, name: strings.Repeat("a.", 126) + "aa", want: "is no name for a satellite"},
	}
	for name, test := range refused {
		t.Run(name, func(t *testing.T) {
			_, err := Enrol(test.pki, test.name, test.out, testNow)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	t.Run("open key", func(t *testing.T) {
		os.Chmod(filepath.Join(dir, pki.KeyFile), 0o640)
		if _, err := Enrol(dir, "sat3", "", testNow); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
			t.Errorf("got %v, want the mode and the fix", err)
		}
	})
}

// The commands say what to do next and never a secret.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "settings.global")
	if err := os.WriteFile(file, []byte("WIN4_VERDE_PKI_DIR="+dir+"/pki\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		for _, c := range Commands() {
			if c.Name() != args[0] {
				continue
			}
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetArgs(append(args[1:], "--settings", file))
			err := c.Execute()
			return out.String(), err
		}
		t.Fatalf("no command %s", args[0])
		return "", nil
	}
	if _, err := run("enrol", "sat1"); err == nil || !strings.Contains(err.Error(), "verdecmd init") {
		t.Errorf("enrol before init: got %v, want the fix", err)
	}
	for _, args := range [][]string{{"init"}, {"enrol", "sat1"}, {"enrol", "sat1"}} {
		out, err := run(args...)
		if err != nil || !strings.Contains(out, dir) || strings.Contains(out, "PRIVATE") {
			t.Errorf("%v: got %q, %v", args, out, err)
		}
	}
	if _, err := run("init"); !errors.Is(err, ErrInitialised) {
		t.Errorf("init again: got %v, want %v", err, ErrInitialised)
	}
	c, err := wire.Load(dir+"/pki", wire.Master)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run("fingerprint"); err != nil || out != wire.FormatFingerprint(sha256.Sum256(c.Roots()[0]))+"\n" {
		t.Errorf("fingerprint: got %q, %v", out, err)
	}
}

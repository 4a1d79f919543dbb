package demo

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestPlanWith(t *testing.T) {
	t.Parallel()
	free := func(string) error { return nil }
	first, err := plan{}.with("/d", 2, []string{"alice"}, free)
	if err != nil || first.Run != 2 || len(first.Satellites) != 2 || first.Satellites[1].Name != "sat2" {
		t.Fatalf("new plan: got %+v, %v", first, err)
	}
	less, err := first.with("/d", 1, []string{"bob"}, free)
	if err != nil || less.Run != 1 || len(less.Satellites) != 2 || less.Users[0] != "bob" {
		t.Errorf("one satellite less: got %+v, %v, want both kept and one running", less, err)
	}
	more, err := less.with("/d", 3, []string{"bob"}, free)
	if err != nil || more.Master != first.Master || !reflect.DeepEqual(more.Satellites[:2], first.Satellites) {
		t.Errorf("one more: got %+v, %v, want the addresses of %+v", more, err, first)
	}
	seen := map[string]bool{more.Master: true}
	for _, s := range more.Satellites {
		if seen[s.Address] {
			t.Errorf("address %s is there twice", s.Address)
		}
		seen[s.Address] = true
	}
	if _, err := first.with("/d", 2, nil, func(ip string) error {
		if ip == first.Satellites[1].Address {
			return errors.New("taken")
		}
		return nil
	}); err == nil {
		t.Error("an address of the plan is taken: got no error")
	}
}

func TestLoadPlan(t *testing.T) {
	t.Parallel()
	l := layout{t.TempDir()}
	if _, ok, err := loadPlan(l); ok || err != nil {
		t.Errorf("no plan: got %v, %v", ok, err)
	}
	for _, bad := range []string{"", "{", `{"Run":3}`, `{"Run":-1}`} {
		if err := os.WriteFile(l.planFile(), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := loadPlan(l); err == nil {
			t.Errorf("plan %q: got no error", bad)
		}
	}
}

func TestCheckUsers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		users []string
		ok    bool
	}{
		"some":      {[]string{"alice", "b-2", "_c"}, true},
		"nobody":    {nil, false},
		"an empty":  {[]string{"alice", ""}, false},
		"twice":     {[]string{"alice", "alice"}, false},
		"root":      {[]string{"root"}, false},
		"publisher": {[]string{publisher}, false},
		"a path":    {[]string{"../x"}, false},
		"a colon":   {[]string{"a:b"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := checkUsers(tt.users); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	got := rows("#user\tstate\nalice\trunning\nbob\n")
	want := []map[string]string{{"user": "alice", "state": "running"}, {"user": "bob"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := rows(""); got != nil {
		t.Errorf("nothing: got %v", got)
	}
}

func TestReferral(t *testing.T) {
	t.Parallel()
	p := plan{Run: 2, Satellites: []satellite{{"sat1", "127.77.0.2"}, {"sat2", "127.77.0.3"}, {"sat3", "127.77.0.4"}}}
	tests := map[string]struct {
		out  string
		want int
	}{
		"by name":                {"text\nreferred 7 sat2 x\n", 2},
		"by address":             {"referred 7 other 127.77.0.2", 1},
		"one that does not run":  {"referred 3 sat3 127.77.0.4", 0},
		"not in the last line":   {"referred 7 sat2 x\nmore", 0},
		"nothing":                {"", 0},
		"too few words":          {"referred 7 sat2", 0},
		"something like it else": {"deferred 7 sat2 x", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := referral(tt.out, p); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// TestPublish: a version is written once, another guest is another version, and
// the link always leads to a whole one.
func TestPublish(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	guest := filepath.Join(top, "guest")
	d := &demo{layout: layout{filepath.Join(top, "d")}, opt: options{guest: guest}}
	if _, err := d.publish(owner{}); err == nil {
		t.Error("no guest: got no error")
	}
	if err := os.Mkdir(guest, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(guest, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("disk.qcow2", "disk")
	if _, err := d.publish(owner{}); err == nil {
		t.Error("no desktop.conf: got no error")
	}
	write("desktop.conf", "one")
	write(".inputs", "x")
	for i, want := range []int{1, 1, 2} {
		if i == 2 {
			write("desktop.conf", "two")
		}
		if got, err := d.publish(owner{}); err != nil || got != want {
			t.Errorf("publication %d: got version %d, %v, want %d", i, got, err, want)
		}
	}
	home := filepath.Join(d.home(), publisher)
	if got, err := os.ReadFile(filepath.Join(home, "win4", "desktop.conf")); err != nil || string(got) != "two" {
		t.Errorf("current version: got %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(home, "win4.d/1/desktop.conf")); err != nil || string(got) != "one" {
		t.Errorf("version 1: got %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(home, "win4.d/current")); err != nil || string(got) != `{"version":2,"previous":1,"generation":2}`+"\n" {
		t.Errorf("current: got %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(home, "win4/disk.qcow2")); err != nil || info.Mode() != 0o444 {
		t.Errorf("mode of a file: got %v, %v, want 0444", info, err)
	}
}

package settings

import (
	"maps"
	"strings"
	"testing"
)

// F-06: what must be the same everywhere says so, and is compared; values that
// mean the same are the same.
func TestSame(t *testing.T) {
	for _, s := range global {
		if says := strings.Contains(s.Text, "Must be the same on all computers of the cluster."); says != s.Same {
			t.Errorf("%s: its text says that it must be the same: %v; it is compared: %v", s.Name, says, s.Same)
		}
		if s.Same && s.Secret {
			t.Errorf("%s is a secret and would be told to other hosts", s.Name)
		}
	}
	load := func(text string) map[string]string {
		v, err := Parse("x", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return Same(v)
	}
	one := load("WIN4_VERDE_LOST_SESSIONS=lease\nWIN4_VERDE_LEASE_SELF=60\n")
	if two := load("WIN4_VERDE_LOST_SESSIONS=\"lease\"\nWIN4_VERDE_LEASE_SELF=1m\nWIN4_MEMORY_MAX=5\n"); !maps.Equal(one, two) {
		t.Errorf("got %v and %v, want the same", one, two)
	}
	if other := load("WIN4_DESKTOP_NAME=pc\n"); other[DesktopName] != "pc" || maps.Equal(one, other) || other[LeaseSelf] != "1m0s" {
		t.Errorf("got %v", other)
	}
}

package settings

import (
	"strings"
	"testing"
)

// Every setting is explained, and its example would be accepted.
func TestManual(t *testing.T) {
	topics := Global().Manual()
	if got, want := len(topics), len(Global()); got != want {
		t.Fatalf("%d topics, want %d", got, want)
	}
	for i, m := range topics {
		s := Global()[i]
		if m.Name != s.Name || len(m.Text) == 0 || m.Text[0] == "" || len(m.Facts) != 4 {
			t.Errorf("%s: got %+v", s.Name, m)
		}
		text := m.Example + "\n"
		if m.Name == PasswdFile { // goes with it
			text += "WIN4_STATE_DIR=/srv/demo/state\n"
		}
		v, err := Parse("example", []byte(text))
		if err != nil {
			t.Errorf("%s: its example is refused: %v", m.Example, err)
		} else if !v.IsSet(s.Name) {
			t.Errorf("%s: the example sets nothing", m.Example)
		}
		if strings.HasSuffix(m.Example, `=""`) {
			t.Errorf("%s: the example is empty", s.Name)
		}
	}
}

func TestManualFacts(t *testing.T) {
	tests := map[string][2]string{
		StatsInterval: {"Value", "a time in seconds, 1 to 60"},
		Socket:        {"Value", "an absolute path, at most 107 bytes"},
		Accel:         {"Value", "kvm, auto or tcg"},
		SnapDir:       {"Default", "empty"},
		LogLevel:      {"Read by", "master, satellite"},
		LogoffWait:    {"A change counts", "when the program reads its settings again"},
		ConnUID:       {"A change counts", "after a restart"},
	}
	for name, want := range tests {
		for _, m := range Global().Manual() {
			if m.Name != name {
				continue
			}
			for _, f := range m.Facts {
				if f[0] == want[0] && f[1] != want[1] {
					t.Errorf("%s: %s: got %q, want %q", name, f[0], f[1], want[1])
				}
			}
		}
	}
}

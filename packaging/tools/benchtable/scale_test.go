package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestScale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.md")
	result := `{"machine":{"processor":"P","processors":2,"kernel":"6.1","load1":LOAD,"at":"2026-01-01T00:00:00Z"},"satellites":1000,"sessions":20000,"interval_s":3,"window_s":15,` +
		`"ours":{"interval_s":FORCE,"cpu_percent":3.2,"fleet_cpu_pct":5},"table":[{"id":"A1","what":"memory","ours":"80 KB","floor":"77 KB","ratio":"1.04","target":"t","met":"yes"}]}`
	quiet := strings.NewReplacer("LOAD", "0.1", "FORCE", "3").Replace(result)
	busy := strings.NewReplacer("LOAD", "9", "FORCE", "4.5").Replace(result)
	if err := scale(strings.NewReader(quiet+"\n"+busy), path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for want, times := range map[string]int{"| A1 | memory | 80 KB | 77 KB | 1.04 | t | yes |": 2, "Others used the machine": 1, "stretched the interval to 4.5 s": 1,
		"# How far it goes": 1, "## What limits it": 1, "%!": 0} {
		if got := strings.Count(text, want); got != times {
			t.Errorf("%q: got it %d times, want %d, in\n%s", want, got, times, text)
		}
	}
	for _, bad := range []string{"", "{}", "{"} {
		if err := scale(strings.NewReader(bad), path); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

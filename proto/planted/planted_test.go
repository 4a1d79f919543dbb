package planted

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var use = regexp.MustCompile(`planted\.Bug\("([^"]*)"\)`)

// Each bug of the table is in the program, and each one in the program is in
// the table.
func TestBugsArePlanted(t *testing.T) {
	found := map[Name]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "planted") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range use.FindAllSubmatch(text, -1) {
			found[Name(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	known := map[Name]bool{}
	for _, b := range Bugs() {
		if known[b.Name] {
			t.Errorf("%s is in the table twice", b.Name)
		}
		known[b.Name] = true
		if !found[b.Name] {
			t.Errorf("%s is in the table and not in the program", b.Name)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(found)) {
		if !known[n] {
			t.Errorf("%s is in the program and not in the table", n)
		}
	}
	if len(known) < 20 {
		t.Errorf("%d bugs, at least 20 are wanted", len(known))
	}
}

// A normal build has no bugs.
func TestNoBugs(t *testing.T) {
	for _, b := range Bugs() {
		if Bug(b.Name) != (os.Getenv("VERDECMD_MUTANT") == string(b.Name)) {
			t.Errorf("%s is in force", b.Name)
		}
	}
}

package store

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"context"
)

// fakeCopy writes a small file where a backup would be.
type fakeCopy struct{ *Mem }

func (fakeCopy) Backup(_ context.Context, path string) error {
	return os.WriteFile(path, []byte(filepath.Base(path)), 0o600)
}

func TestCopies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copies")
	os.Mkdir(dir, 0o700)
	for _, name := range []string{"verdecmd-20000101T000000Z.db" + newSuffix + "1", "mine.db"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Copies{Store: fakeCopy{NewMem()}, Dir: dir, Keep: 3}.Run(ctx) }()
		time.Sleep(5*time.Hour + time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	var got []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	want := []string{"mine.db", "verdecmd-20000101T030000Z.db", "verdecmd-20000101T040000Z.db", "verdecmd-20000101T050000Z.db"}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// A master that is started again every minute keeps its copies of the hours
// before.
func TestSurplus(t *testing.T) {
	at := func(minutes ...int) (out []string) {
		for _, m := range minutes {
			out = append(out, time.Date(2026, 1, 1, 0, m, 0, 0, time.UTC).Format(copyName))
		}
		return out
	}
	tests := map[string]struct {
		all, want []string
	}{
		"few":            {at(0, 60, 120), nil},
		"too many":       {at(0, 60, 120, 180, 240), at(0, 60)},
		"a crash loop":   {at(0, 60, 61, 62, 63), at(61, 0)},
		"both":           {at(0, 60, 120, 180, 181, 182), at(0, 60, 120)},
		"another's name": {append(append([]string{"verdecmd-1.db"}, at(0, 60)...), "verdecmd-x.db"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := surplus(test.all, 3); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// A copy of a real database is one that Open names when the database is bad.
func TestCopiesOfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "verdecmd.db")
	fill(t, path, 50)
	b := openTest(t, path)
	c := Copies{Store: b, Dir: filepath.Join(dir, "copies"), Keep: 2}
	at := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for i := range 3 {
		for range 2 { // twice in one second is no error
			if err := c.once(t.Context(), at.Add(time.Duration(i)*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := mustCopy(t, filepath.Join(dir, "none"), c.Dir), filepath.Join(c.Dir, "verdecmd-20261121T220000Z.db"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if files, _ := os.ReadDir(c.Dir); len(files) != 2 {
		t.Errorf("got %d files, want 2", len(files))
	}
}

func mustCopy(t *testing.T, dirs ...string) string {
	t.Helper()
	c, ok := newestGood(dirs)
	if !ok {
		t.Fatal("no good copy")
	}
	return c.path
}

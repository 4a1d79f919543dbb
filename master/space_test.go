package master

import (
	"path/filepath"
	"strings"
	"testing"

	"verdecmd/master/store"
)

// V-38 for the master itself: little space is told of before the disk is full,
// once, and that there is enough again when there is, not a little more; what the
// store says and what is measured do not contradict each other.
func TestSpaceIsLow(t *testing.T) {
	db := store.NewMem()
	var told []string
	c := &counted{Store: db, tell: func(typ, _ string) { told = append(told, strings.TrimPrefix(typ, "master.")) }}
	commit := func(err error) {
		db.Fail(err)
		_ = c.Commit(t.Context(), 1, nil, []store.Change{{Key: store.Key{Bucket: "x", ID: "y"}, Value: []byte("z")}})
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"enough", func() { c.space(1 << 30) }, ""},
		{"just enough", func() { c.space(spaceLow) }, ""},
		{"low", func() { c.space(spaceLow - 1); c.space(0) }, "nospace"},
		{"a little more", func() { c.space(spaceLow); c.space(spaceOK - 1) }, ""},
		{"full, too", func() { commit(store.ErrNoSpace) }, "nospace"},
		{"not full, but low", func() { commit(nil) }, ""},
		{"enough again", func() { c.space(spaceOK) }, "space"},
		{"full at once", func() { commit(store.ErrNoSpace); commit(store.ErrNoSpace) }, "nospace"},
		{"and low", func() { c.space(0) }, "nospace"},
		{"measured enough, but refused", func() { c.space(1 << 30) }, ""},
		{"taken again", func() { commit(nil); commit(nil) }, "space"},
	} {
		told = nil
		step.do()
		if got := strings.Join(told, " "); got != step.want {
			t.Errorf("%s: told %q, want %q", step.name, got, step.want)
		}
	}
}

// The file system is measured; a master on one with little space says so.
func TestSpaceOfAFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if free, err := freeSpace(dir); err != nil || free == 0 {
		t.Errorf("free: %d, %v", free, err)
	}
	if _, err := freeSpace(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there has space")
	}
	s := seat(t, store.NewMem(), 1, 0)
	s.cfg.Space = func() (uint64, error) { return 8 << 20, nil }
	s.start(t)
	until(t, "the alarm", func() bool { return s.alarmed(false) == "critical master-space master" })
}

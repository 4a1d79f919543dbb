package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var restoreTime = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

// mark is a change that a restore makes in the copy.
func mark(_ Snapshot, r Restored) ([]Change, error) {
	return []Change{{Key{"meta", "restored"}, []byte(filepath.Base(r.From))}}, nil
}

// damageFile spoils a page of the tree in the middle.
func damageFile(path string) error {
	all, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := 2 * testPage; at < len(all); at += testPage {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0x55}, 64), int64(at)+200); err != nil {
			return err
		}
	}
	return f.Sync()
}

// withCopies makes a database with one copy an hour old and one two hours old,
// and returns its path, the directory of the copies and what the newer one holds.
func withCopies(t *testing.T) (path, copies string, want []string) {
	t.Helper()
	dir := t.TempDir()
	path, copies = filepath.Join(dir, "verdecmd.db"), filepath.Join(dir, "copies")
	fill(t, path, 60)
	b := openTest(t, path)
	c := Copies{Store: b, Dir: copies, Keep: 5}
	for _, before := range []time.Duration{2 * time.Hour, time.Hour} {
		put(t, b, "before", before.String())
		if err := c.once(t.Context(), restoreTime.Add(-before)); err != nil {
			t.Fatal(err)
		}
	}
	want = dump(t, b)
	put(t, b, "later", "is lost")
	b.Close()
	return path, copies, want
}

// S19: a restore takes the newest good copy, keeps the damaged file, and
// raises the epoch by 2^20 (RELIABILITY 4.4.10).
func TestRestore(t *testing.T) {
	t.Parallel()
	const newest, older = "verdecmd-20261122T083000Z.db", "verdecmd-20261122T073000Z.db"
	tests := map[string]struct {
		prepare func(t *testing.T, path, copies string)
		cfg     RestoreConfig // without Path and Copies
		from    string        // the copy that is to be taken; empty: an error
		err     string
		aside   string // empty: nothing is
	}{
		"damaged": {
			prepare: func(t *testing.T, path, _ string) { damageFile(path) },
			from:    newest, aside: ".damaged-20261122T093000Z",
		},
		"missing": {
			prepare: func(t *testing.T, path, _ string) { os.Remove(path) },
			from:    newest,
		},
		"empty": {
			prepare: func(t *testing.T, path, _ string) { os.Truncate(path, 0) },
			from:    newest, aside: ".damaged-20261122T093000Z",
		},
		"the newest copy is damaged too": {
			prepare: func(t *testing.T, path, copies string) { damageFile(path); damageFile(filepath.Join(copies, newest)) },
			from:    older, aside: ".damaged-20261122T093000Z",
		},
		"a copy by name": {
			prepare: func(t *testing.T, path, _ string) { damageFile(path) },
			cfg:     RestoreConfig{From: older},
			from:    older, aside: ".damaged-20261122T093000Z",
		},
		"an attempt was interrupted": {
			prepare: func(t *testing.T, path, _ string) {
				damageFile(path)
				os.Link(path, path+".damaged-20261122T090000Z")
				os.WriteFile(path+newSuffix+"77", []byte("half"), 0o600)
			},
			from: newest, aside: ".damaged-20261122T090000Z",
		},
		"the name is taken": {
			prepare: func(t *testing.T, path, _ string) {
				damageFile(path)
				os.WriteFile(path+".damaged-20261122T093000Z", []byte("of another time"), 0o600)
			},
			from: newest, aside: ".damaged-20261122T093000Z-2",
		},
		"good": {err: "is not damaged; nothing was done"},
		"good, and a copy by name": {
			cfg: RestoreConfig{From: older}, err: "is not damaged; nothing was done",
		},
		"good, and to be replaced by no copy by name": {
			cfg: RestoreConfig{Replace: true}, err: "is not damaged; nothing was done",
		},
		"good, and to be replaced": {
			cfg: RestoreConfig{From: older, Replace: true}, from: older, aside: ".replaced-20261122T093000Z",
		},
		"in use": {
			prepare: func(t *testing.T, path, _ string) { openTest(t, path) }, err: ErrInUse.Error(),
		},
		"no copy": {
			prepare: func(t *testing.T, path, copies string) { damageFile(path); os.RemoveAll(copies) },
			err:     "--restore=FILE",
		},
		"the named copy is damaged": {
			prepare: func(t *testing.T, path, copies string) { damageFile(path); damageFile(filepath.Join(copies, older)) },
			cfg:     RestoreConfig{From: older}, err: older + " is damaged",
		},
		"the named copy is not there": {
			prepare: func(t *testing.T, path, _ string) { damageFile(path) },
			cfg:     RestoreConfig{From: "none.db"}, err: "none.db: no such file",
		},
		"a link in its place": {
			prepare: func(t *testing.T, path, copies string) {
				os.Remove(path)
				os.Symlink(filepath.Join(copies, older), path)
			}, err: "symbolic link",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, copies, want := withCopies(t)
			if test.prepare != nil {
				test.prepare(t, path, copies)
			}
			before, _ := os.ReadFile(path)
			cfg := test.cfg
			cfg.Path, cfg.Copies, cfg.Change, cfg.Now = path, []string{copies}, mark, restoreTime
			if cfg.From != "" {
				cfg.From = filepath.Join(copies, cfg.From)
			}
			done, err := Restore(cfg)
			after, _ := os.ReadFile(path)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want %q", err, test.err)
				}
				if names, _ := filepath.Glob(path + ".*"); !bytes.Equal(after, before) || len(names) > 0 {
					t.Errorf("something was done: %v", names)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := filepath.Base(done.From); got != test.from {
				t.Errorf("from %s, want %s", got, test.from)
			}
			aside := ""
			if test.aside != "" {
				aside = path + test.aside
				if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, before) {
					t.Errorf("what was there is not kept as it was: %v", err)
				}
			}
			if done.Aside != aside {
				t.Errorf("aside %q, want %q", done.Aside, aside)
			}
			if left, _ := filepath.Glob(path + newSuffix + "*"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			b := openTest(t, path)
			if b.Epoch() < epochLeap || b.Epoch() > epochLeap+10 {
				t.Errorf("epoch %d, want some more than %d", b.Epoch(), epochLeap)
			}
			got := dump(t, b)
			if test.from == older {
				want = slices.DeleteFunc(want, func(s string) bool { return strings.Contains(s, "before") })
				got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "before") })
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d records, want %d", len(got), len(want))
			}
			err = b.View(t.Context(), func(s Snapshot) error {
				v, _, err := s.Get(Key{"meta", "restored"})
				if string(v) != test.from {
					t.Errorf("what a restore is to change: got %q, want %q", v, test.from)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// A change that cannot be made leaves all as it was.
func TestRestoreChangeFails(t *testing.T) {
	t.Parallel()
	path, copies, _ := withCopies(t)
	damageFile(path)
	before, _ := os.ReadFile(path)
	bad := errors.New("not so")
	cfg := RestoreConfig{Path: path, Copies: []string{copies}, Now: restoreTime, Change: func(Snapshot, Restored) ([]Change, error) { return nil, bad }}
	if _, err := Restore(cfg); !errors.Is(err, bad) {
		t.Errorf("got %v, want %v", err, bad)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, before) {
		t.Error("the database was changed")
	}
	cfg.Change = mark
	if _, err := Restore(cfg); err != nil {
		t.Errorf("again: %v", err)
	}
}

// S19: a database that is gone while there are copies is not quietly replaced
// by an empty one.
func TestOpenMissing(t *testing.T) {
	t.Parallel()
	path, copies, _ := withCopies(t)
	os.Remove(path)
	if _, err := Open(path, copies); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "is missing") || !strings.Contains(err.Error(), "--restore") {
		t.Errorf("got %v, want %v", err, ErrDamaged)
	}
	os.RemoveAll(copies)
	openTest(t, path)
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes",
		119 * time.Minute: "119 minutes", 47 * time.Hour: "47 hours", 50 * 24 * time.Hour: "50 days",
	} {
		if got := Age(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// childRestore is the history of a database that is damaged and restored.
func childRestore(mnt string) error {
	note, err := os.OpenFile(filepath.Join(mnt, notes), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer note.Close()
	path, copies := filepath.Join(mnt, "verdecmd.db"), filepath.Join(mnt, "copies")
	b, err := open(path)
	if err != nil {
		return err
	}
	commit := func(id string, size int) error {
		return b.Commit(context.Background(), b.Epoch(), nil, []Change{{Key{"a", id}, bytes.Repeat([]byte(id), size)}})
	}
	err = errors.Join(commit("one", 100), commit("two", 9000),
		Copies{Store: b, Dir: copies, Keep: 5}.once(context.Background(), restoreTime.Add(-time.Hour)),
		commit("three", 100), b.Close(), damageFile(path))
	if err != nil {
		return err
	}
	fmt.Fprint(note, "damaged")
	if _, err := restore(RestoreConfig{Path: path, Copies: []string{copies}, Change: mark, Now: restoreTime}); err != nil {
		return err
	}
	fmt.Fprint(note, "restored")
	return nil
}

// TestCrashImagesOfRestore: S5, S19. A power cut during a restore leaves the
// damaged file or the finished copy under the name, and the damaged file is
// kept in either case; asked again, the restore is done.
func TestCrashImagesOfRestore(t *testing.T) {
	t.Parallel()
	ops := onDisk(t, "restore")
	at := map[string]int{}
	for i, o := range ops {
		if o.Kind == opNote {
			at[string(o.Data)] = i
		}
	}
	base, m := fast(t), newImages(ops)
	olds, news := 0, 0
	all := cuts(ops[at["damaged"]:], 300, number(t, "VERDECMD_CRASH_SEED", 1))
	for _, c := range all {
		c.at += at["damaged"]
		dir := filepath.Join(base, "image")
		if err := m.write(dir, c.at, fate{rand.New(rand.NewPCG(c.seed, 3)), c.mode}); err != nil {
			t.Fatal(err)
		}
		fail := func(format string, args ...any) { t.Fatalf("%v: "+format, append([]any{c}, args...)...) }
		path, copies := filepath.Join(dir, "verdecmd.db"), filepath.Join(dir, "copies")
		if err := Verify(path); errors.Is(err, ErrDamaged) {
			olds++
			if c.at > at["restored"] {
				fail("the restore had returned, and the file is the damaged one")
			}
			if _, err := Restore(RestoreConfig{Path: path, Copies: []string{copies}, Change: mark, Now: restoreTime.Add(time.Minute)}); err != nil {
				fail("again: %v", err)
			}
		} else if err != nil {
			fail("%v", err)
		} else {
			news++
		}
		kept, _ := filepath.Glob(path + ".damaged-*")
		if len(kept) != 1 || !errors.Is(Verify(kept[0]), ErrDamaged) {
			fail("the damaged file is not kept: %v", kept)
		}
		b, err := Open(path, copies)
		if err != nil {
			fail("%v", err)
		}
		got := map[string]int{}
		if err := b.View(t.Context(), func(s Snapshot) error {
			for _, bucket := range []string{"a", "meta"} {
				for id, v := range s.All(bucket) {
					got[id] = len(v)
				}
			}
			return nil
		}); err != nil {
			fail("%v", err)
		}
		if b.Epoch() <= epochLeap || len(got) != 3 || got["one"] != 300 || got["two"] != 27000 || got["restored"] == 0 {
			fail("epoch %d, records %v", b.Epoch(), slices.Sorted(maps.Keys(got)))
		}
		b.Close()
		os.RemoveAll(dir)
	}
	if olds == 0 || news == 0 {
		t.Errorf("%d images had the damaged file, %d the restored one: the test proves nothing", olds, news)
	}
	t.Logf("%d images: %d had the damaged file, %d the restored one", len(all), olds, news)
}

package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

const testPage = 4096

// fill makes a database of n records in three buckets with some churn.
func fill(t testing.TB, path string, n int) {
	t.Helper()
	b := openTest(t, path)
	defer b.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < n; {
		var ch []Change
		for ; len(ch) < MaxChanges && i < n; i++ {
			size := 100 + r.IntN(120)
			if r.IntN(100) == 0 && n < 10_000 {
				size = 6000 // more than one page
			}
			ch = append(ch, Change{Key{[]string{"a", "b", "bb"}[i%3], fmt.Sprintf("%08d", i)}, bytes.Repeat([]byte{byte(i)}, size)})
		}
		if err := b.Commit(t.Context(), b.Epoch(), nil, ch); err != nil {
			t.Fatal(err)
		}
	}
}

// S19: a damaged file is refused, or the damage touches nothing that is used:
// then every value is right, and stays so after more commits. Nothing panics.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "verdecmd.db")
	fill(t, path, 500)
	b := openTest(t, path)
	for i := range 40 { // free pages, and pages that hold older records
		if err := b.Commit(t.Context(), b.Epoch(), nil, []Change{{Key{"a", fmt.Sprintf("%08d", i*9)}, nil}, {Key{"b", fmt.Sprintf("%08d", i*9+1)}, []byte("new")}}); err != nil {
			t.Fatal(err)
		}
	}
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		put(t, b, fmt.Sprintf("%08d", i*12+1), "newer")
	}
	want := dump(t, b)
	b.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	// A database of the same kind, but another program's.
	elsewhere := filepath.Join(dir, "foreign.db")
	db, err := bbolt.Open(elsewhere, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
	db.Close()
	foreign, err := os.ReadFile(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	quick := fast(t)
	other, began, all, refused := 0, time.Now(), 0, 0

	r := rand.New(rand.NewPCG(3, 4))
	page := func(b []byte, i int) []byte { return b[i*testPage : (i+1)*testPage] }
	pages := len(good) / testPage
	kinds := map[string]struct {
		times  int
		damage func(b []byte) []byte
	}{
		"byte":      {200, func(b []byte) []byte { b[r.IntN(len(b))] ^= byte(1 + r.IntN(255)); return b }},
		"bit":       {100, func(b []byte) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
		"meta byte": {60, func(b []byte) []byte { b[r.IntN(2)*testPage+r.IntN(80)] ^= byte(1 + r.IntN(255)); return b }},
		"page header": {120, func(b []byte) []byte {
			b[r.IntN(pages)*testPage+r.IntN(64)] ^= byte(1 + r.IntN(255))
			return b
		}},
		"zero page":              {pages, func(b []byte) []byte { clear(page(b, r.IntN(pages))); return b }},
		"truncated":              {40, func(b []byte) []byte { return b[:r.IntN(len(b))] }},
		"truncated at a page":    {60, func(b []byte) []byte { return b[:r.IntN(pages)*testPage] }},
		"garbage appended":       {20, func(b []byte) []byte { return append(b, bytes.Repeat([]byte("garbage "), 1+r.IntN(2000))...) }},
		"an older meta page":     {20, func(b []byte) []byte { i := r.IntN(2); copy(page(b, i), page(older, i)); return b }},
		"a meta page is another": {10, func(b []byte) []byte { i := r.IntN(2); copy(page(b, i), page(b, 1-i)); return b }},
		"sectors missing": {80, func(b []byte) []byte {
			for range 1 + r.IntN(3) {
				clear(b[r.IntN(len(b)/sector)*sector:][:sector])
			}
			return b
		}},
		"many bytes": {60, func(b []byte) []byte {
			for range 2 + r.IntN(50) {
				b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
			}
			return b
		}},
		"a file of another kind": {4, func(b []byte) []byte {
			kinds := [][]byte{[]byte("SQLite format 3\x00" + strings.Repeat("\x00", 8192)), bytes.Repeat([]byte("WIN4=1\n"), 4000), foreign, bytes.Repeat([]byte{0}, len(b))}
			other++
			return bytes.Clone(kinds[other%len(kinds)])
		}},
		"two pages swapped": {60, func(b []byte) []byte {
			x, y := page(b, r.IntN(pages)), page(b, r.IntN(pages))
			old := bytes.Clone(x)
			copy(x, y)
			copy(y, old)
			return b
		}},
		"old page back": {pages, func(b []byte) []byte {
			i := r.IntN(min(pages, len(older)/testPage))
			copy(page(b, i), page(older, i))
			return b
		}},
		"garbage page": {50, func(b []byte) []byte {
			for p, i := page(b, r.IntN(pages)), 0; i < len(p); i++ {
				p[i] = byte(r.Uint32())
			}
			return b
		}},
	}
	for _, name := range slices.Sorted(mapKeys(kinds)) {
		k := kinds[name]
		t.Run(name, func(t *testing.T) {
			found, same := 0, 0
			for i := range k.times {
				bad := k.damage(bytes.Clone(good))
				file := filepath.Join(quick, "damaged.db")
				if err := os.WriteFile(file, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				b, err := Open(file)
				if err != nil {
					if d := (*DamagedError)(nil); !errors.As(err, &d) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), file) {
						t.Fatalf("%d: not one clear line: %v", i, err)
					}
					if left, _ := os.ReadFile(file); !bytes.Equal(left, bad) {
						t.Fatalf("%d: the refused file was changed", i)
					}
					found++
					os.Remove(file)
					continue
				}
				same++
				if got := dump(t, b); !slices.Equal(got, want) {
					t.Fatalf("%d: damage was served as %d records instead of %d, or as other values", i, len(got), len(want))
				}
				for n := range 3 {
					put(t, b, fmt.Sprintf("more-%d", n), strings.Repeat("x", 5000))
				}
				b.Close()
				if err := Verify(file); err != nil {
					t.Fatalf("%d: after more commits: %v", i, err)
				}
				os.Remove(file)
			}
			t.Logf("%d refused, %d harmless", found, same)
			all, refused = all+found+same, refused+found
			if found == 0 && name != "garbage appended" { // which is behind all that counts
				t.Error("nothing was found, the test proves nothing")
			}
		})
	}
	fmt.Printf("damages: files=%d refused=%d harmless=%d seconds=%.1f\n", all, refused, all-refused, time.Since(began).Seconds())
	if all < 1000 {
		t.Errorf("%d damages, want 1000", all)
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// Damage that comes while the file is open is met by its reader, not served.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "verdecmd.db")
	fill(t, path, 600)
	b := openTest(t, path)
	good := dump(t, b)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(all, []byte("00000123")) // record a/00000123, in one place or more
	for at >= 0 {
		if _, err := f.WriteAt([]byte{0xff}, int64(at+8+sealHeader+20)); err != nil {
			t.Fatal(err)
		}
		next := bytes.Index(all[at+1:], []byte("00000123"))
		if next < 0 {
			break
		}
		at += 1 + next
	}
	n := 0
	err = b.View(t.Context(), func(s Snapshot) error {
		for range s.All("a") {
			n++
		}
		return nil
	})
	if !errors.Is(err, ErrDamaged) || n >= len(good) {
		t.Errorf("All: got %v after %d records, want %v", err, n, ErrDamaged)
	}
	err = b.View(t.Context(), func(s Snapshot) error {
		_, _, err := s.Get(Key{"a", "00000123"})
		return err
	})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("Get: got %v, want %v", err, ErrDamaged)
	}
	err = b.Commit(t.Context(), b.Epoch(), nil, []Change{{Key{"a", "00000123"}, []byte("x")}})
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrUnknown) {
		t.Errorf("Commit: got %v, want %v", err, ErrDamaged)
	}
	if err := b.Commit(t.Context(), b.Epoch(), nil, []Change{{Key{"b", "x"}, []byte("x")}}); !errors.Is(err, ErrDamaged) {
		t.Errorf("Commit of another record: got %v, want %v", err, ErrDamaged)
	}
	if err := b.Backup(t.Context(), path+"-copy.db"); !errors.Is(err, ErrDamaged) {
		t.Errorf("Backup: got %v, want %v", err, ErrDamaged)
	}
	if _, err := os.Lstat(path + "-copy.db"); err == nil {
		t.Error("a bad copy was left")
	}
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"readable by others": {func(t *testing.T, path string) { os.Chmod(path, 0o644) }, "chmod 0600 "},
		"group may write":    {func(t *testing.T, path string) { os.Chmod(path, 0o620) }, "chmod 0600 "},
		"symbolic link":      {func(t *testing.T, path string) { os.Rename(path, path+"x"); os.Symlink(path+"x", path) }, "symbolic link"},
		"empty":              {func(t *testing.T, path string) { os.Truncate(path, 0) }, "is empty"},
		"a directory":        {func(t *testing.T, path string) { os.Remove(path); os.Mkdir(path, 0o700) }, "is a directory"},
		"in use":             {func(t *testing.T, path string) { openTest(t, path) }, ErrInUse.Error()},
		"text":               {func(t *testing.T, path string) { os.WriteFile(path, bytes.Repeat([]byte("hello "), 9999), 0o600) }, "--restore=FILE"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "verdecmd.db")
			openTest(t, path).Close()
			test.prepare(t, path)
			began := time.Now()
			_, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want the path and %q", err, test.want)
			}
			if took := time.Since(began); took > 30*time.Second { // who waits for the other one does so for ever
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("no directory", func(t *testing.T) {
		_, err := Open(filepath.Join(t.TempDir(), "none", "x.db"))
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v, want %v", err, os.ErrNotExist)
		}
	})
	t.Run("network file system", func(t *testing.T) {
		for kind, name := range map[uint32]string{0x6969: "NFS", 0x7461636f: "OCFS2", 0xff534d42: "CIFS"} {
			if err := local("/d", kind); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "local disk") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		if err := local("/d", 0xef53); err != nil { // ext4
			t.Errorf("ext4: got %v", err)
		}
	})
}

func TestOpenModeAndEpoch(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "verdecmd.db")
	for want := Epoch(1); want < 4; want++ {
		b := openTest(t, path)
		if got := b.Epoch(); got != want {
			t.Errorf("epoch %d, want %d", got, want)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if err := b.Commit(t.Context(), want, nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("commit after close: got %v, want %v", err, ErrClosed)
		}
		if err := b.View(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("view after close: got %v, want %v", err, ErrClosed)
		}
		if err := b.Backup(t.Context(), path+".copy"); !errors.Is(err, ErrClosed) {
			t.Errorf("backup after close: got %v, want %v", err, ErrClosed)
		}
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", st.Mode())
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, copies := filepath.Join(dir, "verdecmd.db"), filepath.Join(dir, "copies")
	if err := os.Mkdir(copies, 0o700); err != nil {
		t.Fatal(err)
	}
	fill(t, path, 300)
	b := openTest(t, path)
	want := dump(t, b)
	old, newest := filepath.Join(copies, "1.db"), filepath.Join(copies, "2.db")
	for _, to := range []string{old, newest} {
		if err := b.Backup(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Backup(t.Context(), old); !errors.Is(err, os.ErrExist) {
		t.Errorf("again to the same file: got %v, want %v", err, os.ErrExist)
	}
	if st, _ := os.Stat(old); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", st.Mode())
	}
	put(t, b, "later", "x")
	b.Close()

	c := openTest(t, old) // opening it raises its epoch: it is in use now
	if got := dump(t, c); !slices.Equal(got, want) {
		t.Errorf("the copy has %d records, want %d", len(got), len(want))
	}
	put(t, c, "x", "y")

	// A damaged database names the newest copy that is good.
	long := time.Now().Add(-time.Hour)
	os.Chtimes(old, long, long)
	os.WriteFile(filepath.Join(copies, "3.db"), []byte("bad"), 0o600)
	all, _ := os.ReadFile(path)
	clear(all[testPage : 2*testPage])
	os.WriteFile(path, all, 0o600)
	_, err := Open(path, copies)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), newest) || !strings.Contains(err.Error(), "second") {
		t.Errorf("got %v, want it to name %s", err, newest)
	}
	if left, _ := filepath.Glob(filepath.Join(copies, "*"+newSuffix+"*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

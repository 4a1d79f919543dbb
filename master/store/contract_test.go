package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"context"

	"pgregory.net/rapid"
)

// epochStore is what both engines offer.
type epochStore interface {
	Store
	Epoch() Epoch
}

func openTest(t testing.TB, path string) *Bolt {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// engines runs a test with each engine.
func engines(t *testing.T, test func(t *testing.T, s epochStore)) {
	t.Run("mem", func(t *testing.T) { t.Parallel(); test(t, NewMem()) })
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "verdecmd.db")
		b := openTest(t, path)
		test(t, b)
		// Whatever the test did, the file must still verify.
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := Verify(path); err != nil {
			t.Errorf("after the test: %v", err)
		}
	})
}

func key(id string) Key { return Key{"b", id} }

func get(t testing.TB, s Store, k Key) (string, bool) {
	t.Helper()
	var v []byte
	var ok bool
	if err := s.View(t.Context(), func(s Snapshot) (err error) { v, ok, err = s.Get(k); return err }); err != nil {
		t.Fatalf("get %s: %v", k, err)
	}
	return string(v), ok
}

func put(t testing.TB, s epochStore, id, value string) {
	t.Helper()
	if err := s.Commit(t.Context(), s.Epoch(), nil, []Change{{key(id), []byte(value)}}); err != nil {
		t.Fatalf("put %s: %v", id, err)
	}
}

func TestCommitGuards(t *testing.T) {
	tests := map[string]struct {
		guard   Guard
		wantErr error
	}{
		"absent and is":           {guard: Guard{key("none"), nil}},
		"absent and is not":       {guard: Guard{key("a"), nil}, wantErr: ErrConflict},
		"equal":                   {guard: Guard{key("a"), []byte("1")}},
		"other value":             {guard: Guard{key("a"), []byte("2")}, wantErr: ErrConflict},
		"value and absent":        {guard: Guard{key("none"), []byte("1")}, wantErr: ErrConflict},
		"empty and is empty":      {guard: Guard{key("empty"), []byte{}}},
		"empty and absent":        {guard: Guard{key("none"), []byte{}}, wantErr: ErrConflict},
		"absent and empty record": {guard: Guard{key("empty"), nil}, wantErr: ErrConflict},
		"other bucket":            {guard: Guard{Key{"c", "a"}, nil}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, s epochStore) {
				put(t, s, "a", "1")
				put(t, s, "empty", "")
				err := s.Commit(t.Context(), s.Epoch(), []Guard{{key("a"), []byte("1")}, test.guard}, []Change{{key("x"), []byte("y")}, {key("a"), nil}})
				if !errors.Is(err, test.wantErr) {
					t.Fatalf("got %v, want %v", err, test.wantErr)
				}
				if c := (*ConflictError)(nil); errors.As(err, &c) && c.Key != test.guard.Key {
					t.Errorf("conflict names %v, want %v", c.Key, test.guard.Key)
				}
				_, x := get(t, s, key("x"))
				_, a := get(t, s, key("a"))
				if done := err == nil; x != done || a == done {
					t.Errorf("after %v: x written %v, a there %v: want all or none", err, x, a)
				}
			})
		})
	}
}

func TestCommitRefusals(t *testing.T) {
	many := make([]Change, MaxChanges+1)
	for i := range many {
		many[i] = Change{key(fmt.Sprint(i)), nil}
	}
	tests := map[string]struct {
		epoch   int // relative to the newest
		guards  []Guard
		changes []Change
		wantErr error
	}{
		"old epoch":         {epoch: -1, changes: []Change{{key("x"), []byte("y")}}, wantErr: ErrFenced},
		"future epoch":      {epoch: 1, changes: []Change{{key("x"), []byte("y")}}, wantErr: ErrFenced},
		"101 changes":       {changes: many, wantErr: ErrInvalid},
		"100 changes":       {changes: many[:MaxChanges]},
		"101 guards":        {guards: make([]Guard, MaxChanges+1), wantErr: ErrInvalid},
		"key twice":         {changes: []Change{{key("x"), nil}, {key("x"), []byte("1")}}, wantErr: ErrInvalid},
		"no bucket":         {changes: []Change{{Key{"", "x"}, []byte("1")}}, wantErr: ErrInvalid},
		"no id":             {changes: []Change{{key(""), []byte("1")}}, wantErr: ErrInvalid},
		"NUL in the bucket": {changes: []Change{{Key{"b\x00", "x"}, []byte("1")}}, wantErr: ErrInvalid},
		"NUL in the id":     {changes: []Change{{key("x\x00"), []byte("1")}}, wantErr: ErrInvalid},
		"long id":           {changes: []Change{{key(strings.Repeat("x", MaxID+1)), []byte("1")}}, wantErr: ErrInvalid},
		"longest id":        {changes: []Change{{key(strings.Repeat("x", MaxID)), []byte("1")}}},
		"large value":       {changes: []Change{{key("x"), make([]byte, MaxValue+1)}}, wantErr: ErrInvalid},
		"largest value":     {changes: []Change{{key("x"), make([]byte, MaxValue)}}},
		"nothing":           {},
		"guard without key": {guards: []Guard{{}}, wantErr: ErrInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, s epochStore) {
				err := s.Commit(t.Context(), s.Epoch()+Epoch(test.epoch), test.guards, test.changes)
				if !errors.Is(err, test.wantErr) {
					t.Errorf("got %v, want %v", err, test.wantErr)
				}
			})
		})
	}
	t.Run("ended context", func(t *testing.T) {
		engines(t, func(t *testing.T, s epochStore) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Commit(ctx, s.Epoch(), nil, nil); !errors.Is(err, context.Canceled) {
				t.Errorf("commit: got %v, want %v", err, context.Canceled)
			}
			if err := s.View(ctx, func(Snapshot) error { return nil }); !errors.Is(err, context.Canceled) {
				t.Errorf("view: got %v, want %v", err, context.Canceled)
			}
		})
	})
}

func TestSnapshot(t *testing.T) {
	engines(t, func(t *testing.T, s epochStore) {
		for _, id := range []string{"b", "a", "ab", "a/", "é"} {
			put(t, s, id, "v-"+id)
		}
		if err := s.Commit(t.Context(), s.Epoch(), nil, []Change{{Key{"a", "z"}, []byte("other")}, {Key{"bb", "a"}, []byte("other")}}); err != nil {
			t.Fatal(err)
		}
		var ids []string
		kept := map[string][]byte{}
		err := s.View(t.Context(), func(s Snapshot) error {
			for id, v := range s.All("b") {
				ids = append(ids, id)
				kept[id] = v
			}
			for range s.All("b") {
				break // stopping early is allowed
			}
			for range s.All("none") {
				t.Error("an empty bucket has a record")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"a", "a/", "ab", "b", "é"}; !slices.Equal(ids, want) {
			t.Errorf("got %q, want %q", ids, want)
		}
		for id, v := range kept { // values outlive the snapshot and are the caller's
			if string(v) != "v-"+id {
				t.Errorf("%s: got %q, want %q", id, v, "v-"+id)
			}
			clear(v)
			_ = append(v, "beyond"...)
		}
		if v, _ := get(t, s, key("a")); v != "v-a" {
			t.Errorf("a changed by its reader: got %q, want %q", v, "v-a")
		}
		wrong := errors.New("mine")
		if err := s.View(t.Context(), func(Snapshot) error { return wrong }); err != wrong {
			t.Errorf("got %v, want the function's own error", err)
		}
		if err := s.View(t.Context(), func(s Snapshot) error {
			for range s.All("") {
				t.Error("a bucket without a name has a record")
			}
			return nil
		}); !errors.Is(err, ErrInvalid) {
			t.Errorf("bucket without a name: got %v, want %v", err, ErrInvalid)
		}
	})
}

// Guards see what was committed before them, however many callers there are.
func TestCommitConcurrent(t *testing.T) {
	engines(t, func(t *testing.T, s epochStore) {
		const callers, each = 16, 20
		put(t, s, "n", "0")
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for done := 0; done < each; {
					have, _ := get(t, s, key("n"))
					var n int
					fmt.Sscan(have, &n)
					err := s.Commit(t.Context(), s.Epoch(), []Guard{{key("n"), []byte(have)}}, []Change{{key("n"), fmt.Append(nil, n+1)}})
					switch {
					case err == nil:
						done++
					case !errors.Is(err, ErrConflict):
						t.Errorf("got %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		if got, _ := get(t, s, key("n")); got != fmt.Sprint(callers*each) {
			t.Errorf("got %s, want %d", got, callers*each)
		}
	})
}

// Both engines and a plain map agree over random histories, and the file
// verifies after each of them.
func TestEnginesAgree(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", run))
		b, err := Open(path)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { b.Close() }()
		m := NewMem()
		id := rapid.Custom(func(t *rapid.T) Key {
			return Key{rapid.SampledFrom([]string{"a", "b", "bb"}).Draw(t, "bucket"), fmt.Sprintf("%03d", rapid.IntRange(0, 300).Draw(t, "id"))}
		})
		value := rapid.Custom(func(t *rapid.T) []byte {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				return nil
			case 1:
				return make([]byte, rapid.IntRange(0, 9000).Draw(t, "size"))
			}
			return []byte(rapid.StringN(0, 300, -1).Draw(t, "value"))
		})
		for range rapid.IntRange(1, 15).Draw(rt, "commits") {
			var guards []Guard
			if rapid.IntRange(0, 3).Draw(rt, "guarded") == 0 {
				guards = append(guards, Guard{id.Draw(rt, "guard"), nil})
			}
			changes := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Change {
				return Change{id.Draw(t, "key"), value.Draw(t, "value")}
			}), 0, 60, func(c Change) Key { return c.Key }).Draw(rt, "changes")
			eb := b.Commit(t.Context(), b.Epoch(), guards, changes)
			em := m.Commit(t.Context(), m.Epoch(), guards, changes)
			if (eb == nil) != (em == nil) || errors.Is(eb, ErrConflict) != errors.Is(em, ErrConflict) {
				rt.Fatalf("bolt says %v, mem %v", eb, em)
			}
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				before := b.Epoch()
				if err := b.Close(); err != nil {
					rt.Fatal(err)
				}
				if b, err = Open(path); err != nil {
					rt.Fatal(err)
				}
				if m.Restart(); b.Epoch() != before+1 {
					rt.Fatalf("epoch %d after %d", b.Epoch(), before)
				}
			}
		}
		if got, want := dump(rt, b), dump(rt, m); !slices.Equal(got, want) {
			rt.Fatalf("bolt has %d records, mem %d, or other values", len(got), len(want))
		}
		if err := b.Close(); err != nil {
			rt.Fatal(err)
		}
		if err := Verify(path); err != nil {
			rt.Fatal(err)
		}
	})
}

func dump(t interface{ Fatal(...any) }, s Store) []string {
	var all []string
	err := s.View(context.Background(), func(s Snapshot) error {
		for _, b := range []string{"a", "b", "bb"} {
			for id, v := range s.All(b) {
				all = append(all, fmt.Sprintf("%s/%s=%q", b, id, v))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzUnseal: a record is what was sealed under its key, or an error; no other
// bytes pass (S19).
func FuzzUnseal(f *testing.F) {
	row := rowKey(Key{"sessions", "alice"})
	f.Add([]byte(row), seal(row, []byte(`{"id":"s1"}`)))
	f.Add([]byte(headRow), seal(headRow, head{7, tally{1, 2}}.encode()))
	f.Add([]byte(row), []byte{sealVersion, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, row, b []byte) {
		if payload, err := unseal(row, b); err == nil && !bytes.Equal(seal(row, payload), b) {
			t.Errorf("%q under %q has a second form", b, row)
		}
		sealed := seal(row, b)
		if back, err := unseal(row, sealed); err != nil || !bytes.Equal(back, b) {
			t.Errorf("%q came back as %q, %v", b, back, err)
		}
		if _, err := unseal(append([]byte("x"), row...), sealed); err == nil {
			t.Errorf("%q passes under another key", sealed)
		}
		for i := range min(len(sealed), 32) {
			sealed[i] ^= 0x20
			if _, err := unseal(row, sealed); err == nil {
				t.Errorf("passes with byte %d changed", i)
			}
			sealed[i] ^= 0x20
		}
		if h, err := decodeHead(b); err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("head %x has a second form %x", b, h.encode())
		}
		if k := splitRow(row); !bytes.Contains(row, []byte{0}) && k.ID != "" || bytes.Count(row, []byte{0}) == 1 && !bytes.Equal(rowKey(k), row) {
			t.Errorf("row %q is %+v", row, k)
		}
	})
}

// FuzzVerify: a good database with any bytes put over it is refused, in words
// and in no time, or it says the same as before (S19).
func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "verdecmd.db")
	fill(f, path, 40)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	good = good[:min(len(good), 16*testPage)]
	want, err := verify(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		f.Fatalf("the example is not good: %v", err)
	}
	f.Add(uint32(0), []byte{1}, uint32(0))
	f.Add(uint32(16+8), []byte{0, 2, 0, 0}, uint32(0))                                 // page size
	f.Add(uint32(testPage+16+40), []byte{0xff, 0xff, 0xff, 0xff, 0xff}, uint32(0))     // number of pages
	f.Add(uint32(3*testPage+10), []byte{0xff, 0xff, 0xff, 0xff, 0, 0}, uint32(0))      // elements, overflow
	f.Add(uint32(4*testPage), good[3*testPage:3*testPage+64], uint32(0))               // another page
	f.Add(uint32(2*testPage+16), bytes.Repeat([]byte{0xff}, 16), uint32(5*testPage+7)) // and cut off
	f.Fuzz(func(t *testing.T, at uint32, over []byte, size uint32) {
		b := bytes.Clone(good)
		copy(b[int(at)%len(b):], over)
		if size > 0 {
			b = b[:int(size)%len(b)]
		}
		began := time.Now()
		h, err := verify(bytes.NewReader(b), int64(len(b)))
		if took := time.Since(began); took > 10*time.Second { // much more than a busy machine takes away
			t.Errorf("took %v", took)
		}
		switch {
		case err != nil && err.Error() == "":
			t.Error("an empty error")
		case err == nil && h != want && h.tally != want.tally:
			t.Errorf("got %+v, want %+v", h, want)
		case err == nil && size > 0 && int(size)%len(good) < 4*testPage:
			t.Errorf("%d bytes pass for the whole", len(b))
		}
	})
}

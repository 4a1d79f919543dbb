package store

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"
)

// PERFORMANCE A5 and A6: one caller, and 128 at once, beside one bare Update
// of the same size.
func BenchmarkCommit(b *testing.B) {
	value := make([]byte, 160)
	var n atomic.Uint64
	b.Run("bare bbolt", func(b *testing.B) {
		db, err := bbolt.Open(filepath.Join(b.TempDir(), "x.db"), 0o600, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("s")); return err }); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			k := binary.BigEndian.AppendUint64(nil, n.Add(1))
			if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("s")).Put(k, value) }); err != nil {
				b.Fatal(err)
			}
		}
	})
	commit := func(b *testing.B, s *Bolt) {
		if err := s.Commit(b.Context(), s.Epoch(), nil, []Change{{Key{"s", fmt.Sprintf("%016d", n.Add(1))}, value}}); err != nil {
			b.Error(err)
		}
	}
	b.Run("1 caller", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "x.db"))
		for b.Loop() {
			commit(b, s)
		}
	})
	b.Run("128 callers", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "x.db"))
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				commit(b, s)
			}
		})
	})
}

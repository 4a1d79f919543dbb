package store

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"go.etcd.io/bbolt"
)

// PERFORMANCE A5 and A6: one caller, and 128 at once, beside one bare Update
// of the same size.
func BenchmarkCommit(b *testing.B) {
	value := make([]byte, 160)
	var n atomic.Uint64
	b.Run("A5-floor", func(b *testing.B) {
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
	b.Run("A5", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "x.db"))
		for b.Loop() {
			commit(b, s)
		}
	})
	const callers = 128
	b.Run("A6-floor", func(b *testing.B) {
		db, err := bbolt.Open(filepath.Join(b.TempDir(), "x.db"), 0o600, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer db.Close()
		db.MaxBatchSize = callers
		if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("s")); return err }); err != nil {
			b.Fatal(err)
		}
		b.SetParallelism(callers / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				k := binary.BigEndian.AppendUint64(nil, n.Add(1))
				if err := db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("s")).Put(k, value) }); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("A6", func(b *testing.B) {
		s := openTest(b, filepath.Join(b.TempDir(), "x.db"))
		b.SetParallelism(callers / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				commit(b, s)
			}
		})
	})
}

// PERFORMANCE A7: the start with a million records, verified, beside one scan
// of the same file by bbolt.
func BenchmarkOpen(b *testing.B) {
	const records = 1_000_000
	path := filepath.Join(b.TempDir(), "x.db")
	s := openTest(b, path)
	s.db.NoSync = true // of the making
	value := make([]byte, 160)
	for i := 0; i < records; {
		var ch []Change
		for ; len(ch) < MaxChanges; i++ {
			ch = append(ch, Change{Key{"s", fmt.Sprintf("%016d", i)}, value})
		}
		if err := s.Commit(b.Context(), s.Epoch(), nil, ch); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("A7-floor", func(b *testing.B) {
		for b.Loop() {
			db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, ReadOnly: true})
			if err != nil {
				b.Fatal(err)
			}
			seen := 0
			err = db.View(func(tx *bbolt.Tx) error {
				return tx.Bucket(topBucketName).ForEach(func(k, v []byte) error { seen += len(v); return nil })
			})
			if err != nil || seen < records*len(value) {
				b.Fatal(seen, err)
			}
			db.Close()
		}
	})
	b.Run("A7", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(path)
			if err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
}

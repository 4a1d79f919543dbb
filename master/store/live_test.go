package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// liveTimes is how often the file is damaged while it is open.
const liveTimes = 50

// childLive damages a database under the feet of the program that has it open,
// again and again. It is a process of its own since a fault in the memory map
// could end it.
func childLive(dir string) error {
	seed, err := strconv.ParseUint(filepath.Base(dir), 10, 64)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 9))
	path := filepath.Join(dir, "verdecmd.db")
	b, err := open(path)
	if err != nil {
		return err
	}
	want := map[string]string{}
	for i := range 400 {
		id := fmt.Sprintf("%04d", i)
		want[id] = strings.Repeat(id, 30)
		if err := b.Commit(context.Background(), b.Epoch(), nil, []Change{{Key{"a", id}, []byte(want[id])}}); err != nil {
			return err
		}
	}
	b.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found, harmless := 0, 0
	for n := range liveTimes {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			return err
		}
		if b, err = open(path); err != nil {
			return fmt.Errorf("%d: %w", n, err)
		}
		kind, err := damageLive(path, r, len(good))
		if err != nil {
			return err
		}
		bad, err := live(b, want, r)
		if err != nil {
			return fmt.Errorf("%d, %s: %w", n, kind, err)
		}
		if bad {
			found++
		} else {
			harmless++
		}
		b.Close()
		if again, err := open(path); err == nil {
			again.Close()
			if bad { // what was an error while it ran was not written over
				return fmt.Errorf("%d, %s: the damage is gone after a restart", n, kind)
			}
		}
	}
	fmt.Printf("found %d harmless %d\n", found, harmless)
	return nil
}

// damageLive changes the file as a disk or a person might.
func damageLive(path string, r *rand.Rand, size int) (kind string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := int64(r.IntN(size/testPage)) * testPage
	b := make([]byte, testPage)
	switch kind = []string{"byte", "zero page", "garbage page", "truncated", "header"}[r.IntN(5)]; kind {
	case "byte":
		_, err = f.WriteAt([]byte{byte(r.Uint32())}, r.Int64N(int64(size)))
	case "zero page":
		_, err = f.WriteAt(b, p)
	case "garbage page":
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		_, err = f.WriteAt(b, p)
	case "truncated":
		err = f.Truncate(p)
	case "header":
		_, err = f.WriteAt(bytes.Repeat([]byte{byte(r.Uint32())}, 4), p+r.Int64N(40))
	}
	return kind, err
}

// live reads and writes all over a database that may be damaged. bad: some of
// it was refused. An error is a wrong value, or a commit that was acknowledged
// and cannot be read.
func live(b *Bolt, want map[string]string, r *rand.Rand) (bad bool, err error) {
	ctx := context.Background()
	check := func(id, got string) error {
		if got != want[id] {
			return fmt.Errorf("%s: a wrong value was served", id)
		}
		return nil
	}
	for range 3 {
		n := 0
		verr := b.View(ctx, func(s Snapshot) error {
			for id, v := range s.All("a") {
				n++
				if err = check(id, string(v)); err != nil {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			return bad, err
		}
		if bad = bad || verr != nil; verr == nil && n != len(want) {
			return true, fmt.Errorf("%d records instead of %d were served as all", n, len(want))
		}
		for range 20 {
			id := fmt.Sprintf("%04d", r.IntN(400))
			gerr := b.View(ctx, func(s Snapshot) error {
				v, ok, err := s.Get(Key{"a", id})
				if err == nil && !ok {
					return fmt.Errorf("%s is not there", id)
				}
				if err == nil {
					return check(id, string(v))
				}
				return err
			})
			if gerr != nil && !errors.Is(gerr, ErrDamaged) {
				return bad, gerr
			}
			bad = bad || gerr != nil
			if cerr := b.Commit(ctx, b.Epoch(), nil, []Change{{Key{"b", id}, []byte(id)}, {Key{"b", id + "x"}, nil}}); cerr != nil {
				bad = true
			}
		}
	}
	return bad, nil
}

// S19: a file that is damaged while it is in use is an error to who meets the
// damage, and ends commits; it is never a value, and never the end of the
// program.
func TestDamageWhileInUse(t *testing.T) {
	t.Parallel()
	for _, seed := range []string{"1", "2", "3"} {
		t.Run(seed, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(fast(t), seed)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			out, err := child(t, "live", dir).Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

package store

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// The history that is recorded: writers with a chain of commits each, hot
// copies meanwhile, and a restart.
const (
	imageWriters = 6
	imageCommits = 24 // of each writer, before the restart and after it
	imageKeep    = 5  // records of a writer that stay
	bugEnv       = "VERDECMD_STORE_TEST_BUG"
)

// imageChanges is the commit number n of writer w. After it the writer's
// records are those of imageRecords(w, n).
func imageChanges(w, n int) ([]Guard, []Change) {
	g := Guard{Key: Key{"count", strconv.Itoa(w)}}
	if n > 1 {
		g.Want = []byte(strconv.Itoa(n - 1))
	}
	ch := []Change{{g.Key, []byte(strconv.Itoa(n))}}
	for _, b := range []string{"left", "right"} {
		ch = append(ch, Change{imageKey(b, w, n), imageValue(w, n)})
		if n > imageKeep {
			ch = append(ch, Change{imageKey(b, w, n-imageKeep), nil})
		}
	}
	return []Guard{g}, ch
}

func imageKey(b string, w, n int) Key { return Key{b, fmt.Sprintf("%d-%04d", w, n)} }

func imageValue(w, n int) []byte {
	size := 50 + (w*31+n*17)%300
	if (w+n)%11 == 0 {
		size = 6000 // more than a page
	}
	return []byte(strings.Repeat(fmt.Sprintf("%d-%d.", w, n), size/4))
}

// childHistory does what is recorded, with a bug where the test wants one.
func childHistory(mnt string) error {
	note, err := os.OpenFile(filepath.Join(mnt, notes), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer note.Close()
	say := func(format string, args ...any) { fmt.Fprintf(note, format, args...) }
	path := filepath.Join(mnt, "verdecmd.db")
	if os.Getenv(bugEnv) == "made in place" {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			return err
		}
		return db.Close()
	}
	for part := range 2 {
		b, err := open(path)
		if err != nil {
			return err
		}
		say("open %d", b.Epoch())
		b.db.NoSync = os.Getenv(bugEnv) == "no sync"
		errs := make(chan error, imageWriters+1)
		var wg sync.WaitGroup
		for w := range imageWriters {
			wg.Go(func() {
				for n := part*imageCommits + 1; n <= (part+1)*imageCommits; n++ {
					guards, changes := imageChanges(w, n)
					say("begin %d %d", w, n)
					if err := b.Commit(context.Background(), b.Epoch(), guards, changes); err != nil {
						errs <- err
						return
					}
					say("ack %d %d", w, n)
				}
			})
		}
		wg.Go(func() {
			c := Copies{Store: b, Dir: filepath.Join(mnt, "copies"), Keep: 2}
			at := time.Date(2026, 11, 21, 20+part, 0, 0, 0, time.UTC)
			if err := c.once(context.Background(), at); err != nil {
				errs <- err
			}
			say("copied %s", at.Format(copyName))
		})
		wg.Wait()
		select {
		case err := <-errs:
			return err
		default:
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
	return nil
}

// promise is what the program had promised at a place of the history: commits
// by writer.
type promise struct {
	epoch        Epoch // of an Open that has returned
	acked, begun [imageWriters]int
	// before is, for each commit that has begun, what was acknowledged then.
	before map[[2]int][imageWriters]int
	copies []string
}

// take reads one of the program's notes.
func (p *promise) take(note string) {
	f := strings.Fields(note)
	var n [2]int
	for i := 1; i < len(f) && i <= 2; i++ {
		n[i-1], _ = strconv.Atoi(f[i])
	}
	switch f[0] {
	case "open":
		p.epoch = Epoch(n[0])
	case "begin":
		p.begun[n[0]] = n[1]
		p.before[n] = p.acked
	case "ack":
		p.acked[n[0]] = n[1]
	case "copied":
		p.copies = append(p.copies, f[1])
	}
}

// content checks that a store holds, of every writer, a whole number of commits
// and their right values, and returns the numbers.
func imageContent(b *Bolt) (at [imageWriters]int, err error) {
	have := map[Key]string{}
	err = b.View(context.Background(), func(s Snapshot) error {
		for _, bucket := range []string{"count", "left", "right"} {
			for id, v := range s.All(bucket) {
				have[Key{bucket, id}] = string(v)
			}
		}
		return nil
	})
	if err != nil {
		return at, err
	}
	for w := range imageWriters {
		count := Key{"count", strconv.Itoa(w)}
		if v, ok := have[count]; ok {
			if at[w], err = strconv.Atoi(v); err != nil {
				return at, err
			}
			delete(have, count)
		}
		for n := max(1, at[w]-imageKeep+1); n <= at[w]; n++ {
			for _, b := range []string{"left", "right"} {
				k := imageKey(b, w, n)
				if have[k] != string(imageValue(w, n)) {
					return at, fmt.Errorf("writer %d has %d commits, but %s is not as it was written", w, at[w], k)
				}
				delete(have, k)
			}
		}
	}
	for k := range have {
		return at, fmt.Errorf("%s belongs to no commit", k)
	}
	return at, nil
}

// checkImage opens an image with the real Open and holds it against p.
func checkImage(dir string, p *promise) error {
	path := filepath.Join(dir, "verdecmd.db")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && p.epoch > 0 {
		return errors.New("the database is gone")
	}
	copies, _ := filepath.Glob(filepath.Join(dir, "copies", "*.db"))
	for _, c := range copies {
		if err := Verify(c); err != nil {
			return fmt.Errorf("a copy: %w", err)
		}
	}
	for _, name := range p.copies {
		if _, err := os.Lstat(filepath.Join(dir, "copies", name)); err != nil {
			return fmt.Errorf("a finished copy is gone: %w", err)
		}
	}
	b, err := Open(path)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Epoch() <= p.epoch {
		return fmt.Errorf("epoch %d comes again", b.Epoch())
	}
	at, err := imageContent(b)
	if err != nil {
		return err
	}
	for w, n := range at {
		if n < p.acked[w] {
			return fmt.Errorf("commit %d of writer %d was acknowledged and is lost, the last is %d", p.acked[w], w, n)
		}
		if n > p.begun[w] {
			return fmt.Errorf("commit %d of writer %d had not begun", n, w)
		}
		for v, before := range p.before[[2]int{w, n}] {
			if at[v] < before {
				return fmt.Errorf("commit %d of writer %d is there without commit %d of writer %d, which was acknowledged before it began", n, w, before, v)
			}
		}
	}
	for w, n := range at {
		guards, changes := imageChanges(w, n+1)
		if err := b.Commit(context.Background(), b.Epoch(), guards, changes); err != nil {
			return fmt.Errorf("going on: %w", err)
		}
	}
	if _, err := imageContent(b); err != nil {
		return fmt.Errorf("after going on: %w", err)
	}
	if err := b.Close(); err != nil {
		return err
	}
	return Verify(path)
}

// tryImages makes and checks images of a history, and returns how many were
// checked and the first that is wrong.
func tryImages(base string, ops []op, all []cut) (n int, bad cut, err error) {
	m := newImages(ops)
	p := &promise{before: map[[2]int][imageWriters]int{}}
	told := 0
	dir := filepath.Join(base, "image")
	for _, c := range all {
		for ; told < c.at; told++ {
			if ops[told].Kind == opNote {
				p.take(string(ops[told].Data))
			}
		}
		if err := m.write(dir, c.at, fate{rand.New(rand.NewPCG(c.seed, 2)), c.mode}); err != nil {
			return n, c, err
		}
		if err := checkImage(dir, p); err != nil {
			return n + 1, c, err
		}
		n++
		if err := os.RemoveAll(dir); err != nil {
			return n, c, err
		}
	}
	return n, bad, nil
}

// fast is a directory in memory where there is one: images need no real disk.
func fast(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "verdecmd-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// number reads an environment variable that makes a test longer or another one.
func number(t testing.TB, name string, fallback uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Images of one history; more are made of further ones.
const imagesEach = 1000

// TestCrashImages: S5, also during the creation of the file, the epoch's rise
// and hot copies. A power cut may leave any part of what was not synced: what
// was acknowledged is there, a commit is whole or not at all, and nothing is
// there without what was acknowledged before it.
//
// VERDECMD_CRASH_IMAGES=100000 makes more of them, VERDECMD_CRASH_SEED others;
// VERDECMD_CRASH_LOG names the history of a failure, which is then tried again
// instead of a new one.
func TestCrashImages(t *testing.T) {
	t.Parallel()
	want := int(number(t, "VERDECMD_CRASH_IMAGES", imagesEach))
	seed := number(t, "VERDECMD_CRASH_SEED", uint64(time.Now().UnixNano())>>10)
	old := os.Getenv("VERDECMD_CRASH_LOG")
	began := time.Now()
	var total, commits, syncs atomic.Int64
	work := make(chan int)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		base := fast(t)
		wg.Go(func() {
			for from := range work {
				var ops []op
				if old != "" {
					ops = readOps(t, old)
				} else {
					ops = onDisk(t, "history")
				}
				for _, o := range ops {
					switch {
					case o.Kind == opSync:
						syncs.Add(1)
					case o.Kind == opNote && strings.HasPrefix(string(o.Data), "ack"):
						commits.Add(1)
					}
				}
				n, bad, err := tryImages(base, ops, cuts(ops, min(imagesEach, want-from), seed+uint64(from)))
				total.Add(int64(n))
				if err != nil {
					t.Errorf("%v: %v\nagain: VERDECMD_CRASH_SEED=%d VERDECMD_CRASH_LOG=%s go test -run 'TestCrashImages$' ./master/store",
						bad, err, seed+uint64(from), writeOps(t, ops))
				}
			}
		})
	}
	for from := 0; from < want && !t.Failed(); from += imagesEach {
		work <- from
	}
	close(work)
	wg.Wait()
	if old == "" && (commits.Load() == 0 || syncs.Load() >= 2*commits.Load()) {
		t.Errorf("%d syncs for %d commits: none have shared the two of a commit, the history is too tame", syncs.Load(), commits.Load())
	}
	fmt.Printf("crash-images: images=%d seed=%d commits=%d syncs=%d failed=%t seconds=%.1f\n",
		total.Load(), seed, commits.Load(), syncs.Load(), t.Failed(), time.Since(began).Seconds())
}

// The checker of TestCrashImages is believed only since it finds bugs.
func TestCrashImagesFindBugs(t *testing.T) {
	t.Parallel()
	for _, bug := range []string{"no sync", "made in place"} {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			ops := onDisk(t, "history", bugEnv+"="+bug)
			n, at, err := tryImages(fast(t), ops, cuts(ops, imagesEach, 1))
			if err == nil {
				t.Fatalf("not found within %d images", n)
			}
			t.Logf("found by image %d, %v: %v", n, at, err)
		})
	}
}

func writeOps(t *testing.T, ops []op) string {
	f, err := os.CreateTemp("", "verdecmd-crash-*.log")
	if err == nil {
		err = errors.Join(gob.NewEncoder(f).Encode(ops), f.Close())
	}
	if err != nil {
		t.Error(err)
		return "(not written)"
	}
	return f.Name()
}

func readOps(t *testing.T, path string) (ops []op) {
	f, err := os.Open(path)
	if err == nil {
		defer f.Close()
		err = gob.NewDecoder(f).Decode(&ops)
	}
	if err != nil {
		t.Error(err)
	}
	return ops
}

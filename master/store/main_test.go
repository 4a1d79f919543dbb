package store

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"testing"

	"context"

	"golang.org/x/sys/unix"
)

// The test program is also the processes that the tests kill or starve.
const childEnv = "VERDECMD_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	child := map[string]func(path string) error{"write": childWrite, "create": childCreate, "full": childFull,
		"disk": childDisk, "history": childHistory, "restore": childRestore, "live": childLive, "slow": childSlow, "eio": childEIO}
	run, ok := child[os.Getenv(childEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
}

const writers = 8

// childWrite commits pairs of records as fast as it can and says which are
// acknowledged, until it is killed.
func childWrite(path string) error {
	b, err := Open(path)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			next := 0
			for ; ; next++ { // go on behind what is there
				var ok bool
				err := b.View(context.Background(), func(s Snapshot) (err error) {
					_, ok, err = s.Get(Key{"left", fmt.Sprintf("%d-%06d", w, next)})
					return err
				})
				if err != nil {
					fmt.Println("error", err)
					return
				}
				if !ok {
					break
				}
			}
			for ; ; next++ {
				id := fmt.Sprintf("%d-%06d", w, next)
				if err := b.Commit(context.Background(), b.Epoch(), []Guard{{Key{"left", id}, nil}}, []Change{
					{Key{"left", id}, []byte(id)}, {Key{"right", id}, []byte(id)},
				}); err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println(id)
			}
		})
	}
	wg.Wait()
	return nil
}

// childCreate makes one database after the other until it is killed.
func childCreate(dir string) error {
	fmt.Println("started")
	for i := 0; ; i++ {
		b, err := Open(filepath.Join(dir, fmt.Sprintf("%d-%d.db", os.Getpid(), i)))
		if err != nil {
			return err
		}
		b.Close()
	}
}

// childFull meets a full disk: a limit on the size of files stands in for it.
func childFull(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	b, err := Open(path)
	if err != nil {
		return err
	}
	limit := func(size uint64) error {
		var r unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &r); err != nil {
			return err
		}
		r.Cur = min(size, r.Max)
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &r)
	}
	commit := func(i int) error {
		return b.Commit(context.Background(), b.Epoch(), nil, []Change{{Key{"b", fmt.Sprintf("%04d", i)}, make([]byte, 8000)}})
	}
	if err := limit(256 << 10); err != nil {
		return err
	}
	// Pages that a reader held until now may let one more in: full is what refuses twice.
	n := 0
	for refused := 0; refused < 2; {
		switch err := commit(n); {
		case n > 1000:
			return errors.New("the limit does not hold")
		case err == nil:
			n, refused = n+1, 0
		case errors.Is(err, ErrNoSpace):
			refused++
		default:
			return fmt.Errorf("full disk: got %v, want %v", err, ErrNoSpace)
		}
	}
	seen := 0
	if err := b.View(context.Background(), func(s Snapshot) error {
		for range s.All("b") {
			seen++
		}
		return nil
	}); err != nil || seen != n {
		return fmt.Errorf("reading while the disk is full: %d records and %v, want %d", seen, err, n)
	}
	if err := b.Commit(context.Background(), b.Epoch(), nil, []Change{{Key{"b", "0000"}, nil}}); err != nil {
		return fmt.Errorf("deleting while the disk is full: %w", err)
	}
	if err := limit(1 << 40); err != nil {
		return err
	}
	if err := commit(n); err != nil {
		return fmt.Errorf("after the disk has room again: %w", err)
	}
	if err := b.Close(); err != nil {
		return err
	}
	return Verify(path)
}

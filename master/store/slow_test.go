package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// childSlow meets a disk whose syncs hang.
func childSlow(mnt string) error {
	return withDisk(mnt, func(b *Bolt, disk func(string)) error {
		const id, settled = "waits", time.Minute
		disk("hang")
		out := make(chan error, 1)
		go func() { out <- set(context.Background(), b, id) }()
		began := time.Now()
		for try := 1; ; try++ {
			patient, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			err := set(patient, b, "impatient")
			cancel()
			if errors.Is(err, ErrUnknown) && errors.Is(err, context.DeadlineExceeded) {
				break
			}
			if !errors.Is(err, context.DeadlineExceeded) || try == 10 { // else its time was over before it was begun
				return fmt.Errorf("a caller who does not wait for ever: got %v, want %v", err, ErrUnknown)
			}
		}
		// Reading goes on, again and again, and sees nothing of what is not there.
		for reads := 0; reads < 3 || time.Since(began) < time.Second; reads++ {
			at := time.Now()
			if v, err := value(b, "before"); err != nil || v != "before" {
				return fmt.Errorf("reading meanwhile: %q, %w", v, err)
			}
			if v, err := value(b, id); err != nil || v != "" {
				return fmt.Errorf("what is not on the disk is read: %q, %w", v, err)
			}
			if took := time.Since(at); took > settled {
				return fmt.Errorf("a read took %v", took)
			}
		}
		select {
		case err := <-out:
			return fmt.Errorf("acknowledged before it was on the disk: %v", err)
		default:
		}
		disk("ok")
		select {
		case err := <-out:
			if err != nil {
				return err
			}
		case <-time.After(settled):
			return errors.New("the commit hangs although the disk answers")
		}
		return set(context.Background(), b, "after")
	})
}

// childEIO meets a disk that cannot sync.
func childEIO(mnt string) error {
	return withDisk(mnt, func(b *Bolt, disk func(string)) error {
		disk("eio")
		err := set(context.Background(), b, "doubtful")
		if !errors.Is(err, ErrUnknown) || !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "input/output error") {
			return fmt.Errorf("got %v, want %v and %v", err, ErrUnknown, ErrStopped)
		}
		disk("ok") // a sync that succeeds now proves nothing about the pages of before
		if err := set(context.Background(), b, "later"); !errors.Is(err, ErrStopped) || errors.Is(err, ErrUnknown) {
			return fmt.Errorf("afterwards: got %v, want %v and nothing in doubt", err, ErrStopped)
		}
		if v, err := value(b, "before"); err != nil || v != "before" {
			return fmt.Errorf("reading: %q, %w", v, err)
		}
		if err := b.Close(); err != nil {
			return err
		}
		if b, err = open(b.Path()); err != nil {
			return fmt.Errorf("the next start: %w", err)
		}
		defer b.Close()
		if v, err := value(b, "later"); err != nil || v != "" {
			return fmt.Errorf("what was refused is there: %q, %w", v, err)
		}
		return set(context.Background(), b, "later")
	})
}

// withDisk runs f with a database on a disk that it can order about.
func withDisk(mnt string, f func(b *Bolt, disk func(string)) error) error {
	b, err := open(filepath.Join(mnt, "verdecmd.db"))
	if err != nil {
		return err
	}
	defer b.Close()
	if err := set(context.Background(), b, "before"); err != nil {
		return err
	}
	order, err := os.OpenFile(filepath.Join(mnt, control), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer order.Close()
	return f(b, func(what string) { fmt.Fprint(order, what) })
}

func set(ctx context.Context, b *Bolt, id string) error {
	return b.Commit(ctx, b.Epoch(), nil, []Change{{Key{"a", id}, []byte(id)}})
}

func value(b *Bolt, id string) (got string, err error) {
	err = b.View(context.Background(), func(s Snapshot) error {
		v, _, err := s.Get(Key{"a", id})
		got = string(v)
		return err
	})
	return got, err
}

// S20, S5: a sync that hangs holds up the commit and nothing else; one that
// fails leaves the outcome open, and nothing more is written until the restart.
func TestSickDisk(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"slow", "eio"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			onDisk(t, what)
		})
	}
}

package event

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/store"
)

func newRing(t *testing.T, s *store.Mem, keep int) *Ring {
	t.Helper()
	r, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func publish(r *Ring, n int) {
	for range n {
		r.Publish(time.Now(), "server.up", "text")
	}
}

func TestSince(t *testing.T) {
	tests := map[string]struct {
		published int
		since     uint64
		want      string // first-last lostTo
	}{
		"nothing yet":             {0, 0, "none 0"},
		"all":                     {3, 0, "1-3 0"},
		"some":                    {3, 1, "2-3 0"},
		"none newer":              {3, 3, "none 0"},
		"beyond":                  {3, 99, "none 0"},
		"beyond by far":           {3, 1<<64 - 1, "none 0"},
		"as many as are kept":     {4, 0, "1-4 0"},
		"one lost":                {5, 0, "2-5 1"},
		"just not lost":           {5, 1, "2-5 0"},
		"many lost":               {11, 2, "8-11 7"},
		"many lost, asked newest": {11, 10, "11-11 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRing(t, store.NewMem(), 4)
			publish(r, test.published)
			events, lost, _ := r.Since(test.since)
			got := "none"
			if n := len(events); n > 0 {
				got = fmt.Sprintf("%d-%d", events[0].Seq, events[n-1].Seq)
				for i, e := range events {
					if e.Seq != events[0].Seq+uint64(i) {
						t.Errorf("event %d has number %d", i, e.Seq)
					}
				}
			}
			if got = fmt.Sprintf("%s %d", got, lost); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestSinceWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(t, store.NewMem(), 0)
		_, _, wait := r.Since(r.Seq())
		select {
		case <-wait:
			t.Error("woken by nothing")
		default:
		}
		go func() { time.Sleep(time.Second); publish(r, 1) }()
		<-wait
		if events, _, _ := r.Since(0); len(events) != 1 {
			t.Errorf("got %d events, want 1", len(events))
		}
	})
}

// Numbers never fall: not over a clean restart, not over a kill, and not when
// many events came in between.
func TestSeqOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMem()
		var newest uint64
		for round := range 4 {
			r := newRing(t, s, 100)
			if r.Seq() < newest {
				t.Fatalf("round %d: number %d after %d", round, r.Seq(), newest)
			}
			before := newest
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			for range 9 {
				publish(r, 4000)
				synctest.Wait() // Run may reserve
			}
			newest = r.Seq()
			if _, lost, _ := r.Since(before); before > 0 && lost <= before {
				t.Errorf("round %d: a listener from before the restart is not told what it lost", round)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			s.Restart()
		}
	})
}

// A full disk does not hold events up; numbers are reserved when it has room.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMem()
		r := newRing(t, s, 100)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		s.Fail(store.ErrNoSpace)
		publish(r, 3*step)
		synctest.Wait()
		if got := r.Seq(); got != 3*step {
			t.Errorf("got %d events, want %d", got, 3*step)
		}
		s.Fail(nil)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		cancel()
		<-done
		s.Restart()
		if next := newRing(t, s, 100); next.Seq() < r.Seq() {
			t.Errorf("number %d after %d", next.Seq(), r.Seq())
		}
	})
}

func TestPublishRace(t *testing.T) {
	r := newRing(t, store.NewMem(), 64)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { publish(r, 500) })
		wg.Go(func() {
			var last uint64
			for last < 4000 {
				events, lost, wait := r.Since(last)
				last = max(last, lost)
				for _, e := range events {
					if e.Seq != last+1 {
						t.Errorf("%d follows %d", e.Seq, last)
						return
					}
					last = e.Seq
				}
				if last < 4000 {
					<-wait
				}
			}
		})
	}
	wg.Wait()
}

package job

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// changes are what OnChange was told.
type changes struct {
	mu  sync.Mutex // guards all
	all []string
}

func (c *changes) add(j monitor.Job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf("%d %s %s %s", j.ID, j.Action, j.Object, j.State))
}

func (c *changes) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprint(c.all)
	c.all = nil
	return s
}

// start makes a manager and runs it; stop ends it and waits.
func start(t *testing.T, s *store.Mem, prepare func(*Manager)) (m *Manager, told *changes, stop func()) {
	t.Helper()
	told = &changes{}
	m, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), OnChange: told.add})
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	synctest.Wait()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return m, told, stop
}

// until ends when its context does or after d.
func until(d time.Duration, out Outcome) Func {
	return func(ctx context.Context, p *Progress) Outcome {
		p.Set(40, "waiting for the guest")
		select {
		case <-time.After(d):
			return out
		case <-ctx.Done():
			return Outcome{}
		}
	}
}

var ok = Outcome{Code: 200, Pairs: []monitor.Pair{{Key: "how", Value: "shutdown"}}, Text: "ended"}

func TestJobRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, told, _ := start(t, store.NewMem(), nil)
		j, joined, err := m.Start(t.Context(), Spec{Action: "logoffuser", Object: "bob", By: "root", Limit: time.Minute}, until(14*time.Second, ok))
		if err != nil || joined || j.ID != 1 || j.State != Running || j.By != "root" || j.Limit != time.Minute {
			t.Fatalf("got %+v, %v, %v", j, joined, err)
		}
		same, joined, err := m.Start(t.Context(), Spec{Action: "logoffuser", Object: "bob"}, nil)
		if err != nil || !joined || same.ID != 1 {
			t.Errorf("joined: got %+v, %v, %v", same, joined, err)
		}
		if _, _, err := m.Start(t.Context(), Spec{Action: "publish", Object: "bob", Exclusive: []string{"logoffuser"}}, nil); err == nil || err.Error() != "job 1 works on bob" {
			t.Errorf("excluded: got %v", err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if j, _ := m.Get(1); j.Elapsed != 5*time.Second || j.Percent != 40 || j.Message != "waiting for the guest" || j.Finished() {
			t.Errorf("after 5 s: got %+v", j)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if j, err := m.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) || j.State != Running {
			t.Errorf("waiting a second: got %+v, %v", j, err)
		}
		j, err = m.Wait(t.Context(), 1)
		if err != nil || j.State != Done || j.Code != 200 || j.Percent != 100 || j.Elapsed != 14*time.Second || j.Text != "ended" || len(j.Pairs) != 1 || j.Message != "" {
			t.Errorf("finished: got %+v, %v", j, err)
		}
		synctest.Wait()
		if got, want := told.take(), "[1 logoffuser bob running 1 logoffuser bob done]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		if len(m.List(false)) != 0 || len(m.List(true)) != 1 {
			t.Errorf("lists: %v, %v", m.List(false), m.List(true))
		}
		if j, asked, err := m.Cancel(t.Context(), 1); asked || err != nil || j.State != Done {
			t.Errorf("cancel when finished: got %+v, %v, %v", j, asked, err)
		}
		if _, _, err := m.Cancel(t.Context(), 9); !errors.Is(err, ErrUnknown) {
			t.Errorf("cancel of none: got %v", err)
		}
		if _, err := m.Wait(t.Context(), 9); !errors.Is(err, ErrUnknown) {
			t.Errorf("wait for none: got %v", err)
		}
		// The same again is a new job.
		if j, joined, err := m.Start(t.Context(), Spec{Action: "logoffuser", Object: "bob"}, until(0, ok)); j.ID != 2 || joined || err != nil {
			t.Errorf("again: got %+v, %v, %v", j, joined, err)
		}
	})
}

func TestJobEnds(t *testing.T) {
	tests := map[string]struct {
		run    Func
		cancel bool
		code   int
		state  string
		err    error // of Cancel
	}{
		"fails":     {run: until(time.Second, Outcome{Code: 555}), code: 555, state: Failed},
		"cancelled": {run: until(time.Hour, ok), cancel: true, code: 444, state: Cancelled},
		"cancelled, with words of its own": {run: func(ctx context.Context, p *Progress) Outcome {
			<-ctx.Done()
			return Outcome{Code: 444, Text: context.Cause(ctx).Error()}
		}, cancel: true, code: 444, state: Cancelled},
		"cancelled and done all the same": {run: func(ctx context.Context, p *Progress) Outcome { <-ctx.Done(); return ok }, cancel: true, code: 200, state: Done},
		"too late to cancel": {run: func(ctx context.Context, p *Progress) Outcome {
			if !p.Final() {
				return Outcome{Code: 444}
			}
			return until(time.Minute, ok)(ctx, p)
		}, cancel: true, code: 200, state: Done, err: ErrTooLate},
		"panics":         {run: func(context.Context, *Progress) Outcome { panic("no") }, code: 451, state: Failed},
		"without result": {run: func(context.Context, *Progress) Outcome { return Outcome{} }, code: 451, state: Failed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, _, _ := start(t, store.NewMem(), nil)
				if _, _, err := m.Start(t.Context(), Spec{Action: "a", Object: "o"}, test.run); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if test.cancel {
					if _, asked, err := m.Cancel(t.Context(), 1); !errors.Is(err, test.err) || asked != (err == nil) {
						t.Errorf("cancel: got %v, %v, want %v", asked, err, test.err)
					}
				}
				if j, err := m.Wait(t.Context(), 1); err != nil || j.Code != test.code || j.State != test.state {
					t.Errorf("got %+v, %v, want %d %s", j, err, test.code, test.state)
				}
			})
		})
	}
}

func TestJobRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMem()
		m, told, stop := start(t, s, nil)
		for i, action := range []string{"shutdownuser", "backup", "shutdownuser"} {
			if _, _, err := m.Start(t.Context(), Spec{Action: action, Object: fmt.Sprint("u", i), Limit: time.Hour, Data: []byte(`{"n":1}`)}, until(time.Hour, ok)); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := m.Start(t.Context(), Spec{Action: "backup", Object: "x"}, until(time.Second, ok)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		told.take()
		// An administrator cancels the third while the master is ending.
		stubborn := make(chan struct{})
		if _, _, err := m.Start(t.Context(), Spec{Action: "shutdownuser", Object: "stubborn"}, func(ctx context.Context, p *Progress) Outcome {
			<-stubborn
			return Outcome{Code: 444}
		}); err != nil {
			t.Fatal(err)
		}
		if _, asked, err := m.Cancel(t.Context(), 5); !asked || err != nil {
			t.Fatal(err)
		}
		told.take()
		kill(s) // the master before is gone from here on
		stop2 := make(chan struct{})
		go func() { stop(); close(stop2) }()
		synctest.Wait()
		close(stubborn)
		<-stop2
		if got := told.take(); got != "[5 shutdownuser stubborn cancelled]" {
			t.Errorf("told while stopping: %s", got)
		}
		if _, _, err := m.Start(t.Context(), Spec{Action: "a"}, nil); !errors.Is(err, ErrStopping) {
			t.Errorf("start after the end: got %v", err)
		}
		if _, err := m.Wait(t.Context(), 1); !errors.Is(err, ErrStopping) {
			t.Errorf("wait after the end: got %v", err)
		}

		var resumed []string
		m, told, _ = start(t, s, func(m *Manager) {
			if j, _ := m.Get(1); j.State != Waiting {
				t.Errorf("before Run: got %+v", j)
			}
			m.Register("shutdownuser", func(r Record) Func {
				resumed = append(resumed, fmt.Sprintf("%d %s %s %v", r.ID, r.Object, r.Data, r.Cancelled))
				return until(10*time.Second, ok)
			})
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(resumed) != 3 {
			t.Errorf("resumed: %q", resumed)
		}
		if j, _ := m.Get(1); j.State != Running || j.Elapsed != 65*time.Second || j.Limit != time.Hour {
			t.Errorf("resumed: got %+v", j)
		}
		if j, _ := m.Get(2); j.Code != 555 || j.Text != "master restarted" {
			t.Errorf("closed: got %+v", j)
		}
		if j, _ := m.Get(4); j.State != Done || j.Code != 200 || len(j.Pairs) != 1 {
			t.Errorf("finished before: got %+v", j)
		}
		if j, _ := m.Get(5); j.State != Cancelled { // the wish was kept
			t.Errorf("cancelled before: got %+v", j)
		}
		if j, err := m.Wait(t.Context(), 1); err != nil || j.State != Done {
			t.Errorf("got %+v, %v", j, err)
		}
		if j, _, err := m.Start(t.Context(), Spec{Action: "a"}, until(0, ok)); err != nil || j.ID != 6 {
			t.Errorf("next number: got %+v, %v", j, err)
		}
	})
}

// kill makes the store refuse the master that uses it now.
func kill(s *store.Mem) { s.Restart() }

func TestJobFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMem()
		m, told, stop := start(t, s, nil)
		if _, _, err := m.Start(t.Context(), Spec{Action: "a", Object: "1"}, until(time.Second, ok)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		told.take()
		s.Fail(store.ErrNoSpace)
		if _, _, err := m.Start(t.Context(), Spec{Action: "a", Object: "2"}, until(0, ok)); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("start: got %v", err)
		}
		if _, found := m.Get(2); found || len(m.List(true)) != 1 {
			t.Error("the refused job is known")
		}
		// The running one ends and tells so; the disk learns it later.
		if j, err := m.Wait(t.Context(), 1); err != nil || j.Code != 200 {
			t.Errorf("got %+v, %v", j, err)
		}
		synctest.Wait()
		if got, want := told.take(), "[1 a 1 done]"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		s.Fail(nil)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		stop()
		s.Restart()
		m, _, _ = start(t, s, nil)
		if j, _ := m.Get(1); j.Code != 200 {
			t.Errorf("after the restart: got %+v", j)
		}
	})
}

func TestJobsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMem()
		m, _, stop := start(t, s, nil)
		for i := range KeepMax + 150 {
			if _, _, err := m.Start(t.Context(), Spec{Action: "a", Object: fmt.Sprint(i)}, until(0, ok)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if l := m.List(true); len(l) != KeepMax || l[0].ID != 151 {
			t.Errorf("got %d jobs from %d on, want %d from 151 on", len(l), l[0].ID, KeepMax)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if l := m.List(true); len(l) != 0 {
			t.Errorf("a day later: %d jobs", len(l))
		}
		stop()
		m, _, _ = start(t, s, nil)
		if j, _, err := m.Start(t.Context(), Spec{Action: "a"}, until(0, ok)); err != nil || j.ID != KeepMax+151 {
			t.Errorf("numbers start over: got %d, %v", j.ID, err)
		}
	})
}

// Two callers at the same instant get one job.
func TestJobJoinRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _, _ := start(t, store.NewMem(), nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		first := 0
		for range 50 {
			wg.Go(func() {
				j, joined, err := m.Start(t.Context(), Spec{Action: "a", Object: "o"}, until(time.Second, ok))
				if err != nil || j.ID != 1 {
					t.Errorf("got %+v, %v", j, err)
				}
				mu.Lock()
				defer mu.Unlock()
				if !joined {
					first++
				}
			})
		}
		wg.Wait()
		if first != 1 {
			t.Errorf("%d callers started a job, want 1", first)
		}
	})
}

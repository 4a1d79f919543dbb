package master

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/event"
	"verdecmd/master/job"
	"verdecmd/master/store"
)

// What a copy says is old: no number is given twice, and what was under way
// when it was made is not done again.
func TestFromCopy(t *testing.T) {
	t.Parallel()
	db := store.NewMem()
	jobs := func() *job.Manager {
		m, err := job.New(t.Context(), job.Config{Store: db, Epoch: 1, Log: zerolog.New(io.Discard)})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ring := func() *event.Ring {
		r, err := event.New(t.Context(), event.Config{Store: db, Epoch: 1, Log: zerolog.New(io.Discard)})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	hang := func(ctx context.Context, _ *job.Progress) job.Outcome {
		<-ctx.Done()
		return job.Outcome{Code: 444}
	}
	old := jobs()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- old.Run(ctx) }()
	j, _, err := old.Start(ctx, job.Spec{Action: "logoffuser", Object: "alice"}, hang)
	if err != nil {
		t.Fatal(err)
	}
	events := ring().Seq()
	high, last := store.Key{Bucket: "meta", ID: "session-high-water"}, store.Key{Bucket: "meta", ID: "last-server"}
	if err := db.Commit(ctx, 1, nil, []store.Change{{Key: high, Value: []byte("300")}, {Key: last, Value: []byte("17")}}); err != nil {
		t.Fatal(err)
	}

	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	var changes []store.Change
	err = db.View(ctx, func(s store.Snapshot) (err error) {
		changes, err = fromCopy(s, store.Restored{From: "x.db", Made: now.Add(-time.Hour)}, now)
		return err
	})
	if err == nil {
		err = db.Commit(ctx, 1, nil, changes)
	}
	if err != nil {
		t.Fatal(err)
	}
	again := jobs()
	if got, _ := again.Get(j.ID); !got.Finished() || got.Code != 555 || !strings.Contains(got.Text, "restored from a copy") {
		t.Errorf("the job that was under way: %+v", got)
	}
	if seq := ring().Seq(); seq < events+1<<30 {
		t.Errorf("events go on with %d after %d", seq, events)
	}
	values := map[store.Key]string{}
	db.View(ctx, func(s store.Snapshot) error {
		for _, k := range []store.Key{high, last} {
			v, _, _ := s.Get(k)
			values[k] = string(v)
		}
		return nil
	})
	if got, want := values[high], fmt.Sprint(300+1<<30); got != want {
		t.Errorf("sessions go on behind %s, want %s", got, want)
	}
	if got, want := values[last], "1000"; got != want {
		t.Errorf("servers go on behind %s, want %s", got, want)
	}
	cancel()
	<-ended
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ended <- again.Run(ctx) }()
	if next, _, err := again.Start(ctx, job.Spec{Action: "logoffuser", Object: "alice"}, hang); err != nil || next.ID < 1<<20 {
		t.Errorf("the next job is %d, %v", next.ID, err)
	}
	cancel()
	<-ended
}

// A restore is told of by the next master and by no other.
func TestTellRestored(t *testing.T) {
	t.Parallel()
	db := store.NewMem()
	row := `{"from":"/c/x.db","made":"2026-11-22T08:00:00Z","at":"2026-11-22T10:30:00Z","aside":"/d/y.damaged"}`
	if err := db.Commit(t.Context(), 1, nil, []store.Change{{Key: restoreKey, Value: []byte(row)}}); err != nil {
		t.Fatal(err)
	}
	told := func() (texts []string) {
		s := seat(t, db, 1, 0)
		if err := s.tellRestored(t.Context()); err != nil {
			t.Fatal(err)
		}
		events, _, _ := s.events.Since(0)
		for _, e := range events {
			if e.Type == "master.restored" {
				texts = append(texts, e.Text)
			}
		}
		return texts
	}
	got := told()
	if len(got) != 1 || !strings.Contains(got[0], "/c/x.db, which was 2 hours old") || !strings.Contains(got[0], "kept as /d/y.damaged") {
		t.Errorf("told: %q", got)
	}
	if got := told(); len(got) != 0 {
		t.Errorf("told again: %q", got)
	}
}

// answering is a store whose commits take some time and end as they are told.
type answering struct {
	*store.Mem
	takes time.Duration
	err   error
}

func (a *answering) Commit(ctx context.Context, e store.Epoch, g []store.Guard, c []store.Change) error {
	time.Sleep(a.takes)
	return a.err
}

// S20: the master says that its disk is slow, now and then, and that it has
// failed, once.
func TestDiskIsToldOf(t *testing.T) {
	t.Parallel()
	stopped := fmt.Errorf("%w, %w: fsync: input/output error", store.ErrUnknown, store.ErrStopped)
	tests := map[string]struct {
		db   answering
		want []string // of 4 commits
	}{
		"quick":              {answering{takes: 4 * time.Second}, nil},
		"slow":               {answering{takes: 30 * time.Second}, []string{"master.slow", "master.slow"}},
		"failed":             {answering{err: stopped}, []string{"master.readonly"}},
		"full":               {answering{err: store.ErrNoSpace}, []string{"master.nospace"}},
		"outcome is unknown": {answering{err: store.ErrUnknown}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []string
				c := &counted{Store: &test.db, tell: func(typ, text string) {
					told = append(told, typ)
					if typ == "master.readonly" && !strings.Contains(text, "no more changes until the master is restarted: fsync: input/output error") {
						t.Errorf("told: %s", text)
					}
				}}
				for range 4 {
					if err := c.Commit(t.Context(), 1, nil, nil); !errors.Is(err, test.db.err) {
						t.Errorf("got %v, want %v", err, test.db.err)
					}
					synctest.Wait()
				}
				if !slices.Equal(told, test.want) {
					t.Errorf("told %v, want %v", told, test.want)
				}
				told, test.db.err, test.db.takes = nil, nil, 0
				for range 2 {
					if err := c.Commit(t.Context(), 1, nil, nil); err != nil {
						t.Error(err)
					}
				}
				if again := slices.Equal(told, []string{"master.space"}); again != (name == "full") || !again && told != nil {
					t.Errorf("told %v when it takes changes again", told)
				}
			})
		})
	}
}

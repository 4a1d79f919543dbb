package audit

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow is a store whose commits take a time, and are counted.
type slow struct {
	*store.Mem
	mu      sync.Mutex
	takes   time.Duration
	commits int
}

func (s *slow) Commit(ctx context.Context, e store.Epoch, g []store.Guard, c []store.Change) error {
	s.mu.Lock()
	takes := s.takes
	s.commits++
	s.mu.Unlock()
	time.Sleep(takes)
	return s.Mem.Commit(ctx, e, g, c)
}

// keeper is one with what it announces.
type keeper struct {
	*Keeper
	mu   sync.Mutex
	told []string
}

func newKeeper(t *testing.T, db store.Store, epoch store.Epoch, change func(*Config)) *keeper {
	t.Helper()
	k := &keeper{}
	cfg := Config{Store: db, Epoch: epoch, Log: zerolog.New(io.Discard), Event: func(typ, _ string, _ ...monitor.Pair) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.told = append(k.told, typ)
	}}
	if change != nil {
		change(&cfg)
	}
	var err error
	if k.Keeper, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keeper) said() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.told, " ")
}

func command(line string, code int) monitor.Audited {
	name, _, _ := strings.Cut(line, " ")
	return monitor.Audited{Time: time.Now(), Caller: monitor.Caller{PID: 7, UID: 1001, GID: 100, Name: "alice"}, Level: monitor.Operator, Command: name, Line: line, Code: code, Took: time.Second}
}

// lines are those that are kept, with their numbers.
func (k *keeper) lines(t *testing.T, f monitor.AuditFilter) (out []string) {
	t.Helper()
	all, err := k.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		out = append(out, fmt.Sprintf("%d %s", a.ID, a.Line))
	}
	return out
}

// When Add returns, the command is on the disk; it is there after a restart, as
// it was, and numbers go on.
func TestAdd(t *testing.T) {
	db := store.NewMem()
	k := newKeeper(t, db, 1, nil)
	a := command(`offlineserver 2 reason="x\ty"`, 200)
	k.Add(a)
	k.Add(command("fenceserver 1", 530))
	epoch := db.Restart() // killed
	k = newKeeper(t, db, epoch, nil)
	all, err := k.List(t.Context(), monitor.AuditFilter{})
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	a.ID, a.Time = 1, a.Time.UTC().Round(time.Millisecond)
	if !reflect.DeepEqual(all[0], a) {
		t.Errorf("\n got %+v\nwant %+v", all[0], a)
	}
	k.Add(command("onlineserver 2", 200))
	if got := k.lines(t, monitor.AuditFilter{}); !slices.Equal(got, []string{`1 offlineserver 2 reason="x\ty"`, "2 fenceserver 1", "3 onlineserver 2"}) {
		t.Errorf("got %q", got)
	}
	long := command("offlineserver 1 reason="+strings.Repeat("ä", 4000), 200)
	k.Add(long)
	if got := k.lines(t, monitor.AuditFilter{Count: 1}); len(got[0]) > maxText+10 {
		t.Errorf("%d bytes of a long line are kept", len(got[0]))
	}
	if said := k.said(); said != "" {
		t.Errorf("told %s", said)
	}
}

// S18: the newest are kept, the oldest leave in the same commit; who may only
// look does not push out what others have done.
func TestBounded(t *testing.T) {
	db := &slow{Mem: store.NewMem()}
	k := newKeeper(t, db, 1, func(cfg *Config) { cfg.Keep, cfg.KeepDenied = 5, 2 })
	for i := range 8 {
		k.Add(command(fmt.Sprintf("offlineserver %d", i), 200))
	}
	for i := range 20 {
		k.Add(command(fmt.Sprintf("fenceserver %d", i), 530))
	}
	want := []string{"4 offlineserver 3", "5 offlineserver 4", "6 offlineserver 5", "7 offlineserver 6", "8 offlineserver 7", "27 fenceserver 18", "28 fenceserver 19"}
	if got := k.lines(t, monitor.AuditFilter{}); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	if db.commits != 28 {
		t.Errorf("%d commits for 28 commands", db.commits)
	}
	k = newKeeper(t, db, 1, func(cfg *Config) { cfg.Keep, cfg.KeepDenied = 2, 1 }) // fewer than before
	k.Add(command("ackalarm all", 200))
	want = []string{"8 offlineserver 7", "28 fenceserver 19", "29 ackalarm all"}
	if got := k.lines(t, monitor.AuditFilter{}); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// Filters.
func TestList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKeeper(t, store.NewMem(), 1, nil)
		k.Add(command("offlineserver 1", 200))
		time.Sleep(time.Hour)
		bob := command("offlineserver 2", 200)
		bob.Caller.Name, bob.Caller.UID = "bob", 1002
		k.Add(bob)
		for range 5 {
			k.Add(command("onlineserver 1", 204))
		}
		for name, test := range map[string]struct {
			f    monitor.AuditFilter
			want int
		}{
			"all": {monitor.AuditFilter{}, 7}, "by name": {monitor.AuditFilter{User: "bob"}, 1}, "by number": {monitor.AuditFilter{User: "1001"}, 6},
			"by command": {monitor.AuditFilter{Command: "offlineserver"}, 2}, "since": {monitor.AuditFilter{Since: time.Minute}, 6},
			"count": {monitor.AuditFilter{Count: 2}, 2}, "both": {monitor.AuditFilter{User: "alice", Command: "onlineserver", Count: 100}, 5},
			"none": {monitor.AuditFilter{User: "carol"}, 0},
		} {
			if got := k.lines(t, test.f); len(got) != test.want {
				t.Errorf("%s: got %q, want %d", name, got, test.want)
			}
		}
		if got := k.lines(t, monitor.AuditFilter{Count: 2}); !slices.Equal(got, []string{"6 onlineserver 1", "7 onlineserver 1"}) {
			t.Errorf("the newest two are %q", got)
		}
		k.Wait()
	})
}

// S20: a disk that refuses keeps no reply back; it is told once, and what was
// commanded meanwhile is kept when there is space again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := store.NewMem()
		k := newKeeper(t, db, 1, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		db.Fail(store.ErrNoSpace)
		began := time.Now()
		for i := range 3 {
			k.Add(command(fmt.Sprintf("offlineserver %d", i), 452))
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("a refusing disk holds replies up for %v", took)
		}
		if got := k.lines(t, monitor.AuditFilter{}); len(got) != 0 || k.said() != "audit.failed" {
			t.Errorf("kept %q, told %q", got, k.said())
		}
		db.Fail(nil)
		time.Sleep(patience + time.Second)
		synctest.Wait()
		if got := k.lines(t, monitor.AuditFilter{}); len(got) != 3 || k.said() != "audit.failed audit.kept" {
			t.Errorf("kept %q, told %q", got, k.said())
		}
		db.Fail(store.ErrNoSpace)
		for range 2 * mostWait {
			k.Add(command("onlineserver 1", 452))
		}
		if n := len(k.waiting); n != mostWait {
			t.Errorf("%d commands wait, at most %d", n, mostWait)
		}
		db.Fail(nil)
		k.Add(command("onlineserver 2", 200))
		k.Wait()
		if got := k.lines(t, monitor.AuditFilter{}); len(got) != mostWait+3 {
			t.Errorf("%d are kept", len(got))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A disk that is ready in the moment in which the patience ends: what was told
// last is how it is.
func TestReadyAtTheLastMoment(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			db := &slow{Mem: store.NewMem(), takes: patience}
			k := newKeeper(t, db, 1, nil)
			for range 3 {
				k.work.Go(func() { k.Add(command("offlineserver 1", 200)) })
			}
			k.Wait()
			if said := k.said(); strings.HasSuffix(said, "audit.failed") || k.failed {
				t.Fatalf("all is kept, told %q", said)
			}
		})
	}
}

// A disk that hangs keeps a reply back for a bounded time only; commands that
// come together are one commit.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &slow{Mem: store.NewMem(), takes: time.Minute}
		k := newKeeper(t, db, 1, nil)
		began := time.Now()
		k.Add(command("offlineserver 1", 200))
		if took := time.Since(began); took != patience || k.said() != "audit.failed" {
			t.Errorf("the first took %v, told %q", took, k.said())
		}
		began = time.Now()
		for range 10 {
			k.Add(command("offlineserver 1", 200))
		}
		if took := time.Since(began); took > 10*impatience {
			t.Errorf("ten more took %v", took)
		}
		k.Wait()
		if got := k.lines(t, monitor.AuditFilter{}); len(got) != 11 || k.said() != "audit.failed audit.kept" {
			t.Errorf("kept %q, told %q", got, k.said())
		}
		if db.commits != 2 {
			t.Errorf("%d commits, want 2", db.commits)
		}

		db.takes, db.commits = 10*time.Millisecond, 0
		var wg sync.WaitGroup
		for range 60 {
			wg.Go(func() { k.Add(command("offlineserver 1", 200)) })
		}
		wg.Wait()
		k.Wait()
		if got := k.lines(t, monitor.AuditFilter{}); len(got) != 71 || db.commits > 4 {
			t.Errorf("%d are kept after %d commits", len(got), db.commits)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("New without a store")
	}
	for name, value := range map[string]string{
		"no JSON": `{`, "another number": `{"ID":2,"Command":"x"}`, "no command": `{"ID":1}`, "unknown level": `{"ID":1,"Command":"x","Level":9}`,
	} {
		db := store.NewMem()
		if err := db.Commit(t.Context(), 1, nil, []store.Change{{Key: key(1), Value: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
		_, err := New(t.Context(), Config{Store: db, Epoch: 1, Event: func(string, string, ...monitor.Pair) {}})
		if err == nil || !strings.Contains(err.Error(), "audit") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRecord: what the database holds of a command is refused or is a command: it
// is written again in one form, and a keeper shows it and goes on behind it (S19,
// S21).
func FuzzRecord(f *testing.F) {
	f.Add(record(command("offlineserver 1", 200)).encode())
	f.Add([]byte(`{"ID":4611686018427387904,"Command":"x","Level":2,"Line":"\u0000","Time":"9999-12-31T23:59:59Z"}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err != nil {
			r = Record{ID: 1}
		} else {
			again, err := decode(r.encode())
			if err != nil || !bytes.Equal(again.encode(), r.encode()) {
				t.Fatalf("%s becomes %s, %v", r.encode(), again.encode(), err)
			}
		}
		s := store.NewMem()
		if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{{Key: key(r.ID), Value: b}}) != nil {
			return // larger than a record may be
		}
		k, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), Event: func(string, string, ...monitor.Pair) {}, Log: zerolog.Nop()})
		if err != nil {
			return
		}
		k.Add(command("offlineserver 1", 200))
		all, err := k.List(t.Context(), monitor.AuditFilter{})
		if r.ID == store.MaxNumber {
			return // the next one is impossible
		}
		if err != nil || len(all) != 2 || all[0].ID != r.ID || all[1].ID != r.ID+1 {
			t.Errorf("%+v, %v", all, err)
		}
		k.Wait()
	})
}

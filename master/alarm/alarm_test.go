package alarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// bench is a manager on a store that can refuse, with all that it announces.
type bench struct {
	*Manager
	t  *testing.T
	db *held

	mu   sync.Mutex
	told []string
	log  bytes.Buffer
}

// held is a store whose commits can be held up.
type held struct {
	*store.Mem
	mu      sync.Mutex
	commits int
	hold    chan struct{} // not nil: a commit waits until it is closed
}

func (h *held) Commit(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change) error {
	h.mu.Lock()
	h.commits++
	hold := h.hold
	h.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return h.Mem.Commit(ctx, e, guards, changes)
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.commits
}

// turn is a lock on which a bubble's clock goes on.
type turn chan struct{}

func (l turn) Lock()   { l <- struct{}{} }
func (l turn) Unlock() { <-l }

func newBench(t *testing.T, db *store.Mem) *bench {
	t.Helper()
	b := &bench{t: t, db: &held{Mem: db}}
	m, err := New(t.Context(), Config{Store: b.db, Epoch: db.Epoch(), Event: b.event, Turn: make(turn, 1), Log: zerolog.New(&b.log)})
	if err != nil {
		t.Fatal(err)
	}
	b.Manager = m
	return b
}

// event notes what is announced, with whether the disk has it already (S11).
func (b *bench) event(typ, text string, pairs ...monitor.Pair) {
	id := pairs[0].Value.(uint64)
	line := fmt.Sprintf("%s %d", strings.TrimPrefix(typ, "alarm."), id)
	err := b.db.View(context.Background(), func(s store.Snapshot) error {
		v, ok, err := s.Get(key(id))
		if err != nil || !ok {
			return fmt.Errorf("not stored, %v", err)
		}
		r, err := decode(v)
		if err == nil && (typ == Cleared && r.active() || typ == Acked && r.Acked.IsZero()) {
			err = errors.New("stored otherwise")
		}
		return err
	})
	if err != nil {
		b.t.Errorf("%s: %v", line, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told = append(b.told, line)
}

// said returns what was announced since the last call.
func (b *bench) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := strings.Join(b.told, ", ")
	b.told = nil
	return out
}

// shows is the list in short.
func (b *bench) shows(all bool) string {
	var out []string
	for _, a := range b.List(all) {
		text := fmt.Sprintf("%d %s %s x%d", a.ID, a.Kind, a.Object, a.Count)
		if !a.Acked.IsZero() {
			text += fmt.Sprintf(" acked by %s (%s)", a.AckedBy, a.Note)
		}
		if !a.Active() {
			text += " cleared by " + a.ClearedBy
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func (b *bench) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// bubble runs a test with a manager that runs in fake time.
func bubble(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, store.NewMem())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		test(b)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func server(id uint64) monitor.Pair { return monitor.Pair{Key: "server", Value: id} }

// S11: stored, then shown and told; folded; cleared by recovery; acknowledged and
// cleared by administrators; back while the cause lasts.
func TestLife(t *testing.T) {
	bubble(t, func(b *bench) {
		b.Event("server.lost", "Server 3 is away.", server(3))
		synctest.Wait()
		b.want("told", b.said(), "raised 1")
		b.Event("server.lost", "Server 3 is away.", server(3))
		b.Event("server.nospace", "Server 3 is full.", server(3))
		b.Event("config.changed", "Nothing for us.")
		b.Event("server.up", "Server 4 is here.", server(4))
		synctest.Wait()
		time.Sleep(countEvery + time.Second)
		synctest.Wait()
		b.want("the list", b.shows(false), "1 server-lost 3 x2, 2 server-space 3 x1")
		if n, err := b.Ack(t.Context(), 1, "alice", "a new disk"); n != 1 || err != nil {
			t.Errorf("ack: %d, %v", n, err)
		}
		if n, err := b.Ack(t.Context(), 1, "bob", ""); n != 0 || err != nil {
			t.Errorf("ack again: %d, %v", n, err)
		}
		if n, err := b.Ack(t.Context(), 0, "bob", ""); n != 1 || err != nil {
			t.Errorf("ack all: %d, %v", n, err)
		}
		b.want("told", b.said(), "raised 2, acked 1, acked 2")
		b.Event("server.up", "Server 3 is here.", server(3))
		synctest.Wait()
		b.want("the list", b.shows(false), "2 server-space 3 x1 acked by bob ()")
		if ok, err := b.Clear(t.Context(), 2, "carol"); !ok || err != nil {
			t.Errorf("clear: %v, %v", ok, err)
		}
		if ok, err := b.Clear(t.Context(), 2, "carol"); ok || err != nil {
			t.Errorf("clear again: %v, %v", ok, err)
		}
		if ok, err := b.Clear(t.Context(), 99, "carol"); ok || err != nil {
			t.Errorf("clear what is not there: %v, %v", ok, err)
		}
		b.want("told", b.said(), "cleared 1, cleared 2")
		b.want("the list", b.shows(true), "1 server-lost 3 x2 acked by alice (a new disk) cleared by , 2 server-space 3 x1 acked by bob () cleared by carol")
		time.Sleep(comeBack + 2*time.Second)
		synctest.Wait()
		b.want("the list", b.shows(false), "3 server-space 3 x1")
		b.want("told", b.said(), "raised 3")
		if by, unknown := b.Counts(); by[monitor.Warning] != 1 || unknown != 0 || len(by) != 1 {
			t.Errorf("counts: %v, %d", by, unknown)
		}
		if a, ok := b.Get(3); !ok || a.Text != "Server 3 is full." || !strings.Contains(a.Help, `"users server=3"`) {
			t.Errorf("alarm 3: %+v", a)
		}
		if _, ok := b.Get(99); ok {
			t.Error("there is an alarm 99")
		}
	})
}

// A count is stored now and then, a raise at once.
func TestCountsAreGathered(t *testing.T) {
	bubble(t, func(b *bench) {
		from := monitor.Pair{Key: "from", Value: "192.0.2.7"}
		before := b.db.count()
		for range 1000 {
			b.Event("password.wrong", "A wrong password.", from)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(countEvery + time.Second)
		synctest.Wait()
		if n := b.db.count() - before; n > 5 {
			t.Errorf("%d commits for 1000 repetitions within 10 s", n)
		}
		b.want("the list", b.shows(false), "1 password-wrong 192.0.2.7 x1000")
		b.want("told", b.said(), "raised 1")
		time.Sleep(quietSecret + time.Second)
		synctest.Wait()
		b.want("told after a quiet hour", b.said(), "cleared 1")
	})
}

// S11, S20: a full disk loses no alarm and shows none that it has not taken; the
// order stays, the log says what waits, and it goes on when there is space.
func TestFullDisk(t *testing.T) {
	bubble(t, func(b *bench) {
		b.Event("server.nospace", "Server 1 is full.", server(1))
		synctest.Wait()
		b.said()
		b.db.Fail(store.ErrNoSpace)
		b.Event("server.lost", "Server 2 is away.", server(2))
		b.Event("server.space", "Server 1 has space.", server(1))
		b.Event("server.lost", "Server 3 is away.", server(3))
		b.Event("server.up", "Server 3 is here.", server(3))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want("the list", b.shows(true), "1 server-space 1 x1")
		b.want("told", b.said(), "")
		if n := b.Waiting(); n != 3 {
			t.Errorf("%d alarms wait, want 3", n)
		}
		if n, err := b.Ack(t.Context(), 0, "root", ""); n != 0 || err != nil {
			t.Errorf("ack of what is over or not shown: %d, %v", n, err)
		}
		b.mu.Lock()
		if n := strings.Count(b.log.String(), "could not be stored"); n < 3 || n > 10 || !strings.Contains(b.log.String(), "Server 2 is away.") {
			t.Errorf("%d lines in the log about it, want each alarm once, not each second:\n%s", n, b.log.String())
		}
		b.mu.Unlock()
		b.db.Fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want("told", b.said(), "cleared 1, raised 2, raised 3, cleared 3")
		b.want("the list", b.shows(false), "2 server-lost 2 x1")
		if b.Waiting() != 0 {
			t.Error("something waits still")
		}

		b.db.Fail(store.ErrNoSpace)
		if n, err := b.Ack(t.Context(), 2, "root", ""); n != 0 || !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("ack: %d, %v", n, err)
		}
		if ok, err := b.Clear(t.Context(), 2, "root"); ok || !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("clear: %v, %v", ok, err)
		}
		b.db.Fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want("what was refused is not done later", b.shows(false)+b.said(), "2 server-lost 2 x1")
	})
}

// S11: a clear never overtakes its raise, however slow the disk is; and who
// acknowledges meanwhile waits for its turn.
func TestSlowDisk(t *testing.T) {
	bubble(t, func(b *bench) {
		hold := make(chan struct{})
		b.db.mu.Lock()
		b.db.hold = hold
		b.db.mu.Unlock()
		b.Event("server.lost", "Server 2 is away.", server(2))
		synctest.Wait() // its commit is under way
		b.Event("server.up", "Server 2 is here.", server(2))
		b.Event("server.lost", "Server 2 is away.", server(2))
		acked := make(chan int, 1)
		go func() {
			n, _ := b.Ack(t.Context(), 0, "root", "")
			acked <- n
		}()
		synctest.Wait()
		b.want("told and shown", b.said()+b.shows(true), "")
		b.db.mu.Lock()
		b.db.hold = nil
		b.db.mu.Unlock()
		close(hold)
		n := <-acked
		time.Sleep(time.Second)
		synctest.Wait()
		told := strings.Split(b.said(), ", ")
		at := func(s string) int { return slices.Index(told, s) }
		if at("raised 1") != 0 || at("cleared 1") < at("raised 1") || at("raised 2") < 0 || at("acked 2") >= 0 && at("acked 2") < at("raised 2") {
			t.Errorf("told %q; %d acknowledged", told, n)
		}
	})
}

// S11 over kill -9: what was shown is there after a restart, with who has
// acknowledged it; numbers go on; what lasts comes back although it was cleared
// by hand before, when those who know tell it again.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := store.NewMem()
		b := newBench(t, db)
		b.Event("server.lost", "Server 2 is away.", server(2))
		b.Event("session.hung", "It hangs.", monitor.Pair{Key: "user", Value: "alice"})
		b.Event("password.wrong", "Wrong.", monitor.Pair{Key: "from", Value: "192.0.2.7"})
		if err := b.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Ack(t.Context(), 1, "root", "known"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Clear(t.Context(), 2, "root"); err != nil {
			t.Fatal(err)
		}
		was := b.shows(true)
		b.Event("server.lost", "Server 9 is away.", server(9)) // killed before it is stored

		time.Sleep(time.Hour - time.Second)
		db.Restart()
		b = newBench(t, db)
		b.want("after the restart", b.shows(true), was)
		b.Event("server.lost", "Server 2 is away.", server(2))
		b.Event("session.hung", "It hangs.", monitor.Pair{Key: "user", Value: "alice"})
		if err := b.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.want("the list", b.shows(false), "1 server-lost 2 x2 acked by root (known), 3 password-wrong 192.0.2.7 x1, 4 desktop-hung alice x1")
		time.Sleep(time.Second)
		b.Tick()
		b.Event("session.started", "It runs.", monitor.Pair{Key: "user", Value: "alice"})
		b.Event("server.up", "Server 2 is here.", server(2))
		if err := b.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.want("told", b.said(), "raised 4, cleared 1, cleared 3, cleared 4")

		// A number that was used and forgotten is not used again.
		for id := uint64(1); id <= 4; id++ {
			b.book.Forget(id)
			if err := db.Commit(t.Context(), db.Epoch(), nil, []store.Change{{Key: key(id)}}); err != nil {
				t.Fatal(err)
			}
		}
		b = newBench(t, db)
		b.Event("server.lost", "Server 2 is away.", server(2))
		if err := b.Work(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.want("the list", b.shows(true), "5 server-lost 2 x1")

		// A copy of the database: later numbers are not used again.
		var changes []store.Change
		err := db.View(t.Context(), func(s store.Snapshot) (err error) { changes, err = FromCopy(s); return err })
		if err == nil {
			err = db.Commit(t.Context(), db.Epoch(), nil, changes)
		}
		if err != nil {
			t.Fatal(err)
		}
		b = newBench(t, db)
		b.Event("server.lost", "Server 3 is away.", server(3))
		if err := b.Work(t.Context()); err != nil || b.book.Next() < leap {
			t.Errorf("the next number is %d, %v", b.book.Next(), err)
		}
	})
}

// S11 over kill -9: whoever dies between the end of a session and the end of its
// alarm leaves no alarm behind.
func TestSettle(t *testing.T) {
	b := newBench(t, store.NewMem())
	user := func(name string) monitor.Pair { return monitor.Pair{Key: "user", Value: name} }
	b.Event("session.hung", "It hangs.", user("alice"))
	b.Event("session.hung", "It hangs.", user("bob"))
	b.Event("server.lost", "Away.", server(1))
	b.Event("server.lost", "Away.", server(2))
	b.Event("password.wrong", "Wrong.", monitor.Pair{Key: "from", Value: "alice"})
	b.Event("master.restored", "Restored.")
	b.Event("trust.lag", "It lags.", server(2)) // told again if it does
	for _, typ := range []string{"master.nospace", "master.readonly", "audit.failed"} {
		b.Event(typ, "So it is.")
	}
	b.Event("master.interval", "Slowly.", monitor.Pair{Key: "interval", Value: 6.0}, monitor.Pair{Key: "wish", Value: 3.0})
	if err := b.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = newBench(t, b.db.Mem)
	b.Settle(func(of, object string) bool {
		return of == "user" && object == "bob" || of == "server" && object == "2"
	})
	if err := b.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want("told", b.said(), "cleared 1, cleared 3, cleared 7, cleared 8, cleared 9, cleared 10, cleared 11")
	b.want("the list", b.shows(false), "4 server-lost 2 x1, 2 desktop-hung bob x1, 5 password-wrong alice x1, 6 master-restored master x1")
	b.Tick()
	if len(b.unsaid) != 0 {
		t.Error("a cause is left of what does not exist")
	}
}

// S18: one that came again a moment before it was cleared is forgotten when that
// has been stored.
func TestOldOneWithACount(t *testing.T) {
	bubble(t, func(b *bench) {
		b.Event("server.lost", "Away.", server(1))
		synctest.Wait()
		b.Event("server.lost", "Away.", server(1))
		if ok, err := b.Clear(t.Context(), 1, "root"); !ok || err != nil {
			t.Fatalf("clear: %v, %v", ok, err)
		}
		for range KeepMax {
			b.Event("server.lost", "Away.", server(2))
			b.Event("server.up", "Here.", server(2))
		}
		time.Sleep(2 * countEvery)
		synctest.Wait()
		if _, ok := b.Get(1); ok || len(b.List(true)) != KeepMax {
			t.Errorf("%d alarms are shown, the first: %v", len(b.List(true)), ok)
		}
	})
}

// S18: old alarms leave the disk with those who come.
func TestOldOnesLeaveTheDisk(t *testing.T) {
	b := newBench(t, store.NewMem())
	for range KeepMax + 100 {
		b.Event("server.lost", "Away.", server(1))
		b.Event("server.up", "Here.", server(1))
	}
	if err := b.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(b.List(true)); n != KeepMax {
		t.Errorf("%d alarms are shown, want %d", n, KeepMax)
	}
	n := 0
	_ = b.db.View(t.Context(), func(s store.Snapshot) error {
		for range s.All(bucket) {
			n++
		}
		return nil
	})
	if n != KeepMax || len(b.book.all) != KeepMax || len(b.saved) != KeepMax {
		t.Errorf("%d on the disk, %d in memory, %d with a time, want %d each", n, len(b.book.all), len(b.saved), KeepMax)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("New without a store")
	}
	for name, value := range map[string]string{
		"no JSON":          `{`,
		"another number":   `{"ID":2,"Kind":"a","Severity":"info","Count":1,"Since":"2026-01-01T00:00:00Z"}`,
		"no kind":          `{"ID":1,"Severity":"info","Count":1,"Since":"2026-01-01T00:00:00Z"}`,
		"unknown severity": `{"ID":1,"Kind":"a","Severity":"loud","Count":1,"Since":"2026-01-01T00:00:00Z"}`,
	} {
		db := store.NewMem()
		if err := db.Commit(t.Context(), 1, nil, []store.Change{{Key: key(1), Value: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
		_, err := New(t.Context(), Config{Store: db, Epoch: 1, Event: func(string, string, ...monitor.Pair) {}})
		if err == nil || !strings.Contains(err.Error(), "alarm") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

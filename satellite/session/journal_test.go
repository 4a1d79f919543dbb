package session

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	pb "verdecmd/proto"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
)

func testConfig(dir string, h *fake.Host) Config {
	return Config{
		Driver: h.Driver(), StateDir: dir, SnapDir: filepath.Join(dir, "snap"), DesktopName: "win4", PingEvery: 5 * time.Second,
		MasterLost: 15 * time.Second, Sample: func() *pb.Load { return &pb.Load{} }, Log: zerolog.Nop(),
	}
}

func testLife(e Entry) *Life {
	now := time.Now()
	return NewLife(e, desktop.Limits{}, now, now)
}

func testEntry(dir string) Entry {
	spec := desktop.Spec{Session: "s7", UUID: newUUID(), Dir: filepath.Join(dir, "snap", "s7"), MemoryMiB: 64, CPUs: 1, Name: "alice",
		User: desktop.User{Name: "alice", UID: 1001, GID: 1001}}
	return testLife(Entry{Spec: spec, Started: time.Now(), Epoch: 3}).Entry()
}

// A journal that cannot be read stops the satellite: a desktop would run
// without anybody who knows. The text says what to do.
func TestJournalDamaged(t *testing.T) {
	tests := map[string]struct{ file, content, want string }{
		"session cut off":         {"sessions/s7.json", `{"Spec":{"Session":"s7"`, "move the file away"},
		"session empty":           {"sessions/s7.json", "", "move the file away"},
		"session garbage":         {"sessions/s7.json", "\x00\xff\x00", "move the file away"},
		"session of another name": {"sessions/s7.json", `{"Spec":{"Session":"s8"}}`, "move the file away"},
		"epoch":                   {"epoch", "many", "remove the file"},
		"lease":                   {"lease", "{", "lease"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "sessions"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := New(testConfig(dir, fake.NewHost(nil)))
			if err == nil {
				err = m.Adopt(t.Context())
				m.stop()
				m.wg.Wait()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), filepath.Join(dir, tt.file)) {
				t.Errorf("got %v, want an error with %q and the path", err, tt.want)
			}
		})
	}
}

// What a write that was cut off leaves is not looked at.
func TestJournalIgnoresTemporaryFiles(t *testing.T) {
	j := journal{dir: t.TempDir()}
	if err := j.open(); err != nil {
		t.Fatal(err)
	}
	e := testEntry(j.dir)
	if err := j.put(e); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(j.sessions(), ".tmp-123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := j.all()
	if err != nil || len(all) != 1 || all[0].Spec.UUID != e.Spec.UUID {
		t.Errorf("got %v, %v; want the one entry", all, err)
	}
}

// S9: the highest epoch is on the disk before it is obeyed, and never falls.
func TestEpochSurvives(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct{ obey, want uint64 }{{3, 3}, {2, 3}, {7, 7}} {
		m, err := New(testConfig(dir, fake.NewHost(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Obey(step.obey); err != nil {
			t.Fatal(err)
		}
		again, err := New(testConfig(dir, fake.NewHost(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if m.Epoch() != step.want || again.Epoch() != step.want {
			t.Errorf("after %d: got %d and, restarted, %d; want %d", step.obey, m.Epoch(), again.Epoch(), step.want)
		}
	}
}

// S7: whatever the instant at which the program dies, its session is in the
// next inventory: with its process if that was started, found by the UUID where
// the journal does not know it yet, and then as ended if there is none.
func TestCrashAroundTheStart(t *testing.T) {
	tests := map[string]struct {
		started, noted bool
		want           string // state, or how it ended
	}{
		"before the process":           {false, false, "vanished"},
		"before the process was noted": {true, false, "running"},
		"after":                        {true, true, "running"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				h := fake.NewHost(nil)
				e := testEntry(dir)
				j := journal{dir: dir}
				if err := j.open(); err != nil {
					t.Fatal(err)
				}
				if tt.started {
					d, err := h.Driver().Start(t.Context(), e.Spec)
					if err != nil {
						t.Fatal(err)
					}
					if tt.noted {
						e.Process = d.Process()
					}
					time.Sleep(time.Second)
				}
				if err := j.put(e); err != nil {
					t.Fatal(err)
				}
				m, err := New(testConfig(dir, h))
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Adopt(t.Context()); err != nil {
					t.Fatal(err)
				}
				first := m.Hello(1)
				if n := len(first.Sessions.Sessions) + len(first.Ended); n != 1 || tt.started && len(first.Ended) > 0 {
					t.Errorf("the first inventory has the sessions %v and those that ended %v, want one", first.Sessions, first.Ended)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- m.Run(ctx) }()
				synctest.Wait()
				news := m.News(0)
				switch {
				case tt.started && (len(news.Sessions.Sessions) != 1 || news.Sessions.Sessions[0].State != tt.want):
					t.Errorf("got %v, want one session, %s", news.Sessions, tt.want)
				case !tt.started && (len(news.Sessions.Sessions) != 0 || len(news.Ended) != 1 || news.Ended[0].How != tt.want):
					t.Errorf("got %v and ended %v, want one %s", news.Sessions, news.Ended, tt.want)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				left, err := j.all()
				if err != nil || (len(left) == 1) != tt.started {
					t.Errorf("journal afterwards: %v, %v", left, err)
				}
				if (len(h.Running()) == 1) != tt.started {
					t.Errorf("processes afterwards: %v", h.Running())
				}
				if tt.started && left[0].Process.PID == 0 {
					t.Error("the journal does not know the process that was found")
				}
				h.Reboot()
			})
		})
	}
}

// V-08: an order for a session that is not here says so; the same link alone
// decides what counts.
func TestAcceptOnlyOnTheLinkOfTheClaim(t *testing.T) {
	dir := t.TempDir()
	m, err := New(testConfig(dir, fake.NewHost(nil)))
	if err != nil {
		t.Fatal(err)
	}
	s := m.newSession(testLife(testEntry(dir)))
	m.Hello(2)
	if err := m.accept(s, 1); err != errOldLink {
		t.Errorf("a claim of the link before: got %v", err)
	}
	if got := m.News(0).Sessions.Sessions; len(got) != 0 {
		t.Errorf("refused, and in the inventory: %v", got)
	}
	if err := m.accept(s, 2); err != nil {
		t.Errorf("a claim of this link: got %v", err)
	}
	if err := m.Order(&pb.SessionOrder{Session: "s99", Action: pb.SessionOrder_ABORT}); err == nil {
		t.Error("an order for a session that is not here: no error")
	}
}

package session

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
)

var errGivenUp = wire.Errorf(wire.Revoked, "superseded: another machine has this place")

// RELIABILITY 4.3, S16: on a computer that the cluster has given up nothing is
// started, whatever was granted before, and what runs is ended, by force where
// its session waits for something.
func TestBar_S16(t *testing.T) {
	tests := map[string]struct {
		adopted bool // the desktop is of an earlier start
		blocked bool
		within  time.Duration
	}{
		"a desktop that runs":      {false, false, 2 * time.Second},
		"one of an earlier start":  {true, false, 2 * time.Second},
		"one whose session waits":  {false, true, leaseKill + 2*time.Second},
		"an earlier one, the same": {true, true, leaseKill + 2*time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				h := fake.NewHost(nil)
				began := time.Now()
				cfg := testConfig(dir, h)
				cfg.BootTime = func() time.Duration { return time.Hour + time.Since(began) }
				open := func() *Manager {
					m, err := New(cfg)
					if err != nil {
						t.Fatal(err)
					}
					return m
				}
				m := open()
				e := testEntry(dir)
				if err := m.journal.put(e); err != nil {
					t.Fatal(err)
				}
				s := m.newSession(testLife(e))
				if err := m.accept(s, 0); err != nil {
					t.Fatal(err)
				}
				m.start(s)
				time.Sleep(time.Second)
				if tt.adopted {
					m.stop()
					m.wg.Wait()
					m = open()
					m.Bar(errGivenUp) // noted by the start before
					if err := m.Adopt(t.Context()); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					s = m.of("alice", 1001)
				} else {
					m.Bar(errGivenUp)
				}
				if len(h.Running()) != 1 || s == nil {
					t.Fatalf("got %v, want the desktop", h.Running())
				}
				release := make(chan struct{})
				if tt.blocked {
					s.orders <- func(time.Time) []desktop.Action { <-release; return nil }
				}
				done := make(chan error, 1)
				go func() { done <- m.Run(t.Context()) }()
				time.Sleep(tt.within)
				if got := h.Running(); len(got) != 0 {
					t.Errorf("after %v %v still runs", tt.within, got)
				}
				close(release)
				<-s.over
				// A process that was killed before its session was told has crashed.
				if s.how.How != string(desktop.HowAbort) && !tt.blocked || s.how.Why != "its server is of the cluster no more" {
					t.Errorf("ended: %v", s.how)
				}
				_, err := m.Open(t.Context(), desktop.User{Name: "alice", UID: 1001, Home: "/nonexistent"}, "local", func(string) {})
				if wire.KindOf(err) != wire.Revoked || !strings.Contains(err.Error(), "another machine has this place") {
					t.Errorf("a login: got %v", err)
				}
				if err := m.accept(m.newSession(testLife(testEntry(dir))), 0); err != errGivenUp {
					t.Errorf("what was granted before: got %v", err)
				}
				m.stop()
				m.wg.Wait()
			})
		})
	}
}

// A lease that is over comes first: the text says what the master will count on.
func TestMustEnd(t *testing.T) {
	v := NewInventory(0)
	if because, kill := v.MustEnd(time.Hour); because != "" || kill || v.Barred() != nil {
		t.Errorf("at first: %q, %v", because, kill)
	}
	v.Bar(errGivenUp, time.Hour)
	v.Bar(wire.Errorf(wire.Revoked, "again"), 2*time.Hour)
	for after, want := range map[time.Duration]bool{0: false, leaseKill: false, leaseKill + 1: true} {
		if because, kill := v.MustEnd(time.Hour + after); because != "its server is of the cluster no more" || kill != want || v.Barred() != errGivenUp {
			t.Errorf("after %v: %q, %v, %v", after, because, kill, v.Barred())
		}
	}
	v.Renew(Lease{At: time.Hour, Self: time.Minute})
	if because, kill := v.MustEnd(time.Hour + time.Minute + 1); because != LeaseOver || kill {
		t.Errorf("with a lease that is over: %q, %v", because, kill)
	}
}

package session

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
	"verdecmd/satellite/link"
)

// S1: when the lease is over, a desktop ends in time also where its session
// waits for something, such as a disk that does not answer.
func TestLeaseEndsABusySession_S1(t *testing.T) {
	tests := map[string]struct {
		blocked bool
		within  time.Duration // after the end of the lease
	}{
		"at rest": {false, 2 * time.Second},
		"waiting": {true, leaseKill + 2*time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				h := fake.NewHost(nil)
				e := testEntry(dir)
				cfg := testConfig(dir, h)
				began := time.Now()
				cfg.BootTime = func() time.Duration { return time.Hour + time.Since(began) }
				m, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- m.Run(t.Context()) }()
				s := m.newSession(testLife(e))
				if err := m.accept(s, 0); err != nil {
					t.Fatal(err)
				}
				m.start(s)
				time.Sleep(time.Second)
				release := make(chan struct{})
				if tt.blocked {
					s.orders <- func(time.Time) []desktop.Action { <-release; return nil }
				}
				m.Lease(m.Uptime(), 10*time.Second)
				time.Sleep(10*time.Second - time.Millisecond)
				if got := h.Running(); len(got) != 1 {
					t.Errorf("before the end of the lease: got %v, want the desktop", got)
				}
				time.Sleep(tt.within)
				if got := h.Running(); len(got) != 0 {
					t.Errorf("%v after the end of the lease: %v still runs", tt.within, got)
				}
				close(release)
				m.stop()
				m.wg.Wait()
			})
		})
	}
}

// What users and guests have a hand in never makes a message that cannot be
// sent or is too long: the link that all sessions share would end, again and
// again.
func TestTextsFitTheLink_S21(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := fake.NewHost(func(desktop.Spec) fake.Behaviour {
			return fake.Behaviour{StartErr: errText("link to \xff\xfe: " + strings.Repeat("x", 1<<20))}
		})
		m, err := New(testConfig(dir, h))
		if err != nil {
			t.Fatal(err)
		}
		m.refuse("alice", errText("link to \xff: "+strings.Repeat("é", 1<<20)))
		s := m.newSession(testLife(testEntry(dir)))
		if err := m.accept(s, 0); err != nil {
			t.Fatal(err)
		}
		m.start(s)
		<-s.over
		m.stop()
		m.wg.Wait()
		n := m.News(0)
		b, err := proto.Marshal(&pb.Report{Sessions: n.Sessions, Ended: n.Ended, Refused: n.Refused})
		if err != nil || len(n.Ended) != 1 || len(n.Refused) != 1 || len(b) > 4*maxText {
			t.Errorf("got %d ends and %d refusals in %d bytes, %v", len(n.Ended), len(n.Refused), len(b), err)
		}
		o, err := m.Open(t.Context(), desktop.User{Name: "\xff"}, "local", func(string) {})
		if err == nil || !utf8.ValidString(err.Error()) {
			t.Errorf("a login name that is not UTF-8: got %v, %v", o, err)
		}
	})
}

type errText string

func (e errText) Error() string { return string(e) }

// A question that is not answered keeps its caller waiting once.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patient[int]
		asked := 0
		dead := make(chan struct{})
		slow := func() int { asked++; <-dead; return 1 }
		for i, want := range []time.Duration{time.Second, 0, 0} {
			at := time.Now()
			if v, ok := p.ask(time.Second, slow); ok || time.Since(at) != want {
				t.Errorf("question %d: got %d, %v after %v, want nothing after %v", i, v, ok, time.Since(at), want)
			}
		}
		close(dead)
		synctest.Wait()
		if v, ok := p.ask(time.Second, slow); !ok || v != 1 || asked != 1 {
			t.Errorf("when it lives again: got %d, %v, asked %d times; want the answer to the one question", v, ok, asked)
		}
		if v, ok := p.ask(time.Second, func() int { return 2 }); !ok || v != 2 {
			t.Errorf("a new question: got %d, %v, want 2", v, ok)
		}
	})
}

var _ link.Host = (*Manager)(nil)

package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// F-09, RELIABILITY 1.1 G: the password is kept as an argon2id hash with the
// figures of OWASP, over a restart, and never as it is.
func TestPasswordIsHashed(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	const password = "correct horse"
	if err := r.authenticate(t.Context(), password, "192.0.2.1"); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "managerpassword") || !strings.Contains(err.Error(), "createtoken") {
		t.Errorf("without any: got %v, want both ways out", err)
	}
	if err := r.SetPassword(t.Context(), password); err != nil {
		t.Fatal(err)
	}
	err := s.View(t.Context(), func(v store.Snapshot) error {
		b, _, err := v.Get(passwordKey)
		if text := string(b); !strings.HasPrefix(text, `"$argon2id$v=19$m=19456,t=2,p=1$`) || strings.Contains(text, password) {
			t.Errorf("stored: %s", text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.authenticate(t.Context(), password, "192.0.2.1"); err != nil {
			t.Errorf("the right one: %v", err)
		}
		if err := r.authenticate(t.Context(), password+" ", "192.0.2.1"); wire.KindOf(err) != wire.Denied {
			t.Errorf("a wrong one: %v", err)
		}
		s.Restart()
		r = start(t, s)
	}
}

func TestSetPasswordRefusals(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	for name, test := range map[string]struct{ password, want string }{
		"short":          {"1234567", "at least 8"},
		"short in runes": {"ééééééé", "7 characters"},
		"long":           {strings.Repeat("x", 129), "at most 128"},
		"control":        {"pass\x00word", "cannot be typed"},
		"no text":        {"password\xff", "cannot be typed"},
	} {
		var e *monitor.Error
		if err := r.SetPassword(t.Context(), test.password); !errors.As(err, &e) || e.Code != 553 || !strings.Contains(e.Text, test.want) || strings.Contains(e.Error(), test.password) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s.Fail(store.ErrNoSpace)
	if err := r.SetPassword(t.Context(), "long enough"); !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("full disk: got %v", err)
	}
	if err := r.authenticate(t.Context(), "long enough", "192.0.2.1"); err == nil {
		t.Error("a password that is not stored counts")
	}
}

// F-09: wrong password five times, then nobody from there is heard for 15
// minutes, not with the right one either; each is told as an event, and a new
// password ends it.
func TestLockout(t *testing.T) {
	r := start(t, store.NewMem())
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	r.cfg.Now = func() time.Time { return now }
	if err := r.SetPassword(t.Context(), "the right one"); err != nil {
		t.Fatal(err)
	}
	try := func(password, from string) wire.Kind {
		return wire.KindOf(r.authenticate(t.Context(), password, from))
	}
	r.events = nil
	for i := range 5 {
		if got := try("a wrong one", "2001:db8::"+fmt.Sprint(i)); got != wire.Denied { // one host has many of these
			t.Errorf("wrong password %d: got %v", i+1, got)
		}
	}
	if got := strings.Join(r.events, " "); got != "password.wrong password.wrong password.wrong password.wrong password.wrong password.locked" {
		t.Errorf("events: %s", got)
	}
	err := r.authenticate(t.Context(), "the right one", "2001:db8::77")
	if wire.KindOf(err) != wire.TooOften || !strings.Contains(err.Error(), "until 2026-11-21T20:15:00Z, in 900 s") || !strings.Contains(err.Error(), "createtoken") {
		t.Errorf("locked out: got %v", err)
	}
	if got := try("the right one", "192.0.2.2"); got != "" {
		t.Errorf("another host: got %v", got)
	}
	now = now.Add(15 * time.Minute)
	if got := try("the right one", "2001:db8::77"); got != "" {
		t.Errorf("after 15 minutes: got %v", got)
	}
	for range 6 {
		try("a wrong one", "192.0.2.3")
	}
	if err := r.SetPassword(t.Context(), "the next right one"); err != nil {
		t.Fatal(err)
	}
	if got := try("the next right one", "192.0.2.3"); got != "" {
		t.Errorf("with a new password: got %v", got)
	}
}

// Many guesses at once from one address: no more than five are looked at, and
// few at a time are hashed. Who gives up waiting does not count.
func TestGuessesRacing(t *testing.T) {
	r := start(t, store.NewMem())
	if err := r.SetPassword(t.Context(), "the right one"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[wire.Kind]int{}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			err := r.authenticate(t.Context(), "a wrong one", "192.0.2.1")
			mu.Lock()
			defer mu.Unlock()
			got[wire.KindOf(err)]++
		})
	}
	all.Wait()
	if got[wire.Denied] != 5 || got[wire.TooOften] != 35 {
		t.Errorf("got %v, want 5 looked at of 40", got)
	}
	for range hashers {
		r.hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.authenticate(ctx, "the right one", "192.0.2.9"); !errors.Is(err, context.Canceled) {
		t.Errorf("who gives up: got %v", err)
	}
	if r.guesses.source["192.0.2.9"] != nil || r.guesses.all.pending != 0 {
		t.Errorf("who gave up counts: %+v", r.guesses)
	}
}

// A password that is changed while it is compared lets nobody in by the old one.
func TestPasswordChangedMeanwhile(t *testing.T) {
	r := start(t, store.NewMem())
	if err := r.SetPassword(t.Context(), "the old one"); err != nil {
		t.Fatal(err)
	}
	for range hashers {
		r.hashing <- struct{}{}
	}
	done := make(chan error, 1)
	go func() { done <- r.authenticate(t.Context(), "the old one", "192.0.2.1") }()
	for waits := false; !waits; { // until it waits for its turn to hash
		r.Manager.mu.Lock()
		waits = r.guesses.all.pending == 1
		r.Manager.mu.Unlock()
	}
	h := hashPassword("the new one")
	r.Manager.mu.Lock()
	r.password = &h
	r.Manager.mu.Unlock()
	for range hashers {
		<-r.hashing
	}
	if err := <-done; wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "just been changed") {
		t.Errorf("got %v", err)
	}
}

func TestSourceOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "fe80::1%eth0": "fe80::/64", "bufconn": "bufconn", "": "", "::1": "::/64",
	} {
		if got := sourceOf(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// FuzzPHC: what the database holds as the manager's password is refused without
// being quoted, or it is the one text of that hash and costs no more than a
// login may.
func FuzzPHC(f *testing.F) {
	h := phc{memory: argonKiB, passes: argonPasses, lanes: argonLanes, salt: make([]byte, 16), sum: make([]byte, 32)}
	good := h.encoded()
	f.Add(good)
	for _, x := range []struct{ old, new string }{{"argon2id", "argon2i"}, {"v=19", "v=16"}, {"m=19456", "m=4294967295"}, {"t=2", "t=0"}, {"p=1", "p=255"}, {"p=1", "p=1,x=2"}, {"p=1$", "p=1$$"}, {"$AAA", "$A=A"}} {
		f.Add(strings.Replace(good, x.old, x.new, 1))
	}
	f.Add("$argon2id$v=19$m=19456,t=2,p=1")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := parsePHC(text)
		if err != nil {
			if len(text) > 20 && strings.Contains(err.Error(), text) {
				t.Errorf("%q is quoted", text)
			}
			return
		}
		if h.encoded() != text || h.memory > 256<<10 || h.passes > 16 || h.lanes > 16 || len(h.sum) > 64 {
			t.Errorf("%q becomes %+v", text, h)
		}
	})
}

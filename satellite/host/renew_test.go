package host

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

const day = 24 * time.Hour

// member is a registered host whose certificate began age ago and has a life.
type member struct {
	t     *testing.T
	m     *manager
	dir   string
	creds *wire.Credentials
	*Renewer

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

// Write takes a line of the log.
func (h *member) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(b)
}

func (h *member) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

func newMember(t *testing.T, m *manager, age, life time.Duration, change func(*RenewerConfig)) *member {
	t.Helper()
	h := &member{t: t, m: m, dir: t.TempDir()}
	own, err := m.a.Issue(wire.Identity{Role: wire.Satellite, ID: wire.NewUUID(), Name: "sat1"}, time.Now().Add(-age), life)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{wire.CAFile: m.a.CertPEM, wire.IdentityFile: own} {
		if err := os.WriteFile(filepath.Join(h.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h.creds, err = wire.Load(h.dir, wire.Satellite); err != nil {
		t.Fatal(err)
	}
	trust := NewTrust(TrustConfig{Dir: h.dir, Credentials: h.creds, Log: zerolog.New(h)})
	cfg := RenewerConfig{Credentials: h.creds, Masters: []string{m.address}, Install: trust.Install, Log: zerolog.New(h), Random: func() float64 { return 0 }}
	if change != nil {
		change(&cfg)
	}
	if h.Renewer, err = NewRenewer(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs until the test ends; over tells what Run came to.
func (h *member) run() (gone <-chan string, over <-chan error) {
	ctx, cancel := context.WithCancel(h.t.Context())
	said, done := make(chan string, 2), make(chan error, 1)
	go func() {
		done <- h.Run(ctx, func(why string) { said <- why })
		close(done)
	}()
	h.t.Cleanup(func() { cancel(); <-done })
	return said, done
}

func (h *member) until(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s; log:\n%s", what, h.logged())
		}
	}
}

// RELIABILITY 4.2: a certificate is renewed in time, with a new key, over the old
// one, and both are one file; one that ended while the host was off is replaced
// by Rejoin. One made by enrol, for a year, is renewed in the same way.
func TestRenew(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		age, life time.Duration
		call      string // empty: none comes
	}{
		"fresh":                     {day, 30 * day, ""},
		"before half of its life":   {14 * day, 30 * day, ""},
		"after four fifths":         {25 * day, 30 * day, "renew"},
		"of a year, nearly over":    {300 * day, 365 * day, "renew"},
		"of a year, from this week": {6 * day, 365 * day, ""},
		"over since yesterday":      {31 * day, 30 * day, "rejoin"},
		"over since eleven months":  {360 * day, 30 * day, "rejoin"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			h := newMember(t, m, test.age, test.life, nil)
			before, serial := keyOf(t, h.dir), h.creds.Serial()
			h.run()
			if test.call == "" {
				time.Sleep(200 * time.Millisecond) // what is measured is that nothing comes
				if m.renewals("renew")+m.renewals("rejoin") > 0 || h.creds.Serial() != serial {
					t.Error("it was renewed")
				}
				return
			}
			h.until("the new certificate", func() bool { return h.creds.Serial() != serial })
			_, until := h.creds.Valid()
			if left := time.Until(until); left < 29*day || left > 31*day || h.creds.Check() != nil {
				t.Errorf("it is valid for %v, %v", left, h.creds.Check())
			}
			if keyOf(t, h.dir) == before {
				t.Error("the key is the same")
			}
			disk, err := wire.Load(h.dir, wire.Satellite)
			if err != nil || disk.Serial() != h.creds.Serial() || disk.Identity.ID != h.creds.Identity.ID {
				t.Errorf("on the disk: %v, %v", disk, err)
			}
			if st, err := os.Stat(filepath.Join(h.dir, wire.IdentityFile)); err != nil || st.Mode() != 0o600 || listing(t, h.dir) != "ca.pem identity.pem" {
				t.Errorf("%v, %v; files: %s", st.Mode(), err, listing(t, h.dir))
			}
			time.Sleep(100 * time.Millisecond) // what is measured is that nothing more comes
			if n := m.renewals("renew") + m.renewals("rejoin"); n != 1 || m.renewals(test.call) != 1 {
				t.Errorf("%d calls, %d of %s", n, m.renewals(test.call), test.call)
			}
		})
	}
}

func keyOf(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, wire.IdentityFile))
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(b), "-----BEGIN PRIVATE KEY-----")
	return key
}

// A master that is away is waited for, the next one is asked; what a master
// refuses is told once, with its words, and asked again much later.
func TestRenewRefused(t *testing.T) {
	t.Parallel()
	t.Run("the next master", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		h := newMember(t, m, 31*day, 30*day, func(c *RenewerConfig) { c.Masters = []string{"127.0.0.1:1", m.address} })
		h.run()
		h.until("the new certificate", func() bool { return h.creds.Check() == nil })
		if log := h.logged(); !strings.Contains(log, `"level":"warn"`) || !strings.Contains(log, "no new one could be asked for yet") || !strings.Contains(log, "expired at ") || !strings.Contains(log, "too late: look at the clock") {
			t.Errorf("log:\n%s", log)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		m.change(func() { m.refuse = wire.Errorf(wire.Denied, "an administrator must allow it") })
		h := newMember(t, m, 31*day, 30*day, nil)
		h.run()
		h.until("the refusal", func() bool { return strings.Contains(h.logged(), "an administrator must allow it") })
		time.Sleep(200 * time.Millisecond) // what is measured is that it does not ask at once
		if log := h.logged(); m.renewals("rejoin") != 1 || strings.Count(log, "\n") != 1 || !strings.Contains(log, `"level":"error"`) {
			t.Errorf("asked %d times; log:\n%s", m.renewals("rejoin"), log)
		}
		// What is wanted soon, another authority, is tried at once.
		m.change(func() { m.refuse = nil })
		h.Soon()
		h.until("the new certificate", func() bool { return h.creds.Check() == nil })
	})
	t.Run("while it is still good", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		m.change(func() { m.refuse = wire.Errorf(wire.Denied, "not this one") })
		h := newMember(t, m, 25*day, 30*day, nil)
		h.run()
		h.until("the refusal", func() bool { return strings.Contains(h.logged(), `"level":"warn"`) })
		if h.creds.Check() != nil {
			t.Error(h.creds.Check())
		}
	})
	t.Run("a clock that is wrong", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		h := newMember(t, m, -10*day, 30*day, nil)
		h.run()
		h.until("the clock", func() bool { return strings.Contains(h.logged(), "too early: set the clock") })
		if m.renewals("renew")+m.renewals("rejoin") > 0 {
			t.Error("the master was asked")
		}
	})
	t.Run("an answer that does not fit", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		m.change(func() {
			m.spoil = func(r *pb.JoinReply) {
				r.Certificate, _ = m.a.Issue(wire.Identity{Role: wire.Satellite, ID: wire.NewUUID()}, time.Now(), time.Hour)
			}
		})
		h := newMember(t, m, 25*day, 30*day, nil)
		before := keyOf(t, h.dir)
		h.run()
		h.until("the error", func() bool { return strings.Contains(h.logged(), "the certificate that the master has made") })
		if keyOf(t, h.dir) != before || listing(t, h.dir) != "ca.pem identity.pem" {
			t.Errorf("the files were changed: %s", listing(t, h.dir))
		}
	})
}

// A clock that is ahead makes the new certificate look old at once: it is not
// renewed again and again.
func TestRenewWithAClockThatIsAhead(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newMember(t, m, 2*day, 30*day, func(c *RenewerConfig) { c.Now = func() time.Time { return time.Now().Add(26 * day) } })
	serial := h.creds.Serial()
	h.run()
	h.until("the new certificate", func() bool { return h.creds.Serial() != serial })
	time.Sleep(200 * time.Millisecond) // what is measured is that nothing more comes
	if n := m.renewals("renew") + m.renewals("rejoin"); n != 1 {
		t.Errorf("the master was asked %d times", n)
	}
}

// S16: that an identity is of the cluster no more is told once, whichever call it
// comes by, and nothing is asked again. Only a proven master can say so.
func TestRenewRevoked_S16(t *testing.T) {
	t.Parallel()
	for name, age := range map[string]time.Duration{"renew": 25 * day, "rejoin": 40 * day} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			m.change(func() { m.gone = func(string) (string, bool) { return "superseded: its place was given away", true } })
			h := newMember(t, m, age, 30*day, nil)
			gone, over := h.run()
			if why := <-gone; why != "superseded: its place was given away" {
				t.Errorf("why: %q", why)
			}
			if err := <-over; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("by another cluster's master", func(t *testing.T) {
		t.Parallel()
		m, other := newManager(t), newManager(t)
		other.change(func() { other.refuse = wire.Errorf(wire.Revoked, "go away") })
		h := newMember(t, m, 40*day, 30*day, func(c *RenewerConfig) { c.Masters = []string{other.address, m.address} })
		gone, _ := h.run()
		h.until("the new certificate", func() bool { return h.creds.Check() == nil })
		if len(gone) > 0 || other.renewals("rejoin") > 0 {
			t.Error("it was believed")
		}
	})
}

// RELIABILITY 4.4 pitfall 8: a certificate of an authority that issues by now
// comes with the trust bundle that tells of it, which is taken first; one that
// the bundle has overtaken is not taken, and asked for again.
func TestRenewByANewAuthority(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	next, err := wire.NewAuthorityOf(m.a.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.creds.SetRoots([][]byte{m.a.DER(), next.DER()}); err != nil {
		t.Fatal(err)
	}
	bundle, err := wire.SignTrust(&pb.Trust{Version: 2, Cluster: m.a.Cluster, Roots: [][]byte{next.DER(), m.a.DER()}}, m.a, next)
	if err != nil {
		t.Fatal(err)
	}
	m.change(func() { m.spoil = func(r *pb.JoinReply) { r.Trust = bundle } }) // the old one issues once more
	h := newMember(t, m, 25*day, 30*day, nil)
	serial := h.creds.Serial()
	h.run()
	h.until("the refusal", func() bool { return strings.Contains(h.logged(), "not from the authority that issues") })
	if h.creds.Serial() != serial || h.creds.NewestRoot() {
		t.Error("the certificate that was overtaken was taken")
	}
	m.change(func() { m.issuer = next })
	h.Soon()
	h.until("the new certificate", func() bool { return h.creds.Serial() != serial })
	disk, err := wire.Load(h.dir, wire.Satellite)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*wire.Credentials{"in use": h.creds, "on the disk": disk} {
		if roots := c.Roots(); len(roots) != 2 || !bytes.Equal(roots[0], next.DER()) || !c.NewestRoot() {
			t.Errorf("%s: %d authorities", name, len(roots))
		}
	}
}

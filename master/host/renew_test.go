package host

import (
	"crypto/ecdsa"
	"fmt"
	"strings"
	"testing"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// asksAnew is a machine with the identity of an answer that wants a certificate
// for a new key.
func (o *office) asksAnew(t *testing.T, j Joined) Renewal {
	t.Helper()
	leaf := leafOf(t, j.Certificate)
	id, err := wire.IdentityOf(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return Renewal{ID: id, Key: &newKey(t).PublicKey, Until: leaf.NotAfter, From: "192.0.2.1"}
}

// RELIABILITY 4.2: a server renews its certificate for a new key, keeps its
// identity, and the master knows the new one, also the next master.
func TestRenew(t *testing.T) {
	o := newOffice(t)
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	o.attached(t, j, "journal1")
	o.now = o.now.Add(20 * 24 * time.Hour)
	r := o.asksAnew(t, j)
	o.events = nil
	next, err := o.Renew(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	leaf := leafOf(t, next.Certificate)
	id, err := wire.IdentityOf(leaf)
	if err != nil || id.ID != j.UUID || id.Name != "sat1" || !leaf.PublicKey.(*ecdsa.PublicKey).Equal(r.Key) || !leaf.NotAfter.Equal(o.now.Add(joinedLife).UTC()) || next.Server != 1 {
		t.Errorf("got %+v, %v, until %v", id, err, leaf.NotAfter)
	}
	if got := strings.Join(o.events, " "); got != "cert.renewed" {
		t.Errorf("events: %s", got)
	}
	for range 2 {
		if s, _ := o.Server(1); s.Serial != leaf.SerialNumber.Text(16) || !s.CertUntil.Equal(leaf.NotAfter) {
			t.Errorf("server: serial %s until %v, want %x until %v", s.Serial, s.CertUntil, leaf.SerialNumber, leaf.NotAfter)
		}
		o.open(t)
	}
	// A lost answer: it simply asks again, and not all day.
	for i := range 8 {
		_, err := o.Renew(t.Context(), r)
		if (i < 5) != (err == nil) || err != nil && wire.KindOf(err) != wire.TooOften {
			t.Errorf("the %dth time: %v", i+1, err)
		}
	}
	o.s.Fail(store.ErrNoSpace)
	o.now = o.now.Add(time.Hour)
	before, _ := o.Server(1)
	if _, err := o.Renew(t.Context(), r); err == nil {
		t.Error("a certificate that is not stored was given out")
	}
	if after, _ := o.Server(1); after.Serial != before.Serial {
		t.Errorf("the master knows serial %s, stored is %s", after.Serial, before.Serial)
	}
}

// RELIABILITY 4.2: a server that was off for longer than its certificate comes
// back, as long as the administrator has allowed; never twice at the same time.
func TestRejoin(t *testing.T) {
	o := newOffice(t)
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	r := o.asksAnew(t, j)
	o.now = o.now.Add(joinedLife + 80*24*time.Hour)
	o.events = nil
	next, err := o.Rejoin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(o.events, " "); got != "cert.renewed server.rejoined" {
		t.Errorf("events: %s", got)
	}
	o.attached(t, next, "journal1")
	o.events = nil
	if _, err := o.Rejoin(t.Context(), r); wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), "is connected") {
		t.Errorf("while it is connected: %v", err)
	}
	if got := strings.Join(o.events, " "); got != "server.refused" {
		t.Errorf("events: %s", got)
	}
	o.open(t)
	o.now = o.now.Add(11 * 24 * time.Hour)
	_, err = o.Rejoin(t.Context(), r)
	if wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), `91 days ago, and WIN4_VERDE_REJOIN_DAYS is 90`) || !strings.Contains(err.Error(), `"replaceserver 1"`) {
		t.Errorf("after 91 days: %v", err)
	}
	if got := strings.Join(o.events, " "); got != "server.refused" {
		t.Errorf("events: %s", got)
	}
}

// Who may have no new certificate: an identity that was revoked, or that no
// server has, also while this is decided.
func TestReissueRefusals(t *testing.T) {
	o := newOffice(t)
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	stranger := o.asksAnew(t, j)
	stranger.ID.ID = wire.NewUUID()
	forgotten := o.asksAnew(t, j)
	o.cfg.Turn.Lock() // they wait for their turn
	type call struct {
		name string
		f    func() (Joined, error)
	}
	results := make(chan error, 2)
	for _, c := range []call{{"renew", func() (Joined, error) { return o.Renew(t.Context(), forgotten) }}, {"rejoin", func() (Joined, error) { return o.Rejoin(t.Context(), forgotten) }}} {
		go func() {
			_, err := c.f()
			if wire.KindOf(err) != wire.Revoked {
				err = fmt.Errorf("%s: got %v", c.name, err)
			} else {
				err = nil
			}
			results <- err
		}()
	}
	o.revoke(Revocation{ID: j.UUID, Why: Forgotten, Server: 1, Name: "sat1"})
	o.cfg.Turn.Unlock()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	for _, f := range []func() (Joined, error){func() (Joined, error) { return o.Renew(t.Context(), stranger) }, func() (Joined, error) { return o.Rejoin(t.Context(), stranger) }} {
		if _, err := f(); wire.KindOf(err) != wire.NotFound || !strings.Contains(err.Error(), "verdecmd register") {
			t.Errorf("an identity that no server has: %v", err)
		}
	}
	o.a = nil
	if _, err := o.Renew(t.Context(), stranger); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("without the key of the authority: %v", err)
	}
}

// F-09 of certificates: one that ends soon is told once, and when it is renewed
// or another one is shown, that is told too.
func TestExpiringIsTold(t *testing.T) {
	o := newOffice(t)
	told := func() string {
		o.events = nil
		o.tellExpiring()
		return strings.Join(o.events, " ")
	}
	j := o.joined(t, asks(t, "sat1", o.token(t, monitor.TokenWish{})))
	connect := func(j Joined) {
		leaf := leafOf(t, j.Certificate)
		h := helloOf(j.UUID, "journal1")
		h.Certificate = cluster.Certificate{Serial: leaf.SerialNumber.Text(16), From: leaf.NotBefore, Until: leaf.NotAfter}
		if err := o.Ensure(t.Context(), h, j.Name); err != nil {
			t.Fatal(err)
		}
		o.cfg.State(func(c *cluster.Cluster) { _, _, _ = c.Attach(o.now, h) })
	}
	if got := told(); got != "" {
		t.Errorf("not connected: %s", got)
	}
	connect(j)
	if got := told(); got != "" {
		t.Errorf("a fresh one: %s", got)
	}
	o.now = o.now.Add(25 * 24 * time.Hour)
	for i, want := range []string{"cert.expiring", "", ""} {
		if got := told(); got != want {
			t.Errorf("the %dth look: %q, want %q", i+1, got, want)
		}
	}
	next, err := o.Renew(t.Context(), o.asksAnew(t, j))
	if err != nil {
		t.Fatal(err)
	}
	if got := told(); got != "" {
		t.Errorf("renewed: %s", got)
	}
	connect(j) // the answer was lost, it shows the old one
	if got := told(); got != "cert.expiring" {
		t.Errorf("the old one again: %s", got)
	}
	connect(next)
	if got := told(); got != "cert.renewed" {
		t.Errorf("the new one: %s", got)
	}
}

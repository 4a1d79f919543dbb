package host

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// RELIABILITY 4.1 step 4: an answer that was lost is asked for again with the
// same key, and the token makes one host.
func TestRegisterLostAnswer(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	file, _ := m.token(3)
	m.change(func() { m.lose = 1 })
	_, err := h.do("", "register", "--manager", m.address, "--token-file", file)
	if err == nil || !strings.Contains(err.Error(), `run "verdecmd register" again in the same way`) {
		t.Errorf("got %v", err)
	}
	if st, err := os.Stat(filepath.Join(h.pki(), "pending.pem")); err != nil || st.Mode() != 0o600 {
		t.Errorf("what is kept: %v, %v", st, err)
	}
	// What others refuse meanwhile does not take the key away.
	bad, _ := m.token(9)
	m.change(func() { m.refuse = wire.Errorf(wire.Denied, "not now") })
	if _, err := h.do("", "register", "--manager", m.address, "--token-file", bad); err == nil || !strings.Contains(err.Error(), "not now") {
		t.Errorf("refused: %v", err)
	}
	m.change(func() { m.refuse = nil })
	out, err := h.do("", "register", "--manager", m.address, "--token-file", file)
	if err != nil || !strings.Contains(out, "it is repeated with the same key") {
		t.Errorf("again: %v\n%s", err, out)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) != 1 {
		t.Errorf("%d identities were made", len(m.ids))
	}
	for _, id := range m.ids {
		if h.identity().Identity.ID != id {
			t.Errorf("the host is %v, want %s", h.identity().Identity, id)
		}
	}
	if got := listing(t, h.pki()); got != "ca.pem identity.pem" {
		t.Errorf("files: %s", got)
	}
}

// Ctrl-C while the master works: whether it has done it is not known, so the key
// is kept, and what takes long is told.
func TestRegisterInterrupted(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	hold := make(chan struct{})
	m.change(func() { m.hold = hold })
	file, _ := m.token(3)
	c := newChair(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- h.start(ctx, c.tty, c.tty, "register", "--manager", m.address, "--name", "sat1", "--token-file", file)
	}()
	c.until("Waiting for the master to register this host (")
	eventually(t, "the request", func() bool { return len(m.joins()) == 1 })
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "interrupted; whether the master has registered this host is not known: run \"verdecmd register\" again") {
		t.Errorf("got %v", err)
	}
	if got := listing(t, h.pki()); got != "pending.pem" {
		t.Errorf("left: %s", got)
	}
	close(hold)
	// For another name there is another key: that one may become another host.
	other, _ := m.token(4)
	if out, err := h.do("", "register", "--manager", m.address, "--name", "sat2", "--token-file", other); err != nil || strings.Contains(out, "repeated") {
		t.Errorf("%v\n%s", err, out)
	}
	if len(m.ids) != 2 || h.identity().Identity.Name != "sat2" {
		t.Errorf("%d identities, it is %v", len(m.ids), h.identity().Identity)
	}
}

// A crash between two files: the next call finishes what is here, without the
// master and without a secret.
func TestRegisterCutOff(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	if err := makeDir(h.pki()); err != nil {
		t.Fatal(err)
	}
	p, again, err := begin(h.pki(), m.pin, "sat1", m.address)
	if err != nil || again {
		t.Fatal(again, err)
	}
	reply, err := m.Join(t.Context(), &pb.JoinRequest{Csr: p.csr, Name: "sat1", Proof: &pb.JoinRequest_Password{Password: m.password}})
	if err != nil {
		t.Fatal(err)
	}
	if err := installReply(h.pki(), p, reply); err != nil {
		t.Fatal(err)
	}
	out, err := h.do("", "register", "--manager", m.address, "--token-file", m.file("x"))
	if err == nil || !strings.Contains(err.Error(), "this is no token") {
		t.Errorf("a bad token is told first: %v", err)
	}
	file, _ := m.token(2)
	if out, err = h.do("", "register", "--token-file", file, "--manager", m.address); err != nil || !strings.Contains(out, "This host is registered already, as sat1") {
		t.Errorf("got %v\n%s", err, out)
	}
	if !strings.Contains(h.text(), "WIN4_VERDE_CMADDR=\""+m.address) || listing(t, h.pki()) != "ca.pem identity.pem" || len(m.joins()) != 1 {
		t.Errorf("settings:\n%s\nfiles: %s, %d requests", h.text(), listing(t, h.pki()), len(m.joins()))
	}
}

// An answer that does not fit changes nothing.
func TestRegisterWrongAnswers(t *testing.T) {
	t.Parallel()
	other, err := wire.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		spoil func(m *manager, r *pb.JoinReply)
		want  string
	}{
		"no certificate":        {func(_ *manager, r *pb.JoinReply) { r.Certificate = nil }, "it holds no certificate"},
		"garbage":               {func(_ *manager, r *pb.JoinReply) { r.Certificate = []byte("x") }, "holds no certificate"},
		"no authorities":        {func(_ *manager, r *pb.JoinReply) { r.Roots = nil }, "holds no certificate"},
		"another's authorities": {func(_ *manager, r *pb.JoinReply) { r.Roots = other.CertPEM }, "of two clusters"},
		"another identity":      {func(_ *manager, r *pb.JoinReply) { r.Id = wire.NewUUID() }, "not what the answer says"},
		"another cluster":       {func(_ *manager, r *pb.JoinReply) { r.Cluster = other.Cluster }, "not what the answer says"},
		"a certificate of a master": {func(m *manager, r *pb.JoinReply) {
			r.Certificate, _ = m.a.Issue(wire.Identity{Role: wire.Master, ID: r.Id}, time.Now(), time.Hour)
		}, "private key does not match public key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			h := newNewcomer(t)
			before := h.text()
			m.change(func() { m.spoil = func(r *pb.JoinReply) { test.spoil(m, r) } })
			file, _ := m.token(1)
			if _, err := h.do("", "register", "--manager", m.address, "--token-file", file); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := listing(t, h.pki()); got != "pending.pem" || h.text() != before {
				t.Errorf("left: %s", got)
			}
			m.change(func() { m.spoil = nil })
			if out, err := h.do("", "register", "--manager", m.address, "--token-file", file); err != nil {
				t.Errorf("then: %v\n%s", err, out)
			}
		})
	}
}

// RELIABILITY 4.2: clocks that are apart are told, with the difference; a
// certificate that has not begun or has ended here is not taken, with both times.
func TestRegisterClocks(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		off    time.Duration // the master's clock
		way    string        // empty: nothing is said of it
		refuse string
	}{
		"ahead":       {10 * time.Minute, "ahead of", ""},
		"behind":      {-10 * time.Minute, "behind", ""},
		"a year off":  {365 * 24 * time.Hour, "", "too early: set the clock"},
		"a year late": {-365 * 24 * time.Hour, "", "too late: look at the clock"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			h := newNewcomer(t)
			m.change(func() { m.now = func() time.Time { return time.Now().Add(test.off) } })
			file, _ := m.token(1)
			began := time.Now()
			out, err := h.do("", "register", "--manager", m.address, "--token-file", file)
			took := time.Since(began)
			if (err != nil) != (test.refuse != "") || err != nil && !strings.Contains(err.Error(), test.refuse) {
				t.Errorf("got %v, want %q", err, test.refuse)
			}
			if test.way == "" {
				return
			}
			_, said, _ := strings.Cut(out, "The master's clock is ")
			said, _, _ = strings.Cut(said, " "+test.way+" this host's")
			// Half of the time that the answer takes is not known, and seconds are told.
			if d, err := time.ParseDuration(said); err != nil || (d-test.off.Abs()).Abs() > took/2+time.Second {
				t.Errorf("got\n%s\nwant in it that the master's clock is %v %s this host's", out, test.off.Abs(), test.way)
			}
		})
	}
}

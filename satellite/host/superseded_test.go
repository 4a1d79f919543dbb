package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

// RELIABILITY 4.3: what was noted of an identity is found again, until the host
// has another one.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	who := wire.Identity{Cluster: wire.NewUUID(), Role: wire.Satellite, ID: wire.NewUUID(), Name: "sat1"}
	if _, is, err := IsSuperseded(dir, who); is || err != nil {
		t.Errorf("at first: %v, %v", is, err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	if _, err := Supersede(dir, who, "superseded: its place was given away\x1b[2J.", now); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, supersededFile)
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	s, is, err := IsSuperseded(dir, who)
	if !is || err != nil || s.ID != who.ID || !s.At.Equal(now) || s.Why != "superseded: its place was given away?[2J." {
		t.Errorf("got %+v, %v, %v", s, is, err)
	}
	const text = "no desktops run on this computer any more, log in on another server. It is of its cluster no more: superseded: its place was given away?[2J"
	if err := s.Barred(); err.Error() != text || wire.KindOf(err) != wire.Revoked {
		t.Errorf("users are told %v", err)
	}
	if err := (Superseded{}).Barred(); !strings.Contains(err.Error(), "an administrator has given its place to another machine") {
		t.Errorf("without the master's words: %v", err)
	}
	again := who
	again.ID = wire.NewUUID()
	if _, is, err := IsSuperseded(dir, again); is || err != nil {
		t.Errorf("a new identity: %v, %v", is, err)
	}
	if _, is, err := IsSuperseded(dir, who); !is || err != nil {
		t.Errorf("asking for another one has changed it: %v, %v", is, err)
	}
	for range 2 {
		if err := Reinstate(dir); err != nil {
			t.Error(err)
		}
	}
	if _, is, err := IsSuperseded(dir, who); is || err != nil {
		t.Errorf("registered anew: %v, %v", is, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := IsSuperseded(dir, who); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("a damaged note: %v", err)
	}
}

// A host that the cluster has given up is registered anew without more ado.
func TestRegisterSuperseded(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	file, _ := m.token(1)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := h.identity().Identity
	state := filepath.Join(h.dir, "state", "satellite")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Supersede(state, before, "forgotten", time.Now()); err != nil {
		t.Fatal(err)
	}
	if out, err := h.do("1\n2\n\nq\n", "config"); err != nil || !strings.Contains(out, "this computer is of its cluster no more") || !strings.Contains(out, "No desktops run on this computer any more") {
		t.Errorf("the menu: %v\n%s", err, out)
	}
	file, _ = m.token(2)
	held, err := HoldDir(state)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, again := range [][]string{nil, {"--again"}} { // its program goes on with the identity of before
		if _, err := h.do("", append([]string{"register", "--manager", m.address, "--token-file", file}, again...)...); err == nil || !strings.Contains(err.Error(), "stop it first (systemctl stop verdecmd-satellite)") {
			t.Errorf("while the satellite runs: %v", err)
		}
	}
	held.Close()
	released(t, state)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if h.identity().Identity.ID == before.ID || listing(t, state) != holdFile {
		t.Errorf("it is %v; files: %s", h.identity().Identity, listing(t, state))
	}
	// A note that cannot be read is told as that, and does not outlive the next
	// registration.
	if err := os.WriteFile(filepath.Join(state, supersededFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := h.do("q\n", "config"); err != nil || !strings.Contains(out, "whether this computer is still of its cluster cannot be read") {
		t.Errorf("the menu: %v\n%s", err, out)
	}
	file, _ = m.token(3)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file, "--again"); err != nil || listing(t, state) != holdFile {
		t.Errorf("%v; files: %s\n%s", err, listing(t, state), out)
	}
}

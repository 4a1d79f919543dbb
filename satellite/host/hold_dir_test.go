package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One program at a time works with the satellite's directory; who comes second is
// told which.
func TestHoldDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "satellite")
	held, err := HoldDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", st, err)
	}
	if _, err := HoldDir(dir); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("a second one: %v", err)
	}
	held.Close()
	released(t, dir)
	if held, err = HoldDir(dir); err != nil {
		t.Fatalf("after the first: %v", err)
	}
	held.Close()
	if _, err := HoldDir("/dev/null/x"); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("no such place: %v", err)
	}
}

// RELIABILITY 4.4: from the moment at which a host that is registered is to get
// another identity until it has it, no satellite is started from the one before:
// its next certificate would be put over the new one. That also counts where none
// has ever run here.
func TestRegisterHoldsTheSatellite(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	file, _ := m.token(1)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before, state := h.identity().Identity, filepath.Join(h.dir, "state", "satellite")
	if got := listing(t, state); got != "" {
		t.Errorf("a satellite was there: %s", got)
	}
	answer := make(chan struct{})
	m.change(func() { m.hold = answer })
	file, _ = m.token(2)
	done := make(chan error, 1)
	go func() {
		_, err := h.do("", "register", "--manager", m.address, "--token-file", file, "--again")
		done <- err
	}()
	eventually(t, "the request", func() bool { return len(m.joins()) == 2 })
	if f, err := HoldDir(state); !errors.Is(err, ErrHeld) {
		t.Errorf("a satellite may start meanwhile: %v", err)
		f.Close()
	}
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	held, err := HoldDir(state)
	if err != nil {
		t.Fatalf("the satellite, afterwards: %v", err)
	}
	held.Close()
	if h.identity().Identity.ID == before.ID {
		t.Error("it has the identity of before")
	}
}

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/master/cluster"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
)

// simWorld is a cluster of real masters and satellites inside one bubble:
// real gRPC and TLS over a network that can fail, desktops that behave.
type simWorld struct {
	t         testing.TB
	dir       string // made before the bubble
	start     time.Time
	net       *simNet
	authority *wire.Authority
	limits    cluster.Limits
	leaseSelf time.Duration
	quiet     bool                     // no events are noted
	jitter    func(int) func() float64 // of the n-th satellite

	masters map[string]*simMaster
	sats    map[string]*simSat
	steps   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	guests map[string]fake.Behaviour
	lines  []simLine
	procs  map[string]proc   // by session
	users  map[string]string // by session, known before its process exists
	lie    bool              // an administrator has affirmed what is not so: S1 does not hold
	seen   sightings
}

// newSimWorld returns an empty world. dir is for the satellites' journals and
// the users' home, which they share.
func newSimWorld(t testing.TB, dir string) *simWorld {
	w := &simWorld{t: t, dir: dir, start: time.Now(), net: newSimNet(), masters: map[string]*simMaster{}, sats: map[string]*simSat{},
		guests: map[string]fake.Behaviour{}, procs: map[string]proc{}, users: map[string]string{}, seen: newSightings(),
		limits: cluster.Limits{Interval: 3 * time.Second, ReservationTimeout: time.Minute, Resync: 15 * time.Second}}
	w.jitter = func(n int) func() float64 { return func() float64 { return float64(n%10) / 10 } }
	var err error
	if w.authority, err = wire.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	return w
}

// simDir makes a directory with a home that all users share, in memory where
// there is a place: journals are synced all the time, and who waits for a disk
// waits in real time. Call it outside the bubble.
func simDir(t testing.TB) string {
	base := "/dev/shm"
	if err := unix.Access(base, unix.W_OK); err != nil {
		base = os.TempDir()
	}
	dir, err := os.MkdirTemp(base, "verdecmd-sim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "home", "win4")
	if err := os.MkdirAll(image, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"desktop.conf": "WIN4_DISK=\nWIN4_KERNEL=kernel\nWIN4_MEMORY=1024\n", "kernel": "kernel"} {
		if err := os.WriteFile(filepath.Join(image, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// end stops everything and waits for it.
func (w *simWorld) end() {
	w.steps.Wait()
	w.desktops()
	for _, s := range w.sats {
		if s.cancel != nil {
			s.stop()
		}
		s.host.Reboot()
	}
	for _, m := range w.masters {
		if m.cancel != nil {
			m.kill(w)
		}
	}
}

// simUser is the account of any login name; the number follows from it.
func simUser(name, home string) desktop.User {
	if i := slices.Index([]string{"alice", "bob", "carol", "dave"}, name); i >= 0 {
		return desktop.User{Name: name, UID: uint32(1001 + i), GID: uint32(1001 + i), Home: home}
	}
	h := uint32(2166136261)
	for _, b := range []byte(name) {
		h = (h ^ uint32(b)) * 16777619
	}
	uid := 2000 + h%1_000_000_000
	return desktop.User{Name: name, UID: uid, GID: uid, Home: home}
}

// simAccounts knows every login name of small letters and digits but nobody.
type simAccounts struct{ home string }

func (simAccounts) Find(_ context.Context, name string, byUID bool) (string, uint32, bool) {
	return name, simUser(name, "").UID, !byUID && name != "nobody"
}

func (simAccounts) Names(string, int) []string { return nil }

func (a simAccounts) ByName(_ context.Context, name string) (desktop.User, error) {
	return simUser(name, a.home), nil
}

func (a simAccounts) ByUID(context.Context, uint32) (desktop.User, error) {
	return desktop.User{}, errors.New("no such account")
}

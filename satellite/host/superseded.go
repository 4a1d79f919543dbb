package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"verdecmd/proto/wire"
)

// supersededFile is in the satellite's directory of a host that the cluster has
// given up: another machine has its place, or it was forgotten.
const supersededFile = "superseded"

// maxSuperseded is more than such a file ever has, in bytes.
const maxSuperseded = 8 << 10

// Superseded is why a host is of its cluster no more. It counts for one identity:
// with another certificate the host begins anew.
type Superseded struct {
	Cluster string    `json:"cluster"`
	ID      string    `json:"id"`
	Why     string    `json:"why"` // the master's words
	At      time.Time `json:"at"`
}

// Supersede notes durably that the cluster has given up this identity. What was
// to be noted is returned with an error, too.
func Supersede(stateDir string, who wire.Identity, why string, now time.Time) (Superseded, error) {
	s := Superseded{Cluster: who.Cluster, ID: who.ID, Why: wire.Clean(why, maxSuperseded/2), At: now.UTC()}
	b, err := json.Marshal(s)
	if err != nil {
		return s, err
	}
	return s, put(filepath.Join(stateDir, supersededFile), append(b, '\n'), 0o600)
}

// Reinstate removes what was noted: the host has just been registered.
func Reinstate(stateDir string) error { return drop(filepath.Join(stateDir, supersededFile)) }

// IsSuperseded tells whether the cluster has given up this identity. What was
// noted of another one does not count.
func IsSuperseded(stateDir string, who wire.Identity) (s Superseded, is bool, err error) {
	path := filepath.Join(stateDir, supersededFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err != nil {
		return s, false, err
	}
	if s, err = parseSuperseded(b); err != nil {
		return s, false, fmt.Errorf("%s: %w; if this host is of its cluster, remove the file", path, err)
	}
	if s.Cluster != who.Cluster || s.ID != who.ID {
		return Superseded{}, false, nil
	}
	return s, true, nil
}

func parseSuperseded(b []byte) (s Superseded, err error) {
	if len(b) > maxSuperseded {
		return s, fmt.Errorf("it has %d bytes, at most %d", len(b), maxSuperseded)
	}
	if err = json.Unmarshal(b, &s); err != nil {
		return Superseded{}, errors.New("it cannot be read")
	}
	if s.Cluster == "" || s.ID == "" {
		return Superseded{}, errors.New("it names no host")
	}
	s.Why = wire.Clean(s.Why, maxSuperseded/2)
	return s, nil
}

// Barred is what users and the log are told on such a host.
func (s Superseded) Barred() error {
	why := strings.TrimRight(s.Why, ". ")
	if why == "" {
		why = "an administrator has given its place to another machine, or has removed it"
	}
	return wire.Errorf(wire.Revoked, "no desktops run on this computer any more, log in on another server. It is of its cluster no more: %s", why)
}

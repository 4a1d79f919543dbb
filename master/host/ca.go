package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"verdecmd/master/pki"
	"verdecmd/proto/wire"
)

// Files and directories below the master's PKI directory, beside those that
// pki and wire name.
const (
	enrolledDir   = "enrolled"   // NAME: the UUID that was given to it
	satellitesDir = "satellites" // NAME/: what enrol writes without --out
)

// satelliteLife is that of a certificate that is made here; it is renewed over
// the network.
const satelliteLife = 365 * 24 * time.Hour

// ErrInitialised refuses to make a second cluster where there is one.
var ErrInitialised = errors.New("there is a cluster already")

// Init makes a new cluster in dir: its id, its authority and the master's own
// certificate. dir appears as a whole or not at all; where it holds anything,
// nothing is touched. It returns the cluster's id.
func Init(dir string, now time.Time) (cluster string, err error) {
	dir = filepath.Clean(dir)
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		if old, err := pki.Issuer(dir); err == nil {
			return "", fmt.Errorf("%s: %w (%s): nothing to do; to make another one, choose another directory", dir, ErrInitialised, old.Cluster)
		}
		return "", fmt.Errorf("%s is not empty (it holds %s) and no usable cluster: move it away first", dir, names[0].Name())
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	a, err := wire.NewAuthority(now)
	if err != nil {
		return "", err
	}
	key, err := a.KeyPEM()
	if err != nil {
		return "", err
	}
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	own, err := pki.Own(a, wire.Identity{ID: wire.NewUUID(), Name: name}, now)
	if err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".new-*") // mode 0700
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp) // nothing is there any more after the rename
	err = errors.Join(
		pki.WriteFile(filepath.Join(temp, pki.KeyFile), key, 0o600),
		pki.WriteFile(filepath.Join(temp, wire.CAFile), a.CertPEM, 0o644),
		pki.WriteFile(filepath.Join(temp, wire.IdentityFile), own, 0o600),
	)
	if err != nil {
		return "", err
	}
	// Fails where somebody else was faster: a directory takes the place of an
	// empty one only. (os.Rename would refuse that too.)
	if err := unix.Rename(temp, dir); err != nil {
		return "", &os.LinkError{Op: "rename", Old: temp, New: dir, Err: err}
	}
	return a.Cluster, pki.SyncDir(filepath.Dir(dir))
}

// Enrolled tells what Enrol made.
type Enrolled struct {
	Dir   string // holds ca.pem and identity.pem for the satellite
	ID    string // UUID, the same each time for one name
	Again bool   // the name had been enrolled before
	Until time.Time
}

// nameRule completes the refusal of a name.
const nameRule = "use its host name, in small letters, digits, - and dots"

// validName accepts the name of a satellite.
func validName(name string) bool { return len(name) <= 253 && hostName.MatchString(name) }

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// Enrol makes the credentials of the satellite name and writes them into out,
// or into a directory below pkiDir where out is empty. Enrolling a name again
// makes a new certificate for the same satellite; the earlier one stays good
// until its end.
func Enrol(pkiDir, name, out string, now time.Time) (Enrolled, error) {
	if !validName(name) {
		return Enrolled{}, fmt.Errorf("%q is no name for a satellite: %s", name, nameRule)
	}
	a, err := pki.Issuer(pkiDir)
	if err != nil {
		return Enrolled{}, err
	}
	if !now.Before(a.NotAfter) {
		return Enrolled{}, fmt.Errorf("the cluster's authority ended at %s: look at the clock", a.NotAfter.UTC().Format(time.RFC3339))
	}
	e := Enrolled{Dir: out}
	if out == "" {
		e.Dir = filepath.Join(pkiDir, satellitesDir, name)
	}
	if err := free(e.Dir, a.Cluster, name); err != nil {
		return Enrolled{}, err
	}
	if e.ID, e.Again, err = remember(filepath.Join(pkiDir, enrolledDir), name); err != nil {
		return Enrolled{}, err
	}
	own, err := a.Issue(wire.Identity{Role: wire.Satellite, ID: e.ID, Name: name}, now, satelliteLife)
	if err != nil {
		return Enrolled{}, err
	}
	if e.Until = now.Add(satelliteLife); e.Until.After(a.NotAfter) {
		e.Until = a.NotAfter
	}
	if err := os.MkdirAll(e.Dir, 0o700); err != nil {
		return Enrolled{}, err
	}
	return e, errors.Join(
		pki.ReplaceFile(filepath.Join(e.Dir, wire.CAFile), a.CertPEM, 0o644),
		pki.ReplaceFile(filepath.Join(e.Dir, wire.IdentityFile), own, 0o600),
	)
}

// free refuses to write over the identity of somebody else: the master's own
// above all.
func free(dir, cluster, name string) error {
	path := filepath.Join(dir, wire.IdentityFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	old, err := wire.Load(dir, wire.Satellite)
	if err != nil {
		return fmt.Errorf("there is another identity in %s: choose another directory or move that away (%w)", dir, err)
	}
	if old.Identity.Cluster != cluster || old.Identity.Name != name {
		return fmt.Errorf("%s holds the identity of %s: choose another directory", dir, old.Identity)
	}
	return nil
}

// remember returns the UUID of a name: a new one the first time, so that a
// satellite that is enrolled again stays the same server.
func remember(dir, name string) (id string, again bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", false, err
	}
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		id = wire.NewUUID()
		return id, false, pki.ReplaceFile(path, []byte(id+"\n"), 0o600)
	}
	if err != nil {
		return "", false, err
	}
	id = strings.TrimSpace(string(b))
	if _, err := wire.ParseIdentity("verde://" + id + "/satellite/" + id); err != nil {
		return "", false, fmt.Errorf("%s does not hold the UUID of %s: remove the file to enrol it as a new server", path, name)
	}
	return id, true, nil
}

// reenrol gives a name that was enrolled with an identity which is revoked the
// next one, so that "enrol" makes certificates that count; empty: "enrol" gives
// it a new one.
func (m *Manager) reenrol(name, revoked, next string) {
	if m.cfg.Dir == "" || !validName(name) {
		return
	}
	path := filepath.Join(m.cfg.Dir, enrolledDir, name)
	b, err := os.ReadFile(path)
	switch {
	case err != nil || strings.TrimSpace(string(b)) != revoked:
	case next == "":
		err = os.Remove(path)
	default:
		err = pki.ReplaceFile(path, []byte(next+"\n"), 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.cfg.Log.Error().Err(err).Str("satellite", name).Msg("a revoked identity cannot be put away: \"verdecmd enrol\" would use it again")
	}
}

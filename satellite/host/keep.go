package host

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// PKI is where the satellite's credentials are, or will be. On a computer that
// is the master too the master's own are in WIN4_VERDE_PKI_DIR; the satellite's
// are below it, under the host name, as "verdecmd enrol" puts them there.
func PKI(v *settings.Values) string {
	dir := settings.PKI(v)
	name, err := os.Hostname()
	if err != nil {
		return dir
	}
	both := filepath.Join(dir, "satellites", name)
	if _, err := os.Stat(filepath.Join(both, wire.IdentityFile)); err == nil {
		return both
	}
	if _, err := wire.Load(dir, wire.Master); err == nil {
		return both
	}
	return dir
}

// MakeSnapDir makes the directory where desktops write, if one is set. Desktops
// run as their users and must get through to their own directories in it.
func MakeSnapDir(v *settings.Values) error {
	if snap := v.String(settings.SnapDir); snap != "" {
		return os.MkdirAll(snap, 0o711)
	}
	return nil
}

// makeDir makes the directory of the keys, for its owner alone.
func makeDir(dir string) error {
	err := os.MkdirAll(filepath.Dir(dir), 0o755)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.Chmod(dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("directory of the keys: %w", err)
	}
	return nil
}

// put puts a file into its place as a whole: whoever looks, be it after a power
// failure, sees the old one or the new one.
func put(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there any more after the rename
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// drop removes a file that may be missing, durably.
func drop(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// install makes a certificate the satellite's own, if it would do. Where another
// authority is trusted now than before, both are for a moment, so that at no time
// certificate and authorities do not fit together.
func install(dir string, rootsPEM, identityPEM []byte, want func(*wire.Credentials) error) error {
	c, err := wire.Parse(rootsPEM, identityPEM, wire.Satellite)
	if err != nil {
		return err
	}
	if err := want(c); err != nil {
		return err
	}
	ca, own := filepath.Join(dir, wire.CAFile), filepath.Join(dir, wire.IdentityFile)
	first := rootsPEM
	if old, err := wire.Load(dir, wire.Satellite); err == nil {
		first = append(slices.Clone(rootsPEM), rootsPEMOf(old.Roots())...)
	}
	if err := put(ca, first, 0o644); err != nil {
		return err
	}
	if err := put(own, identityPEM, 0o600); err != nil {
		return err
	}
	return put(ca, rootsPEM, 0o644)
}

// rootsPEMOf is what wire.CAFile holds: authorities that are given in DER.
func rootsPEMOf(roots [][]byte) (out []byte) {
	for _, der := range roots {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

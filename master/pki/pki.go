// Package pki keeps the files of the cluster's authorities on the master's
// computer.
//
// ca.pem names all authorities that are trusted, and the first one issues. To
// replace that one file, as a whole, is what makes another authority issue: its
// key is on the disk before, the key of the other one goes after. So whatever
// ends the program, the directory can be used.
package pki

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"verdecmd/proto/wire"
)

// KeyFile holds the key of the authority that issues, or the keys of others
// stand in files beside it, which are named by their fingerprints. They are the
// secrets of the whole cluster.
const (
	KeyFile   = "ca.key"
	keyPrefix = "ca-"
	keySuffix = ".key"
)

// Issuer reads the authority that issues.
func Issuer(dir string) (*wire.Authority, error) {
	all, err := Load(dir)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// Load reads the authorities that ca.pem names and whose keys are here, in its
// order. The first one issues and is never missing.
func Load(dir string) ([]*wire.Authority, error) {
	path := filepath.Join(dir, KeyFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: this is not the master's computer, or \"verdecmd init\" was not run: %w", path, fs.ErrNotExist)
	}
	keys := map[string][]byte{}
	main, err := readKey(path)
	if err != nil {
		return nil, err
	}
	others, err := kept(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range others {
		if keys[name], err = readKey(keyPath(dir, name)); err != nil {
			return nil, err
		}
	}
	roots, err := readRoots(dir)
	if err != nil {
		return nil, err
	}
	var all []*wire.Authority
	for i, block := range roots {
		cert := pem.EncodeToMemory(block)
		a, err := wire.ParseAuthority(cert, main)
		if own := keys[wire.RootName(block.Bytes)]; err != nil && own != nil {
			a, err = wire.ParseAuthority(cert, own)
		}
		switch {
		case err == nil:
			all = append(all, a)
		case i == 0:
			return nil, fmt.Errorf("authority in %s: %w", dir, err)
		}
	}
	return all, nil
}

// Open reads the authority whose certificate (DER) this is, if its key is here.
func Open(dir string, cert []byte) (*wire.Authority, error) {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	path := keyPath(dir, wire.RootName(cert))
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		path = filepath.Join(dir, KeyFile)
		key, err = readKey(path)
	}
	if err != nil {
		return nil, err
	}
	a, err := wire.ParseAuthority(text, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// readRoots reads the certificates of ca.pem.
func readRoots(dir string) (roots []*pem.Block, err error) {
	path := filepath.Join(dir, wire.CAFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds a %s, it is for certificates alone", path, wire.Clean(block.Type, 40))
		}
		roots = append(roots, &pem.Block{Type: block.Type, Bytes: block.Bytes})
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return roots, nil
}

// keyPath is where the key of an authority stands that is not the only one.
func keyPath(dir, print string) string { return filepath.Join(dir, keyPrefix+print+keySuffix) }

// kept names the authorities whose keys have files of their own.
func kept(dir string) (prints []string, err error) {
	names, err := os.ReadDir(dir)
	for _, n := range names {
		print, ok := strings.CutPrefix(n.Name(), keyPrefix)
		if print, is := strings.CutSuffix(print, keySuffix); ok && is {
			prints = append(prints, print)
		}
	}
	return prints, err
}

// readKey reads a key that nobody else can read.
func readKey(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s has mode %04o and is open to others: chmod 0600 %s", path, st.Mode().Perm(), path)
	}
	if err := wire.Owned(path, st); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// Keep puts the key of an authority beside the others. It issues nothing yet.
func Keep(dir string, a *wire.Authority) error {
	key, err := a.KeyPEM()
	if err != nil {
		return err
	}
	return ReplaceFile(keyPath(dir, wire.RootName(a.DER())), key, 0o600)
}

// Trust makes ca.pem name these authorities. The first one issues from now on;
// its key must be here.
func Trust(dir string, all ...*wire.Authority) error {
	var text []byte
	for _, a := range all {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.DER()})...)
	}
	return ReplaceFile(filepath.Join(dir, wire.CAFile), text, 0o644)
}

// Settle makes a the one authority: ca.pem names it alone, ca.key is its key,
// and the keys of all others go.
func Settle(dir string, a *wire.Authority) error {
	key, err := a.KeyPEM()
	if err != nil {
		return err
	}
	if err := Keep(dir, a); err != nil {
		return err
	}
	if err := Trust(dir, a); err != nil {
		return err
	}
	if err := ReplaceFile(filepath.Join(dir, KeyFile), key, 0o600); err != nil {
		return err
	}
	others, err := kept(dir)
	for _, name := range others {
		err = errors.Join(err, os.Remove(keyPath(dir, name)))
	}
	return errors.Join(err, SyncDir(dir))
}

// masterLife is that of the master's own certificate, shortened to the
// authority's: the master could make itself a new one at any time.
const masterLife = 20 * 365 * 24 * time.Hour

// Own makes the master's own certificate, with a new key, as it stands in
// wire.IdentityFile.
func Own(a *wire.Authority, id wire.Identity, now time.Time) ([]byte, error) {
	return a.Issue(wire.Identity{Role: wire.Master, ID: id.ID, Name: id.Name}, now, masterLife)
}

// WriteFile makes a new file and syncs it.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// ReplaceFile puts a file into its place as a whole.
func ReplaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes what has changed in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

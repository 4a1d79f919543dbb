package pki

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

var testNow = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func authority(t testing.TB) *wire.Authority {
	t.Helper()
	a, err := wire.NewAuthority(testNow)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// first is a directory as "verdecmd init" leaves it.
func first(t testing.TB, a *wire.Authority) string {
	t.Helper()
	dir := t.TempDir()
	key, err := a.KeyPEM()
	if err := errors.Join(err, WriteFile(filepath.Join(dir, KeyFile), key, 0o600), WriteFile(filepath.Join(dir, wire.CAFile), a.CertPEM, 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func names(all []*wire.Authority) (out []string) {
	for _, a := range all {
		out = append(out, wire.RootName(a.DER()))
	}
	return out
}

// RELIABILITY 4.2: the files of a directory, after each step from one authority
// to the next and back, say which one issues; a program that ends between two
// steps leaves a directory that can be used.
func TestFromOneAuthorityToTheNext(t *testing.T) {
	old, next := authority(t), authority(t)
	dir := first(t, old)
	o, n := wire.RootName(old.DER()), wire.RootName(next.DER())
	for _, step := range []struct {
		name string
		do   func() error
		want []string
		keys int // beside ca.key
	}{
		{"as made", func() error { return nil }, []string{o}, 0},
		{"a key is kept", func() error { return Keep(dir, next) }, []string{o}, 1},
		{"both are trusted", func() error { return Trust(dir, old, next) }, []string{o, n}, 1},
		{"the new one issues", func() error { return Trust(dir, next, old) }, []string{n, o}, 1},
		{"back", func() error { return Trust(dir, old, next) }, []string{o, n}, 1},
		{"the new one issues again", func() error { return Trust(dir, next, old) }, []string{n, o}, 1},
		{"the new one is alone", func() error { return Settle(dir, next) }, []string{n}, 0},
		{"and again", func() error { return Settle(dir, next) }, []string{n}, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		all, err := Load(dir)
		if err != nil || !slices.Equal(names(all), step.want) {
			t.Fatalf("%s: got %v, %v; want %v", step.name, names(all), err, step.want)
		}
		if issuer, err := Issuer(dir); err != nil || wire.RootName(issuer.DER()) != step.want[0] {
			t.Errorf("%s: the issuer is %v, %v", step.name, issuer, err)
		}
		if keys, err := kept(dir); err != nil || len(keys) != step.keys {
			t.Errorf("%s: keys %v, %v; want %d", step.name, keys, err, step.keys)
		}
		files, _ := os.ReadDir(dir)
		for _, f := range files {
			if info, _ := f.Info(); strings.HasSuffix(f.Name(), ".key") && info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %s has mode %v", step.name, f.Name(), info.Mode())
			}
		}
	}
	key, _ := os.ReadFile(filepath.Join(dir, KeyFile))
	if was, _ := old.KeyPEM(); bytes.Equal(key, was) {
		t.Error("the old key is still there")
	}
}

// An authority whose key could not be written is not named: what ends the program
// then leaves a directory that can be used.
func TestSettleWithoutKey(t *testing.T) {
	old, next := authority(t), authority(t)
	dir := first(t, old)
	if err := os.Mkdir(keyPath(dir, wire.RootName(next.DER())), 0o700); err != nil { // in its way
		t.Fatal(err)
	}
	if err := Settle(dir, next); err == nil {
		t.Fatal("settled without its key")
	}
	if roots, err := readRoots(dir); err != nil || len(roots) != 1 || !bytes.Equal(roots[0].Bytes, old.DER()) {
		t.Errorf("ca.pem names %d authorities, another one than before; %v", len(roots), err)
	}
}

// Settle may be cut short after each of its steps.
func TestSettleIsCutShort(t *testing.T) {
	old, next := authority(t), authority(t)
	for cut := range 4 {
		dir := first(t, old)
		if err := errors.Join(Keep(dir, next), Trust(dir, next, old)); err != nil {
			t.Fatal(err)
		}
		key, _ := next.KeyPEM()
		steps := []func() error{func() error { return nil }, func() error { return Trust(dir, next) }, func() error { return ReplaceFile(filepath.Join(dir, KeyFile), key, 0o600) },
			func() error { return os.Remove(keyPath(dir, wire.RootName(next.DER()))) }}
		for _, s := range steps[:cut+1] {
			if err := s(); err != nil {
				t.Fatal(err)
			}
		}
		if issuer, err := Issuer(dir); err != nil || wire.RootName(issuer.DER()) != wire.RootName(next.DER()) {
			t.Errorf("after %d steps: %v", cut, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	a, other := authority(t), authority(t)
	tests := map[string]struct {
		break_ func(dir string) error
		want   string
	}{
		"no key":          {func(dir string) error { return os.Remove(filepath.Join(dir, KeyFile)) }, `"verdecmd init" was not run`},
		"open key":        {func(dir string) error { return os.Chmod(filepath.Join(dir, KeyFile), 0o640) }, "chmod 0600"},
		"open second key": {func(dir string) error { return WriteFile(keyPath(dir, "x"), nil, 0o644) }, "chmod 0600"},
		"key is a link": {func(dir string) error {
			os.Remove(filepath.Join(dir, KeyFile))
			return os.Symlink("x", filepath.Join(dir, KeyFile))
		}, "is no regular file"},
		"key of another": {func(dir string) error { return ReplaceFile(filepath.Join(dir, wire.CAFile), other.CertPEM, 0o644) }, "do not belong together"},
		"a key in ca.pem": {func(dir string) error {
			k, _ := a.KeyPEM()
			return ReplaceFile(filepath.Join(dir, wire.CAFile), k, 0o644)
		}, "for certificates alone"},
		"nothing in ca.pem": {func(dir string) error { return ReplaceFile(filepath.Join(dir, wire.CAFile), nil, 0o644) }, "holds no certificate"},
		"no ca.pem":         {func(dir string) error { return os.Remove(filepath.Join(dir, wire.CAFile)) }, "no such file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := first(t, a)
			if err := test.break_(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

// Whatever stands in ca.pem, it is either refused or names authorities whose
// keys are here; a key is never quoted.
func FuzzLoad(f *testing.F) {
	a, b := authority(f), authority(f)
	key, _ := a.KeyPEM()
	f.Add(a.CertPEM)
	f.Add(slices.Concat(a.CertPEM, b.CertPEM))
	f.Add(slices.Concat(b.CertPEM, a.CertPEM))
	f.Add(slices.Concat(a.CertPEM, key))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	dir := first(f, a)
	secret := strings.Split(string(key), "\n")[1]
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, wire.CAFile), text, 0o644); err != nil {
			t.Fatal(err)
		}
		all, err := Load(dir)
		switch {
		case err != nil && strings.Contains(err.Error(), secret):
			t.Errorf("the error quotes the key: %v", err)
		case err == nil && (len(all) == 0 || slices.ContainsFunc(all, func(x *wire.Authority) bool { return x.Cluster != a.Cluster })):
			t.Errorf("got %d authorities, want those whose key is here", len(all))
		}
	})
}

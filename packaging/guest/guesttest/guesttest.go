// Package guesttest hands the tiny guest of packaging/guest to tests that
// start a real desktop.
//
// The guest is built once for all test binaries: by "make test", which names it
// in VERDECMD_GUEST, else by the first test that asks. Nobody writes into it.
package guesttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Dir returns the absolute path of the guest, one published version of a base
// image: desktop.conf and the files that it names, all read-only. It builds
// build/guest below the top of the module where VERDECMD_GUEST is not set; the
// build takes a lock, so that several test binaries may ask at once.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("VERDECMD_GUEST"); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "desktop.conf")); err != nil {
			t.Fatalf("VERDECMD_GUEST is not a guest: %v", err)
		}
		return dir
	}
	top := moduleTop(t)
	dir := filepath.Join(top, "build", "guest")
	if out, err := exec.Command(filepath.Join(top, "packaging", "guest", "build"), dir).CombinedOutput(); err != nil {
		t.Fatalf("building the guest: %v\n%s", err, bytes.TrimSpace(out))
	}
	return dir
}

// moduleTop returns the directory of go.mod: a test runs in its package's
// directory, and paths compiled in are of no use with -trimpath.
func moduleTop(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory: set VERDECMD_GUEST to a built guest")
		}
		dir = up
	}
}

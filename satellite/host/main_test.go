package host

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// TestMain also is the holder of locks, which the tests start as the real
// program starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == lockRole {
		err := Hold(os.Args[2], os.Stdin, os.Stdout)
		if e, ok := errors.AsType[*ExitError](err); ok {
			os.Exit(e.ExitCode())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holder is what DoctorConfig.Holder is in tests: this program, as the real one.
func holder() []string { return Self() }

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

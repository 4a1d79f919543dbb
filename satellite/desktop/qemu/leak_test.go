package qemu

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"verdecmd/satellite/desktop"
)

// S18: a desktop that has ended leaves no goroutine, and neither does one that
// was let go, but for the one that reaps its process.
func TestNoLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := newSite(t)
	spec := s.spec("")
	d, err := s.driver().Start(t.Context(), spec)
	must(t, err)
	p := d.Process()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, d.Ping(ctx))
	d.Release()
	d, err = s.driver().Adopt(t.Context(), spec, p)
	must(t, err, d.Kill())
	next(t, d, desktop.Exited)
	goleak.VerifyNone(t, before)
}

package link

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"verdecmd/proto/wire"
)

// S16: the link of an identity that is revoked ends at once and with the
// reason, calls beside it are refused, and links of others go on.
func TestRevokedIsCut(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		bad := r.creds("sat1")
		var gone atomic.Bool
		r.server.cfg.Revoked = func(uuid, _ string) (string, bool) {
			return "superseded: by a test", gone.Load() && uuid == bad.Identity.ID
		}
		one, two := r.dial(bad), r.dial(r.creds("sat2"))
		defer one.cc.Close()
		defer two.cc.Close()
		one.hello()
		two.hello()
		r.hub.take()
		gone.Store(true)
		r.server.Cut(bad.Identity.ID)
		r.server.Cut("nobody")
		before := time.Now()
		if err := one.failure(); wire.KindOf(err) != wire.Revoked || !strings.Contains(err.Error(), "superseded: by a test") {
			t.Errorf("the link ended with %v", err)
		}
		synctest.Wait()
		if took := time.Since(before); took > 0 || r.hub.take() != "detach" {
			t.Errorf("the link ended after %v", took)
		}

		// A hello that was under way when it was cut.
		late := r.dial(bad)
		defer late.cc.Close()
		late.send(helloUp())
		if err := late.failure(); wire.KindOf(err) != wire.Revoked {
			t.Errorf("a link that opens meanwhile: %v", err)
		}
		synctest.Wait()
		if got := r.hub.take(); got != "attach sat1, detach" {
			t.Errorf("behind was told: %s", got)
		}
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		if len(r.server.lines) != 1 || len(r.server.byUUID) != 1 {
			t.Errorf("%d lines are open, want that of sat2", len(r.server.lines))
		}
	})
}

package host

import (
	"errors"
	"testing"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
)

// What has been emptied is put offline, keeps its reason and is so after a
// restart; a server that somebody has given another state meanwhile keeps that.
func TestDrained(t *testing.T) {
	s := store.NewMem()
	r := start(t, s)
	if err := r.Ensure(t.Context(), helloOf("u1", "j"), "sat1"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ before, want cluster.State }{{cluster.Draining, cluster.Offline}, {cluster.Online, cluster.Online}, {cluster.Offline, cluster.Offline}} {
		if _, _, err := r.SetState(t.Context(), 1, tt.before, "why"); err != nil {
			t.Fatal(err)
		}
		r.events = nil
		if err := r.Drained(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if len(r.events) != 0 != (tt.before != tt.want) {
			t.Errorf("%s: events %v", tt.before, r.events)
		}
		s.Restart()
		r = start(t, s)
		if got := r.c.Server(1); got.State != tt.want || got.Reason != "why" {
			t.Errorf("%s: got %s (%s), want %s", tt.before, got.State, got.Reason, tt.want)
		}
	}
	if _, _, err := r.SetState(t.Context(), 1, cluster.Draining, ""); err != nil {
		t.Fatal(err)
	}
	s.Fail(store.ErrNoSpace)
	if err := r.Drained(t.Context(), 1); !errors.Is(err, store.ErrNoSpace) || r.c.Server(1).State != cluster.Draining {
		t.Errorf("a full disk: %v, the server is %s", err, r.c.Server(1).State)
	}
	s.Fail(nil)
	if err := r.Drained(t.Context(), 9); err == nil {
		t.Error("an unknown server: no error")
	}
}

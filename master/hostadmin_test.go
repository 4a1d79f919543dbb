package master

import (
	"strings"
	"testing"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// types are the types of the events that have to do with servers, in order.
func (s *seated) types() string {
	events, _, _ := s.Since(0)
	var out []string
	for _, e := range events {
		if strings.HasPrefix(e.Type, "server.") {
			out = append(out, e.Type)
		}
	}
	return strings.Join(out, " ")
}

// RELIABILITY 4.4, pitfall 9: a copy of a machine with its keys: the newer one is
// refused, told once as a duplicate, and neither gets new sessions.
func TestDuplicateIdentity(t *testing.T) {
	db := store.NewMem()
	s := seat(t, db, db.Epoch(), 0)
	s.attach(t, "one", 0)
	twin := cluster.Hello{UUID: "id-one", Instance: "the copy", Address: "192.0.2.9", Load: load(), Sessions: reported(0)}
	for range 3 {
		if _, err := s.Master.hub.Attach(t.Context(), twin, "one"); wire.KindOf(err) != wire.InUse {
			t.Errorf("the copy: got %v", err)
		}
	}
	if got := s.types(); got != "server.registered server.up server.duplicate" {
		t.Errorf("events: %s", got)
	}
	events, _, _ := s.Since(0)
	if last := events[len(events)-1]; last.Pairs[0] != (monitor.Pair{Key: "server", Value: uint64(1)}) || last.Pairs[1] != (monitor.Pair{Key: "name", Value: "one"}) {
		t.Errorf("the event names %v", last.Pairs)
	}
	if rows, err := s.Placement(t.Context(), ""); err != nil || rows[0].Eligible {
		t.Errorf("a login goes there: %+v, %v", rows, err)
	}
}

// Commands about hosts, where the key of the authority is kept elsewhere: they
// say so, and what needs no key works.
func TestNoAuthority(t *testing.T) {
	db := store.NewMem()
	s := seat(t, db, db.Epoch(), 0)
	id, at := s.attach(t, "one", 0)
	s.Master.hub.Detach(t.Context(), id, at)
	if _, err := s.CreateToken(t.Context(), monitor.TokenWish{}); code(err) != 554 || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("createtoken: %v", err)
	}
	if _, err := s.ReplaceServer(t.Context(), id, 0, false); code(err) != 554 || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("replaceserver: %v", err)
	}
	if err := s.DeleteToken(t.Context(), 1); code(err) != 550 {
		t.Errorf("deletetoken: %v", err)
	}
	if err := s.SetManagerPassword(t.Context(), "short"); code(err) != 553 {
		t.Errorf("managerpassword: %v", err)
	}
	db.Fail(store.ErrNoSpace)
	if err := s.SetManagerPassword(t.Context(), "long enough"); code(err) != 452 {
		t.Errorf("managerpassword on a full disk: %v", err)
	}
	db.Fail(nil)
	if err := s.Forget(t.Context(), id); err != nil {
		t.Errorf("forgetserver: %v", err)
	}
	if list, since := s.Revocations(); len(list) != 1 || list[0].Server != id || list[0].Why != "forgotten" || !since.IsZero() {
		t.Errorf("revocations: %+v, %v", list, since)
	}
	if len(s.Tokens()) != 0 {
		t.Errorf("tokens: %v", s.Tokens())
	}
}

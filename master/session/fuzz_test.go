package session

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
)

// FuzzRestore: what the database holds of a session is refused with the user's
// name, or it is a session of that user on a known server, once, and numbers
// given before are never given again (S5, S19).
func FuzzRestore(f *testing.F) {
	f.Add("alice", sealed(cluster.Session{ID: "s7", User: "alice", UID: 1001, Server: 1, Memory: 1 << 30, Epoch: 3}), []byte("64"), []byte("1"))
	f.Add("alice", []byte(`{"id":"s18446744073709551615","user":"bob","server":1,"memory":18446744073709551615}`), []byte("0"), []byte("2"))
	f.Add("", []byte(`null`), []byte(`-1`), []byte(`"x"`))
	f.Add("a\x00b", []byte(`{"server":1}{`), []byte(`1e3`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, user string, record, high, condemned []byte) {
		s := store.NewMem()
		for _, c := range []store.Change{{Key: key(user), Value: record}, {Key: store.Key{Bucket: meta, ID: highWater}, Value: high}, {Key: store.Key{Bucket: Condemned, ID: "s9"}, Value: condemned}} {
			if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{c}) != nil {
				return // no key, or too large for a record
			}
		}
		now := time.Now()
		c := cluster.New(cluster.Limits{Interval: time.Second, ReservationTimeout: time.Minute}, now)
		c.Registered(now, cluster.ServerRecord{ID: 1, UUID: "u", Name: "sat1", State: cluster.Online})
		m := New(Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop(), State: func(f func(*cluster.Cluster)) { f(c) }})
		defer m.stop()
		if err := m.Restore(t.Context(), now, c, 1); err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		all := c.Sessions()
		if len(all) != 1 || all[0].Server != 1 {
			t.Fatalf("%s: got %+v", record, all)
		}
		if all[0].User != user || all[0].ID == "" {
			t.Errorf("the record of %q is taken for session %q of %q", user, all[0].ID, all[0].User)
		}
		var r, again any
		if json.Unmarshal(record, &r) == nil && json.Unmarshal(sealed(*all[0]), &again) != nil {
			t.Errorf("%+v cannot be written again", all[0])
		}
	})
}

package host

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// FuzzRestore: what the database holds of a server is refused with its number,
// or it is a server that has a number, a known state and an identity; the next
// one gets a number that none had (S5, S19).
func FuzzRestore(f *testing.F) {
	f.Add("1", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"online","journal":"j"}`), []byte("1"))
	f.Add("2", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"offline","reason":"work"}`), []byte("7"))
	f.Add("1", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"dancing"}`), []byte(`"1"`))
	f.Add("0", []byte(`null`), []byte(`null`))
	f.Fuzz(func(t *testing.T, id string, record, high []byte) {
		s := store.NewMem()
		for _, c := range []store.Change{{Key: store.Key{Bucket: servers, ID: id}, Value: record}, {Key: store.Key{Bucket: meta, ID: lastServer}, Value: high}} {
			if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{c}) != nil {
				return // no key, or too large for a record
			}
		}
		c := cluster.New(cluster.Limits{Interval: time.Second, ReservationTimeout: time.Minute}, time.Now())
		m := New(Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop(), Event: func(string, string, ...monitor.Pair) {}, State: func(f func(*cluster.Cluster)) { f(c) }})
		last, err := m.Restore(t.Context(), time.Now(), c)
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		for _, x := range c.Servers() {
			if x.ID == 0 || x.ID > last || x.UUID == "" || x.State != cluster.Online && x.State != cluster.Offline && x.State != cluster.Draining {
				t.Errorf("record %q %s gives server %d %q %s, the last number being %d", id, record, x.ID, x.UUID, x.State, last)
			}
		}
	})
}

package alarm

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// FuzzRecord: what the database holds of an alarm is refused or is an alarm: it is
// written again in one form, a manager starts with it, shows it, and goes on with
// higher numbers (S19, S21).
func FuzzRecord(f *testing.F) {
	at := time.Date(2026, 11, 21, 8, 15, 2, 0, time.UTC)
	for _, r := range []Record{
		{ID: 1, Kind: "server-lost", Object: "3", Severity: monitor.Critical, Text: "Away.", Since: at, Last: at, Count: 2, Lasting: true},
		{ID: 7, Kind: "password-wrong", Object: More, Severity: monitor.Warning, Since: at, Last: at, Count: 1 << 60, Quiet: time.Hour, Acked: at, AckedBy: "root", Note: "ä\x00"},
		{ID: store.MaxNumber, Kind: "a", Severity: monitor.Info, Since: at, Count: 1, Cleared: at, ClearedBy: "root"},
	} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("8"))
	}
	f.Add([]byte(`{"ID":18446744073709551615,"Kind":"a","Severity":"info","Count":1,"Since":"9999-12-31T23:59:59Z"}`), []byte("18446744073709551615"))
	f.Add([]byte(`null`), []byte("-1"))
	f.Fuzz(func(t *testing.T, b, next []byte) {
		r, err := decode(b)
		if err == nil {
			once, err := json.Marshal(r)
			if err != nil {
				t.Fatalf("%s is read and cannot be written: %v", b, err)
			}
			again, err := decode(once)
			if err != nil {
				t.Fatalf("%s: %v", once, err)
			}
			if twice, err := json.Marshal(again); err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%s becomes %s, %v", once, twice, err)
			}
		} else {
			r = Record{ID: 1}
		}
		s := store.NewMem()
		if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{{Key: key(r.ID), Value: b}, {Key: nextKey, Value: next}}) != nil {
			return // larger than a record may be
		}
		m, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), Event: func(string, string, ...monitor.Pair) {}, Log: zerolog.Nop()})
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		if _, ok := m.Get(r.ID); !ok || m.book.Next() <= r.ID {
			t.Errorf("alarm %d is shown: %v; the next one is %d", r.ID, ok, m.book.Next())
		}
		m.Event("server.lost", "Away.", monitor.Pair{Key: "server", Value: uint64(3)})
		m.Tick()
		if err := m.Work(t.Context()); err != nil {
			t.Errorf("work: %v", err)
		}
		m.List(true)
	})
}

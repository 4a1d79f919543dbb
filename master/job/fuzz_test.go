package job

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// FuzzRecord: what the database holds of a job is refused or is a job: it is
// written again in one form that reads as the same, and a manager starts with it
// and shows it (S19, S21).
func FuzzRecord(f *testing.F) {
	at := time.Date(2026, 11, 21, 8, 15, 2, 0, time.UTC)
	for _, r := range []Record{
		{ID: 7, Action: "logoffuser", Object: "alice", By: "root", Started: at, Limit: time.Minute, Data: json.RawMessage(`{"Session":"s1"}`)},
		{ID: 8, Action: "settings", Started: at, Finished: at, Cancelled: true, Outcome: &Outcome{Code: 200, Text: "done",
			Pairs: []monitor.Pair{{Key: "user", Value: "alice"}, {Key: "n", Value: uint64(1<<64 - 1)}, {Key: "took", Value: time.Second}, {Key: "at", Value: at},
				{Key: "none", Value: nil}, {Key: "yes", Value: true}, {Key: "share", Value: 0.5}, {Key: "i", Value: -1}, {Key: "j", Value: int64(-1 << 63)}}}},
	} {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"ID":1,"Outcome":{"Code":0,"Pairs":[{"Key":"x","Type":"float64","Text":1e400}]}}`))
	f.Add([]byte(`{"ID":18446744073709551615,"Started":"9999-12-31T23:59:59Z","Outcome":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		once, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%s is read and cannot be written: %v", b, err)
		}
		again, err := decodeRecord(once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%s becomes %s, %v", once, twice, err)
		}
		if r.Outcome != nil {
			for i, p := range r.Outcome.Pairs {
				if q := again.Outcome.Pairs[i]; reflect.TypeOf(p.Value) != reflect.TypeOf(q.Value) {
					t.Errorf("%s was a %T and is a %T", p.Key, p.Value, q.Value)
				}
			}
		}
		s := store.NewMem()
		if err := s.Commit(t.Context(), s.Epoch(), nil, []store.Change{{Key: store.Key{Bucket: bucket, ID: "1"}, Value: b}}); err != nil {
			return // larger than a record may be
		}
		m, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), OnChange: func(monitor.Job) {}})
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		if m.next <= r.ID && r.ID+1 != 0 {
			t.Errorf("the next job would have number %d, but %d is there", m.next, r.ID)
		}
	})
}

package job

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"verdecmd/monitor"
)

var t0 = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func TestUnder(t *testing.T) {
	done := &Outcome{Code: 200}
	jobs := []*Record{
		{ID: 7, Action: "logoffuser", Object: "bob"},
		{ID: 5, Action: "migrate", Object: "bob"},
		{ID: 3, Action: "logoffuser", Object: "alice", Outcome: done},
		{ID: 4, Action: "drain", Object: "2", Variant: "gently"},
	}
	tests := map[string]struct {
		spec       Spec
		join, busy uint64
	}{
		"same action and object":        {spec: Spec{Action: "logoffuser", Object: "bob"}, join: 7},
		"same action, another object":   {spec: Spec{Action: "logoffuser", Object: "carol"}},
		"same object, another action":   {spec: Spec{Action: "abortuser", Object: "bob"}},
		"finished":                      {spec: Spec{Action: "logoffuser", Object: "alice"}},
		"excluded":                      {spec: Spec{Action: "publish", Object: "bob", Exclusive: []string{"migrate"}}, busy: 5},
		"excluded by two: the first":    {spec: Spec{Action: "publish", Object: "bob", Exclusive: []string{"migrate", "logoffuser"}}, busy: 5},
		"excluded on another object":    {spec: Spec{Action: "publish", Object: "1", Exclusive: []string{"drain"}}},
		"joining goes before excluding": {spec: Spec{Action: "logoffuser", Object: "bob", Exclusive: []string{"migrate"}}, join: 7},
		"excludes itself":               {spec: Spec{Action: "drain", Object: "2", Variant: "gently", Exclusive: []string{"drain"}}, join: 4},
		"in the same way":               {spec: Spec{Action: "drain", Object: "2", Variant: "gently"}, join: 4},
		"in another way":                {spec: Spec{Action: "drain", Object: "2", Variant: "at once"}, busy: 4},
		"in any way":                    {spec: Spec{Action: "drain", Object: "2"}, busy: 4},
		"another object, another way":   {spec: Spec{Action: "drain", Object: "3", Variant: "at once"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for range 2 { // in any order
				join, busy := under(jobs, test.spec)
				if join != test.join || busy != test.busy {
					t.Errorf("got join %d, busy %d, want %d, %d", join, busy, test.join, test.busy)
				}
				slices.Reverse(jobs)
			}
		})
	}
}

func TestExpired(t *testing.T) {
	finished := func(id uint64, ago time.Duration) *Record {
		return &Record{ID: id, Started: t0.Add(-ago - time.Hour), Finished: t0.Add(-ago), Outcome: &Outcome{Code: 200}}
	}
	many := func(n int) (jobs []*Record) {
		for i := range n {
			jobs = append(jobs, finished(uint64(i+1), time.Minute))
		}
		return jobs
	}
	tests := map[string]struct {
		jobs []*Record
		want []uint64
	}{
		"none":                        {},
		"a day old":                   {jobs: []*Record{finished(1, KeepFor)}},
		"older":                       {jobs: []*Record{finished(1, KeepFor+1)}, want: []uint64{1}},
		"running for days":            {jobs: []*Record{{ID: 1, Started: t0.Add(-9 * KeepFor)}}},
		"1000":                        {jobs: many(KeepMax)},
		"1002: the oldest go":         {jobs: append(many(KeepMax), finished(2001, time.Hour), finished(2000, 2*time.Hour)), want: []uint64{2000, 2001}},
		"same instant: by number":     {jobs: many(KeepMax + 2), want: []uint64{1, 2}},
		"running ones do not count":   {jobs: append(many(KeepMax), &Record{ID: 5000})},
		"clock went back: kept first": {jobs: []*Record{finished(1, -time.Hour)}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := expired(test.jobs, t0); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestState(t *testing.T) {
	for code, want := range map[int]string{200: Done, 204: Done, 443: Failed, 444: Cancelled, 451: Failed, 555: Failed} {
		if got := (Outcome{Code: code}).state(); got != want {
			t.Errorf("%d: got %s, want %s", code, got, want)
		}
	}
}

// Every type that a pair may have comes back as it was.
func TestOutcomeJSON(t *testing.T) {
	want := Outcome{Code: 555, Text: "why\nnot", Pairs: []monitor.Pair{
		{Key: "nil"}, {Key: "s", Value: "é\t"}, {Key: "empty", Value: ""}, {Key: "b", Value: true}, {Key: "i", Value: -3}, {Key: "i64", Value: int64(math.MinInt64)},
		{Key: "u", Value: uint64(math.MaxUint64)}, {Key: "f", Value: 0.1}, {Key: "t", Value: t0.Add(1)}, {Key: "d", Value: 90 * time.Second},
	}}
	b, err := json.Marshal(Record{ID: 1, Outcome: &want})
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeRecord(b)
	if err != nil || !reflect.DeepEqual(*r.Outcome, want) {
		t.Errorf("got %+v, %v, want %+v", r.Outcome, err, want)
	}
	if _, err := json.Marshal(Outcome{Pairs: []monitor.Pair{{Key: "x", Value: fmt.Errorf("no")}}}); err == nil {
		t.Error("an error as a value was stored")
	}
	if _, err := decodeRecord([]byte(`{"Outcome":{"Code":200,"Pairs":[{"Key":"a","Type":"new","Text":"1"}]}}`)); err == nil {
		t.Error("an unknown type was read")
	}
}

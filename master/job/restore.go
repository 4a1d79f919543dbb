package job

import (
	"encoding/json"
	"fmt"
	"time"

	"verdecmd/master/store"
)

// leap is more than the jobs that begin between two copies of the database.
const leap = 1 << 20

// FromCopy returns what is to be changed in a copy of the database that takes
// its place. Jobs that were under way when the copy was made are closed: they
// have long ended or were cancelled, and done again they could end what a user
// has begun since. Numbers that were given out later are not given again.
func FromCopy(s store.Snapshot, now time.Time) (changes []store.Change, err error) {
	next := uint64(1)
	if v, ok, err := s.Get(nextKey); err != nil {
		return nil, err
	} else if ok {
		if err := json.Unmarshal(v, &next); err != nil {
			return nil, fmt.Errorf("job: next number: %w", err)
		}
	}
	put := func(k store.Key, v any) error {
		b, err := json.Marshal(v)
		changes = append(changes, store.Change{Key: k, Value: b})
		return err
	}
	for id, v := range s.All(bucket) {
		r, err := decodeRecord(v)
		if err != nil {
			return nil, fmt.Errorf("job %s: %w", id, err)
		}
		next = max(next, r.ID+1)
		if r.Outcome != nil {
			continue
		}
		out := failed(555, "the database was restored from a copy: how this job has ended is not known")
		r.Outcome, r.Finished = &out, now
		if err := put(key(r.ID), r); err != nil {
			return nil, err
		}
	}
	return changes, put(nextKey, next+leap)
}

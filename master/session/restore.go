package session

import (
	"encoding/json"
	"fmt"

	"verdecmd/master/store"
)

// leap is more than the sessions that begin between two copies of the database:
// at ten a second, three years of them.
const leap = 1 << 30

// FromCopy returns what is to be changed in a copy of the database that takes
// its place: session numbers that were given out after the copy was made are not
// given again. A satellite that still has such a session would else be believed
// to have the other one.
func FromCopy(s store.Snapshot) ([]store.Change, error) {
	var high uint64
	k := store.Key{Bucket: meta, ID: highWater}
	if b, ok, err := s.Get(k); err != nil {
		return nil, err
	} else if ok {
		if err := json.Unmarshal(b, &high); err != nil {
			return nil, fmt.Errorf("record %v: %w", k, err)
		}
	}
	return []store.Change{{Key: k, Value: fmt.Appendf(nil, "%d", high+leap)}}, nil
}

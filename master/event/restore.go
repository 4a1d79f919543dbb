package event

import (
	"encoding/json"
	"fmt"

	"verdecmd/master/store"
)

// leap is more than the events between two copies of the database.
const leap = 1 << 30

// FromCopy returns what is to be changed in a copy of the database that takes
// its place, so that numbers do not fall.
func FromCopy(s store.Snapshot) ([]store.Change, error) {
	var reserved uint64
	v, ok, err := s.Get(reservedKey)
	if err != nil {
		return nil, err
	}
	if ok {
		if err := json.Unmarshal(v, &reserved); err != nil {
			return nil, fmt.Errorf("event: the last number: %w", err)
		}
	}
	b, err := json.Marshal(reserved + leap)
	return []store.Change{{Key: reservedKey, Value: b}}, err
}

package host

import (
	"encoding/json"
	"fmt"
	"strconv"

	"verdecmd/master/store"
)

// leap is more than the servers that join between two copies of the database.
const leap = 1000

// FromCopy returns what is to be changed in a copy of the database that takes
// its place: server numbers that were given out after the copy was made are not
// given again. The servers that had them are registered anew when they come.
func FromCopy(s store.Snapshot) ([]store.Change, error) {
	var last uint64
	k := store.Key{Bucket: meta, ID: lastServer}
	if b, ok, err := s.Get(k); err != nil {
		return nil, err
	} else if ok {
		if err := json.Unmarshal(b, &last); err != nil {
			return nil, fmt.Errorf("record %v: %w", k, err)
		}
	}
	last = (last/leap + 1) * leap // round, so that it is seen where they come from
	return []store.Change{{Key: k, Value: strconv.AppendUint(nil, last, 10)}}, nil
}

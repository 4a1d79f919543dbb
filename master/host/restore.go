package host

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"verdecmd/master/store"
)

// leap is more than the servers that join between two copies of the database.
const leap = 1000

// FromCopy returns what is to be changed in a copy of the database, made at made,
// that takes its place at now: numbers of servers and tokens that were given out
// after the copy was made are not given again. The servers that had them are
// registered anew when they come. No token counts any more, since nobody knows
// which were used; and it is noted since when revocations may be missing.
func FromCopy(s store.Snapshot, made, now time.Time) ([]store.Change, error) {
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
	_, token, err := restoreTokens(s)
	if err != nil {
		return nil, err
	}
	_, unknown, err := restoreRevoked(s)
	if err != nil {
		return nil, err
	}
	token = (token/leap + 1) * leap
	since := made.UTC()
	if unknown != nil && now.Before(unknown.Until) && unknown.Since.Before(since) {
		since = unknown.Since // a copy of a copy
	}
	blind, err := json.Marshal(blindness{Since: since, Until: now.Add(satelliteLife + revokedFor).UTC()})
	number := func(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }
	return []store.Change{{Key: k, Value: number(last)}, {Key: unknownKey, Value: blind},
		{Key: store.Key{Bucket: meta, ID: lastToken}, Value: number(token)}, {Key: store.Key{Bucket: meta, ID: voidToken}, Value: number(token)}}, err
}

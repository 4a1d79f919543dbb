package session

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
)

// leaseRow says that all masters from one epoch to another ran with leases of
// the same times, so that every satellite they welcomed obeys them.
type leaseRow struct {
	Since   uint64        `json:"since"`
	To      uint64        `json:"to"`
	Self    time.Duration `json:"self"`
	Replace time.Duration `json:"replace"`
}

// LeaseSince notes durably that the master of this epoch runs with these limits
// and returns since which epoch that has been so without a gap; 0 where leases
// are not in use. It is to be called once, before the master acts.
func LeaseSince(ctx context.Context, s store.Store, e store.Epoch, l cluster.Limits, self time.Duration) (uint64, error) {
	k := store.Key{Bucket: meta, ID: "lease"}
	if l.Lost != cluster.Lease {
		return 0, s.Commit(ctx, e, nil, []store.Change{{Key: k}})
	}
	now := leaseRow{Since: uint64(e), To: uint64(e), Self: self, Replace: l.LeaseReplace}
	err := s.View(ctx, func(s store.Snapshot) error {
		b, ok, err := s.Get(k)
		if err != nil || !ok {
			return err
		}
		var before leaseRow
		if err := json.Unmarshal(b, &before); err != nil {
			return fmt.Errorf("record %v: %w", k, err)
		}
		if before.To+1 == now.To && before.Self == now.Self && before.Replace == now.Replace {
			now.Since = before.Since
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return 0, err
	}
	return now.Since, s.Commit(ctx, e, nil, []store.Change{{Key: k, Value: b}})
}

package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/alarm"
	"verdecmd/master/event"
	"verdecmd/master/host"
	"verdecmd/master/job"
	"verdecmd/master/session"
	"verdecmd/master/store"
	"verdecmd/master/trust"
	"verdecmd/monitor"
)

// newestCopy is the value of --restore without a file.
const newestCopy = "newest"

// restoreKey is the record of a restore that nobody has been told of.
var restoreKey = store.Key{Bucket: "restored", ID: "last"}

// restoreRow is that record.
type restoreRow struct {
	From  string    `json:"from"`
	Made  time.Time `json:"made"`
	At    time.Time `json:"at"`
	Aside string    `json:"aside,omitempty"`
}

// restoreDatabase puts a copy in the place of the damaged database at path.
func restoreDatabase(path, copies, from string, replace bool, log zerolog.Logger) error {
	now := time.Now()
	cfg := store.RestoreConfig{Path: path, Copies: []string{copies}, Replace: replace, Now: now}
	if from != newestCopy {
		cfg.From = from
	}
	cfg.Change = func(s store.Snapshot, r store.Restored) ([]store.Change, error) { return fromCopy(s, r, now) }
	r, err := store.Restore(cfg)
	switch {
	case errors.Is(err, store.ErrNotDamaged) && cfg.From == "":
		return fmt.Errorf("%w; start the master without --restore", err)
	case errors.Is(err, store.ErrNotDamaged):
		return fmt.Errorf("%w; with --replace, %s takes its place all the same", err, cfg.From)
	case err != nil:
		return err
	}
	log.Warn().Str("from", r.From).Str("kept", r.Aside).Time("made", r.Made).Str("age", store.Age(now.Sub(r.Made))).
		Msg("the database was restored from a copy: what administrators have changed since the copy was made is lost; sessions are learned from the satellites")
	return nil
}

// fromCopy is what must be different in a copy before a master works with it.
func fromCopy(s store.Snapshot, r store.Restored, now time.Time) ([]store.Change, error) {
	row := restoreRow{From: r.From, Made: r.Made, At: now, Aside: r.Aside}
	b, err := json.Marshal(row)
	if err != nil {
		return nil, err
	}
	all := []store.Change{{Key: restoreKey, Value: b}}
	for _, part := range []func(store.Snapshot) ([]store.Change, error){
		session.FromCopy, event.FromCopy, trust.FromCopy, alarm.FromCopy,
		func(s store.Snapshot) ([]store.Change, error) { return host.FromCopy(s, r.Made, now) },
		func(s store.Snapshot) ([]store.Change, error) { return job.FromCopy(s, now) },
	} {
		changes, err := part(s)
		if err != nil {
			return nil, err
		}
		all = append(all, changes...)
	}
	return all, nil
}

// tellRestored announces a restore that has not been announced, and forgets it
// then: what could not be forgotten is told again by the next start.
func (m *Master) tellRestored(ctx context.Context) error {
	var row restoreRow
	var there bool
	err := m.cfg.Store.View(ctx, func(s store.Snapshot) error {
		b, ok, err := s.Get(restoreKey)
		if err != nil || !ok {
			return err
		}
		there = true
		return json.Unmarshal(b, &row)
	})
	if err != nil || !there {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "The database was restored from the copy %s, which was %s old. What administrators have changed in that time is lost: servers put offline, sessions dropped, servers joined or forgotten. Check \"servers\" and \"users\".",
		row.From, store.Age(row.At.Sub(row.Made)))
	pairs := []monitor.Pair{{Key: "path", Value: row.From}, {Key: "age", Value: int64(row.At.Sub(row.Made) / time.Second)}}
	known := m.host.Revocations()
	fmt.Fprintf(&text, " Who was shut out in that time, by replaceserver or forgetserver, is not known; known are %d: \"revocations\" lists them. No token of that time is good any more.", len(known))
	pairs = append(pairs, monitor.Pair{Key: "revocations", Value: len(known)})
	if row.Aside != "" {
		fmt.Fprintf(&text, " The file that was there is kept as %s.", row.Aside)
	}
	m.event("master.restored", text.String(), pairs...)
	if err := m.alarm.Work(ctx); err != nil { // else who dies now has told nobody
		return err
	}
	return m.cfg.Store.Commit(ctx, m.cfg.Epoch, nil, []store.Change{{Key: restoreKey}})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// Copies makes hot copies of a store now and then and keeps the newest: the
// way back from a damaged database.
type Copies struct {
	Store Store         // required
	Dir   string        // required; made with mode 0700. Open takes it too
	Every time.Duration // default an hour
	Keep  int           // default 24
	Log   zerolog.Logger
}

// copyName sorts by time.
const copyName = "verdecmd-20060102T150405Z.db"

// Run makes the first copy at once, before anything can go wrong with this
// start, and works until ctx ends. A copy that fails is logged and tried again
// at the next turn.
func (c Copies) Run(ctx context.Context) error {
	if c.Every <= 0 {
		c.Every = time.Hour
	}
	if c.Keep <= 0 {
		c.Keep = 24
	}
	log := c.Log.With().Str("part", "copies").Logger()
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if err := c.once(ctx, time.Now()); err != nil && ctx.Err() == nil {
			log.Error().Err(err).Msg("the database could not be copied")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c Copies) once(ctx context.Context, now time.Time) error {
	if err := MakeDir(c.Dir); err != nil {
		return fmt.Errorf("directory of the copies: %w", err)
	}
	// What a crash left half way. Nobody else writes here.
	half, _ := filepath.Glob(filepath.Join(escape(c.Dir), "verdecmd-*.db"+newSuffix+"*"))
	for _, f := range half {
		os.Remove(f)
	}
	path := filepath.Join(c.Dir, now.UTC().Format(copyName))
	if err := c.Store.Backup(ctx, path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Old ones go only after a new one is there.
	all, err := filepath.Glob(filepath.Join(escape(c.Dir), "verdecmd-*.db"))
	if err != nil {
		return err
	}
	slices.Sort(all)
	for _, f := range surplus(all, c.Keep) {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// crowd is the time within which only the first of several copies stays, but for
// the two newest of all: a master that is started again and again must not push
// out those of the hours before, nor the one that it was restored from.
const crowd = 50 * time.Minute

// surplus are the copies, oldest first, that are not kept. Files with other names
// are somebody else's.
func surplus(all []string, keep int) (out []string) {
	var kept []string
	var last time.Time // of kept
	for i, f := range all {
		made, err := time.Parse(copyName, filepath.Base(f))
		if err != nil {
			continue
		}
		if len(kept) > 0 && i+2 < len(all) && made.Sub(last) < crowd {
			out = append(out, f)
			continue
		}
		kept, last = append(kept, f), made
	}
	return append(out, kept[:max(0, len(kept)-keep)]...)
}

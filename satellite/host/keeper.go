package host

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

const (
	// checkEvery is the time between two rounds of checks of a running satellite.
	checkEvery = time.Hour
	// checkAgain is that after the first one, when hosts that were started
	// together have told what they are; after one that keeps desktops away, which
	// may have passed; and at most that after the link has come back: the master
	// may have been started anew, and knows of no other host then.
	checkAgain = 2 * time.Minute
	// checkSoon is that after one whose result could not be handed in.
	checkSoon = time.Minute
	// checkSpread is over what time the first rounds are spread: all satellites
	// of a cluster may have been started at once.
	checkSpread = 3 * time.Second
	// fewerTries is how often a result that looks better for want of hosts to
	// compare with is held back.
	fewerTries = 30
)

// KeeperConfig is everything that a Keeper needs.
type KeeperConfig struct {
	Doctor DoctorConfig // HandIn is not looked at
	// Linked tells whether the link to the master is up; changed is closed when
	// that changes.
	Linked func() (up bool, changed <-chan struct{})
	// Jitter spreads the rounds: 0 to 1. The default is random.
	Jitter func() float64
	Log    zerolog.Logger
}

// Keeper makes the checks of a host while its satellite runs: when the link is
// up for the first time, once more a little later, and every hour. A result is
// handed in to the master if it is news, or if the master keeps another one. Use
// Run.
type Keeper struct {
	cfg      KeeperConfig
	measurer *measurer
	// What follows belongs to Run's goroutine.
	last  Result    // that was handed in
	at    time.Time // under which the master keeps it
	with  int       // hosts that it was compared with
	fewer int       // results that were held back since
	// once makes the checks; tests have their own.
	once func(context.Context) error
}

// NewKeeper returns a Keeper.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	k := &Keeper{cfg: cfg, measurer: newMeasurer()}
	k.once = k.round
	return k
}

// Run works until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	up, changed := k.cfg.Linked()
	due, next := time.Now().Add(k.part(checkSpread)), checkAgain
	var last time.Time
	for first := true; ; first = false {
		for wait := true; wait; {
			var timer <-chan time.Time
			if up {
				timer = time.After(time.Until(due))
			}
			select {
			case <-timer:
				wait = false
			case <-changed:
				was := up
				if up, changed = k.cfg.Linked(); up && !was {
					soon := checkAgain
					if first {
						soon = checkSpread
					}
					now := time.Now()
					if at := now.Add(k.part(soon)); first || at.Before(due) || due.Before(now) {
						due = at // also of one that is overdue: all come back at once
						if least := last.Add(checkSoon); due.Before(least) {
							due = least // a link that comes and goes is no reason
						}
					}
				}
			case <-ctx.Done():
				return nil
			}
		}
		err := k.once(ctx)
		last = time.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			k.cfg.Log.Warn().Err(err).Msg("checks of this host")
			due = time.Now().Add(checkSoon + k.part(checkSoon))
			continue
		case len(k.last.Hard()) > 0:
			next = checkAgain
		}
		due = time.Now().Add(next + k.part(next/10))
		next = checkEvery
	}
}

// part is a random part of a time.
func (k *Keeper) part(d time.Duration) time.Duration {
	return time.Duration(k.cfg.Jitter() * float64(d))
}

var (
	errUnheard = errors.New("the master has not answered")
	errFewer   = errors.New("the master knows of fewer hosts to compare with than before")
)

// round makes the checks once.
func (k *Keeper) round(ctx context.Context) error {
	heard, fewer := false, false
	wanted := func(r Result, t told) bool {
		heard = true
		news := !t.kept.Equal(k.at) || !sameResult(r.Findings, k.last.Findings)
		// After a restart of the master nobody may be left who says that this host
		// is wrong.
		if fewer = news && t.others < k.with && k.fewer < fewerTries; fewer {
			k.fewer++
			return false
		}
		if k.with = t.others; news {
			k.fewer = 0
		}
		return news
	}
	_, err := examine(ctx, k.cfg.Doctor, k.measurer, wanted, func(r Result, at time.Time) {
		k.tell(r)
		k.last, k.at = r, at
	})
	switch {
	case err != nil:
		return err
	case !heard:
		return errUnheard
	case fewer:
		return errFewer
	}
	return nil
}

// tell writes what does not pass into the log.
func (k *Keeper) tell(r Result) {
	for _, f := range r.Findings {
		if f.Level == Pass || slices.ContainsFunc(k.last.Findings, func(o Finding) bool { return sameFinding(f, o) }) {
			continue
		}
		e := k.cfg.Log.Warn()
		if f.Level == Fail {
			e = k.cfg.Log.Error()
		}
		e.Str("check", f.Check).Str("measured", f.Measured).Str("wanted", f.Wanted).Str("fix", f.Fix).Bool("hard", f.Hard).Msg("a check of this host does not pass")
	}
}

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
	// checkEvery is the time between two rounds of checks of a running satellite,
	// checkAgain that after the first one, when hosts that were started together
	// have told what they are, and checkSoon that after one whose result could
	// not be handed in.
	checkEvery = time.Hour
	checkAgain = 2 * time.Minute
	checkSoon  = time.Minute
	// checkSpread is over what time the first rounds are spread: all satellites
	// of a cluster may have been started at once.
	checkSpread = 3 * time.Second
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
// up for the first time, once more a little later, and every hour. A result is handed in to the master if
// it is news, or if the master keeps another one. Use Run.
type Keeper struct {
	cfg      KeeperConfig
	measurer *measurer
	last     Result    // that was handed in; Run's goroutine alone
	at       time.Time // under which the master keeps it
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
	wait, next := time.Duration(k.cfg.Jitter()*float64(checkSpread)), checkAgain
	for {
		for up, changed := k.cfg.Linked(); !up; up, changed = k.cfg.Linked() {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = next + time.Duration(k.cfg.Jitter()*float64(next)/10)
		if err := k.once(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn().Err(err).Msg("checks of this host")
			wait = checkSoon + time.Duration(k.cfg.Jitter()*float64(checkSoon))
			continue
		}
		next = checkEvery
	}
}

// errUnheard: the master has not taken part.
var errUnheard = errors.New("the master has not answered")

// round makes the checks once.
func (k *Keeper) round(ctx context.Context) error {
	heard := false
	wanted := func(r Result, kept time.Time) bool {
		heard = true
		return !kept.Equal(k.at) || !sameResult(r.Findings, k.last.Findings)
	}
	_, err := examine(ctx, k.cfg.Doctor, k.measurer, wanted, func(r Result, at time.Time) {
		k.tell(r)
		k.last, k.at = r, at
	})
	if err == nil && !heard {
		return errUnheard
	}
	return err
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

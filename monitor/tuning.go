package monitor

import (
	"sync/atomic"
	"time"
)

// Tuning is the part of Config that may change while Serve runs. Levels,
// MaxConns and Linger count for connections made afterwards, Idle for all.
type Tuning struct {
	Levels   Levels
	MaxConns int           // VERDECMD_CONN_MAX; 0: 64. The last 8 of them are kept for UID 0
	Linger   time.Duration // VERDECMD_CONN_LINGER of short connections; 0: they are not closed
	Idle     time.Duration // VERDECMD_CONN_IDLE of sessions; 0: no limit
}

// Check tells whether the names in the levels are known. Serve would give
// everybody but UID 0 the level viewer where they are not.
func (t Tuning) Check() error {
	_, err := t.Levels.resolve()
	return err
}

// Tuner holds the Tuning in force, for those who change it. The zero value is
// ready and changes nothing.
type Tuner struct{ next atomic.Pointer[Tuning] }

// Set makes t count from now on.
func (u *Tuner) Set(t Tuning) { u.next.Store(&t) }

// tuned is a Tuning with its levels looked up.
type tuned struct {
	Tuning
	levels levels
	from   *Tuning // what was Set; nil: the Config
}

// tuning returns what counts now.
func (s *server) tuning() *tuned {
	now := s.tunings.Load()
	if s.cfg.Tuner == nil {
		return now
	}
	if next := s.cfg.Tuner.next.Load(); next != nil && next != now.from {
		now = s.resolve(*next)
		now.from = next
		s.tunings.Store(now)
	}
	return now
}

func (s *server) resolve(t Tuning) *tuned {
	if t.MaxConns <= 0 {
		t.MaxConns = 64
	}
	out := &tuned{Tuning: t}
	var err error
	if out.levels, err = t.Levels.resolve(); err != nil {
		s.log.Error().Err(err).Msg("levels of the admin socket are wrong: everybody but root may only look")
	}
	return out
}

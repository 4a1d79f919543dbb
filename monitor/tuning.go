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
func (t Tuning) Check(d Directory) error {
	_, err := t.Levels.resolve(d)
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
	wrong  string    // why everybody but root may only look; empty: it is not so
	at     time.Time // when the names were looked up
	from   *Tuning   // what was Set; nil: the Config
}

// lookAgain is after what time names that were not known are looked up again:
// somebody may have made the group, or the directory server is back.
const lookAgain = 10 * time.Second

// tuning returns what counts now.
func (s *server) tuning() *tuned {
	now := s.tunings.Load()
	next := now.from
	if s.cfg.Tuner != nil {
		if set := s.cfg.Tuner.next.Load(); set != nil {
			next = set
		}
	}
	if next == now.from && (now.wrong == "" || time.Since(now.at) < lookAgain) {
		return now
	}
	t := s.cfg.Tuning
	if next != nil {
		t = *next
	}
	out := s.resolve(t, now.wrong)
	out.from = next
	s.tunings.Store(out)
	return out
}

// resolve looks the names of a Tuning up. told is what was wrong with them
// before: it is not logged again.
func (s *server) resolve(t Tuning, told string) *tuned {
	if t.MaxConns <= 0 {
		t.MaxConns = 64
	}
	out := &tuned{Tuning: t, at: time.Now()}
	var err error
	if out.levels, err = t.Levels.resolve(s.cfg.Directory); err != nil {
		if out.wrong = err.Error(); out.wrong != told {
			s.log.Error().Err(err).Msg("levels of the admin socket are wrong: everybody but root may only look")
		}
	}
	return out
}

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
func (u *Tuner) Set(t Tuning) {
	t.defaults()
	u.next.Store(&t)
}

func (t *Tuning) defaults() {
	if t.MaxConns <= 0 {
		t.MaxConns = 64
	}
}

// set returns what counts now. It never waits.
func (s *server) set() *Tuning {
	if s.cfg.Tuner != nil {
		if t := s.cfg.Tuner.next.Load(); t != nil {
			return t
		}
	}
	return &s.cfg.Tuning
}

// lookedUp are the levels of a Tuning with their names looked up.
type lookedUp struct {
	levels
	of    *Tuning   // whose they are
	wrong string    // why everybody but root may only look; empty: it is not so
	at    time.Time // when the names were looked up
}

// lookAgain is after what time names that were not known are looked up again:
// somebody may have made the group, or the directory server is back.
const lookAgain = 10 * time.Second

// levels returns those that count now. It waits for a directory server that does
// not answer: nothing that root needs may ask for them.
func (s *server) levels() levels {
	fresh := func() *lookedUp {
		if now := s.looked.Load(); now != nil && now.of == s.set() && (now.wrong == "" || time.Since(now.at) < lookAgain) {
			return now
		}
		return nil
	}
	if now := fresh(); now != nil {
		return now.levels
	}
	// Held while the names are looked up, though that is I/O: all who wait here
	// want the same answer.
	s.looking.Lock()
	defer s.looking.Unlock()
	if now := fresh(); now != nil {
		return now.levels
	}
	t, told := s.set(), ""
	if before := s.looked.Load(); before != nil {
		told = before.wrong
	}
	l, err := t.Levels.resolve(s.cfg.Directory)
	out := &lookedUp{levels: l, of: t, at: time.Now()}
	if err != nil {
		if out.wrong = err.Error(); out.wrong != told { // once
			s.log.Error().Err(err).Msg("levels of the admin socket are wrong: everybody but root may only look")
		}
	}
	s.looked.Store(out)
	return l
}

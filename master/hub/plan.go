package hub

import (
	"time"

	"verdecmd/master/cluster"
	"verdecmd/proto/wire"
)

const (
	// LostAfter is after what time without a link a server counts as lost.
	LostAfter = 15 * time.Second

	// skewReports in a row, at least skewApart apart, tell of a clock: reports that
	// were held up come late all at once.
	skewReports = 3
	skewApart   = 900 * time.Millisecond
)

// missed tells whether somebody misses a server that has no link: users whose
// sessions are there, or placement. One that was put out of service and is empty
// may be away.
func missed(state cluster.State, sessions int) bool {
	return sessions > 0 || state == cluster.Online
}

// skew follows the clock of one server. The zero value begins.
type skew struct {
	told bool      // that it is wrong
	row  int       // reports in a row that say otherwise than told
	last time.Time // when the last one of them came
}

// take judges a report that came at now and in which the satellite's clock
// showed clock. changed tells that told is another one now.
func (s *skew) take(now, clock time.Time) (off time.Duration, changed bool) {
	off = clock.Sub(now)
	if wrong := off.Abs() > wire.MaxSkew; wrong == s.told {
		s.row = 0
		return off, false
	}
	if s.row > 0 && now.Sub(s.last) < skewApart {
		return off, false
	}
	s.last = now
	if s.row++; s.row < skewReports {
		return off, false
	}
	s.told, s.row = !s.told, 0
	return off, true
}

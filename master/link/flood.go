package link

import (
	"time"

	"verdecmd/proto/wire"
)

// What a satellite may send on its link. An honest one sends a report each
// interval, one for each change of a session and one result for each order.
const (
	messageRate, messageBurst = 50, 1000 // a second, and at once
)

func quota() wire.Bucket { return wire.Bucket{Rate: messageRate, Burst: messageBurst} }

// within refuses a message beyond the quota of its link.
func (s *Server) within(q *wire.Bucket, l *line) error {
	if q.Take(time.Now()) {
		return nil
	}
	err := wire.Errorf(wire.BadRequest, "this satellite has sent more than %d messages in a row and goes on faster than %d a second; no satellite does that, so the link is ended", messageBurst, messageRate)
	s.cfg.Log.Error().Uint64("server", l.server).Err(err).Msg("a satellite floods its link")
	return wire.ToStatus(err)
}

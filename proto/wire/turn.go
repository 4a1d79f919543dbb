package wire

import (
	"runtime"
	"sync"
	"time"
)

// turns are the handshakes that are computed at once. When ten thousand
// satellites come back together and all are computed side by side, each takes
// as long as all of them, and where that is longer than a handshake may take all
// are in vain, again and again. A few at a time are done in no time, whoever has
// to wait long is sent away before its own time is over, and comes again.
type turns chan struct{}

const (
	turnsEach = 32 // for each processor: most of a handshake is waiting for the other end
	// turnWithin is how long a handshake waits for its turn: then enough of
	// HandshakeTimeout is still left to it. Who is sent away has cost us a
	// connection in vain, so it is most of that time.
	turnWithin = 7 * time.Second
	// turnFor is how long a turn lasts: the computing is done by then, and who
	// goes on waiting for a silent peer holds up nobody.
	turnFor = time.Second
)

func newTurns() turns { return make(turns, turnsEach*runtime.GOMAXPROCS(0)) }

// take waits for a turn. end ends it and may be called again.
func (t turns) take() (end func(), err error) {
	select {
	case t <- struct{}{}: // the usual case needs no timer
	default:
		timer := time.NewTimer(turnWithin)
		defer timer.Stop()
		select {
		case t <- struct{}{}:
		case <-timer.C:
			return nil, errBusy
		}
	}
	var once sync.Once
	over := func() { once.Do(func() { <-t }) }
	timer := time.AfterFunc(turnFor, over)
	return func() { timer.Stop(); over() }, nil
}

package wire

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// V-40: of all that come back at once only a few are computed at a time, nobody
// waits for long, and no silent peer keeps a turn.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := make(turns, 2)
		one, err1 := turns.take()
		two, err2 := turns.take()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		one()
		one() // again, without effect
		three, err := turns.take()
		if err != nil {
			t.Fatalf("a turn was free: %v", err)
		}

		// All are taken: the next has one as soon as another is over.
		began := time.Now()
		four, err := turns.take()
		if err != nil || time.Since(began) != turnFor {
			t.Errorf("got %v after %v, want a turn after %v, when the silent ones have lost theirs", err, time.Since(began), turnFor)
		}
		two()
		three()
		four()
		if len(turns) != 0 {
			// The two that lost theirs must not give up somebody else's.
			t.Errorf("%d turns are taken after the end of all", len(turns))
		}

		// Who waits in vain is sent away.
		for range cap(turns) {
			turns <- struct{}{} // they never end
		}
		began = time.Now()
		if _, err := turns.take(); !errors.Is(err, errBusy) || time.Since(began) != turnWithin {
			t.Errorf("got %v after %v, want %v after %v", err, time.Since(began), errBusy, turnWithin)
		}
	})
}

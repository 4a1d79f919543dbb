package event

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
)

// FuzzReserved: what the database holds of the last number is refused, or events
// go on above it.
func FuzzReserved(f *testing.F) {
	for _, s := range []string{"1000", "0", "-1", "18446744073709551615", "null", `"7"`, "1e3", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := store.NewMem()
		if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{{Key: reservedKey, Value: b}}) != nil {
			return
		}
		r, err := New(t.Context(), Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop()})
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		before := r.seq
		if got := r.Publish(time.Now(), "server.up", "a server came"); got != before+1 || got == 0 {
			t.Errorf("%s: the first event has number %d", b, got)
		}
	})
}

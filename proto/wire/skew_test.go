package wire

import (
	"testing"
	"time"
)

// How far a clock is off is said in the same words everywhere.
func TestApart(t *testing.T) {
	for off, want := range map[time.Duration]string{
		6 * time.Second:         "6s ahead of",
		-90 * time.Second:       "1m30s behind",
		time.Hour + 1:           "1h0m0s ahead of",
		-100 * day:              "2400h0m0s behind",
		6200 * time.Millisecond: "6s ahead of",
	} {
		if got := Apart(off); got != want {
			t.Errorf("%v: got %q, want %q", off, got, want)
		}
	}
}

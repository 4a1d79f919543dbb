package host

import (
	"testing"

	"verdecmd/proto/wire"
)

// A token is found in the line that verdecmon writes for scripts, in each of its
// formats, and alone.
func TestTokenIn(t *testing.T) {
	token := wire.NewToken(wire.NewUUID(), [32]byte{1}, 3).String()
	for _, line := range []string{
		token,
		"created id=3 token=" + token + " expires=2026-11-21T09:15:02Z server=sat1",
		`{"status":"created","id":3,"token":"` + token + `","expires":"2026-11-21T09:15:02Z"}`,
		"Token 3 lets in sat1 once, until 2026-11-21 09:15:02, and is not shown again: " + token,
	} {
		if got := tokenIn(line); got != token {
			t.Errorf("%.30q: got %.20q", line, got)
		}
	}
	if got := tokenIn("correct horse"); got != "correct horse" {
		t.Errorf("without a token: got %q", got)
	}
}

package host

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What takes longer than two seconds is told, and then every five; what does not
// is not.
func TestDuring(t *testing.T) {
	tests := map[string]struct {
		takes time.Duration
		want  []string
	}{
		"at once":   {0, nil},
		"soon":      {1999 * time.Millisecond, nil},
		"long":      {3 * time.Second, []string{"Waiting (2 s) ..."}},
		"very long": {13 * time.Second, []string{"Waiting (2 s) ...", "Waiting (7 s) ...", "Waiting (12 s) ..."}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				end := errors.New("the end")
				v, err := during(newTalk(strings.NewReader(""), &out), "Waiting", func() (int, error) {
					time.Sleep(tt.takes)
					return 7, end
				})
				if v != 7 || err != end {
					t.Errorf("got %d, %v", v, err)
				}
				if got := strings.TrimSuffix(out.String(), "\n"); got != strings.Join(tt.want, "\n") {
					t.Errorf("said %q, want %q", got, tt.want)
				}
			})
		})
	}
}

// A question that was given up does not swallow the answer to the next one.
func TestTalkGivesUp(t *testing.T) {
	t.Parallel()
	c := newChair(t)
	talk := newTalk(c.tty, c.tty)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() { _, err := talk.ask(ctx, "First", ""); asked <- err }()
	c.until("First: ")
	cancel()
	if err := <-asked; err == nil {
		t.Error("the question was answered")
	}
	c.types("second\n")
	if got, err := talk.ask(t.Context(), "Second", "x"); got != "second" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.types("\n")
	if got, err := talk.ask(t.Context(), "Third", "as usual"); got != "as usual" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.types("\x04")
	if _, err := talk.ask(t.Context(), "Fourth", "x"); !errors.Is(err, errNoAnswer) {
		t.Errorf("got %v", err)
	}
}

package host

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lateValue tells when nobody has taken it.
type lateValue struct{ closed chan struct{} }

func (v lateValue) close() { close(v.closed) }

// Issue 5, preflight: a server that does not answer holds nothing up; it is said
// what is being waited for, and it is not asked again while it hangs.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		m := newMeasurer()
		m.begin(func(text string) { said = append(said, text) })
		began := time.Now()
		if v, ok := within(t.Context(), m, "quick", askFor, func(context.Context) (int, error) { time.Sleep(time.Second); return 7, nil }); v != 7 || !ok || len(said) != 0 {
			t.Errorf("quick: got %v, %v, said %q", v, ok, said)
		}
		if _, ok := within(t.Context(), m, "wrong", askFor, func(context.Context) (int, error) { return 1, errors.New("it is broken") }); ok || m.failed["wrong"] != "it is broken" {
			t.Errorf("an error: got %v, %q", ok, m.failed)
		}
		if v, ok := within(t.Context(), m, "slow", askFor, func(context.Context) (int, error) { time.Sleep(4 * time.Second); return 8, nil }); v != 8 || !ok || strings.Join(said, "") != "slow: no answer yet" {
			t.Errorf("slow: got %v, %v, said %q", v, ok, said)
		}
		polite := func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() }
		if _, ok := within(t.Context(), m, "polite", askFor, polite); ok || m.failed["polite"] != "no answer within 5 s" {
			t.Errorf("one that ends with its time: got %q", m.failed["polite"])
		}
		if took := time.Since(began); took > 11*time.Second {
			t.Errorf("it took %v", took)
		}

		answer, late := make(chan struct{}), lateValue{make(chan struct{})}
		dead := func(context.Context) (lateValue, error) { <-answer; return late, nil }
		for i, want := range []string{"no answer within 5 s", "no answer since 00:00:10"} {
			m.begin(nil)
			began := time.Now()
			if _, ok := within(t.Context(), m, "dead", askFor, dead); ok || m.failed["dead"] != want {
				t.Errorf("try %d: got %q, want %q", i, m.failed["dead"], want)
			}
			if took := time.Since(began); took > askFor {
				t.Errorf("try %d took %v", i, took)
			}
		}
		close(answer)
		<-late.closed // what came too late is given back
		synctest.Wait()
		m.begin(nil)
		if _, ok := within(t.Context(), m, "dead", askFor, func(context.Context) (int, error) { return 1, nil }); !ok {
			t.Errorf("after it came back: %q", m.failed)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := within(gone, m, "ended", askFor, polite); ok || m.failed["ended"] != "interrupted" {
			t.Errorf("interrupted: got %q", m.failed["ended"])
		}
		synctest.Wait()
	})
}

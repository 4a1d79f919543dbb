package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// askFor is how long a measurement may take. A dead file server or name
	// server must not hold the checks up.
	askFor = 5 * time.Second
	// manyFor is how long one may take that asks about hundreds of users; each of
	// its questions has askFor.
	manyFor = 30 * time.Second
	// slow is after what time somebody who waits is told what for.
	slow = 2 * time.Second
)

// measurer runs measurements, each with its time. One that is held up by the
// kernel cannot be ended: it is left behind, and not begun again until it has
// come back.
type measurer struct {
	progress func(text string) // told what takes long; safe for many goroutines

	mu     sync.Mutex
	stuck  map[string]time.Time // guarded by mu: checks whose measurement has not come back, since when
	failed map[string]string    // guarded by mu: of the present round
}

func newMeasurer() *measurer { return &measurer{stuck: map[string]time.Time{}} }

// begin starts a round.
func (m *measurer) begin(progress func(string)) {
	if progress == nil {
		progress = func(string) {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress, m.failed = progress, map[string]string{}
}

func (m *measurer) fail(check, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed[check] = why
}

// within runs f for a check and waits for it, limit at most. ok is false where
// there was no answer or an error; that is noted then.
func within[T any](ctx context.Context, m *measurer, check string, limit time.Duration, f func(context.Context) (T, error)) (value T, ok bool) {
	m.mu.Lock()
	since, stuck := m.stuck[check]
	if !stuck {
		m.stuck[check] = time.Now()
	}
	m.mu.Unlock()
	if stuck {
		m.fail(check, fmt.Sprintf("no answer since %s", since.Format(time.TimeOnly)))
		return value, false
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	came := make(chan answer, 1) // nobody may be waiting any more
	go func() {
		v, err := f(ctx)
		m.mu.Lock()
		delete(m.stuck, check)
		m.mu.Unlock()
		came <- answer{v, err}
	}()
	wait := time.NewTimer(slow)
	defer wait.Stop()
	for {
		select {
		case a := <-came:
			if a.err != nil {
				m.fail(check, reason(a.err, limit))
				return value, false
			}
			return a.value, true
		case <-wait.C:
			m.progress(check + ": no answer yet")
		case <-ctx.Done():
			select { // an answer that is there counts
			case a := <-came:
				if a.err == nil {
					return a.value, true
				}
			default:
				go func() { // what comes too late is nobody's
					a := <-came
					if c, ok := any(a.value).(interface{ close() }); ok && a.err == nil {
						c.close()
					}
				}()
			}
			m.fail(check, reason(ctx.Err(), limit))
			return value, false
		}
	}
}

func reason(err error, limit time.Duration) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %d s", int(limit.Seconds()))
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	return err.Error()
}

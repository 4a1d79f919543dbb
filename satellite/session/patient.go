package session

import "time"

// patient asks what may never be answered, such as a file on a dead file
// server: one goroutine at a time asks, and nobody waits for it longer than
// they want to. It is for one caller.
type patient[V any] struct {
	pending chan V // of the goroutine that asks; nil: none does
}

// ask waits at most limit for the answer of f. While an earlier question is
// not answered there is no second one and no waiting.
func (p *patient[V]) ask(limit time.Duration, f func() V) (v V, ok bool) {
	if p.pending == nil {
		pending := make(chan V, 1) // so that nobody needs to take the answer
		p.pending = pending
		go func() { pending <- f() }()
	} else {
		limit = 0
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case v = <-p.pending:
	case <-timer.C:
		select { // an answer that is there is always taken
		case v = <-p.pending:
		default:
			return v, false
		}
	}
	p.pending = nil
	return v, true
}

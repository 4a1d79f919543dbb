package link

import (
	"context"
	"sync"

	pb "verdecmd/proto"
)

// line is one live attachment. There may be ten thousand: what a quiet one
// holds counts, so it has nothing that only messages down need.
type line struct {
	uuid, name         string
	server, attachment uint64
	stream             pb.Link_AttachServer
	done               <-chan struct{} // closed when the line has ended
	end                context.CancelFunc
	takes              bool // trust bundles

	mu      sync.Mutex                 // guards what follows
	out     []*pb.Down                 // to be sent
	sending bool                       // a goroutine sends what is in out
	waiting map[uint64]chan *pb.Result // by order; nil where there are none
	parts   []*pb.TrustPart            // of a trust bundle, to be sent
	sent    chan struct{}              // closed when they are; nil: none are to be sent
}

// mostOut is how many messages may wait for a satellite that does not read.
const mostOut = 64

// post queues a message. A satellite that does not read loses its link.
func (l *line) post(d *pb.Down) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.out) >= mostOut {
		l.end()
		return false
	}
	l.out = append(l.out, d)
	l.start()
	return true
}

// flush sends what is there.
func (l *line) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start()
}

// start needs l.mu.
func (l *line) start() {
	if !l.sending {
		l.sending = true
		go l.send()
	}
}

// send writes what is posted until nothing is left. It ends soon after the link
// has, and not before: a satellite that does not read holds it up until then.
func (l *line) send() {
	for {
		l.mu.Lock()
		d := l.next()
		if d == nil {
			l.sending = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		select {
		case <-l.done:
			return
		default:
		}
		if l.stream.Send(d) != nil {
			l.end()
			return
		}
	}
}

// await makes the place for the result of an order.
func (l *line) await(order uint64) chan *pb.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting == nil {
		l.waiting = map[uint64]chan *pb.Result{}
	}
	result := make(chan *pb.Result, 1)
	l.waiting[order] = result
	return result
}

// forget takes the place of an order away and returns it; nil: there is none.
func (l *line) forget(order uint64) chan *pb.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	result := l.waiting[order]
	if delete(l.waiting, order); len(l.waiting) == 0 {
		l.waiting = nil
	}
	return result
}

func (l *line) settle(r *pb.Result) {
	if result := l.forget(r.Order); result != nil {
		result <- r
	}
}

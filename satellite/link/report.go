package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// reporter sends what goes up one connection and takes in what comes down.
type reporter struct {
	link    *Link
	stream  pb.Link_AttachClient
	version uint64 // of the news last sent
	results chan *pb.Result
	pace    chan *pb.Pace
	self    time.Duration // lease; 0: none

	mu   sync.Mutex
	sent map[uint64]time.Duration // Uptime of reports whose lease answer is awaited; guarded by mu
	done map[uint64]*pb.Result
}

// run sends reports at their pace, and at once when something changes.
func (r *reporter) run(ctx context.Context, p *pb.Pace) error {
	host := r.link.cfg.Host
	interval, next := start(p)
	timer := time.NewTimer(next)
	defer timer.Stop()
	var seq uint64
	due := time.Now().Add(next)
	for {
		// Changed first: what happens after it closes the channel.
		changed := host.Changed()
		news := host.News(r.version)
		if news.Version == r.version {
			select {
			case <-ctx.Done():
				return nil
			case p := <-r.pace:
				interval, next = start(p)
				due = time.Now().Add(next)
				timer.Reset(next)
				continue
			case res := <-r.results:
				if err := r.stream.Send(&pb.Up{Kind: &pb.Up_Result{Result: res}}); err != nil {
					return err
				}
				continue
			case <-changed:
				continue
			case <-timer.C:
				for now := time.Now(); !due.After(now); { // stays in its slot
					due = due.Add(interval)
				}
				timer.Reset(time.Until(due))
			}
			if seq%everyFull != 0 {
				news.Sessions = nil
			}
		}
		seq++
		r.version = news.Version
		if r.self > 0 {
			r.mu.Lock()
			r.sent[seq] = host.Uptime()
			r.mu.Unlock()
		}
		r.link.told = news.Version
		report := &pb.Report{Load: host.Sample(), Sessions: news.Sessions, Ended: news.Ended, Refused: news.Refused, Seq: seq}
		if err := r.stream.Send(&pb.Up{Kind: &pb.Up_Report{Report: report}}); err != nil {
			return err
		}
	}
}

func start(p *pb.Pace) (interval, next time.Duration) {
	interval = time.Duration(min(max(p.IntervalMs, 100), 3600_000)) * time.Millisecond
	return interval, time.Duration(p.SlotMs)*time.Millisecond%interval + interval/100
}

// receive carries out what the master sends until the connection ends.
func (r *reporter) receive(c *conn) error {
	host := r.link.cfg.Host
	r.done = map[uint64]*pb.Result{}
	for {
		down, err := r.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch k := down.Kind.(type) {
		case *pb.Down_Order:
			select {
			case r.results <- r.obey(c, k.Order):
			case <-c.ctx.Done():
			}
		case *pb.Down_Pace:
			select {
			case r.pace <- k.Pace:
			case <-c.ctx.Done():
			}
		case *pb.Down_Lease:
			r.mu.Lock()
			from, ok := r.sent[k.Lease.Report]
			for seq := range r.sent {
				if seq <= k.Lease.Report {
					delete(r.sent, seq)
				}
			}
			r.mu.Unlock()
			if ok {
				host.Lease(from, r.self)
			}
		}
	}
}

// obey carries out an order once and remembers its result.
func (r *reporter) obey(c *conn, o *pb.Order) *pb.Result {
	if res := r.done[o.Id]; res != nil {
		return res
	}
	err := r.link.carryOut(c, o)
	if len(r.done) >= maxResults {
		clear(r.done) // orders are idempotent; this only saves work
	}
	res := &pb.Result{Order: o.Id, Error: wire.Detail(err)}
	r.done[o.Id] = res
	return res
}

func (l *Link) carryOut(c *conn, o *pb.Order) error {
	if seen := l.cfg.Host.Epoch(); o.Epoch < seen || o.Epoch != c.epoch {
		return wire.Errorf(wire.OldEpoch, "order of epoch %d refused, epoch %d has been seen", o.Epoch, seen)
	}
	s, ok := o.Kind.(*pb.Order_Session)
	if !ok {
		return wire.Errorf(wire.BadRequest, "this satellite does not know this kind of order; install the same version as on the master")
	}
	return l.cfg.Host.Order(s.Session)
}

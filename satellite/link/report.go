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
	results chan *pb.Result
	pace    chan *pb.Pace
	acks    chan *pb.TrustAck

	mu  sync.Mutex // guards end, held for one call
	end *End
}

// run sends reports at their pace, and at once when something changes.
func (r *reporter) run(ctx context.Context, p *pb.Pace) error {
	host := r.link.cfg.Host
	interval, next := wire.Slot(p)
	timer := time.NewTimer(next)
	defer timer.Stop()
	due := time.Now().Add(next)
	for {
		// Changed first: what happens after it closes the channel.
		changed := host.Changed()
		report := r.report(false)
		if report == nil {
			select {
			case <-ctx.Done():
				return nil
			case p := <-r.pace:
				interval, next = wire.Slot(p)
				due = time.Now().Add(next)
				timer.Reset(next)
				continue
			case res := <-r.results:
				if err := r.stream.Send(&pb.Up{Kind: &pb.Up_Result{Result: res}}); err != nil {
					return err
				}
				continue
			case ack := <-r.acks:
				if err := r.stream.Send(&pb.Up{Kind: &pb.Up_TrustAck{TrustAck: ack}}); err != nil {
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
			report = r.report(true)
		}
		report.Load, report.NowUnixMs = host.Sample(), time.Now().UnixMilli()
		if err := r.stream.Send(&pb.Up{Kind: &pb.Up_Report{Report: report}}); err != nil {
			return err
		}
	}
}

// report is what is to be sent now, if anything.
func (r *reporter) report(due bool) *pb.Report {
	host := r.link.cfg.Host
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.end.Report(host.News(r.end.Told()), due, host.Uptime())
	r.link.told = r.end.Told()
	return report
}

// receive carries out what the master sends until the connection ends.
func (r *reporter) receive(c *conn) error {
	host := r.link.cfg.Host
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
			case r.results <- r.obey(k.Order):
			case <-c.ctx.Done():
			}
		case *pb.Down_Pace:
			select {
			case r.pace <- k.Pace:
			case <-c.ctx.Done():
			}
		case *pb.Down_Lease:
			r.mu.Lock()
			from, self, ok := r.end.Leased(k.Lease)
			r.mu.Unlock()
			if ok {
				host.Lease(from, self)
			}
		case *pb.Down_Trust:
			r.believe(c, k.Trust)
		}
	}
}

// obey carries out an order once and remembers its result.
func (r *reporter) obey(o *pb.Order) *pb.Result {
	host := r.link.cfg.Host
	r.mu.Lock()
	res, order := r.end.Order(o, host.Epoch())
	r.mu.Unlock()
	if order == nil {
		return res
	}
	err := host.Order(order) // may take a while
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end.Did(o, err)
}

package main

import (
	"context"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"verdecmd/master/host"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// puppet is a satellite's link without a satellite, to a real master: it is
// idle, has plenty of everything, and comes back whenever it loses the master.
type puppet struct {
	protocol uint32
	memory   uint64 // bytes; by itself so much that logins are referred to it
	version  string
	ahead    time.Duration // its clock
	reports  atomic.Int64
	ups      atomic.Int64 // links that were welcomed
	end      func()
}

// puppet enrols the nth satellite and keeps its link until end is called. It
// fits a cluster of newReal's settings.
func (r *real) puppet(t *testing.T, n int, change func(*puppet)) *puppet {
	t.Helper()
	name := "sat" + strconv.Itoa(n)
	if _, err := os.Stat(r.path("k" + name)); err != nil {
		_, err := host.Enrol(r.path("master/pki"), name, r.path("k"+name), time.Now())
		check(t, err)
	}
	creds, err := wire.Load(r.path("k"+name), wire.Satellite)
	check(t, err)
	l := &puppet{protocol: wire.Protocol, memory: 1 << 40, version: version}
	if change != nil {
		change(l)
	}
	dial := wire.DialOptions(creds)
	if r.dial != nil {
		dial = append(dial, grpc.WithContextDialer(r.dial))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			l.once(ctx, r.address, dial)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	l.end = func() { cancel(); <-done }
	return l
}

func (l *puppet) report() *pb.Report {
	return &pb.Report{Load: &pb.Load{MemoryTotal: l.memory, MemoryFree: l.memory, SnapFree: 1 << 40, HomeFree: 1 << 40}, Sessions: &pb.Sessions{}, NowUnixMs: time.Now().Add(l.ahead).UnixMilli()}
}

// once keeps one link until it breaks. It obeys the pace as satellites do.
func (l *puppet) once(ctx context.Context, address string, dial []grpc.DialOption) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+address, dial...)
	if err != nil {
		return
	}
	defer cc.Close()
	stream, err := pb.NewLinkClient(cc).Attach(ctx)
	if err != nil {
		return
	}
	err = stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: &pb.Hello{Protocol: l.protocol, Version: l.version, Address: "127.0.0.1", Instance: "puppet",
		Facts: &pb.HostFacts{Arch: "x86_64", Cpus: 64, MemoryBytes: l.memory, Accelerator: "tcg"}, Report: l.report()}}})
	if err != nil {
		return
	}
	paces := make(chan *pb.Pace, 1)
	go func() {
		defer cancel()
		for {
			down, err := stream.Recv()
			if err != nil {
				return
			}
			pace := down.GetPace()
			if w := down.GetWelcome(); w != nil {
				pace = w.Pace
				l.ups.Add(1)
			}
			if pace != nil {
				select {
				case paces <- pace:
				case <-ctx.Done():
				}
			}
		}
	}()
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-paces:
			tick.Reset(time.Duration(p.IntervalMs) * time.Millisecond)
		case <-tick.C:
			l.reports.Add(1)
			if stream.Send(&pb.Up{Kind: &pb.Up_Report{Report: l.report()}}) != nil {
				return
			}
		}
	}
}

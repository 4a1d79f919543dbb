package master

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/link"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// V-12: a master that cannot keep up asks for reports less often, says so, lets
// nobody's reports grow too old by it, and goes back when there is room.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spent atomic.Int64 // processor time
		listen := func() net.Listener { return bufconn.Listen(1 << 16) }
		m, err := New(t.Context(), Config{
			Monitor: listen(), Link: listen(), Store: store.NewMem(), Epoch: 1, Accounts: names{},
			Limits: cluster.Limits{Interval: 3 * time.Second, ReservationTimeout: time.Minute},
			Used:   func() time.Duration { return time.Duration(spent.Load()) }, Log: zerolog.Nop(),
		})
		if err != nil {
			t.Fatal(err)
		}
		s := &seated{Master: m, backend: backend{m}}
		s.run(t)
		server, attachment := s.attach(t, "one", 0)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		// work lets seconds pass in which so large a part of the processors is busy.
		work := func(seconds int, share float64) {
			for range seconds {
				time.Sleep(time.Second)
				spent.Add(int64(share * float64(time.Second) * float64(runtime.GOMAXPROCS(0))))
			}
			synctest.Wait()
		}
		linked := func() (link string) {
			m.with(func(c *cluster.Cluster) { link = c.Link(c.Server(server), time.Now()) })
			return link
		}

		time.Sleep(time.Second / 2) // never at the instant at which the master looks
		work(60, 0.5)
		if o := s.backend.Overview(); o.Interval != 3*time.Second || o.IntervalWhy != "" {
			t.Errorf("after a minute at 50 %%: every %v because %q, want every 3s as wished", o.Interval, o.IntervalWhy)
		}
		if err := m.hub.Report(ctx, server, attachment, link.Report{Load: load()}); err != nil {
			t.Fatal(err)
		}
		work(31, 0.85)
		o := s.backend.Overview()
		if o.Interval != 4500*time.Millisecond || o.Wish != 3*time.Second || o.IntervalWhy != "the master alone keeps its processors 85 % busy" {
			t.Errorf("after half a minute at 85 %%: every %v, wished %v, because %q; want 4.5s, 3s, and why", o.Interval, o.Wish, o.IntervalWhy)
		}
		if err := m.hub.Report(ctx, server, attachment, link.Report{Load: load()}); err != nil {
			t.Fatal(err)
		}
		work(13, 0.85) // below three of the intervals in force
		if got := linked(); got != "up" {
			t.Errorf("13 s after its last report, at an interval of %v: got %s, want up", o.Interval, got)
		}

		// A wish takes the place of a stretch at once, and what was sent under the
		// longer interval does not grow too old by that.
		l := m.pace.wish
		l.Interval = 2 * time.Second
		m.SetLimits(l)
		if o := s.backend.Overview(); o.Interval != 2*time.Second || o.IntervalWhy != "" || linked() != "up" {
			t.Errorf("after a new wish: every %v because %q, link %s; want every 2s as wished, up", o.Interval, o.IntervalWhy, linked())
		}
		work(40, 0.85)
		work(75, 0.1)
		if o := s.backend.Overview(); o.Interval != 2*time.Second || o.IntervalWhy != "" {
			t.Errorf("after a calm minute: every %v because %q, want every 2s as wished", o.Interval, o.IntervalWhy)
		}
		var told []any
		events, _, _ := s.backend.Since(0)
		for _, e := range events {
			if e.Type == "master.interval" {
				told = append(told, value(e, "interval"))
			}
		}
		if want := []any{4.5, 3.0, 2.0}; !slices.Equal(told, want) {
			t.Errorf("events told of intervals %v, want %v", told, want)
		}
	})
}

func value(e monitor.Event, key string) any {
	for _, p := range e.Pairs {
		if p.Key == key {
			return p.Value
		}
	}
	return nil
}

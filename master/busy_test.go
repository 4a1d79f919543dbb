package master

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"verdecmd/master/link"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// client talks with a master, one command at a time.
type client struct {
	t  testing.TB
	cl *monitor.Client
}

func (s *seated) dial(t testing.TB) client {
	t.Helper()
	cl, err := monitor.Dial(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return client{t, cl}
}

// ask returns the code of the final reply and how many rows stood before it.
func (c client) ask(line string) (code, rows int, err error) {
	if err := c.cl.Send(line); err != nil {
		return 0, 0, err
	}
	for {
		l, err := c.cl.Read()
		if err != nil {
			return 0, 0, err
		}
		if l.End() {
			return l.Code, rows, nil
		}
		rows++
	}
}

// p99 of a sorted copy.
func p99(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

// V-28: 200 commands that wait and a client that lists in a loop delay neither ping
// nor the reports of satellites. The times are told, not asserted: the machine
// of a test may be busy itself.
func TestBusyAdministrators(t *testing.T) {
	const waiting = 200
	s := seat(t, store.NewMem(), 1, 0)
	s.run(t)
	server, attachment := s.attach(t, "one", waiting)

	measure := func(span time.Duration) (ping, report time.Duration) {
		var pings, reports []time.Duration
		c := s.dial(t)
		for end := time.Now().Add(span); time.Now().Before(end); {
			start := time.Now()
			if code, _, err := c.ask("ping"); code != 200 {
				t.Fatalf("ping: %d, %v", code, err)
			}
			pings = append(pings, time.Since(start))
			start = time.Now()
			if err := s.Master.hub.Report(t.Context(), server, attachment, link.Report{Load: load(), Sessions: reported(waiting)}); err != nil {
				t.Fatal(err)
			}
			reports = append(reports, time.Since(start))
		}
		return p99(pings), p99(reports)
	}
	ping, report := measure(300 * time.Millisecond)
	t.Logf("idle: p99 of ping %v, of a report of %d sessions %v", ping, waiting, report)

	var wg sync.WaitGroup
	defer wg.Wait() // they end with the master, which ends before
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range waiting {
		c := s.dial(t)
		wg.Go(func() { c.ask(fmt.Sprintf("logoffuser u%d timeout=1h", i)) })
		defer c.cl.Close()
	}
	lister := s.dial(t)
	for { // until all of them wait
		_, rows, err := lister.ask("jobs")
		if err != nil {
			t.Fatal(err)
		}
		if rows == waiting+1 {
			break
		}
	}
	lists := 0
	listed := make(chan struct{})
	go func() {
		defer close(listed)
		for ctx.Err() == nil {
			if code, rows, err := lister.ask("users"); code != 210 || rows != waiting+1 {
				t.Errorf("users: %d with %d rows, %v", code, rows, err)
				return
			}
			lists++
		}
	}()
	ping, report = measure(time.Second)
	stop()
	<-listed
	t.Logf("%d logoffuser wait, one client has listed %d times: p99 of ping %v, of a report %v", waiting, lists, ping, report)
	if list, _ := s.Jobs(false); len(list) != waiting {
		t.Errorf("%d jobs are under way, want %d", len(list), waiting)
	}
}

package link

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "verdecmd/proto"
)

// Row D: a satellite that reports without a pause loses its link and is told
// why; one that tells a thousand changes at once, and goes on at its pace, does
// not.
func TestFloodOfReports(t *testing.T) {
	bubble(t, Times{}, func(t *testing.T, r *rig) {
		p := r.dial(r.creds("sat1"))
		defer p.cc.Close()
		p.hello()
		report := func() error { return p.stream.Send(&pb.Up{Kind: &pb.Up_Report{Report: &pb.Report{}}}) }
		count := func() int {
			synctest.Wait()
			return strings.Count(r.hub.take(), "report")
		}
		for range messageBurst {
			report()
		}
		if n := count(); n != messageBurst {
			t.Errorf("%d of %d reports were taken in", n, messageBurst)
		}
		for range 100 {
			time.Sleep(time.Second / messageRate)
			report()
		}
		if n := count(); n != 100 {
			t.Errorf("%d of 100 reports at their pace were taken in", n)
		}
		for range 2 * messageBurst {
			if report() != nil {
				break
			}
		}
		if err := p.failure(); !strings.Contains(err.Error(), "no satellite does that") {
			t.Errorf("the flood ended with %v", err)
		}
		if n := count(); n > 1 {
			t.Errorf("%d reports of the flood were taken in", n)
		}
	})
}

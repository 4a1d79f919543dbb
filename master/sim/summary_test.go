package sim

import (
	"strings"
	"testing"
)

// Histories that are worth too little do not count.
func TestThresholds(t *testing.T) {
	enough := func() *Summary {
		s := &Summary{Seed: 1}
		for i := range manyHistories {
			h := History{Seed: uint64(i), width: [4]int{minSatellites, minUsers, minSeconds, minFaults}, stats: newStats()}
			h.stats.effective["place"] = minOperations
			for _, k := range kinds() {
				h.stats.faults[k] = 1
			}
			for _, r := range refusals {
				h.stats.refusals[generic(r.text)] = 1
			}
			s.add(h)
		}
		return s
	}
	last := func(s *Summary, change func(h *History)) {
		h := History{Seed: 1, width: [4]int{minSatellites, minUsers, minSeconds, minFaults}, stats: newStats()}
		h.stats.effective["place"] = minOperations
		change(&h)
		s.add(h)
	}
	tests := map[string]struct {
		change func(s *Summary)
		want   string
	}{
		"enough":             {func(*Summary) {}, ""},
		"too few satellites": {func(s *Summary) { last(s, func(h *History) { h.width[0]-- }) }, "4 satellites, at least 5"},
		"too few users":      {func(s *Summary) { last(s, func(h *History) { h.width[1]-- }) }, "49 users"},
		"too short":          {func(s *Summary) { last(s, func(h *History) { h.width[2]-- }) }, "599 seconds"},
		"too few faults":     {func(s *Summary) { last(s, func(h *History) { h.width[3]-- }) }, "2 faults"},
		"too little happens": {func(s *Summary) { last(s, func(h *History) { h.stats.effective["place"]-- }) }, "499 effective operations"},
		"a fault never":      {func(s *Summary) { delete(s.faults, "partition") }, `the fault "partition" never happened`},
		"a refusal never":    {func(s *Summary) { delete(s.refusals, "draining") }, `the refusal "draining" was never given`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := enough()
			tt.change(s)
			s.finish()
			got := strings.Join(s.Problems(), "; ")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// The summary prints what a reader has to judge it by.
func TestPrint(t *testing.T) {
	s := &Summary{}
	s.add(Play(Config{Satellite: newHonest("")}, 3))
	s.finish()
	var b strings.Builder
	s.Print(&b)
	for _, want := range []string{"1 histories", "least", "median", "most", "effective operations", "faults:", "refusals:", "clock drift"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
}

package placement

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const gib = 1 << 30

func idle(id uint64) Server {
	return Server{ID: id, FreshUntil: time.Second, Memory: 8 * gib, Free: 8 * gib, SnapFree: gib}
}

func table(all ...Server) *Table {
	var t Table
	for _, s := range all {
		t.Add(s)
	}
	return &t
}

// V-92, V-07, V-38: what keeps a session away from a server.
func TestCheck(t *testing.T) {
	tests := map[string]struct {
		change func(s *Server)
		need   Need
		now    time.Duration
		want   Reason
	}{
		"idle":                           {need: Need{Memory: gib}},
		"offline":                        {change: func(s *Server) { s.Blocked = Offline }, want: Offline},
		"fresh to the end":               {now: time.Second},
		"stale after it":                 {now: time.Second + 1, want: Stale},
		"memory to the last byte":        {need: Need{Memory: 8*gib - Overhead}},
		"one byte too much":              {need: Need{Memory: 8*gib - Overhead + 1}, want: NoMemory},
		"promised to the last byte":      {change: func(s *Server) { s.Charged = 6 * gib }, need: Need{Memory: 2*gib - Overhead}},
		"promised too much":              {change: func(s *Server) { s.Charged = 6*gib + 1 }, need: Need{Memory: 2*gib - Overhead}, want: NoMemory},
		"more promised than there is":    {change: func(s *Server) { s.Charged = math.MaxUint64 }, want: NoMemory},
		"used by others":                 {change: func(s *Server) { s.Free = gib }, need: Need{Memory: gib}, want: NoMemory},
		"a need beyond all numbers":      {need: Need{Memory: math.MaxUint64}, want: NoMemory},
		"a need whose sum wraps to 0":    {need: Need{Memory: math.MaxUint64 - Overhead + 1}, want: NoMemory},
		"snapshots to the last byte":     {need: Need{Snap: gib}},
		"no space for snapshots":         {need: Need{Snap: gib + 1}, want: NoSnap},
		"reserve reached, nothing asked": {change: func(s *Server) { s.SnapFree = 0 }, want: NoSnap},
		"has what is required":           {change: func(s *Server) { s.Features = []string{"kvm", "vmx"} }, need: Need{Requires: []string{"vmx", "kvm"}}},
		"lacks what is required":         {change: func(s *Server) { s.Features = []string{"kvm"} }, need: Need{Requires: []string{"vmx"}}, want: Feature},
		"has what is avoided":            {change: func(s *Server) { s.Features = []string{"svm"} }, need: Need{Avoid: []string{"svm"}}, want: Feature},
		"busy is no obstacle":            {change: func(s *Server) { s.CPU = 1.5 }},
		"load is not a number":           {change: func(s *Server) { s.CPU = math.NaN() }, want: Unfit},
		"load is negative":               {change: func(s *Server) { s.CPU = -1 }, want: Unfit},
		"load is infinite":               {change: func(s *Server) { s.CPU = math.Inf(1) }, want: Unfit},
		"share is not a number":          {change: func(s *Server) { s.Share = math.NaN() }, want: Unfit},
		"offline before all else":        {change: func(s *Server) { s.Blocked, s.CPU, s.Free = Offline, math.NaN(), 0 }, want: Offline},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := idle(1)
			if test.change != nil {
				test.change(&s)
			}
			all := table(s)
			if got := all.Server(0).Check(test.now, &test.need); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if got := all.Choose(test.now, &test.need) == 0; got != (test.want == Eligible) {
				t.Errorf("chosen: %v, and the reason is %v", got, test.want)
			}
		})
	}
}

// DESIGN 5: the largest of three shares counts, the lower ID decides ties.
func TestChoose(t *testing.T) {
	with := func(id uint64, change func(s *Server)) Server {
		s := idle(id)
		change(&s)
		return s
	}
	tests := map[string]struct {
		servers []Server
		want    uint64 // ID, 0: none
		score   int64
	}{
		"none":                  {},
		"the only one":          {servers: []Server{idle(7)}, want: 7, score: 140},
		"the lower ID":          {servers: []Server{idle(7), idle(3), idle(5)}, want: 3, score: 140},
		"less memory promised":  {servers: []Server{with(1, func(s *Server) { s.Charged = gib }), idle(2)}, want: 2, score: 140},
		"the larger one":        {servers: []Server{idle(1), with(2, func(s *Server) { s.Memory, s.Free = 16*gib, 16*gib })}, want: 2, score: 70},
		"processors count":      {servers: []Server{with(1, func(s *Server) { s.CPU = 0.9 }), with(2, func(s *Server) { s.Charged = 4 * gib })}, want: 2, score: 640},
		"allowed ones count":    {servers: []Server{with(1, func(s *Server) { s.Share = 0.9 }), with(2, func(s *Server) { s.CPU = 0.8 })}, want: 2, score: 800},
		"better, but blocked":   {servers: []Server{with(1, func(s *Server) { s.Blocked = Down }), with(2, func(s *Server) { s.CPU = 0.8 })}, want: 2, score: 800},
		"better, but full disk": {servers: []Server{with(1, func(s *Server) { s.SnapFree = 0 }), with(2, func(s *Server) { s.CPU = 0.8 })}, want: 2, score: 800},
		"not a number first":    {servers: []Server{with(1, func(s *Server) { s.CPU = math.NaN() }), with(2, func(s *Server) { s.CPU = 0.8 })}, want: 2, score: 800},
		"nobody":                {servers: []Server{with(1, func(s *Server) { s.Blocked = Full }), with(2, func(s *Server) { s.Free = 0 })}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			all := table(test.servers...)
			need := Need{Memory: gib}
			var got uint64
			i := all.Choose(0, &need)
			if i >= 0 {
				got = all.Server(i).ID
			}
			if got != test.want || i >= 0 && all.Score(i, &need) != test.score {
				t.Errorf("got %d, want %d with score %d; %+v", got, test.want, test.score, all.Explain(0, &need))
			}
		})
	}
}

// CPUShare counts what the measurement cannot have seen.
func TestCPUShare(t *testing.T) {
	for _, test := range []struct {
		busy        float64
		fresh, cpus int
		want        float64
	}{{0.5, 0, 4, 0.5}, {0.5, 8, 4, 0.6}, {0, 1, 0, 0.05}, {0, 1, -3, 0.05}} {
		if got := CPUShare(test.busy, test.fresh, test.cpus); math.Abs(got-test.want) > 1e-12 {
			t.Errorf("CPUShare(%v, %d, %d): got %v, want %v", test.busy, test.fresh, test.cpus, got, test.want)
		}
	}
}

func draw(t *rapid.T, id uint64) Server {
	shares := rapid.OneOf(rapid.Float64Range(0, 1.5), rapid.SampledFrom([]float64{0, 0.25, 0.5, math.NaN(), -1, math.Inf(1)}))
	sizes := rapid.OneOf(rapid.Uint64Range(0, 16*gib), rapid.SampledFrom([]uint64{0, 8 * gib, math.MaxUint64}))
	return Server{ID: id, FreshUntil: time.Duration(rapid.IntRange(-1, 2).Draw(t, "fresh")), Blocked: rapid.SampledFrom([]Reason{0, 0, 0, Offline, Full}).Draw(t, "blocked"),
		Memory: sizes.Draw(t, "memory"), Charged: sizes.Draw(t, "charged"), Free: sizes.Draw(t, "free"), SnapFree: sizes.Draw(t, "snap"),
		CPU: shares.Draw(t, "cpu"), Share: shares.Draw(t, "share"), Features: rapid.SampledFrom([][]string{nil, {"kvm"}, {"kvm", "svm"}}).Draw(t, "features")}
}

// The choice, its explanation and the survey tell the same, whatever servers
// report, and in whatever order they were added.
func TestChoiceIsExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var servers []Server
		for i := range rapid.IntRange(0, 8).Draw(t, "servers") {
			servers = append(servers, draw(t, uint64(i+1)))
		}
		all := table(servers...)
		need := Need{Memory: rapid.SampledFrom([]uint64{0, gib, math.MaxUint64}).Draw(t, "need"), Requires: rapid.SampledFrom([][]string{nil, {"kvm"}}).Draw(t, "requires")}
		chosen := all.Choose(1, &need)
		explained := all.Explain(1, &need)
		counts, first := all.Survey(1, &need)
		if len(explained) != len(servers) {
			t.Fatalf("%d of %d servers explained", len(explained), len(servers))
		}
		sum := 0
		for r, n := range counts {
			sum += n
			if (n > 0) != (first[r] >= 0) {
				t.Fatalf("%d servers are %v, the first of them %d", n, Reason(r), first[r])
			}
		}
		switch {
		case sum != len(servers):
			t.Fatalf("%d of %d servers surveyed", sum, len(servers))
		case chosen < 0 && counts[Eligible] > 0, chosen >= 0 && explained[0].Reason != Eligible, chosen >= 0 && all.Server(chosen).ID != explained[0].ID:
			t.Fatalf("chosen %d, explained %+v", chosen, explained)
		}
		for i := 1; i < len(explained); i++ {
			a, b := explained[i-1], explained[i]
			if a.Reason == Eligible && b.Reason == Eligible && a.Score > b.Score || a.Reason != Eligible && (b.Reason == Eligible || a.ID > b.ID) {
				t.Fatalf("%+v before %+v", a, b)
			}
		}
		slices.Reverse(servers)
		other := table(servers...)
		if i := other.Choose(1, &need); (i < 0) != (chosen < 0) || i >= 0 && other.Server(i).ID != all.Server(chosen).ID {
			t.Fatalf("in reverse order another one is chosen: %d and %d", i, chosen)
		}
	})
}

// Every reason has words.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reasons {
		if text := fmt.Sprint(r); text == "" || seen[text] {
			t.Errorf("reason %d says %q", uint8(r), text)
		} else {
			seen[text] = true
		}
	}
}

// The server that takes the place of a removed one is still found.
func TestRemove(t *testing.T) {
	var table Table
	for id := uint64(1); id <= 4; id++ {
		table.Add(Server{ID: id, FreshUntil: time.Hour, Memory: 1 << 40, Free: 1 << 40, SnapFree: 1, CPU: float64(id) / 10})
	}
	table.Remove(0) // 4 2 3
	table.Remove(2) // 4 2
	if table.Len() != 2 || table.Server(0).ID != 4 || table.Server(1).ID != 2 {
		t.Fatalf("left are %d: %v", table.Len(), table.all)
	}
	if i := table.Choose(0, &Need{}); i != 1 {
		t.Errorf("chosen is %d, want 1: the server 2", i)
	}
	table.Remove(1)
	table.Remove(0)
	if i := table.Choose(0, &Need{}); i != -1 {
		t.Errorf("chosen of none is %d", i)
	}
}

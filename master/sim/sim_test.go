package sim

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"
)

// S1, S3 to S9, S11, LV1 to LV3: histories with a satellite that does the least
// keep all promises, under the race detector. "verdecmd simulate --check" lets
// 2,000 happen with the real satellite's rules.
func TestHistories(t *testing.T) {
	sum := Run(context.Background(), Options{Config: Config{Satellite: newHonest("")}, Seed: 1, Histories: 12, Workers: runtime.GOMAXPROCS(0)})
	for _, h := range sum.Bad {
		var b strings.Builder
		Shrink(Config{Satellite: newHonest("")}, h).Print(&b)
		t.Errorf("%s", b.String())
	}
	if p := sum.Problems(); len(p) > 0 {
		t.Errorf("these histories prove too little: %q", p)
	}
}

// The same seed gives the same trace, whether it is kept or not, and other
// seeds give others.
func TestSameSeedSameTrace(t *testing.T) {
	seen := map[uint64]uint64{}
	for _, seed := range []uint64{1, 2, 3, 17, 4711, 1 << 40} {
		one := Play(Config{Satellite: newHonest("")}, seed)
		two := Play(Config{Satellite: newHonest(""), Trace: true}, seed)
		if one.Hash != two.Hash {
			t.Errorf("seed %d: traces %016x and %016x", seed, one.Hash, two.Hash)
		}
		if other, ok := seen[one.Hash]; ok {
			t.Errorf("seeds %d and %d have the same trace", seed, other)
		}
		seen[one.Hash] = seed
		if len(two.Lines) < 1000 {
			t.Errorf("seed %d: %d lines", seed, len(two.Lines))
		}
	}
}

// What Run finds does not depend on the number of workers.
func TestWorkers(t *testing.T) {
	var sums []*Summary
	for _, workers := range []int{1, 4} {
		sums = append(sums, Run(context.Background(), Options{Config: Config{Satellite: newHonest("starts unasked")}, Seed: 5, Histories: 6, Workers: workers}))
	}
	for _, s := range sums {
		if len(s.Bad) == 0 || s.Bad[0].Seed != 5 {
			t.Errorf("got %v, want the violation of seed 5 first", s.Bad)
		}
	}
}

// Run ends with its context.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	sum := Run(ctx, Options{Config: Config{Satellite: newHonest("")}, Seed: 1, Histories: 1 << 20, Workers: 2, Progress: func(int, int) { cancel() }})
	if sum.Histories < 1 || sum.Histories > 3 {
		t.Errorf("got %d histories", sum.Histories)
	}
}

// Satellites that break a promise are found out, by the right checker.
func TestWrongSatellites(t *testing.T) {
	for wrong, want := range map[string]string{
		"starts unasked": "S4",
		"obeys the old":  "S9",
		"forgets":        "LV1 S1 S8 end", // takes no answer for the end of a desktop
		"kills":          "S7",
	} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			sum := Run(context.Background(), Options{Config: Config{Satellite: newHonest(wrong)}, Seed: 1, Histories: 60, Workers: 1})
			if len(sum.Bad) == 0 {
				t.Fatalf("not found in %d histories", sum.Histories)
			}
			if v := sum.Bad[0].Violation; !strings.Contains(" "+want+" ", " "+v.Check+" ") {
				t.Errorf("got %v, want %s", v, want)
			}
		})
	}
}

// Events of the same time happen in the order in which they were made.
func TestQueue(t *testing.T) {
	var q queue
	d := dice(7)
	for range 5000 {
		q.push(d.between(0, 100*time.Nanosecond), nil)
	}
	last := event{at: -1}
	for range 5000 {
		e := q.pop()
		if e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("%v %d came after %v %d", e.at, e.seq, last.at, last.seq)
		}
		last = e
	}
}

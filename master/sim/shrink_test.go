package sim

import (
	"slices"
	"strings"
	"testing"
)

// Shrinking keeps the steps that are needed and drops the rest.
func TestShrinkSteps(t *testing.T) {
	tests := map[string]struct {
		n    int
		need []int // ids
	}{
		"one step":            {100, []int{63}},
		"two far apart":       {100, []int{2, 97}},
		"the first":           {7, []int{0}},
		"the last":            {8, []int{7}},
		"all":                 {5, []int{0, 1, 2, 3, 4}},
		"some of an odd many": {33, []int{0, 16, 17, 32}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var steps []step
			for id := range tt.n {
				steps = append(steps, step{id: id})
			}
			var got []int
			for _, s := range shrink(steps, 1000, func(left []step) bool {
				for _, id := range tt.need {
					if !slices.ContainsFunc(left, func(s step) bool { return s.id == id }) {
						return false
					}
				}
				return true
			}) {
				got = append(got, s.id)
			}
			if !slices.Equal(got, tt.need) {
				t.Errorf("got %v, want %v", got, tt.need)
			}
		})
	}
	plays := 0
	shrink(make([]step, 1000), 17, func([]step) bool { plays++; return false })
	if plays != 17 {
		t.Errorf("17 plays were allowed, it took %d", plays)
	}
}

// A violation is shrunk to steps that show it again, and printed with what is
// needed to look at it.
func TestShrinkHistory(t *testing.T) {
	cfg := Config{Satellite: newHonest("starts unasked")}
	h := Play(cfg, 1)
	if h.Violation == nil {
		t.Fatal("no violation")
	}
	s := Shrink(cfg, h)
	if s.Violation == nil || s.Violation.Check != h.Violation.Check || len(s.plan.steps) > 3 {
		t.Errorf("got %v with %d steps, want %v with few", s.Violation, len(s.plan.steps), h.Violation)
	}
	var b strings.Builder
	s.Print(&b)
	for _, want := range []string{"seed 1 ", "VIOLATION S4", "login"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
}

// To take a step out changes none of the others.
func TestStepsAreIndependent(t *testing.T) {
	p := newPlan(5)
	for i, s := range p.steps {
		again := newPlan(5).steps[i]
		if s != again {
			t.Fatalf("step %d: %v and %v", i, s, again)
		}
	}
	a, b := p.steps[3].dice, p.steps[4].dice
	a.roll()
	if b != newPlan(5).steps[4].dice {
		t.Error("steps share their dice")
	}
}

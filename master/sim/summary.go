package sim

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// What a history must be worth to count, RELIABILITY 2.4.
const (
	minSatellites = 5
	minUsers      = 50
	minSeconds    = 600
	minFaults     = 3
	minOperations = 500
)

// Summary is what came of many histories.
type Summary struct {
	Seed      uint64
	Histories int
	Bad       []History // with violations, by seed
	Took      time.Duration

	started   time.Time
	figures   map[string][]int
	faults    map[string]int
	refusals  map[string]int
	effective map[string]int
	hash      uint64
	texts     map[string][]string // templates of texts
}

func (s *Summary) add(h History) {
	if s.figures == nil {
		s.texts = map[string][]string{}
		s.figures, s.faults, s.refusals, s.effective = map[string][]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	}
	s.Histories++
	s.hash += mix(h.Hash ^ h.Seed) // whatever the order
	for k, n := range h.stats.faults {
		s.faults[k] += n
	}
	for k, n := range h.stats.effective {
		s.effective[k] += n
	}
	for k, n := range h.stats.refusals {
		all, ok := s.texts[k]
		if !ok {
			if all = templates(k); len(all) == 0 {
				all = []string{"(others) " + k}
			}
			s.texts[k] = all
		}
		for _, t := range all {
			s.refusals[t] += n
		}
	}
	if h.Violation != nil {
		s.Bad = append(s.Bad, h)
		return
	}
	for i, name := range figureNames[:4] {
		s.figures[name] = append(s.figures[name], h.width[i])
	}
	s.figures[figureNames[4]] = append(s.figures[figureNames[4]], h.stats.operations())
	s.figures[figureNames[5]] = append(s.figures[figureNames[5]], h.stats.events)
}

var figureNames = []string{"satellites", "users", "seconds", "faults", "effective operations", "events"}

func (s *Summary) finish() {
	s.Took = time.Since(s.started)
	slices.SortFunc(s.Bad, func(a, b History) int { return cmp.Compare(a.Seed, b.Seed) })
	for _, all := range s.figures {
		slices.Sort(all)
	}
}

// Problems says why these histories prove nothing, if they do not. Kinds of
// faults and refusals are only missed where there were many histories.
func (s *Summary) Problems() (out []string) {
	for i, least := range []int{minSatellites, minUsers, minSeconds, minFaults, minOperations} {
		if all := s.figures[figureNames[i]]; len(all) > 0 && all[0] < least {
			out = append(out, fmt.Sprintf("a history has %d %s, at least %d are wanted", all[0], figureNames[i], least))
		}
	}
	if s.Histories < manyHistories {
		return out
	}
	for _, kind := range kinds() {
		if s.faults[kind] == 0 {
			out = append(out, fmt.Sprintf("the fault %q never happened", kind))
		}
	}
	for _, r := range refusals {
		if s.refusals[r.text] == 0 && r.unreachable == "" && (!r.rare || s.Histories >= veryMany) {
			out = append(out, fmt.Sprintf("the refusal %q was never given", r.text))
		}
	}
	return out
}

// manyHistories is from how many on every fault and every refusal must happen.
const manyHistories = 2000

// veryMany is from how many on rare refusals must be given, too.
const veryMany = 50_000

// Print writes what the histories were worth.
func (s *Summary) Print(w io.Writer) {
	fmt.Fprintf(w, "%d histories from seed %d, in %v (%.1f ms each), all traces together %016x\n", s.Histories, s.Seed, s.Took.Round(10*time.Millisecond),
		float64(s.Took.Microseconds())/1000/float64(max(1, s.Histories)), s.hash)
	fmt.Fprintf(w, "%-24s %8s %8s %8s\n", "", "least", "median", "most")
	for _, name := range figureNames {
		if all := s.figures[name]; len(all) > 0 {
			fmt.Fprintf(w, "%-24s %8d %8d %8d\n", name, all[0], all[len(all)/2], all[len(all)-1])
		}
	}
	for _, t := range []struct {
		name string
		all  map[string]int
	}{{"effective operations", s.effective}, {"faults", s.faults}, {"refusals", s.refusals}} {
		fmt.Fprintf(w, "%s:\n", t.name)
		for _, k := range sortedKeys(t.all) {
			fmt.Fprintf(w, "%10d  %s\n", t.all[k], shown(k))
		}
	}
}

// shown is a text for a line of a table: what is different each time left out,
// and not to its end.
func shown(text string) string {
	text = strings.NewReplacer("%s", "…", "%d", "…", "%v", "…", "%w", "…").Replace(text)
	if r := []rune(text); len(r) > 100 {
		text = string(r[:99]) + "…"
	}
	return text
}

// kinds are all kinds of faults that are counted.
func kinds() []string {
	return append(sortedKeys(faults), "clock drift", "unknown commit, made", "unknown commit, not made", "master dies before a commit", "master dies after a commit",
		"true fence", "true force")
}

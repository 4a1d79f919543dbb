package placement

import (
	"cmp"
	"slices"
	"time"
)

// Candidate is one server in the explanation of a choice.
type Candidate struct {
	ID     uint64
	Reason Reason
	Score  int64 // 1000 for a full server; of eligible ones only
}

// Explain returns all servers, the one that Choose would take first, eligible
// ones by score, then the others by ID.
func (t *Table) Explain(now time.Duration, need *Need) []Candidate {
	type scored struct {
		Candidate
		exact float64
	}
	all := make([]scored, t.Len())
	for i := range t.all {
		all[i] = scored{Candidate: Candidate{ID: t.all[i].ID, Reason: t.all[i].Check(now, need)}}
		if all[i].Reason == Eligible {
			all[i].exact, all[i].Score = t.rank[i].score(want(need)), t.Score(i, need)
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		if (a.Reason == Eligible) != (b.Reason == Eligible) {
			if a.Reason == Eligible {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.exact, b.exact), cmp.Compare(a.ID, b.ID))
	})
	out := make([]Candidate, len(all))
	for i := range all {
		out[i] = all[i].Candidate
	}
	return out
}

// Survey counts the servers by what keeps the session away from them, and
// returns the index of the first one for each reason, -1 where there is none.
// It costs no sorting, so that a crowd of refused logins stays cheap.
func (t *Table) Survey(now time.Duration, need *Need) (counts, first [Reasons]int) {
	for r := range first {
		first[r] = -1
	}
	for i := range t.all {
		r := t.all[i].Check(now, need)
		counts[r]++
		if first[r] < 0 || t.all[i].ID < t.all[first[r]].ID {
			first[r] = i
		}
	}
	return counts, first
}

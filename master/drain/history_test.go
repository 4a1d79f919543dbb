package drain

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"verdecmd/master/cluster"
)

// abortTakes is the most that the end of a session by force takes in these
// histories, its report included.
const abortTakes = 10 * time.Second

// history is a server that is emptied, and the guests on it: some shut down when
// they are asked, some have to be aborted, some leave by themselves. Links go
// down, orders fail, masters are started anew.
type history struct {
	t    *rapid.T
	now  time.Time
	plan *Plan
	v    View

	began   []string             // sessions that the job knows of from its start
	ends    map[string]time.Time // when a session ends that was told to
	ordered map[string]time.Time // until when its log off is under way, by our own books
	leaving map[string]bool      // of them: they were leaving when they were told
	ended   int
	failing bool // orders cannot be given
	told    int
}

// F-29, S6: in random histories nobody is told twice within his time, never more
// than eight at once, nobody by wait, over a link that is down or when it is
// over; the time that a guest gets fits into the limit; nothing is counted twice
// or forgotten; and with a link that stays the server gets empty.
func TestDrainHistories(t *testing.T) {
	told, late, emptied := 0, 0, 0
	for range 3 {
		rapid.Check(t, func(t *rapid.T) {
			h := newHistory(t)
			over := Going
			for range 300 {
				if over = h.look(); over != Going {
					break
				}
				h.something()
			}
			if over == Going {
				over = h.calm()
			}
			told += h.told
			switch over {
			case Late:
				late++
			case Empty:
				emptied++
			}
		})
	}
	if min(told, late, emptied) < 20 {
		t.Errorf("the histories did too little: %d log offs, %d too late, %d emptied", told, late, emptied)
	}
}

func newHistory(t *rapid.T) *history {
	h := &history{t: t, now: start, ends: map[string]time.Time{}, ordered: map[string]time.Time{}, leaving: map[string]bool{}, v: view(crowd(rapid.IntRange(0, 30).Draw(t, "sessions"))...)}
	for _, x := range h.v.Sessions {
		h.began = append(h.began, x.ID)
	}
	h.plan = NewPlan(Plan{Server: 2, Method: rapid.SampledFrom([]Method{Wait, Logoff, Logoff, Logoff}).Draw(t, "method"), Started: start,
		Limit:      time.Duration(rapid.SampledFrom([]int{0, 0, 10, 60, 600, 3600}).Draw(t, "limit")) * time.Second,
		LogoffWait: time.Duration(rapid.SampledFrom([]int{5, 30, 120}).Draw(t, "logoff wait")) * time.Second}, h.began)
	return h
}

// look is what the job does every so often.
func (h *history) look() Over {
	h.leave()
	s := h.plan.Next(h.now, h.v)
	deadline := start.Add(h.plan.Limit)
	if h.plan.Limit == 0 {
		deadline = h.now.Add(time.Hour)
	}
	if len(s.Logoff) > 0 && (h.plan.Method == Wait || !h.v.Up || s.Over != Going || !h.now.Before(deadline)) {
		h.t.Fatalf("%v after the start, link %v, end %d: %q is ordered", h.now.Sub(start), h.v.Up, s.Over, orders(s))
	}
	for _, o := range s.Logoff {
		switch {
		case h.now.Before(h.ordered[o.Session]):
			h.t.Fatalf("%s is told again within its time", o.User)
		case o.Limit < shortest || o.Limit > h.plan.LogoffWait || h.now.Add(o.Limit).After(deadline.Add(shortest)):
			h.t.Fatalf("%s gets %v, with %v left and at most %v", o.User, o.Limit, deadline.Sub(h.now), h.plan.LogoffWait)
		case h.failing:
			h.plan.Failed(h.now, o.Session)
			continue
		}
		h.told++
		h.leaving[o.Session] = slices.ContainsFunc(h.v.Sessions, func(x Session) bool { return x.ID == o.Session && x.State == cluster.Stopping })
		h.ordered[o.Session] = h.now.Add(o.Limit)
		h.end(o.Session, h.now.Add(o.Limit))
	}
	busy := 0
	for _, x := range h.v.Sessions {
		if h.now.Before(h.ordered[x.ID]) && !h.leaving[x.ID] {
			busy++
		}
	}
	if busy > atOnce {
		h.t.Fatalf("%d are logged off at once", busy)
	}
	if got := h.plan.Ended(h.v); got != h.ended {
		h.t.Fatalf("%d are counted as ended, want %d", got, h.ended)
	}
	if s.Over == Empty != (len(h.v.Sessions) == 0) || s.Over == Late && h.now.Before(deadline) {
		h.t.Fatalf("%v after the start with %d sessions: end %d", h.now.Sub(start), len(h.v.Sessions), s.Over)
	}
	if s.Percent < 0 || s.Percent > 100 || s.Message == "" {
		h.t.Fatalf("%d%%: %q", s.Percent, s.Message)
	}
	return s.Over
}

// end lets a session end: in time or by force.
func (h *history) end(id string, limit time.Time) {
	in := rapid.IntRange(0, 20).Draw(h.t, "guest takes")
	at := h.now.Add(time.Duration(in) * time.Second)
	if in > 15 || at.After(limit) {
		at = limit.Add(abortTakes)
	}
	if old, ok := h.ends[id]; !ok || at.Before(old) {
		h.ends[id] = at
	}
	for i := range h.v.Sessions {
		if x := &h.v.Sessions[i]; x.ID == id {
			x.State = cluster.Stopping
		}
	}
}

// leave takes those away whose time has come, where their server can tell.
func (h *history) leave() {
	if !h.v.Up {
		return
	}
	h.v.Sessions = slices.DeleteFunc(slices.Clone(h.v.Sessions), func(x Session) bool {
		at, ok := h.ends[x.ID]
		gone := ok && !h.now.Before(at)
		if gone {
			h.ended++
		}
		return gone
	})
}

func (h *history) something() {
	pass := func() {
		h.now = h.now.Add(time.Duration(rapid.SampledFrom([]int{250, 250, 1000, 5000, 30000}).Draw(h.t, "ms")) * time.Millisecond)
	}
	actions := map[string]func(){
		"time":   pass,
		"time 2": pass,
		"time 3": pass,
		"link":   func() { h.v.Up = !h.v.Up || rapid.IntRange(0, 3).Draw(h.t, "stays") > 0 },
		"orders": func() { h.failing = !h.failing && rapid.IntRange(0, 2).Draw(h.t, "fail") == 0 },
		"a user leaves": func() {
			if n := len(h.v.Sessions); n > 0 {
				h.end(h.v.Sessions[rapid.IntRange(0, n-1).Draw(h.t, "who")].ID, h.now.Add(time.Minute))
			}
		},
		"a master is started": func() { // it knows no order, and tells it again: the satellite keeps to the first
			if rapid.IntRange(0, 5).Draw(h.t, "restart") > 0 {
				return
			}
			p := *h.plan
			h.plan = NewPlan(p, h.began)
			h.ordered = map[string]time.Time{}
		},
	}
	actions[rapid.SampledFrom(slices.Sorted(maps.Keys(actions))).Draw(h.t, "action")]()
}

// calm is the end of a history: the link is up and stays, users leave.
func (h *history) calm() Over {
	h.v.Up, h.failing = true, false
	if h.plan.Method == Wait {
		for _, x := range h.v.Sessions {
			h.end(x.ID, h.now)
		}
	}
	rounds := time.Duration(len(h.v.Sessions)/atOnce + 2)
	by := h.now.Add(rounds * (h.plan.LogoffWait + abortTakes + reported))
	for h.now.Before(by) {
		if over := h.look(); over != Going {
			return over
		}
		h.now = h.now.Add(look)
	}
	h.t.Fatalf("%d sessions are still there %v after all was well: %s", len(h.v.Sessions), rounds*(h.plan.LogoffWait+abortTakes+reported), fmt.Sprint(h.v.Sessions))
	return Going
}

package drain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"verdecmd/master/cluster"
)

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

// view makes the view of server 2 with sessions written as "user state"; running
// where nothing is said.
func view(sessions ...string) View {
	v := View{Known: true, State: cluster.Draining, Name: "sat2", Up: true}
	for i, text := range sessions {
		user, state, _ := strings.Cut(text, " ")
		if state == "" {
			state = cluster.Running
		}
		v.Sessions = append(v.Sessions, Session{ID: fmt.Sprint("s", i+1), User: user, State: state})
	}
	return v
}

func crowd(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("user%02d", i))
	}
	return names
}

// orders are in short what a step wants.
func orders(s Step) string {
	var out []string
	for _, o := range s.Logoff {
		out = append(out, fmt.Sprintf("%s %v", o.User, o.Limit))
	}
	return strings.Join(out, ", ")
}

// F-29: when the emptying of a server is over, and who is to be logged off.
func TestPlan(t *testing.T) {
	tests := map[string]struct {
		method Method
		limit  time.Duration
		after  time.Duration // of the look
		view   View
		over   Over
		orders string
	}{
		"wait orders nothing":                  {method: Wait, view: view("alice", "bob")},
		"empty":                                {method: Wait, view: view(), over: Empty},
		"empty when the limit passes":          {method: Wait, limit: time.Minute, after: time.Minute, view: view(), over: Empty},
		"a link that is down is no end":        {method: Wait, view: View{Known: true, State: cluster.Draining, Sessions: view("alice lost").Sessions}},
		"empty, also while the link is down":   {method: Logoff, view: View{Known: true, State: cluster.Draining}, over: Empty},
		"a desktop of nobody is awaited":       {method: Wait, view: View{Known: true, State: cluster.Draining, Up: true, Unowned: []string{"eve"}}},
		"put online":                           {method: Logoff, view: View{Known: true, State: cluster.Online, Up: true, Sessions: view("alice").Sessions}, over: Changed},
		"put offline":                          {method: Wait, view: View{Known: true, State: cluster.Offline, Up: true}, over: Changed},
		"forgotten":                            {method: Wait, over: Forgotten},
		"before the limit":                     {method: Wait, limit: time.Minute, after: time.Minute - 1, view: view("alice")},
		"at the limit":                         {method: Wait, limit: time.Minute, after: time.Minute, view: view("alice"), over: Late},
		"long after it, by a master restarted": {method: Logoff, limit: time.Minute, after: time.Hour, view: view("alice"), over: Late},
		"no limit":                             {method: Wait, after: 300 * 24 * time.Hour, view: view("alice")},

		"logoff":                                 {method: Logoff, view: view("alice", "bob"), orders: "alice 2m0s, bob 2m0s"},
		"what is left of the limit":              {method: Logoff, limit: time.Minute, after: 10 * time.Second, view: view("alice"), orders: "alice 50s"},
		"never longer than logoffuser":           {method: Logoff, limit: time.Hour, view: view("alice"), orders: "alice 2m0s"},
		"never shorter than a second":            {method: Logoff, limit: time.Minute, after: time.Minute - time.Millisecond, view: view("alice"), orders: "alice 1s"},
		"no order over a link that is down":      {method: Logoff, view: View{Known: true, State: cluster.Draining, Sessions: view("alice lost").Sessions}},
		"no order when it is over":               {method: Logoff, limit: time.Minute, after: time.Minute, view: view("alice"), over: Late},
		"eight at once":                          {method: Logoff, view: view(crowd(9)...), orders: all(crowd(8), "2m0s")},
		"the limit is shared out":                {method: Logoff, limit: time.Minute, view: view(crowd(17)...), orders: all(crowd(8), "20s")},
		"who is leaving is told first":           {method: Logoff, view: view("alice", "bob stopping"), orders: "bob 2m0s, alice 2m0s"},
		"who is leaving takes one of the places": {method: Logoff, view: view(append(crowd(8), "zoe stopping")...), orders: "zoe 2m0s, " + all(crowd(7), "2m0s")},
		"all that are leaving are told":          {method: Logoff, view: view(slices.Repeat([]string{"x aborting"}, 10)...), orders: all(slices.Repeat([]string{"x"}, 10), "2m0s")},
		"hung, failed and lost ones too":         {method: Logoff, view: view("alice hung", "bob failed", "carol lost"), orders: all([]string{"alice", "bob", "carol"}, "2m0s")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPlan(Plan{Server: 2, Method: tt.method, Started: start, Limit: tt.limit, LogoffWait: 2 * time.Minute}, nil)
			got := p.Next(start.Add(tt.after), tt.view)
			if got.Over != tt.over || orders(got) != tt.orders {
				t.Errorf("got end %d and orders %q, want %d and %q", got.Over, orders(got), tt.over, tt.orders)
			}
		})
	}
}

func all(users []string, limit string) string {
	return strings.Join(users, " "+limit+", ") + " " + limit
}

// A log off has its time, its abort a little more; then it is ordered again. One
// that could not be ordered is tried again soon.
func TestPlanOrdersAgain(t *testing.T) {
	p := NewPlan(Plan{Server: 2, Method: Logoff, Started: start, LogoffWait: 2 * time.Minute}, nil)
	at := func(d time.Duration, v View) string { return orders(p.Next(start.Add(d), v)) }
	v := view("alice", "bob")
	if got := at(0, v); got != "alice 2m0s, bob 2m0s" {
		t.Errorf("at first: %q", got)
	}
	p.Failed(start, "s2")
	if got := at(again-1, v); got != "" {
		t.Errorf("at once: %q", got)
	}
	if got := at(again, v); got != "bob 2m0s" {
		t.Errorf("after a moment: %q, want the one that failed", got)
	}
	v.Sessions[0].State, v.Sessions[1].State = cluster.Stopping, cluster.Stopping
	if got := at(2*time.Minute+reported-1, v); got != "" {
		t.Errorf("within its time: %q", got)
	}
	if got := at(2*time.Minute+reported, v); got != "alice 2m0s" {
		t.Errorf("after its time: %q", got)
	}
}

// With a limit, those who are being aborted when it passes are awaited, for a
// while and where there is a link.
func TestPlanLate(t *testing.T) {
	plan := func() *Plan {
		p := NewPlan(Plan{Server: 2, Method: Logoff, Started: start, Limit: time.Minute, LogoffWait: 2 * time.Minute}, nil)
		p.Next(start, view("alice", "bob"))
		return p
	}
	for d, want := range map[time.Duration]Over{time.Minute: Going, time.Minute + reported - 1: Going, time.Minute + reported: Late} {
		if got := plan().Next(start.Add(d), view("alice aborting")); got.Over != want || len(got.Logoff) > 0 {
			t.Errorf("after %v: got %d and %q, want %d", d, got.Over, orders(got), want)
		}
	}
	down := view("alice lost")
	down.Up = false
	if got := plan().Next(start.Add(time.Minute), down); got.Over != Late {
		t.Errorf("without a link: got %d, want it to be over", got.Over)
	}
}

// The count goes on over a restart: what the job knew of is not forgotten.
func TestPlanCounts(t *testing.T) {
	p := NewPlan(Plan{Server: 2, Method: Wait, Started: start}, []string{"s1", "s2", "s3", "s4"})
	v := view("alice", "bob")
	v.Moved = 1
	s := p.Next(start, v)
	if p.Ended(v) != 1 || s.Percent != 50 {
		t.Errorf("%d ended, %d%%, want 1 of 4 (and one moved, two left) and 50%%", p.Ended(v), s.Percent)
	}
	v = view("alice", "bob", "eve")
	v.Sessions[2].ID = "s9" // one that came in the last moment
	if s = p.Next(start, v); p.Ended(v) != 2 || s.Percent != 40 {
		t.Errorf("%d ended, %d%%, want 2 of 5 and 40%%", p.Ended(v), s.Percent)
	}
	if s = p.Next(start, view()); p.Ended(view()) != 5 || s.Percent != 100 || s.Over != Empty {
		t.Errorf("%d ended, %d%%, end %d, want all", p.Ended(view()), s.Percent, s.Over)
	}
}

// Who is in the way is named, with the command that helps.
func TestPlanMessage(t *testing.T) {
	down := func(v View) View { v.Up, v.Silent = false, 30*time.Second; return v }
	awaited := down(view("alice lost"))
	awaited.Awaited = 9 * time.Second
	tests := map[string]struct {
		method Method
		before []string
		view   View
		want   string
	}{
		"names":   {Wait, []string{"s7", "s8"}, view("alice", "bob stopping"), "2 of 4 sessions left: alice (running), bob (stopping)"},
		"one":     {Wait, nil, view("alice"), "1 of 1 session left: alice (running)"},
		"many":    {Wait, nil, view(crowd(12)...), "12 of 12 sessions left: " + strings.Join(crowd(10), " (running), ") + " (running), and 2 more"},
		"failed":  {Wait, nil, view("alice failed"), `1 of 1 session left: alice (failed); "abortuser alice" ends what is failed`},
		"hung":    {Wait, nil, view("alice", "bob hung"), `2 of 2 sessions left: alice (running), bob (hung); "abortuser bob" ends what is hung`},
		"logoff":  {Logoff, nil, view("bob hung"), "1 of 1 session left: bob (hung)"},
		"lost":    {Logoff, nil, down(view("alice lost")), `1 of 1 session left: alice (lost); server 2 (sat2) has had no link for 30 s: "fenceserver 2" releases its sessions if that host is powered off`},
		"awaited": {Wait, nil, awaited, "1 of 1 session left: alice (lost); server 2 (sat2) has not come back yet since the master started"},
		"unowned": {Wait, nil, View{Known: true, State: cluster.Draining, Up: true, Unowned: []string{"eve"}}, "desktops that the master does not own are to end first, of eve"},
		"none":    {Wait, nil, view(), "no session is left"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPlan(Plan{Server: 2, Method: tt.method, Started: start, LogoffWait: time.Minute}, tt.before)
			if got := p.Next(start, tt.view).Message; got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// PROTOCOL 12.2: the final replies.
func TestOutcome(t *testing.T) {
	online := view("alice")
	online.State = cluster.Online
	offline := view("alice", "bob stopping")
	offline.State = cluster.Offline
	none := view()
	none.State = cluster.Offline
	tests := map[string]struct {
		view View
		over Over
		code int
		left int
		text string
	}{
		"empty":     {none, Empty, 200, 0, "Server 2 (sat2) is empty and offline: 3 sessions ended in 41 s."},
		"late":      {offline, Late, 443, 2, "Server 2 (sat2) is offline, but not empty after 41 s: 2 of 3 sessions left: alice (running), bob (stopping); those that are being logged off go on ending."},
		"cancelled": {offline, Going, 444, 2, "Cancelled: server 2 (sat2) is offline and is not emptied any more; 2 of 3 sessions left: alice (running), bob (stopping); those that are being logged off go on ending."},
		"online":    {online, Changed, 444, 1, "Server 2 (sat2) was put online: it is not emptied any more; 1 of 3 sessions left: alice (running); those that are being logged off go on ending."},
		"offline":   {none, Changed, 444, 0, "Cancelled: server 2 (sat2) is offline and is not emptied any more; no session is left."},
		"forgotten": {View{}, Forgotten, 444, 0, "Server 2 was forgotten meanwhile."},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := NewPlan(Plan{Server: 2, Method: Logoff, Started: start}, []string{"s1", "s2", "s3"})
			out := p.outcome(start.Add(41*time.Second), tt.view, tt.over)
			if out.Code != tt.code || out.Text != tt.text {
				t.Errorf("got  %d %s\nwant %d %s", out.Code, out.Text, tt.code, tt.text)
			}
			var pairs []string
			for _, x := range out.Pairs {
				pairs = append(pairs, fmt.Sprintf("%s=%v", x.Key, x.Value))
			}
			want := fmt.Sprintf("server=2 moved=0 ended=%d left=%d", 3-tt.left, tt.left)
			if got := strings.Join(pairs, " "); !strings.HasPrefix(got, want) || (tt.code == 200) != (got == want) {
				t.Errorf("got %s, want %s first", got, want)
			}
		})
	}
}

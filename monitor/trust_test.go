package monitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// RotateCA is done when the guests of the fake would have shut down, and never
// where they never do.
func (f *fakeMaster) RotateCA(_ context.Context, abort bool, skip []uint64) (Job, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range skip {
		if id > 3 {
			return Job{}, false, Errorf(550, []Pair{{"kind", "server"}, {"id", id}}, "no server has the ID %d", id)
		}
	}
	end := func(j *Job, code int, state, text string) {
		j.Code, j.State, j.Text = code, state, text
		j.Pairs = []Pair{{"authority", "ab12"}, {"servers", 3 - len(skip)}, {"skipped", len(skip)}}
		close(f.done[j.ID])
	}
	for _, j := range f.jobs {
		if j.Action == "rotateca" && !j.Finished() {
			if abort {
				end(j, 444, "cancelled", "The change of the authority was taken back.")
			}
			return *j, true, nil
		}
	}
	if abort {
		return Job{}, false, Errorf(554, nil, "no authority is taking the place of another one: there is nothing to take back")
	}
	f.nextJob++
	j := &Job{ID: f.nextJob, Action: "rotateca", Object: "ca", State: "running", Started: fakeStart, By: "root", Percent: 30,
		Message: "2 of 3 servers trust the new authority; server 3 (sat3) is not connected"}
	f.jobs[j.ID], f.done[j.ID] = j, make(chan struct{})
	if f.boot >= 0 {
		time.AfterFunc(f.boot, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			end(j, 200, "done", "The cluster has a new authority.")
		})
	}
	return *j, false, nil
}

// Issue 5, item 3: rotateca starts, joins, leaves servers out and takes back.
func TestRotateCA(t *testing.T) {
	f := newFake()
	s := serve(t, f, nil).dial(t)
	s.want("rotateca", "200 ok authority=ab12 servers=3 skipped=0 job=19")
	s.want("rotateca skip=3,2", "200 ok authority=ab12 servers=1 skipped=2 job=20")
	s.want("rotateca abort", `554 precondition msg="no authority is taking the place of another one: there is nothing to take back"`)
	s.want("rotateca skip=9", `550 not-found kind=server id=9 msg="no server has the ID 9"`)
	for line, code := range map[string]string{"rotateca skip=3,": "553", "rotateca skip=x": "553", "rotateca skip=0": "553", "rotateca skip=": "501",
		"rotateca skip=" + strings.Repeat("3,", 1001) + "3": "553", "rotateca abort skip=3": "501"} {
		if a := s.ask(line); a.code != code {
			t.Errorf("%.40s: got %s %s, want %s", line, a.code, a.end, code)
		}
	}
	f.mu.Lock()
	f.boot = -1
	f.mu.Unlock()
	s.want("rotateca nowait", "202 accepted abort=no job=21")
	s.want("rotateca nowait", "202 accepted abort=no job=21 joined=yes")
	s.want("rotateca abort", "200 ok authority=ab12 servers=3 skipped=0 job=21 joined=yes")
}

// Issue 5, item 3: server shows who lags.
func TestServerTrust(t *testing.T) {
	tests := map[string]struct {
		trust Trust
		link  string
		prose string
		pairs string
	}{
		"there are none":      {Trust{}, LinkUp, "", "<nil> <nil> <nil> <nil>"},
		"up to date":          {Trust{Current: 8, Takes: true, Version: 8}, LinkUp, "version 8", "8 8 <nil> <nil>"},
		"behind":              {Trust{Current: 8, Takes: true, Version: 7, Behind: 12 * time.Second}, LinkUp, "version 7 of 8, behind for 12 s", "7 8 12s <nil>"},
		"refuses":             {Trust{Current: 8, Takes: true, Version: 7, Behind: time.Minute, Error: "no space"}, LinkUp, "version 7 of 8, behind for 60 s: no space", "7 8 1m0s no space"},
		"not connected":       {Trust{Current: 8, Takes: true, Version: 7}, LinkDown, "version 7 of 8, when it was connected", "7 8 <nil> <nil>"},
		"not seen yet":        {Trust{Current: 8}, LinkDown, "not known while it is not connected", "<nil> 8 <nil> <nil>"},
		"of an older version": {Trust{Current: 8}, LinkUp, "it takes none: its version is an older one", "<nil> 8 <nil> <nil>"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.trust.prose(test.link); got != test.prose {
				t.Errorf("got %q, want %q", got, test.prose)
			}
			var values []string
			for _, p := range test.trust.pairs() {
				values = append(values, fmt.Sprint(p.Value))
			}
			if got := strings.Join(values, " "); got != test.pairs {
				t.Errorf("got %q, want %q", got, test.pairs)
			}
		})
	}
	f := newFake()
	f.servers[0].Trust = Trust{Current: 8, Takes: true, Version: 7, Behind: 12 * time.Second}
	s := serve(t, f, nil).dial(t)
	rows := s.ask("server 1").rows
	for _, want := range []string{"trust\t7", "trustcurrent\t8", "trustbehind\t12"} {
		if !slices.Contains(rows, want) {
			t.Errorf("no %q in %q", want, rows)
		}
	}
}

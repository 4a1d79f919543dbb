package fleet

import (
	"strings"
	"testing"
	"time"

	"verdecmd/master/link"
	pb "verdecmd/proto"
)

func TestCheck(t *testing.T) {
	good := Options{Satellites: 10, Seconds: 1, Interval: time.Second}
	tests := map[string]struct {
		change func(*Options)
		want   string // in the error; empty: none
	}{
		"two sessions for each by itself": {change: func(*Options) {}},
		"no satellites":                   {change: func(o *Options) { o.Satellites = 0 }, want: "--satellites 0: wants 1 to 16000"},
		"too many satellites":             {change: func(o *Options) { o.Satellites = 16001 }, want: "--satellites"},
		"too many sessions":               {change: func(o *Options) { o.Sessions = 1001 }, want: "--sessions 1001: wants 0 to 100 for each"},
		"half a second":                   {change: func(o *Options) { o.Interval = 500 * time.Millisecond }, want: "--interval 500ms: wants whole seconds"},
		"no window":                       {change: func(o *Options) { o.Seconds = 0 }, want: "--seconds 0"},
		"negative logins":                 {change: func(o *Options) { o.Logins = -1 }, want: "--logins -1"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			err := o.check()
			if test.want == "" {
				if err != nil || o.Sessions != 20 || len(o.Program) != 1 {
					t.Errorf("got %v and %+v", err, o)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestLateBetween(t *testing.T) {
	var a, b link.Late
	a.Classes[0], b.Classes[0] = 1000, 1980 // 980 within 1 ms
	b.Classes[5] = 10                       // 20 to 50 ms
	b.Classes[6] = 10                       // 50 to 100 ms
	b.Worst = 70 * time.Millisecond
	got := lateBetween(a, b)
	if got.P50 < 0.0005 || got.P50 > 0.00052 || got.P99 != 0.05 || got.Max != 0.07 || got.Over != 10 {
		t.Errorf("got %+v, want p50 0.51 ms, p99 50 ms, worst 70 ms, 10 over 50 ms", got)
	}
	if got := lateBetween(b, b); got != (Late{}) {
		t.Errorf("nothing between: got %+v", got)
	}
}

// What the master has is compared with what runs, whatever way they differ.
func TestCompare(t *testing.T) {
	row := func(user, server, state, id string) string {
		return strings.Join([]string{user, "100001", server, "win4", "win4/7", state, "2026-01-01T00:00:00Z", "", id}, "\t")
	}
	s := &satellite{link: &uplink{server: 3}, sessions: map[string]*pb.Session{"s1": {Id: "s1", User: "anna", State: "running"}}}
	f := &fleet{sats: []*satellite{s}}
	tests := map[string]struct {
		rows []string
		want string
	}{
		"the same":      {rows: []string{"#user\tuid", row("anna", "3", "running", "s1")}},
		"missing":       {want: "1 sessions run, the master has 0"},
		"too many":      {rows: []string{row("anna", "3", "running", "s1"), row("bob", "3", "running", "s2")}, want: "s2 of bob, which runs nowhere"},
		"another one":   {rows: []string{row("anna", "3", "running", "s9")}, want: "the master has s9 on 3"},
		"another place": {rows: []string{row("anna", "4", "running", "s1")}, want: "the master has s1 on 4"},
		"lost":          {rows: []string{row("anna", "3", "lost", "s1")}, want: "is lost to the master"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := f.compare(test.rows)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

package host

import (
	"strings"
	"testing"
	"time"

	"verdecmd/proto/wire"
)

// F-12, PROTOCOL 12.7: whose place a machine may take. A live name is never
// taken over, and none whose desktops may still run (S1).
func TestPlace(t *testing.T) {
	down := owner{ID: 3, Name: "sat1"}
	up := owner{ID: 3, Name: "sat1", LinkUp: true}
	vacant := owner{ID: 3, Name: "sat1", Vacant: true}
	upVacant, held := vacant, vacant
	upVacant.LinkUp, held.Held = true, 2
	for name, test := range map[string]struct {
		o      *owner
		permit uint64
		server uint64
		want   string
	}{
		"a new name":                        {},
		"the name of a server that is down": {o: &down, want: `"replaceserver 3" on the master`},
		"that of a live one":                {o: &up, want: "a live server is never taken over"},
		"a vacant place, without permit":    {o: &vacant, want: `"replaceserver 3" on the master`},
		"with that of another server":       {o: &vacant, permit: 4, want: `"replaceserver 3" on the master`},
		"with its own":                      {o: &vacant, permit: 3, server: 3},
		"which was filled meanwhile":        {o: &down, permit: 3, want: `"replaceserver 3" on the master`},
		"by somebody who is connected":      {o: &upVacant, permit: 3, want: "never taken over"},
		"which holds sessions":              {o: &held, permit: 3, want: `holds 2 sessions or places of the machine before: if that one is powered off, "fenceserver 3"`},
		"of a server that was forgotten":    {permit: 3, want: "server 3, whose place this host was to take, is no longer there"},
	} {
		server, err := place(test.o, test.permit, "sat1")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || err == nil && server != test.server {
			t.Errorf("%s: got %d, %v; want %d, %q", name, server, err, test.server, test.want)
		}
	}
}

// RELIABILITY 4.2: who comes back by an expired certificate.
func TestComeback(t *testing.T) {
	end := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		after, within time.Duration
		want          string
	}{
		"not expired at all":    {after: -day},
		"just expired":          {after: time.Second, within: 90 * day},
		"within the days":       {after: 90 * day, within: 90 * day},
		"later":                 {after: 91 * day, within: 90 * day, want: `91 days ago, and WIN4_VERDE_REJOIN_DAYS is 90: an administrator decides. To let it in: "replaceserver 3"`},
		"never by itself":       {after: time.Second, want: "WIN4_VERDE_REJOIN_DAYS is 0"},
		"within a year":         {after: 365 * day, within: 365 * day},
		"more than a year":      {after: 366 * day, within: 365 * day, want: "after a year nobody comes back"},
		"whatever anybody sets": {after: 366 * day, within: 4000 * day, want: "after a year nobody comes back"},
	} {
		err := comeback(end.Add(test.after), end, test.within, 3, "sat1")
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || wire.KindOf(err) != wire.Denied) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

func TestSkewed(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]time.Duration{0: 0, 5 * time.Second: 0, -5 * time.Second: 0, 5001 * time.Millisecond: 5001 * time.Millisecond, -time.Hour: -time.Hour} {
		if got := skewed(now, now.Add(d)); got != want {
			t.Errorf("%v apart: got %v, want %v", d, got, want)
		}
	}
	if got := skewed(now, time.Time{}); got != 0 {
		t.Errorf("not told: got %v", got)
	}
}

func TestClosing(t *testing.T) {
	from := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	end := from.Add(30 * 24 * time.Hour)
	for after, want := range map[time.Duration]bool{0: false, 24*24*time.Hour - 1: false, 24 * 24 * time.Hour: true, 31 * 24 * time.Hour: true} {
		if got := closing(from.Add(after), from, end); got != want {
			t.Errorf("after %v: got %v", after, got)
		}
	}
	if closing(from, time.Time{}, time.Time{}) {
		t.Error("one that is not known ends soon")
	}
}

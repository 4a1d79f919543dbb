package alarm

import (
	"slices"
	"strings"
	"testing"

	"verdecmd/monitor"
)

// Each row is whole: what is raised can end, by an event, by a start of the
// master, by silence or by an administrator who is told so; its kind has words about what helps.
func TestTable(t *testing.T) {
	ends, raises := map[string]bool{}, map[string]row{}
	for _, r := range rows {
		if r.severity == over {
			ends[r.kind] = true
			if r.lasting || r.quiet > 0 {
				t.Errorf("%s ends %s and says how long it lasts", r.event, r.kind)
			}
			continue
		}
		if !slices.Contains(monitor.Severities, r.severity) {
			t.Errorf("%s: severity %q", r.event, r.severity)
		}
		if was, ok := raises[r.kind]; ok && (was.object != r.object || was.lasting != r.lasting || was.quiet != r.quiet) {
			t.Errorf("%s and %s raise %s in different ways", was.event, r.event, r.kind)
		}
		raises[r.kind] = r
	}
	for kind, r := range raises {
		if r.lasting && !ends[kind] && !r.anew {
			t.Errorf("%s lasts and nothing ends it", kind)
		}
		if r.lasting && r.quiet > 0 {
			t.Errorf("%s lasts and is over when it is quiet", kind)
		}
		if helps[kind] == "" {
			t.Errorf("nothing is said about what helps against %s", kind)
		}
		if !r.lasting && r.quiet == 0 && !strings.Contains(helps[kind], "clearalarm") {
			t.Errorf("%s stays until somebody clears it, and is not told so", kind)
		}
	}
	for kind := range ends {
		if _, ok := raises[kind]; !ok {
			t.Errorf("%s ends and is never raised", kind)
		}
	}
	for kind := range helps {
		if _, ok := raises[kind]; !ok {
			t.Errorf("what helps against %s, which is never raised", kind)
		}
	}
}

// What an event says.
func TestSigns(t *testing.T) {
	pair := func(k string, v any) monitor.Pair { return monitor.Pair{Key: k, Value: v} }
	for _, test := range []struct {
		event string
		pairs []monitor.Pair
		want  string
	}{
		{"server.lost", []monitor.Pair{pair("server", uint64(3)), pair("name", "sat3")}, "critical server-lost 3 lasting"},
		{"server.up", []monitor.Pair{pair("server", uint64(3)), pair("name", "sat3")}, "over server-lost 3, over server-duplicate 3, over server-refused sat3"},
		{"session.failed", []monitor.Pair{pair("user", "alice"), pair("state", "failed")}, "over desktop-hung alice, warning desktop-failed alice lasting"},
		{"session.failed", []monitor.Pair{pair("user", "alice"), pair("how", "crashed")}, "over desktop-hung alice, over desktop-failed alice"},
		{"session.hung", []monitor.Pair{pair("user", "alice"), pair("state", "hung")}, "warning desktop-hung alice lasting"},
		{"password.locked", []monitor.Pair{pair("from", "192.0.2.7")}, "critical password-locked 192.0.2.7"},
		{"master.nospace", nil, "critical master-space master lasting"},
		{"master.interval", []monitor.Pair{pair("interval", 6.0), pair("wish", 3.0)}, "warning master-busy master lasting"},
		{"master.interval", []monitor.Pair{pair("interval", 3.0), pair("wish", 3.0)}, "over master-busy master"},
		{"server.replaced", []monitor.Pair{pair("server", uint64(3)), pair("name", "sat3")}, "over server-unfit 3, over certificate 3"},
		{"server.refused", []monitor.Pair{pair("name", "")}, ""},
		{"server.refused", nil, ""},
		{"alarm.raised", []monitor.Pair{pair("alarm", uint64(1))}, ""},
	} {
		var got []string
		for _, s := range Signs(test.event, "text", test.pairs) {
			word := s.Severity
			if s.Over {
				word = "over"
			}
			word += " " + s.Kind + " " + s.Object
			if s.Lasting {
				word += " lasting"
			}
			got = append(got, word)
		}
		if s := strings.Join(got, ", "); s != test.want {
			t.Errorf("%s %v:\n got %q\nwant %q", test.event, test.pairs, s, test.want)
		}
	}
}

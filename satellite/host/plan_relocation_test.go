package host

import (
	"strings"
	"testing"
)

// who may move desktops to a satellite, in every combination.
func TestAllowed(t *testing.T) {
	const off, stranger, nobody, other = "WIN4_RELOCATION_SERVER is no", "is no registered host", "is empty here, which allows nobody", `desktops of "sat1" are not let in`
	tests := map[string]struct {
		server bool
		allow  string
		member bool
		why    string // empty: allowed
	}{
		"fresh install":                  {why: off},
		"fresh install, member":          {member: true, why: off},
		"list without the switch":        {allow: "@cluster sat1", member: true, why: off},
		"stranger, list without switch":  {allow: ".*", why: off},
		"switch without a list":          {server: true, member: true, why: nobody},
		"stranger, switch without list":  {server: true, why: stranger},
		"the cluster":                    {server: true, allow: "@cluster", member: true},
		"stranger, the cluster":          {server: true, allow: "@cluster", why: stranger},
		"by name":                        {server: true, allow: "sat1", member: true},
		"stranger of that name":          {server: true, allow: "sat1", why: stranger},
		"by expression":                  {server: true, allow: "rack[0-9] sat[1-3]", member: true},
		"stranger, everybody":            {server: true, allow: ".*", why: stranger},
		"another name":                   {server: true, allow: "sat2", member: true, why: other},
		"the beginning alone":            {server: true, allow: "sat", member: true, why: other},
		"the end alone":                  {server: true, allow: "at1", member: true, why: other},
		"anchored by hand":               {server: true, allow: "^sat1$", member: true},
		"several, one of them":           {server: true, allow: "sat2 @cluster", member: true},
		"another group, as if it passed": {server: true, allow: "@all", member: true, why: other},
		"a mistake, as if it passed":     {server: true, allow: "sat1( *", member: true, why: other},
		"a mistake beside a right one":   {server: true, allow: "sat1( sat1", member: true},
		"letters as they are":            {server: true, allow: "SAT1", member: true, why: other},
	}
	for name, tt := range tests {
		ok, why := Allowed(tt.server, strings.Fields(tt.allow), "sat1", tt.member)
		if ok != (tt.why == "") || ok && why != "" || !strings.Contains(why, tt.why) {
			t.Errorf("%s: got %v, %q, want %q", name, ok, why, tt.why)
		}
	}
	// A name that is no name fills no log.
	if _, why := Allowed(true, []string{"a"}, strings.Repeat("x\n", 1<<20), true); len(why) > 500 || strings.Contains(why, "\n") {
		t.Errorf("got %d bytes", len(why))
	}
}

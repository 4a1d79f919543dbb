package settings

import (
	"strings"
	"testing"
)

// an expression is for the whole name.
func TestHostPattern(t *testing.T) {
	tests := map[string]struct{ expression, name, not string }{
		"a name":            {"sat1", "sat1", "sat12"},
		"not at the end":    {"sat1", "sat1", "xsat1"},
		"points":            {`sat1\.example\.com`, "sat1.example.com", "sat1.example.com.evil.org"},
		"alternatives":      {"sat1|sat2", "sat2", "sat2.evil.org"},
		"alternatives, one": {"sat1|sat2", "sat1", "sat1.evil.org"},
		"anchored already":  {"^sat[12]$", "sat1", "sat3"},
		"several lines":     {"(?m)^sat1$", "sat1", "evil\nsat1"},
		"all":               {".*", "anybody", "a\nb"},
	}
	for name, tt := range tests {
		p, err := HostPattern(tt.expression)
		if err != nil || !p.MatchString(tt.name) || p.MatchString(tt.not) {
			t.Errorf("%s: %v, %v: want %q and not %q", name, p, err, tt.name, tt.not)
		}
	}
}

// a mistake is told where it is written, and nothing takes long.
func TestRelocationHosts(t *testing.T) {
	tests := map[string]string{ // the error; empty: right
		"":                             "",
		"@cluster":                     "",
		"sat1 ^sat2$ rack[0-9]+-.*":    "",
		"@clusters":                    `"@clusters" is no group of hosts: there is only @cluster`,
		"sat1 sat(":                    `"sat(" is not a regular expression: error parsing regexp: missing closing )`,
		"a)|(b":                        "is not a regular expression",
		`\Qsat1`:                       `has no end`,
		"*":                            "missing argument to repetition operator",
		"(((a{100}){100}){100}){100}":  "is not a regular expression",
		strings.Repeat("a", 257):       `is 257 bytes long, at most 256 are possible`,
		strings.Repeat("a ", 64):       "",
		strings.Repeat("a ", 65):       "has 65 expressions, at most 64",
		strings.Repeat("(a|b)*", 1000): "bytes long",
	}
	for value, want := range tests {
		_, err := Parse("settings.global", []byte("\nWIN4_RELOCATION_HOSTS_ALLOW='"+value+"'"))
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "settings.global:2:1: WIN4_RELOCATION_HOSTS_ALLOW is ")) {
			t.Errorf("%.40q: got %v, want %q", value, err, want)
		}
	}
}

// FuzzHostPattern: whatever is accepted can be asked, and is for whole names.
func FuzzHostPattern(f *testing.F) {
	for _, s := range []string{"sat1", "sat[1-9]", "a|b", "(?i)a", "^a$", `a\z`, "(?m)^a$", `\Qa`, "a)|(b", "(?:"} {
		f.Add(s, "sat1")
	}
	f.Fuzz(func(t *testing.T, expression, name string) {
		p, err := HostPattern(expression)
		if err != nil || !p.MatchString(name) {
			return
		}
		if at := p.FindStringIndex(name); at[0] != 0 || at[1] != len(name) {
			t.Errorf("%q matches only %q of %q", expression, name[at[0]:at[1]], name)
		}
	})
}

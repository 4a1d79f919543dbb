// Package settings is everything that can be set: one table with the name,
// type, default, limits and text of each setting, and the file that they stand
// in, which looks like a piece of shell script but is never run by a shell.
//
// The table is the only place where a setting is declared: the sample file, the
// manual, the check of a value and the getters come from it. A getter that is
// called with a name that is not in the table, or for another kind, panics:
// that is a mistake in this program, not in the file. This package imports
// nothing else of the project, and so may be imported by all of it.
package settings

import (
	"cmp"
	"slices"
	"strings"
)

// Kind is the type of a setting's value.
type Kind int

const (
	Text      Kind = iota + 1 // any text
	Bool                      // yes or no
	Integer                   // a whole number, not negative
	Duration                  // seconds ("90") or with a unit ("1m30s", "500ms")
	MiB                       // MiB ("2048") or with a unit ("2G", "2048 MiB")
	Path                      // an absolute path; Max limits its bytes
	Address                   // host[:port]: a name, an IPv4 address, an [IPv6 address]
	Addresses                 // comma-separated list of Address
	Words                     // words with blanks between them
	Choice                    // one of Choices
)

var kindNames = map[Kind]string{
	Text: "text", Bool: "yes or no", Integer: "a number", Duration: "a time in seconds", MiB: "a size in MiB",
	Path: "an absolute path", Address: "an address", Addresses: "addresses with commas between them",
	Words: "words with blanks between them", Choice: "a choice",
}

// String says in words what a value of the kind is.
func (k Kind) String() string { return kindNames[k] }

// Scope says which program reads a setting.
type Scope int

const (
	Master    Scope = 1 << iota // read by the master
	Satellite                   // read by satellites
	Both      = Master | Satellite
)

// String is "master", "satellite" or "master, satellite".
func (s Scope) String() string {
	switch s {
	case Master:
		return "master"
	case Satellite:
		return "satellite"
	}
	return "master, satellite"
}

// Setting declares one setting.
type Setting struct {
	Name    string
	Kind    Kind
	Default string // as it would be written in the file; empty: no value until set, getters give zero
	// Min and Max bound the value: seconds of a Duration, MiB of a MiB, bytes
	// of a Path. A Max of 0 is no limit.
	Min, Max int64
	Choices  []string
	Scope    Scope
	Restart  bool   // a change counts only after a restart of the programs in Scope
	Secret   bool   // no program shows the value
	Same     bool   // must have one value on all computers of a cluster
	Text     string // one or two sentences for the manual and the sample file
	Example  string // a value for the manual; empty: the default is one

	// Check refuses a value that is right for the kind but not for this
	// setting. The error completes "WIN4_X is "foo": ...". May be nil.
	Check func(value string) error
}

// Wants says in words what a value of the setting must be, with its limits.
func (s Setting) Wants() string {
	if s.Kind == Choice {
		return orList(s.Choices)
	}
	return s.Kind.String() + s.bounds()
}

// Table is a list of settings, in the order of the manual.
type Table []Setting

// Find returns the setting of that name. Names are compared exactly.
func (t Table) Find(name string) (Setting, bool) {
	i := slices.IndexFunc(t, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return Setting{}, false
	}
	return t[i], true
}

// Nearest returns at most three names of the table that somebody may have
// meant who wrote name, the most similar first.
func (t Table) Nearest(name string) []string {
	type scored struct {
		name string
		d    int
	}
	upper := strings.ToUpper(name)
	if len(upper) > 100 {
		return nil // nobody meant anything by that, and comparing is quadratic
	}
	var near []scored
	for _, s := range t {
		d := distance(upper, s.Name)
		switch {
		case d <= 1+len(s.Name)/8:
			near = append(near, scored{s.Name, d})
		case len(upper) >= 4 && strings.HasSuffix(s.Name, strings.TrimPrefix(upper, "WIN4_")):
			near = append(near, scored{s.Name, d}) // CMADDR for WIN4_VERDE_CMADDR
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return cmp.Compare(a.d, b.d) })
	var names []string
	for _, n := range near[:min(len(near), 3)] {
		names = append(names, n.name)
	}
	return names
}

// didYouMean is " (did you mean A or B?)", or nothing.
func (t Table) didYouMean(name string) string {
	near := t.Nearest(name)
	if len(near) == 0 {
		return ""
	}
	return " (did you mean " + strings.Join(near, " or ") + "?)"
}

// distance is the number of letters to change, add or leave out to get from a
// to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

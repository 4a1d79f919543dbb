package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Values is what a file says, with the defaults of a table for the rest. All
// values are checked. It does not change; any goroutine may use it.
type Values struct {
	path     string
	table    Table
	set      map[string]Assignment // only names of the table
	warnings []string
}

// Load reads settings.global at path; empty means DefaultPath. The default file
// may be missing: all settings have their defaults then. A file that was named
// must be there. All mistakes of the file come as one error, usually a
// *FileError; settings that contradict each other are mistakes too.
func Load(path string) (*Values, error) {
	byDefault := path == "" || path == DefaultPath
	if path == "" {
		path = DefaultPath
	}
	data, _, err := readSettings(path)
	switch {
	case byDefault && errors.Is(err, fs.ErrNotExist):
		// Parse finds nothing in no data.
	case errors.Is(err, fs.ErrNotExist):
		return nil, missing(path)
	case err != nil:
		return nil, fmt.Errorf("settings file: %w", err)
	}
	return Parse(path, data)
}

func missing(path string) error {
	return fmt.Errorf("settings file %s: %w; make one with: verdecmd settings sample > %s", path, fs.ErrNotExist, path)
}

// Parse is Load for bytes that are already there; path is used in errors.
func Parse(path string, data []byte) (*Values, error) {
	return strict(parse(path, data, global))
}

// LoadTable reads a file of another table, such as desktop.conf. The file must
// be there; the error of a missing one is fs.ErrNotExist.
func LoadTable(path string, table Table) (*Values, error) {
	data, _, err := readSettings(path)
	if err != nil {
		return nil, err
	}
	return ParseTable(path, data, table)
}

// ParseTable is LoadTable for bytes that are already there.
func ParseTable(path string, data []byte, table Table) (*Values, error) {
	return strict(parse(path, data, table))
}

func strict(v *Values, err error) (*Values, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

// parse returns values beside an error, with the defaults in place of what is
// wrong, for those who want to show a file that has mistakes.
func parse(path string, data []byte, table Table) (*Values, error) {
	v := &Values{path: path, table: table, set: map[string]Assignment{}}
	f, err := ParseFile(path, data)
	if err != nil {
		return v, err
	}
	var problems []Problem
	for _, name := range f.Names() {
		a, _ := f.Get(name)
		s, ok := table.Find(name)
		if !ok {
			v.warnUnknown(a)
			continue
		}
		if err := s.CheckValue(a.Value); err != nil {
			problems = append(problems, Problem{a.Line, a.Col, err.Error()})
			continue
		}
		v.set[name] = a
	}
	if problems == nil && len(table) > 0 && &table[0] == &global[0] {
		problems = v.contradictions()
	}
	if problems != nil {
		return v, &FileError{path, problems}
	}
	return v, nil
}

// warnUnknown notes a name that looks as if it were meant for us. Others belong
// to other programs that read the same file.
func (v *Values) warnUnknown(a Assignment) {
	if strings.HasPrefix(a.Name, "WIN4_") || strings.HasPrefix(a.Name, "VERDECMD_") {
		v.warnings = append(v.warnings, fmt.Sprintf("%s:%d: unknown setting %s is ignored%s", v.path, a.Line, a.Name, v.table.didYouMean(a.Name)))
	}
}

// Warnings are lines for the log: settings that nobody knows.
func (v *Values) Warnings() []string { return v.warnings }

// Path is the file that was read, or would have been.
func (v *Values) Path() string { return v.path }

// IsSet says whether the file gives the setting a value, be it the default.
func (v *Values) IsSet(name string) bool {
	v.must(name)
	_, ok := v.set[name]
	return ok
}

// Where is "FILE:LINE" of the assignment that counts, or "default".
func (v *Values) Where(name string) string {
	v.must(name)
	if a, ok := v.set[name]; ok {
		return fmt.Sprintf("%s:%d", v.path, a.Line)
	}
	return "default"
}

// Raw is the value of a setting of any kind as it is written.
func (v *Values) Raw(name string) string {
	s := v.must(name)
	if a, ok := v.set[name]; ok {
		return a.Value
	}
	return s.Default
}

// String is the value of a Text, Path, Address, Addresses or Choice.
func (v *Values) String(name string) string {
	v.must(name, Text, Path, Address, Addresses, Choice)
	return v.Raw(name)
}

// Bool is the value of a Bool.
func (v *Values) Bool(name string) bool {
	return parsed(v, name, Bool, parseBool)
}

// Int is the value of an Integer.
func (v *Values) Int(name string) int {
	return int(parsed(v, name, Integer, parseInteger))
}

// MiB is the value of a MiB, in MiB.
func (v *Values) MiB(name string) int {
	return int(parsed(v, name, MiB, parseMiB))
}

// Duration is the value of a Duration.
func (v *Values) Duration(name string) time.Duration {
	return parsed(v, name, Duration, parseDuration)
}

// Words is the value of Words, taken apart at blanks, which may be none.
func (v *Values) Words(name string) []string {
	v.must(name, Words)
	return strings.Fields(v.Raw(name))
}

// must finds a setting, of one of these kinds if any are given, and panics
// otherwise.
func (v *Values) must(name string, kinds ...Kind) Setting {
	s, ok := v.table.Find(name)
	if !ok {
		panic("settings: no setting " + name)
	}
	for _, k := range kinds {
		if s.Kind == k {
			return s
		}
	}
	if len(kinds) > 0 {
		panic(fmt.Sprintf("settings: %s is %v", name, s.Kind))
	}
	return s
}

// parsed is the value of a setting of one kind. What the file says was checked
// when it was read; a default that cannot be parsed is a mistake in the table.
func parsed[T any](v *Values, name string, kind Kind, parse func(string) (T, error)) T {
	v.must(name, kind)
	var value T
	if raw := v.Raw(name); raw != "" {
		var err error
		if value, err = parse(raw); err != nil {
			panic(fmt.Sprintf("settings: default of %s: %v", name, err))
		}
	}
	return value
}

package settings

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"
)

// maxFile is the largest file that is read, in bytes. The shell's grammar nests,
// and its parser uses the stack for that: a file of a megabyte that consists of
// "$(" would end the program. Nothing of 32 KiB does, or takes long.
const maxFile = 32 << 10

// Problem is one mistake in a file.
type Problem struct {
	Line, Col int // from 1; Col counts bytes. Both 0: the file as a whole.
	Text      string
}

// FileError is everything that is wrong with one file.
type FileError struct {
	File     string
	Problems []Problem // at least one, in the order of the file
}

// Error gives one line for each problem, each with file, line and column.
func (e *FileError) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	if len(e.Problems) > 1 {
		lines = append(lines, fmt.Sprintf("%s has %d mistakes:", e.File, len(e.Problems)))
	}
	for _, p := range e.Problems {
		if p.Line == 0 {
			lines = append(lines, fmt.Sprintf("%s: %s", e.File, p.Text))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", e.File, p.Line, p.Col, p.Text))
	}
	return strings.Join(lines, "\n  ")
}

// Assignment is one NAME=value of a file.
type Assignment struct {
	Name, Value string
	Line, Col   int // of the name, from 1

	valueFrom, valueTo int // bytes of the value as it is written, with quotes
	lineFrom, lineTo   int // bytes of the whole line, or lines, with the line end
}

// File is a settings file in memory. Everything that is not an assignment, and
// the way in which assignments are written, stays as it is.
type File struct {
	name  string
	data  []byte
	words []Assignment
}

// ParseFile reads the bytes of a file; name is used in errors. An error is
// always a *FileError. A file is a list of lines NAME=value or export
// NAME=value with the quotes of the shell, comments and empty lines; nothing is
// ever evaluated, and what would need that is a mistake.
func ParseFile(name string, data []byte) (*File, error) {
	f := &File{name: name, data: data}
	if p := badBytes(data); p.Text != "" {
		return nil, &FileError{name, []Problem{p}}
	}
	tree, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(data), name)
	if err != nil {
		return nil, &FileError{name, []Problem{syntaxProblem(err)}}
	}
	var problems []Problem
	lastLine := 0
	for _, s := range tree.Stmts {
		a, p := f.assignment(s)
		if p.Text == "" && a.Line == lastLine {
			p = at(s.Pos(), "a second assignment on the same line: give it a line of its own")
		}
		lastLine = int(s.End().Line())
		if p.Text != "" {
			problems = append(problems, p)
			continue
		}
		f.words = append(f.words, a)
	}
	if problems != nil {
		return nil, &FileError{name, problems}
	}
	return f, nil
}

// badBytes finds what is no text at all, which the parser would pass over.
func badBytes(data []byte) Problem {
	if len(data) > maxFile {
		return Problem{Text: fmt.Sprintf("%d bytes, more than a settings file can have (%d): is it another file?", len(data), maxFile)}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return Problem{1, 1, "begins with a byte order mark: save it as UTF-8 without one"}
	}
	line, start := 1, 0
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return Problem{line, i - start + 1, fmt.Sprintf("the byte 0x%02x is not UTF-8: save the file as UTF-8", data[i])}
		case r == '\n':
			line, start = line+1, i+1
		case r == '\r' && i+1 < len(data) && data[i+1] == '\n':
		case r != '\t' && isControl(r):
			return Problem{line, i - start + 1, fmt.Sprintf("control character %U: remove it", r)}
		}
		i += n
	}
	return Problem{}
}

// isControl is true for the control characters of ASCII and Latin 1.
func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

func syntaxProblem(err error) Problem {
	var pe syntax.ParseError
	if errors.As(err, &pe) {
		return at(pe.Pos, "%s", pe.Text)
	}
	var le syntax.LangError
	if errors.As(err, &le) {
		return at(le.Pos, "%s: write NAME=\"value\"", le.Feature)
	}
	return Problem{Text: err.Error()}
}

func at(p syntax.Pos, format string, args ...any) Problem {
	return Problem{max(1, int(p.Line())), max(1, int(p.Col())), fmt.Sprintf(format, args...)}
}

// assignment takes the one assignment out of a statement, or says why there is
// none.
func (f *File) assignment(s *syntax.Stmt) (Assignment, Problem) {
	const want = `write NAME="value"`
	none := Assignment{}
	if s.Background || s.Coprocess || s.Disown || s.Negated || len(s.Redirs) > 0 {
		return none, at(s.Pos(), "a command, not a setting: %s", want)
	}
	var assigns []*syntax.Assign
	switch c := s.Cmd.(type) {
	case *syntax.CallExpr:
		assigns = c.Assigns
		if len(c.Args) > 0 {
			return none, f.commandProblem(s, c)
		}
	case *syntax.DeclClause:
		if c.Variant.Value != "export" {
			return none, at(s.Pos(), "%q is not understood here: %s", c.Variant.Value, want)
		}
		assigns = c.Args
	default:
		return none, at(s.Pos(), "a command, not a setting: nothing is run in this file; %s", want)
	}
	if len(assigns) != 1 {
		return none, at(s.Pos(), "%d assignments in one line: give each a line of its own", len(assigns))
	}
	a := assigns[0]
	switch {
	case a.Name == nil || a.Naked:
		return none, at(a.Pos(), "an assignment without a value: %s", want)
	case a.Append:
		return none, at(a.Pos(), "%s+= is not understood: write the whole value after %s=", a.Name.Value, a.Name.Value)
	case a.Index != nil || a.Array != nil:
		return none, at(a.Pos(), "%s is a list: write one value, %s=\"value\"", a.Name.Value, a.Name.Value)
	}
	value := ""
	from := int(a.Name.End().Offset()) + 1
	to := from
	if a.Value != nil {
		var p Problem
		if value, p = literal(a.Name.Value, a.Value); p.Text != "" {
			return none, p
		}
		from, to = int(a.Value.Pos().Offset()), int(a.Value.End().Offset())
		if f.data[to-1] == '\r' {
			to-- // the parser counts the half of a Windows line end to the word
		}
	}
	lineFrom, lineTo := f.lines(int(s.Pos().Offset()), to)
	return Assignment{
		Name: a.Name.Value, Value: value,
		Line: int(a.Pos().Line()), Col: int(a.Pos().Col()),
		valueFrom: from, valueTo: to, lineFrom: lineFrom, lineTo: lineTo,
	}, Problem{}
}

// commandProblem explains a line that the shell would run as a command. Nearly
// always somebody put blanks around the = or forgot the quotes.
func (f *File) commandProblem(s *syntax.Stmt, c *syntax.CallExpr) Problem {
	first := c.Args[0].Lit()
	if len(c.Assigns) > 0 {
		return at(c.Args[0].Pos(), "a value with blanks needs quotes: write %s=\"...\"", c.Assigns[0].Name.Value)
	}
	if len(c.Args) > 1 && strings.HasPrefix(c.Args[1].Lit(), "=") {
		return at(s.Pos(), "blanks around the = are not allowed: write %s=\"value\"", first)
	}
	if first == "" {
		return at(s.Pos(), `a command, not a setting: nothing is run in this file; write NAME="value"`)
	}
	return at(s.Pos(), "%.40q is a command, not a setting: nothing is run in this file; write NAME=\"value\"", first)
}

// lines widens a range of bytes to whole lines with the last line's end.
func (f *File) lines(from, to int) (int, int) {
	from = bytes.LastIndexByte(f.data[:from], '\n') + 1
	if end := bytes.IndexByte(f.data[to:], '\n'); end >= 0 {
		return from, to + end + 1
	}
	return from, len(f.data)
}

// Get returns the assignment that counts for a name: the last one.
func (f *File) Get(name string) (Assignment, bool) {
	for _, a := range slices.Backward(f.words) {
		if a.Name == name {
			return a, true
		}
	}
	return Assignment{}, false
}

// Names returns the names of the file, each once, in the order of the file.
func (f *File) Names() []string {
	var names []string
	for _, a := range f.words {
		if !slices.Contains(names, a.Name) {
			names = append(names, a.Name)
		}
	}
	return names
}

// Bytes returns what the file is to contain. They must not be changed.
func (f *File) Bytes() []byte { return f.data }

package settings

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"
)

// literal is the value of a word that a shell would take as it stands. What a
// shell would replace by something else is a problem.
func literal(name string, w *syntax.Word) (string, Problem) {
	var b strings.Builder
	for i, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			// The shell puts a home directory for ~ at the start and after a colon.
			if strings.Contains(p.Value, ":~") || i == 0 && strings.HasPrefix(p.Value, "~") {
				return "", at(p.Pos(), "the value of %s contains a ~, which nobody replaces here: write the path in full", name)
			}
			b.WriteString(unescape(p.Value, ""))
		case *syntax.SglQuoted:
			if p.Dollar {
				return "", at(p.Pos(), "the value of %s uses $'...', which is not understood: use plain quotes", name)
			}
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			if p.Dollar {
				return "", at(p.Pos(), "the value of %s uses $\"...\", which is not understood: use plain quotes", name)
			}
			for _, inner := range p.Parts {
				lit, ok := inner.(*syntax.Lit)
				if !ok {
					return "", expansion(name, inner)
				}
				b.WriteString(unescape(lit.Value, "$`\"\\"))
			}
		default:
			return "", expansion(name, part)
		}
	}
	value := b.String()
	if err := CheckText(value); err != nil {
		return "", at(w.Pos(), "the value of %s %v", name, err)
	}
	return value, Problem{}
}

func expansion(name string, part syntax.WordPart) Problem {
	what := "something that a shell would replace"
	switch part.(type) {
	case *syntax.ParamExp:
		what = "a variable"
	case *syntax.CmdSubst, *syntax.ProcSubst:
		what = "a command"
	case *syntax.ArithmExp:
		what = "a calculation"
	}
	return at(part.Pos(), "the value of %s contains %s: nothing is evaluated in this file; write the value itself, or put '...' around it to take it as it is", name, what)
}

// unescape removes the backslashes of a literal: those before a byte of special,
// or before any byte where special is empty, as outside of quotes.
func unescape(s, special string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && (special == "" || strings.IndexByte(special, s[i+1]) >= 0) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// quote writes a value so that literal, and any shell, reads the same again.
func quote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(value) + `"`
}

// CheckText says whether a value can stand in a file: UTF-8 in one line,
// without control characters except the tabulator. The error continues a
// sentence that begins with the value's name.
func CheckText(value string) error {
	if len(value) > 16<<10 {
		return fmt.Errorf("is too long: %d bytes, at most %d", len(value), 16<<10)
	}
	if !utf8.ValidString(value) {
		return errors.New("is not UTF-8")
	}
	for _, r := range value {
		switch {
		case r == '\n' || r == '\r':
			return errors.New("goes over the end of the line: a value must stand in one line")
		case r != '\t' && isControl(r):
			return fmt.Errorf("contains the control character %U", r)
		}
	}
	return nil
}

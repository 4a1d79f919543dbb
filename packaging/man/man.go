// Package man writes the manual pages: what a person wrote (the .in files
// beside it) with what the program's own tables say put in its place.
//
// A line "@NAME@" of a .in file is replaced by the part of that name. All text
// from tables goes through one escape, so that nothing in it can be taken for
// a request of roff. The pages are in the mdoc language, the tests hold them
// clean under mandoc's checks, and they are the same wherever they are made.
package man

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Entry is one thing of a list: a command, a setting, an exit code.
type Entry struct {
	Head    string      // as it is typed
	Text    []string    // paragraphs
	Terms   [][2]string // its arguments: what is typed, what it means
	Example []string    // lines, as they are typed
	Notes   []string    // paragraphs after the example
}

// Page fills a .in file. It fails where a part is missing or is not asked for.
func Page(in []byte, parts map[string]string) ([]byte, error) {
	var b strings.Builder
	used := map[string]bool{}
	for line := range strings.Lines(string(in)) {
		name := strings.TrimSpace(line)
		if !strings.HasPrefix(name, "@") || !strings.HasSuffix(name, "@") || len(name) < 3 {
			b.WriteString(line)
			continue
		}
		name = strings.Trim(name, "@")
		part, ok := parts[name]
		if !ok {
			return nil, fmt.Errorf("there is no part for @%s@", name)
		}
		used[name] = true
		b.WriteString(part)
	}
	for name := range parts {
		if !used[name] {
			return nil, fmt.Errorf("no line is @%s@", name)
		}
	}
	return []byte(fold(b.String())), nil
}

// width is how long lines of text may be.
const width = 79

// fold breaks long lines of text between words. Requests and what is literal
// stay as they are.
func fold(page string) string {
	var b strings.Builder
	exactly := false
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, ".Bd -literal"):
			exactly = true
		case strings.HasPrefix(line, ".Ed"):
			exactly = false
		case !exactly && !strings.HasPrefix(line, "."):
			for len(line) > width+1 {
				at := strings.LastIndex(line[:width+1], " ")
				if at <= 0 || at+1 < len(line) && strings.ContainsAny(line[at+1:at+2], ".'") {
					break
				}
				b.WriteString(line[:at] + "\n")
				line = line[at+1:]
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// List is a list of entries.
func List(entries []Entry) string {
	var b strings.Builder
	b.WriteString(".Bl -tag -width Ds\n")
	for _, e := range entries {
		b.WriteString(".It " + arg("Ic", e.Head) + "\n")
		b.WriteString(body(e))
	}
	b.WriteString(".El\n")
	return b.String()
}

// Section is one entry under a heading of its own.
func Section(e Entry) string {
	return ".Ss " + quoted(e.Head) + "\n" + body(e)
}

// body is all of an entry but its head.
func body(e Entry) string {
	var parts []string
	for _, p := range e.Text {
		parts = append(parts, prose(p))
	}
	if len(e.Terms) > 0 {
		var b strings.Builder
		b.WriteString(".Bl -tag -width Ds -compact\n")
		for _, t := range e.Terms {
			b.WriteString(".It " + arg("Cm", t[0]) + "\n" + prose(t[1]))
		}
		parts = append(parts, b.String()+".El\n")
	}
	if len(e.Example) > 0 {
		name := "Example:\n"
		if len(e.Example) > 1 {
			name = "Examples:\n"
		}
		parts = append(parts, name+literal(e.Example))
	}
	for _, p := range e.Notes {
		parts = append(parts, prose(p))
	}
	return joined(parts)
}

// joined puts paragraphs after one another. A block brings its own distance.
func joined(parts []string) string {
	var b strings.Builder
	block := false
	for i, p := range parts {
		starts := strings.HasPrefix(p, ".Bd")
		if i > 0 && !starts && (!block || !strings.HasPrefix(p, ".")) {
			b.WriteString(".Pp\n")
		}
		b.WriteString(p)
		block = strings.HasPrefix(p, ".Bl")
	}
	return b.String()
}

// Commands is a section for each sub-command below root, except those named.
func Commands(root *cobra.Command, except ...string) string {
	var b strings.Builder
	for _, c := range root.Commands() {
		skip := c.Hidden
		for _, name := range except {
			skip = skip || c.Name() == name
		}
		if skip {
			continue
		}
		if c.Runnable() {
			b.WriteString(Section(command(c)))
		}
		if c.HasSubCommands() {
			if !c.Runnable() {
				e := command(c)
				e.Head = c.CommandPath()
				b.WriteString(Section(e))
			}
			b.WriteString(Commands(c))
		}
	}
	return b.String()
}

// command is a sub-command as an entry.
func command(c *cobra.Command) Entry {
	e := Entry{Head: usage(c), Text: paragraphs(c.Long)}
	if len(e.Text) == 0 {
		e.Text = []string{sentence(c.Short)}
	}
	e.Terms = options(c.NonInheritedFlags())
	if c.Example != "" {
		for line := range strings.Lines(c.Example) {
			e.Example = append(e.Example, strings.TrimSpace(line))
		}
	}
	return e
}

func usage(c *cobra.Command) string {
	u := c.Use
	if p := c.Parent(); p != nil {
		u = p.CommandPath() + " " + u
	}
	if c.HasAvailableFlags() && !strings.Contains(u, "[OPTION]") {
		u += " [OPTION]..."
	}
	return u
}

// Options is the list of a command's own options.
func Options(c *cobra.Command) string {
	var b strings.Builder
	b.WriteString(".Bl -tag -width Ds\n")
	for _, t := range options(c.NonInheritedFlags()) {
		b.WriteString(".It " + arg("Cm", t[0]) + "\n" + prose(t[1]))
	}
	b.WriteString(".El\n")
	return b.String()
}

// Example is a command's examples.
func Example(c *cobra.Command) string { return literal(command(c).Example) }

// Description is a command's long text.
func Description(c *cobra.Command) string { return body(Entry{Text: paragraphs(c.Long)}) }

// options are the visible flags, in the order of their names.
func options(flags *pflag.FlagSet) [][2]string {
	var out [][2]string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		head := "--" + f.Name
		if f.Shorthand != "" {
			head = "-" + f.Shorthand + ", " + head
		}
		switch {
		case value != "" && f.NoOptDefVal != "":
			head += "[=" + strings.ToUpper(value) + "]"
		case value == "int":
			head += " N"
		case value == "string" || value == "strings":
			head += " " + strings.ToUpper(f.Name)
		case strings.Contains(value, "|"): // words as they are typed
			head += " " + value
		case value != "":
			head += " " + strings.ToUpper(value)
		}
		switch f.DefValue {
		case "", "false", "0", "[]":
		default:
			text += " (default " + strings.Trim(f.DefValue, "[]") + ")"
		}
		out = append(out, [2]string{head, sentence(text)})
	})
	return out
}

// sentence makes a sentence of a text of help.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// paragraphs parts a text at its empty lines.
func paragraphs(text string) []string {
	var out []string
	for p := range strings.SplitSeq(text, "\n\n") {
		if p = strings.Trim(p, "\n"); p != "" {
			out = append(out, p)
		}
	}
	return out
}

var sentenceEnd = regexp.MustCompile(`([A-Za-z0-9)"][.!?]) +([A-Z"])`)

// prose is a paragraph, a line for each sentence. Lines that are indented stay
// as they are.
func prose(p string) string {
	var b, words strings.Builder
	var code []string
	flush := func() {
		if t := strings.Join(strings.Fields(words.String()), " "); t != "" {
			t = sentenceEnd.ReplaceAllString(t, "$1\n$2")
			for line := range strings.SplitSeq(t, "\n") {
				b.WriteString(escape(line) + "\n")
			}
		}
		words.Reset()
		if len(code) > 0 {
			b.WriteString(literal(code))
		}
		code = nil
	}
	for line := range strings.SplitSeq(p, "\n") {
		if strings.HasPrefix(line, "  ") {
			if words.Len() > 0 {
				flush()
			}
			code = append(code, strings.TrimSpace(line))
			continue
		}
		if len(code) > 0 {
			flush()
			b.WriteString(".Pp\n")
		}
		words.WriteString(line + " ")
	}
	flush()
	return b.String()
}

// literal are lines as they are typed.
func literal(lines []string) string {
	var b strings.Builder
	b.WriteString(".Bd -literal -offset indent\n")
	for _, l := range lines {
		b.WriteString(exact(strings.TrimRight(l, " ")) + "\n")
	}
	b.WriteString(".Ed\n")
	return b.String()
}

// arg is a macro with one argument.
func arg(macro, s string) string { return macro + " " + quoted(s) }

// quoted is an argument of a macro that stays one and is no macro itself, nor
// ends like a sentence.
func quoted(s string) string {
	s = `\&` + strings.TrimPrefix(exact(s), `\&`)
	if strings.HasSuffix(s, ".") {
		s += `\&`
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// exact is escape for what is typed: a minus stays one.
func exact(s string) string { return strings.ReplaceAll(escape(s), "-", `\-`) }

// escape makes text of any line: no backslash and no first character of it is
// taken as a request.
func escape(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

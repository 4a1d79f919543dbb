package settings

import (
	"fmt"
	"strings"
)

// Sample returns a settings.global with every setting explained and commented
// out, so that all of them have their defaults.
func Sample() []byte {
	var b strings.Builder
	b.WriteString(`# Settings of verdecmd. Lines look like NAME="value"; they are read, not run:
# no variables, no commands. The last line for a name counts. A line that begins
# with # says nothing; remove the # to set something.
# See also: verdecmd settings --help
`)
	for _, s := range global {
		b.WriteString("\n" + wrap(s.Text, 78))
		fmt.Fprintf(&b, "# %s\n", strings.Join(s.facts(), "; "))
		fmt.Fprintf(&b, "#%s=%s\n", s.Name, quote(s.Default))
	}
	return []byte(b.String())
}

// facts are who reads the setting and which values it takes, in short.
func (s Setting) facts() []string {
	facts := []string{"Read by: " + s.Scope.String()}
	switch {
	case s.Kind == Choice:
		facts = append(facts, orList(s.Choices))
	case s.Kind != Text && s.Max > 0 && s.Kind != Path:
		facts = append(facts, fmt.Sprintf("%s, %d to %d", s.Kind, s.Min, s.Max))
	case s.Kind != Text:
		facts = append(facts, s.Kind.String())
	}
	return facts
}

// wrap makes comment lines of at most width bytes, where the words allow it.
func wrap(text string, width int) string {
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && line != "#" {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

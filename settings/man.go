package settings

import "fmt"

// Topic is a setting as the manual shows it.
type Topic struct {
	Name    string
	Text    []string
	Facts   [][2]string // what is asked of every setting, with the answer
	Example string      // a line of the file
}

// Manual returns the settings as the manual shows them, in its order.
func (t Table) Manual() []Topic {
	out := make([]Topic, len(t))
	for i, s := range t {
		example := s.Example
		if example == "" {
			example = s.Default
		}
		out[i] = Topic{Name: s.Name, Text: []string{s.Text}, Facts: s.manual(), Example: s.Name + "=" + quote(example)}
	}
	return out
}

// manual answers what is asked of every setting.
func (s Setting) manual() [][2]string {
	def := s.Default
	if def == "" {
		def = "empty"
	}
	counts := "when the program reads its settings again"
	if s.Restart {
		counts = "after a restart"
	}
	return [][2]string{{"Value", s.Wants()}, {"Default", def}, {"Read by", s.Scope.String()}, {"A change counts", counts}}
}

// bounds are the limits of a value, after a comma, where it has some.
func (s Setting) bounds() string {
	switch {
	case s.Max == 0:
		return ""
	case s.Kind == Path:
		return fmt.Sprintf(", at most %d bytes", s.Max)
	}
	return fmt.Sprintf(", %d to %d", s.Min, s.Max)
}

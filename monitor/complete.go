package monitor

import (
	"slices"
	"strings"
)

// complete answers the command of that name: what may the last word of the
// line become?
func (t *Table) complete(c *Call) Reply {
	list := t.candidates(c.Args["line"], c.Level)
	more := len(list) > maxChoice
	if more {
		list = list[:maxChoice]
	}
	return Reply{
		Code: 213, Pairs: []Pair{{"count", len(list)}, {"more", more}}, Text: count(len(list), "candidate") + ".",
		List: &List{
			Columns: []Column{{"word", "WORD", Plain}, {"summary", "SUMMARY", Plain}},
			Len:     len(list),
			Row: func(i int, r *Row) {
				r.String(list[i].Word)
				r.String(list[i].Summary)
			},
		},
	}
}

// candidates are the words that the last word of the line may become, at most
// one more than may be listed. The line may be anything.
func (t *Table) candidates(line string, level Level) []Choice {
	line = strings.TrimLeft(line, " \t")
	last := line[strings.LastIndexAny(line, " \t")+1:]
	words := strings.Fields(strings.TrimSuffix(line, last))
	if len(words) == 0 {
		var out []Choice
		for _, cmd := range t.commands {
			if cmd.Level <= level {
				out = append(out, Choice{cmd.Name, cmd.Summary})
			}
		}
		return begin(out, asciiLower(last))
	}
	cmd := t.byName[asciiLower(words[0])]
	if cmd == nil || cmd.Level > level {
		return nil
	}
	if cmd.Rest {
		rest := strings.TrimLeft(strings.TrimPrefix(line, words[0]), " \t")
		return t.candidates(rest, level)
	}
	return cmd.candidates(words[1:], last, level)
}

// candidates are the words that may follow those given.
func (cmd *Entry) candidates(given []string, last string, level Level) []Choice {
	if key, value, ok := strings.Cut(last, "="); ok {
		for i := range cmd.Args {
			if a := &cmd.Args[i]; a.Kind == Option && a.Name == key {
				out := begin(a.choices(given, value), value)
				for j := range out {
					out[j].Word = key + "=" + out[j].Word
				}
				return out
			}
		}
		return nil
	}
	var out []Choice
	position := 0
	for _, w := range given {
		if !strings.Contains(w, "=") && !slices.ContainsFunc(cmd.Args, func(a Arg) bool { return a.Kind == Flag && a.Name == w }) {
			position++
		}
	}
	if a := cmd.positional(position); a != nil {
		out = begin(a.choices(given, last), last)
	}
	for i := range cmd.Args {
		a := &cmd.Args[i]
		w := a.Name
		if a.Kind == Positional || a.Level > level {
			continue
		}
		if a.Kind == Option {
			w += "="
		}
		twice := slices.ContainsFunc(given, func(g string) bool { return g == w || a.Kind == Option && strings.HasPrefix(g, w) })
		if strings.HasPrefix(w, last) && !twice {
			out = append(out, Choice{w, a.Help})
		}
	}
	return out[:min(len(out), maxChoice+1)]
}

func (a *Arg) choices(given []string, prefix string) []Choice {
	if len(a.Values) > 0 {
		out := make([]Choice, len(a.Values))
		for i, v := range a.Values {
			out[i] = Choice{Word: v}
		}
		return out
	}
	if a.Complete != nil {
		return a.Complete(prefix)
	}
	if a.CompleteAfter != nil {
		return a.CompleteAfter(given)
	}
	return nil
}

// begin keeps the words that begin with prefix and that can be typed without
// quotation marks.
func begin(list []Choice, prefix string) []Choice {
	var out []Choice
	for _, c := range list {
		if strings.HasPrefix(c.Word, prefix) && c.Word != "" && Quote(c.Word) == c.Word {
			out = append(out, c)
			if len(out) > maxChoice {
				break
			}
		}
	}
	return out
}

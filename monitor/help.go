package monitor

import (
	"fmt"
	"strings"
)

// topics are the commands for the completion of help.
func (t *Table) topics(string) []Choice {
	out := make([]Choice, 0, len(t.commands))
	for _, cmd := range t.commands {
		out = append(out, Choice{cmd.Name, cmd.Summary})
	}
	return out
}

// help lists the commands that the level may use, or explains one.
func (t *Table) help(c *Call) (Reply, error) {
	if !c.Has("command") {
		var list []*Entry
		for _, cmd := range t.commands {
			if cmd.Level <= c.Level {
				list = append(list, cmd)
			}
		}
		return helpReply(list, func(Human) []string { return overview(list) }, `Type "help COMMAND" for more about one of them.`), nil
	}
	name := asciiLower(c.Args["command"])
	cmd := t.byName[name]
	if cmd == nil {
		return Reply{}, t.noTopic(name, c.Level)
	}
	end := ""
	if len(cmd.See) > 0 {
		end = "See also: " + strings.Join(cmd.See, ", ") + "."
	}
	if cmd.Level > c.Level {
		end = strings.TrimSpace(fmt.Sprintf("It needs the level %s; yours is %s. %s", cmd.Level, c.Level, end))
	}
	return helpReply([]*Entry{cmd}, func(Human) []string { return cmd.manual() }, end), nil
}

func (t *Table) noTopic(name string, level Level) *Error {
	err := &Error{
		Code:  550,
		Pairs: []Pair{{"kind", "command"}, {"id", name}, {"msg", "no such command"}},
		Text:  fmt.Sprintf("There is no command %q.", cut(name, 64)),
	}
	if t.missing[name] {
		err.Pairs[2].Value = "this build does not have the command yet"
		err.Text = fmt.Sprintf("This build does not have the command %s yet.", name)
	} else if near := t.near(name, level); len(near) > 0 {
		err.Text += " Did you mean " + orList(near) + "?"
	}
	return err
}

func helpReply(list []*Entry, prose func(Human) []string, end string) Reply {
	return Reply{
		Code: 214, Pairs: []Pair{{"count", len(list)}}, Text: end, Prose: prose,
		List: &List{
			Columns: []Column{{Name: "name"}, {Name: "group"}, {Name: "level"}, {Name: "usage"}, {Name: "summary"}},
			Len:     len(list),
			Row: func(i int, r *Row) {
				cmd := list[i]
				r.String(cmd.Name)
				r.String(cmd.Group)
				r.String(cmd.Level.String())
				r.String(cmd.Usage())
				r.String(cmd.Summary)
			},
		},
	}
}

// overview is the list of commands by group, for people.
func overview(list []*Entry) []string {
	var lines []string
	group := ""
	for _, cmd := range list {
		if cmd.Group != group {
			group = cmd.Group
			lines = append(lines, upperFirst(group))
		}
		lines = append(lines, helpLine(cmd.Usage(), cmd.Summary))
	}
	return lines
}

func helpLine(usage, summary string) string {
	return fmt.Sprintf("  %-46s  %s", usage, summary)
}

// manual explains one command to people.
func (cmd *Entry) manual() []string {
	lines := []string{cmd.Usage(), ""}
	for _, l := range cmd.About {
		lines = append(lines, "  "+l)
	}
	if len(cmd.Args) > 0 {
		lines = append(lines, "")
		width := 0
		for i := range cmd.Args {
			width = max(width, len(cmd.Args[i].label()))
		}
		for i := range cmd.Args {
			a := &cmd.Args[i]
			lines = append(lines, fmt.Sprintf("  %-*s  %s", width, a.label(), a.Help))
		}
	}
	if cmd.Example != "" {
		lines = append(lines, "", "  Example: "+cmd.Example)
	}
	return lines
}

// label is the argument in the list of help: as in the usage, without the
// brackets.
func (a *Arg) label() string {
	return strings.Trim(a.usage(), "[]")
}

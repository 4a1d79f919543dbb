package monitor

import (
	"slices"
	"strings"
)

// Topic is a command as the manual shows it.
type Topic struct {
	Name, Usage, Group string
	Level              Level
	Job                bool // it may run as a job
	Summary            string
	About              []string    // paragraphs
	Args               [][2]string // as they are typed; what they mean
	Example            string
	See                []string
}

// Manual returns all commands as the manual shows them, by group.
func (t *Table) Manual() []Topic {
	out := make([]Topic, len(t.commands))
	for i, cmd := range t.commands {
		m := Topic{
			Name: cmd.Name, Usage: cmd.Usage(), Group: cmd.Group, Level: cmd.Level, Summary: cmd.Summary,
			Job:   slices.ContainsFunc(cmd.Args, func(a Arg) bool { return a.Name == "nowait" }),
			About: paragraphs(cmd.About), Example: cmd.Example, See: cmd.See,
		}
		for j := range cmd.Args {
			a := &cmd.Args[j]
			m.Args = append(m.Args, [2]string{a.label(), a.Help})
		}
		out[i] = m
	}
	return out
}

// paragraphs joins lines; an empty one parts two paragraphs.
func paragraphs(lines []string) []string {
	var out []string
	for p := range strings.SplitSeq(strings.Join(lines, "\n"), "\n\n") {
		if p != "" {
			out = append(out, strings.ReplaceAll(p, "\n", " "))
		}
	}
	return out
}

// OwnCommands are those that the monitor has itself: usage and summary.
func OwnCommands() [][2]string { return slices.Clone(localCommands) }

// Exit is an exit code of the monitor.
type Exit struct {
	Status int
	When   string
}

// Exits are all exit codes of the monitor, PROTOCOL 14.2.
func Exits() []Exit {
	return []Exit{
		{0, "all replies were 2xx: done, or so already (204)"},
		{exitFailed, "refused or failed (551 to 555)"},
		{exitUsage, "wrong options, or a line that the master does not understand (500 to 506)"},
		{exitUnreachable, "the master cannot be reached"},
		{exitPermission, "the level is too low (530), or the socket may not be opened"},
		{exitNotFound, "not found (550)"},
		{exitNotNow, "not now (4xx), or no reply in the time of --timeout"},
		{exitLost, "the connection was lost after the command was sent: whether it was done is not known"},
		{exitInterrupted, "ended by Ctrl-C"},
	}
}

// Code is a reply code of the protocol.
type Code struct {
	Code    int
	Keyword string
}

// Codes are all reply codes that the protocol has, in their order.
func Codes() []Code {
	out := make([]Code, 0, len(keywords))
	for code, word := range keywords {
		out = append(out, Code{code, word})
	}
	slices.SortFunc(out, func(a, b Code) int { return a.Code - b.Code })
	return out
}

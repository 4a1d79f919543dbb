package monitor

import (
	"context"
	"fmt"
	"time"
)

// Check is one line of what a host has found out about itself.
type Check struct {
	Name  string // one word that stays the same
	Level string // CheckPass, CheckWarn, CheckFail

	Measured, Wanted string
	Fix              string // what to do; empty where it passes
	Hard             bool   // a fail that keeps desktops away from the host
}

// Levels of checks.
const (
	CheckPass = "pass"
	CheckWarn = "warn"
	CheckFail = "fail"
)

// Checks is the last result of a server's host.
type Checks struct {
	Pass, Warn, Fail int
	At               time.Time     // zero: never checked
	Age              time.Duration // since then
	Version          string        // of the program that checked
	Rows             []Check
}

// CheckAdmin is what the commands about checks need.
type CheckAdmin interface {
	// Checks returns the last result of a server; ok is false where no server
	// has this ID.
	Checks(id uint64) (c Checks, ok bool)
}

func (c Checks) summary() string {
	if c.At.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d pass, %d warn, %d fail", c.Pass, c.Warn, c.Fail)
}

func (c Checks) at() any {
	if c.At.IsZero() {
		return nil
	}
	return c.At
}

// checkCommands are those about checks of hosts.
func checkCommands(b Backend) []Entry {
	return []Entry{{
		Name: "checks", Group: servers,
		Args:    []Arg{{Name: "server", Type: TypeServer, Hint: "SERVER-ID", Help: `the number shown by "servers"`, Complete: func(string) []Choice { return serverChoices(b) }}},
		Summary: "show what a server's host was found to be, compared with the others",
		About: []string{"Shows the last checks that the server's host has made: when its satellite started, every",
			"hour, and whenever \"verdecmd doctor\" is run there. A check that fails and is hard keeps new",
			"desktops away from the server until it passes."},
		Example: "checks 2",
		See:     []string{"server", "servers", "placement"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return checks(c, b) },
	}}
}

func checks(c *Call, b Backend) (Reply, error) {
	id := c.ID("server")
	all, ok := b.Checks(id)
	if !ok {
		return Reply{}, noServer(c, b)
	}
	text := fmt.Sprintf("The host of server %d has not been checked yet; \"verdecmd doctor\" there does it.", id)
	pairs := []Pair{{"count", len(all.Rows)}, {"server", id}}
	if !all.At.IsZero() {
		text = fmt.Sprintf("%s, %s.", all.summary(), Human{}.Ago(all.Age))
		pairs = append(pairs, Pair{"pass", all.Pass}, Pair{"warn", all.Warn}, Pair{"fail", all.Fail}, Pair{"at", all.At}, Pair{"version", all.Version})
	}
	return Reply{
		Code: 210, Pairs: pairs, Text: text,
		Prose: func(Human) []string { return checksProse(all.Rows) },
		List: &List{
			Columns: []Column{{"check", "CHECK", Plain}, {"level", "LEVEL", Plain}, {"hard", "HARD", Plain}, {"measured", "MEASURED", Plain},
				{"wanted", "WANTED", Plain}, {"fix", "FIX", Plain}},
			Len: len(all.Rows),
			Row: func(i int, r *Row) {
				k := &all.Rows[i]
				r.String(k.Name)
				r.String(k.Level)
				r.Bool(k.Hard)
				r.String(k.Measured)
				r.String(k.Wanted)
				r.String(k.Fix)
			},
		},
	}, nil
}

// checksProse is a line for each check, and below it what is wanted and what to
// do where it does not pass.
func checksProse(rows []Check) (out []string) {
	width := 0
	for _, k := range rows {
		width = max(width, len(k.Name))
	}
	for _, k := range rows {
		out = append(out, fmt.Sprintf("%-6s%-*s  %s", k.Level, width, k.Name, k.Measured))
		if k.Level == CheckPass {
			continue
		}
		more := func(text string) { out = append(out, fmt.Sprintf("%-*s%s", 6+width+2, "", text)) }
		if k.Hard {
			more("keeps new desktops away from this server")
		}
		more("wanted: " + k.Wanted)
		if k.Fix != "" {
			more("fix: " + k.Fix)
		}
	}
	return out
}

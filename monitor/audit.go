package monitor

import (
	"context"
	"regexp"
	"strconv"
	"time"
)

// Audited is a command as it is remembered: who has given it, and what came of
// it.
type Audited struct {
	ID      uint64
	Time    time.Time // when it came
	Caller  Caller
	Level   Level  // of the connection
	Command string // its name
	Line    string // as it was typed, secrets as ***
	Code    int    // of the reply
	Took    time.Duration
}

// AuditFilter says which commands are wanted; a zero field: all of them.
type AuditFilter struct {
	User    string // a login name or a UID
	Command string
	Since   time.Duration // not older than this
	Count   int           // the newest of them
}

// Matches tells whether a command is wanted at now. Count is not looked at.
func (f AuditFilter) Matches(a *Audited, now time.Time) bool {
	return (f.User == "" || f.User == a.Caller.Name || f.User == strconv.Itoa(a.Caller.UID)) &&
		(f.Command == "" || f.Command == a.Command) && (f.Since == 0 || now.Sub(a.Time) <= f.Since)
}

// AuditAdmin is what the command audit needs.
type AuditAdmin interface {
	// Audit returns the commands that are kept and wanted, the newest last.
	Audit(ctx context.Context, f AuditFilter) ([]Audited, error)
}

// token is a token, wherever somebody may have typed one by mistake.
var token = regexp.MustCompile(`(?i)\bvd1-[0-9a-z-]*`)

// redact takes out of a line what looks like a secret.
func redact(line string) string { return token.ReplaceAllString(line, "vd1-***") }

// auditShown is how many commands audit shows by itself.
const auditShown = 100

func auditCommands(t *Table, b Backend) []Entry {
	changing := func(string) (out []Choice) {
		for _, cmd := range t.commands {
			if cmd.Level > Viewer {
				out = append(out, Choice{cmd.Name, cmd.Summary})
			}
		}
		return out
	}
	return []Entry{{
		Name: "audit", Group: working,
		Args: []Arg{
			{Name: "user", Kind: Option, Hint: "NAME", Optional: true, Help: "only those of this login name or UID"},
			{Name: "command", Kind: Option, Hint: "NAME", Optional: true, Complete: changing, Help: "only this command"},
			{Name: "since", Kind: Option, Type: TypeTime, Hint: "TIME", Optional: true, Help: "only those of the last so many seconds, or 10m, 2h, 7d"},
			{Name: "count", Kind: Option, Type: TypeNumber, Hint: "N", Optional: true, Help: "the newest N; 100 by itself"},
		},
		Summary: "list who has changed what",
		About: []string{"Lists the commands that have changed or tried to change something, the newest last: when,",
			"by whom, what came of it, and how long it took. The newest 10000 are kept, over restarts", "of the master too. Secrets are shown as ***."},
		Example: "audit user=alice since=2d",
		See:     []string{"jobs", "events"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return audit(ctx, c, b) },
	}}
}

func audit(ctx context.Context, c *Call, b AuditAdmin) (Reply, error) {
	f := AuditFilter{User: c.Args["user"], Command: asciiLower(c.Args["command"]), Since: c.Time("since"), Count: auditShown}
	if c.Has("count") {
		f.Count = int(min(c.ID("count"), 1<<20))
	}
	list, err := b.Audit(ctx, f)
	if err != nil {
		return Reply{}, err
	}
	text := count(len(list), "command") + "."
	if len(list) == 0 {
		text = "No commands."
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}}, Text: text,
		List: &List{
			Columns: []Column{{"id", "", Number}, {"time", "TIME", Stamp}, {"user", "USER", Plain}, {"uid", "UID", Number}, {"pid", "PID", Number},
				{"level", "LEVEL", Plain}, {"command", "COMMAND", Plain}, {"code", "CODE", Number}, {"duration", "SECONDS", Number}},
			Len: len(list),
			Row: func(i int, r *Row) {
				a := &list[i]
				r.Uint(a.ID)
				r.Time(a.Time)
				r.String(a.Caller.Name)
				r.Int(int64(a.Caller.UID))
				r.Int(int64(a.Caller.PID))
				r.String(a.Level.String())
				r.String(a.Line)
				r.Int(int64(a.Code))
				r.Float(a.Took.Seconds())
			},
		},
	}, nil
}

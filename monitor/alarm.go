package monitor

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"
)

// Severities of alarms, the worst last.
const (
	Info     = "info"     // worth knowing
	Warning  = "warning"  // somebody should look, not at once
	Critical = "critical" // users are affected, or will be
)

// Severities are all of them, the worst last.
var Severities = []string{Info, Warning, Critical}

// Alarm is something that is wrong, from when it was raised to when it was
// cleared. Kind and object are its identity: while one is active there is no
// second one of the same.
type Alarm struct {
	ID        uint64
	Severity  string
	Kind      string // server-lost, desktop-hung, ...
	Object    string // a server's number, a user, an address, as the kind has it
	Since     time.Time
	Last      time.Time // when it came last
	Count     uint64    // how often it came
	Acked     time.Time // zero: by nobody
	AckedBy   string
	Note      string    // of who acknowledged it
	Cleared   time.Time // zero: active
	ClearedBy string    // empty: it was over by itself
	Text      string    // what is wrong, a sentence
	Help      string    // what helps, in words; may be empty
}

// Active tells whether the alarm has not been cleared.
func (a *Alarm) Active() bool { return a.Cleared.IsZero() }

// state is the alarm in a word.
func (a *Alarm) state() string {
	switch {
	case !a.Active():
		return "cleared"
	case !a.Acked.IsZero():
		return "acked"
	}
	return "active"
}

// AlarmAdmin is what the alarm commands need.
type AlarmAdmin interface {
	// Alarms returns the active alarms, the worst first, or with all also the
	// cleared ones, and the seq of that instant. waiting is how many are known and
	// not yet shown, since the disk of the master has not taken them.
	Alarms(all bool) (list []Alarm, waiting int, seq uint64)
	// Alarm returns one; ok is false where no alarm has this number.
	Alarm(id uint64) (a Alarm, ok bool)
	// AckAlarm notes that the caller knows of an alarm; id 0: of all of which
	// nobody does. n is how many have changed by that.
	AckAlarm(ctx context.Context, id uint64, note string) (n int, err error)
	// ClearAlarm removes one; cleared is false where it is not active.
	ClearAlarm(ctx context.Context, id uint64) (cleared bool, err error)
}

// alarmCommands are those about alarms.
func alarmCommands(b Backend) []Entry {
	id := Arg{Name: "alarm", Type: TypeNumber, Hint: "ID", Help: `the number shown by "alarms"`,
		Complete: func(string) []Choice { return alarmChoices(b) }}
	return []Entry{{
		Name: "alarms", Group: alarms,
		Args: []Arg{{Name: "all", Kind: Flag, Help: "with those that are cleared"},
			{Name: "severity", Kind: Option, Values: Severities, Hint: "LEVEL", Optional: true, Help: "only those: info, warning or critical"}},
		Summary: "list what is wrong in the cluster",
		About: []string{"Lists the active alarms, the worst first; with all, also the cleared ones of the last",
			"30 days, at most 1000. An alarm stays until its cause is over or somebody clears it."},
		Example: "alarms severity=critical",
		See:     []string{"alarm", "ackalarm", "clearalarm"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return listAlarms(c, b), nil },
	}, {
		Name: "alarm", Group: alarms, Args: []Arg{id},
		Summary: "show one alarm",
		About:   []string{"Shows what is wrong, since when, how often it came, who knows of it, and what helps."},
		Example: "alarm 7",
		See:     []string{"alarms"},
		Run: func(_ context.Context, c *Call) (Reply, error) {
			seq := b.Seq()
			a, ok := b.Alarm(c.ID("alarm"))
			if !ok {
				return Reply{}, noAlarm(c.Args["alarm"])
			}
			return showAlarm(&a, seq), nil
		},
	}, {
		Name: "ackalarm", Group: alarms, Level: Operator,
		Args: []Arg{{Name: "alarm", Hint: "ID|all", Help: `the number shown by "alarms", or all`, Complete: func(string) []Choice { return append(alarmChoices(b), Choice{Word: "all"}) }},
			{Name: "note", Kind: Option, Type: TypeText, Hint: "TEXT", Optional: true, Help: "a note for the other administrators"}},
		Summary: "say that you know of an alarm",
		About:   []string{"Notes your name and the note with the alarm. It stays active until its cause is over."},
		Example: `ackalarm 7 note="power supply is ordered"`,
		See:     []string{"alarms", "clearalarm"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return ackAlarm(ctx, c, b) },
	}, {
		Name: "clearalarm", Group: alarms, Level: Operator, Full: true, Args: []Arg{id},
		Summary: "remove an alarm",
		About:   []string{"Removes an alarm. Where its cause lasts, it comes back within about a minute, under a", "new number."},
		Example: "clearalarm 7",
		See:     []string{"alarms", "ackalarm"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			if _, ok := b.Alarm(c.ID("alarm")); !ok {
				return Reply{}, noAlarm(c.Args["alarm"])
			}
			cleared, err := b.ClearAlarm(ctx, c.ID("alarm"))
			if err != nil {
				return Reply{}, err
			}
			pairs := []Pair{{"alarm", c.ID("alarm")}}
			if !cleared {
				return Reply{Code: 204, Pairs: pairs, Text: "Alarm " + c.Args["alarm"] + " is cleared already."}, nil
			}
			return Reply{Code: 200, Pairs: pairs, Text: "Alarm " + c.Args["alarm"] + " is cleared."}, nil
		},
	}}
}

func noAlarm(id string) *Error {
	return &Error{
		Code:  550,
		Pairs: []Pair{{"kind", "alarm"}, {"id", id}, {"msg", "no alarm has this number"}},
		Text:  fmt.Sprintf(`No alarm has the number %s. Type "alarms all" to see the known ones.`, cut(id, 24)),
	}
}

func alarmChoices(b AlarmAdmin) []Choice {
	list, _, _ := b.Alarms(false)
	out := make([]Choice, len(list))
	for i := range list {
		out[i] = Choice{strconv.FormatUint(list[i].ID, 10), list[i].Severity + " " + list[i].Kind + " " + list[i].Object}
	}
	return out
}

func listAlarms(c *Call, b AlarmAdmin) Reply {
	all, waiting, seq := b.Alarms(c.Has("all"))
	list := make([]*Alarm, 0, len(all))
	active, critical := 0, 0
	for i := range all {
		a := &all[i]
		if s := c.Args["severity"]; s != "" && s != a.Severity {
			continue
		}
		list = append(list, a)
		if a.Active() {
			active++
			critical += b2i(a.Severity == Critical)
		}
	}
	pairs := []Pair{{"count", len(list)}, {"active", active}, {"seq", seq}}
	text := fmt.Sprintf("%s, %d critical.", count(active, "active alarm"), critical)
	switch {
	case len(list) == 0:
		text = "No alarms."
	case active < len(list):
		text = fmt.Sprintf("%s, %d critical; %d cleared.", count(active, "active alarm"), critical, len(list)-active)
	}
	if waiting > 0 {
		pairs = append(pairs, Pair{"waiting", waiting})
		text += fmt.Sprintf(" The disk of the master has not taken %s yet, see its log.", count(waiting, "further change"))
	}
	return Reply{
		Code: 210, Pairs: pairs, Text: text,
		List: &List{
			Columns: []Column{{"id", "ID", Number}, {"severity", "SEVERITY", Plain}, {"kind", "KIND", Plain}, {"object", "OBJECT", Plain},
				{"since", "SINCE", Stamp}, {"last", "", Stamp}, {"count", "COUNT", Number}, {"acked", "", Plain}, {"", "STATE", Plain},
				{"ackedby", "BY", Plain}, {"text", "TEXT", Plain}, {"cleared", "", Stamp}},
			Len: len(list),
			Row: func(i int, r *Row) {
				a := list[i]
				r.Uint(a.ID)
				r.String(a.Severity)
				r.String(a.Kind)
				r.String(a.Object)
				r.Time(a.Since)
				r.Time(a.Last)
				r.Uint(a.Count)
				r.Bool(!a.Acked.IsZero())
				r.String(a.state())
				r.String(a.AckedBy)
				r.String(a.Text)
				r.Time(a.Cleared)
			},
		},
	}
}

func showAlarm(a *Alarm, seq uint64) Reply {
	text := "It stays until its cause is over."
	switch {
	case !a.Active():
		text = "It is over."
	case a.Acked.IsZero():
		text = fmt.Sprintf(`Nobody has acknowledged it: "ackalarm %d" says that you know of it.`, a.ID)
	}
	return Reply{
		Code: 211, Pairs: []Pair{{"seq", seq}}, Text: text,
		Detail: []Pair{{"id", a.ID}, {"severity", a.Severity}, {"kind", a.Kind}, {"object", a.Object}, {"state", a.state()}, {"since", a.Since}, {"last", a.Last},
			{"count", a.Count}, {"acked", a.Acked}, {"ackedby", orNil(a.AckedBy)}, {"note", orNil(a.Note)}, {"cleared", a.Cleared},
			{"clearedby", orNil(a.ClearedBy)}, {"text", a.Text}, {"help", orNil(a.Help)}},
		Prose: func(h Human) []string {
			acked, cleared, came := "", "", "once"
			if !a.Acked.IsZero() {
				acked = h.Time(a.Acked) + " by " + a.AckedBy
			}
			if !a.Active() {
				cleared = h.Time(a.Cleared) + ", " + cmp.Or(a.ClearedBy, "by itself")
			}
			if a.Count > 1 {
				came = fmt.Sprintf("%d times, last %s", a.Count, h.Time(a.Last))
			}
			return paragraph(fmt.Sprintf("Alarm %d (%s): %s %s", a.ID, a.Severity, a.Kind, a.Object), note{"What", a.Text}, note{"Since", h.Time(a.Since)}, note{"Came", came},
				note{"Known", acked}, note{"Note", a.Note}, note{"Cleared", cleared}, note{"Help", a.Help})
		},
	}
}

func ackAlarm(ctx context.Context, c *Call, b Backend) (Reply, error) {
	word, id := c.Args["alarm"], uint64(0)
	if word != "all" {
		if !isNumber(word) {
			return Reply{}, c.conn.s.cfg.Table.byName["ackalarm"].misuse("%q is neither the number of an alarm nor all", word)
		}
		id = c.ID("alarm")
		if _, ok := b.Alarm(id); !ok {
			return Reply{}, noAlarm(word)
		}
	}
	n, err := b.AckAlarm(ctx, id, c.Args["note"])
	if err != nil {
		return Reply{}, err
	}
	if n == 0 {
		text := "There is no alarm that nobody has acknowledged."
		if id != 0 {
			text = "Alarm " + word + " is acknowledged or cleared already."
		}
		return Reply{Code: 204, Pairs: []Pair{{"acked", 0}}, Text: text}, nil
	}
	return Reply{Code: 200, Pairs: []Pair{{"acked", n}}, Text: count(n, "alarm") + " acknowledged."}, nil
}

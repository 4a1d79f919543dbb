package monitor

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"verdecmd/settings"
)

// LogLevels are the words of loglevel, the quietest first.
var LogLevels = []string{"error", "warn", "info", "debug"}

// Setting is one setting of the file that the master reads.
type Setting struct {
	Name    string
	Value   string // in the file, or the default; *** for a secret
	Default string
	Source  string // FILE:LINE, or default
	Kind    string // what a value is, in words
	Text    string // what it is for
	Scope   string // who reads it: master, satellite, or both
	Restart bool   // a change counts only after a restart
	Pending bool   // the value counts only after the restart that is still to come
	Secret  bool
}

// SettingChange is what became of a setting that was set.
type SettingChange struct {
	Setting Setting
	Changed bool
	Restart bool   // the new value counts only after a restart of the master
	Note    string // what else is to be done, as a sentence; may be empty
}

// Operation is what the commands about the master's own running need.
type Operation interface {
	// Settings are those that the master reads, in the order of the manual.
	Settings() ([]Setting, error)
	// Setting returns one, also one of the satellites; an *Error with code
	// 550 and the nearest names where there is none.
	Setting(name string) (Setting, error)
	// SetSetting writes a value to the master's file and applies what can be
	// applied at once. Errors are 553 for a value that cannot be, 554 for a
	// setting of satellites alone or a file that is wrong otherwise.
	SetSetting(ctx context.Context, name, value string) (SettingChange, error)
	Metrics() []Metric
	// Backup starts the job that copies the database to a new file.
	Backup(ctx context.Context, path string) (j Job, joined bool, err error)
	LogLevel() string
	// SetLogLevel takes one of LogLevels, until the next restart.
	SetLogLevel(ctx context.Context, level string) error
}

// operationCommands are those about the running of the master itself.
func operationCommands(t *Table, b Backend) []Entry {
	name := Arg{Name: "name", Help: `the name as shown by "settings"`, Complete: func(string) []Choice { return settingChoices(b) }}
	return []Entry{{
		Name: "settings", Group: working,
		Summary: "list the settings of the master",
		About: []string{"Lists the settings that the master reads, with value, default, where the value stands,",
			"and whether a change counts only after a restart. Pending: it waits for that restart.",
			"A secret is shown as ***."},
		Example: "settings",
		See:     []string{"setting"},
		Run:     func(_ context.Context, _ *Call) (Reply, error) { return listSettings(b) },
	}, {
		Name: "setting", Group: working,
		Args:    []Arg{name, {Name: "value", Type: TypeAny, Optional: true, Level: Admin, Help: "the new value (level admin); quote blanks", CompleteAfter: func(given []string) []Choice { return valueChoices(b, given) }}},
		Summary: "show one setting of the master, or set it",
		About: []string{"Without a value, shows the setting and what it is for. With one, writes it to the",
			"settings file of the master, leaving everything else there as it is, and applies it.",
			"The reply says whether it counts only after a restart. What satellites read stands in",
			"their own files: change it there."},
		Example: "setting WIN4_VERDE_STATS_INTERVAL 5",
		See:     []string{"settings"},
		// A name that is mistyped may be meant for one that is secret.
		Hide: func(args map[string]string) bool { s, err := b.Setting(args["name"]); return err != nil || s.Secret },
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			if c.Has("value") {
				return setSetting(ctx, c, b)
			}
			return showSetting(c, b)
		},
	}, {
		Name: "metrics", Group: working,
		Summary: "show figures for a monitoring system",
		About: []string{"Figures of the master and the cluster as Prometheus reads them, one per line. Feed them",
			"to it by a text file of the node exporter: verdecmon -f tsv metrics > verdecmd.prom"},
		Example: "metrics",
		See:     []string{"servers", "events"},
		Run: func(_ context.Context, c *Call) (Reply, error) {
			return metricsReply(append(b.Metrics(), c.conn.s.metrics(t)...)), nil
		},
	}, {
		Name: "backup", Group: working, Level: Admin,
		Args:    []Arg{{Name: "path", Help: "an absolute path that does not exist, in a directory where only its owner writes"}, {Name: "nowait", Kind: Flag, Help: "do not wait for the end; see job"}},
		Summary: "copy the master's database to a new file",
		About: []string{"Writes a verified copy of the database as it is at one instant, while the master goes",
			"on working. The file has mode 0600. It can take the place of the database while the",
			"master is stopped."},
		Example: "backup /var/lib/win4linpro/monday.db",
		See:     []string{"jobs"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return backup(ctx, c, b) },
	}, {
		Name: "loglevel", Group: working, Level: Admin,
		Args:    []Arg{{Name: "level", Values: LogLevels, Optional: true, Help: "how much is logged from now on"}},
		Summary: "show or change how much the master logs",
		About:   []string{"Counts at once and until the master is started again. To keep it, set VERDECMD_LOGLEVEL", `by "setting".`},
		Example: "loglevel debug",
		See:     []string{"setting"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			if c.Has("level") {
				if err := b.SetLogLevel(ctx, c.Args["level"]); err != nil {
					return Reply{}, err
				}
			}
			now := b.LogLevel()
			return Reply{Code: 212, Pairs: []Pair{{"loglevel", now}}, Text: "The log level is " + now + "."}, nil
		},
	}}
}

func settingChoices(b Operation) []Choice {
	list, err := b.Settings()
	if err != nil {
		return nil
	}
	out := make([]Choice, len(list))
	for i := range list {
		out[i] = Choice{list[i].Name, firstSentence(list[i].Text)}
	}
	return out
}

// valueChoices are the words that a setting can be, or the values that it has
// and would have by itself.
func valueChoices(b Operation, given []string) []Choice {
	if len(given) == 0 {
		return nil
	}
	s, ok := settings.Global().Find(strings.ToUpper(given[0]))
	if !ok || s.Secret {
		return nil
	}
	var out []Choice
	switch s.Kind {
	case settings.Bool:
		out = []Choice{{Word: "no"}, {Word: "yes"}}
	case settings.Choice:
		for _, c := range s.Choices {
			out = append(out, Choice{Word: c})
		}
	default:
		out = append(out, Choice{s.Default, "the default"})
		if now, err := b.Setting(s.Name); err == nil && now.Value != s.Default {
			out = append(out, Choice{now.Value, "as it is"})
		}
		return out
	}
	for i := range out {
		if out[i].Word == s.Default {
			out[i].Summary = "the default"
		}
	}
	return out
}

func firstSentence(text string) string {
	if i := strings.Index(text, ". "); i >= 0 {
		return text[:i+1]
	}
	return text
}

func listSettings(b Operation) (Reply, error) {
	list, err := b.Settings()
	if err != nil {
		return Reply{}, err
	}
	set, pending := 0, 0
	for i := range list {
		if list[i].Source != "default" {
			set++
		}
		if list[i].Pending {
			pending++
		}
	}
	text := fmt.Sprintf("%s, %d of them set.", count(len(list), "setting"), set)
	if pending > 0 {
		text += fmt.Sprintf(" %d pending: restart the master.", pending)
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}}, Text: text,
		List: &List{
			Columns: []Column{{"name", "NAME", Plain}, {"value", "VALUE", Plain}, {"default", "DEFAULT", Plain}, {"source", "SOURCE", Plain},
				{"restart", "RESTART", Plain}, {"pending", "PENDING", Plain}},
			Len: len(list),
			Row: func(i int, r *Row) {
				s := &list[i]
				r.String(s.Name)
				r.String(s.Value)
				r.String(s.Default)
				r.String(s.Source)
				r.Bool(s.Restart)
				r.Bool(s.Pending)
			},
		},
	}, nil
}

func showSetting(c *Call, b Operation) (Reply, error) {
	s, err := b.Setting(c.Args["name"])
	if err != nil {
		return Reply{}, err
	}
	text := "A change counts at once."
	switch {
	case s.Pending:
		text = "The value counts after a restart of the master."
	case s.Restart:
		text = "A change counts after a restart of the " + s.Scope + "."
	}
	return Reply{
		Code: 211, Text: text,
		Detail: []Pair{{"name", s.Name}, {"value", orNil(s.Value)}, {"default", orNil(s.Default)}, {"source", s.Source}, {"restart", s.Restart},
			{"pending", s.Pending}, {"kind", s.Kind}, {"scope", s.Scope}, {"text", s.Text}},
		Prose: func(Human) []string {
			return paragraph(s.Name, note{"Value", cmp.Or(s.Value, "none")}, note{"Default", cmp.Or(s.Default, "none")}, note{"Source", s.Source},
				note{"Wants", s.Kind}, note{"Read by", s.Scope}, note{"Meaning", s.Text})
		},
	}, nil
}

func setSetting(ctx context.Context, c *Call, b Operation) (Reply, error) {
	ch, err := b.SetSetting(ctx, c.Args["name"], c.Args["value"])
	if err != nil {
		return Reply{}, err
	}
	s := ch.Setting
	pairs := []Pair{{"setting", s.Name}, {"value", s.Value}, {"restart", ch.Restart}}
	text := fmt.Sprintf("%s is %q now.", s.Name, s.Value)
	code := 200
	if !ch.Changed {
		code, text = 204, fmt.Sprintf("%s is %q already.", s.Name, s.Value)
	}
	switch {
	case ch.Restart:
		text += " It counts after a restart of the master."
	case ch.Changed:
		text += " It counts already."
	}
	if ch.Note != "" {
		pairs = append(pairs, Pair{"msg", ch.Note})
		text += " " + ch.Note
	}
	return Reply{Code: code, Pairs: pairs, Text: text}, nil
}

func backup(ctx context.Context, c *Call, b Backend) (Reply, error) {
	path := c.Args["path"]
	j, joined, err := b.Backup(ctx, path)
	if err != nil {
		return Reply{}, err
	}
	if c.Has("nowait") {
		return accepted(j, joined, Pair{"path", path}), nil
	}
	text := fmt.Sprintf("Copying the database to %s (job %d).", path, j.ID)
	if joined {
		text = joinedText(j)
	}
	j, err = c.wait(ctx, b, j, 0, text)
	if err != nil {
		return Reply{}, err
	}
	return withJob(j, joined), nil
}

// accepted is the reply to nowait.
func accepted(j Job, joined bool, object Pair) Reply {
	pairs, already := []Pair{object, {"job", j.ID}}, ""
	if joined {
		pairs, already = append(pairs, Pair{"joined", true}), " already"
	}
	return Reply{Code: 202, Pairs: pairs, Text: fmt.Sprintf(`Job %d works on it%s; see "job %d".`, j.ID, already, j.ID)}
}

// joinedText says that a command waits for a job that was there before it.
func joinedText(j Job) string {
	return fmt.Sprintf("Job %d of %s has been working on that for %d s; waiting for its end.", j.ID, j.By, int(j.Elapsed.Seconds()))
}

package monitor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Level is what a connection may do, PROTOCOL 8.
type Level int

// The levels, each may what those before it may.
const (
	Viewer Level = iota
	Operator
	Admin
)

var levelNames = [...]string{"viewer", "operator", "admin"}

func (l Level) String() string { return levelNames[l] }

// ParseLevel returns the level of that name.
func ParseLevel(name string) (Level, bool) {
	i := slices.Index(levelNames[:], name)
	return Level(max(i, 0)), i >= 0
}

// Kind says how an argument is given.
type Kind int

// The kinds of arguments: a bare word, key=value, and a fixed word.
const (
	Positional Kind = iota
	Option
	Flag
)

// Type is the form that the value of an argument must have.
type Type int

// The types. TypeWord is anything but an empty word.
const (
	TypeWord   Type = iota
	TypeText        // free text of at most 255 characters
	TypeNumber      // a positive decimal number
	TypeServer      // a server ID
	TypeUser        // a login name or a UID
	TypeTime        // seconds, or a number with s, m, h or d
	TypeAny         // anything, also nothing
)

// Choice is a word for completion with what is said about it.
type Choice struct{ Word, Summary string }

// Arg is one argument of a command.
type Arg struct {
	Name     string // key in Call.Args; the key of an option; the word of a flag
	Kind     Kind
	Type     Type
	Hint     string // what the usage shows for the value: SERVER-ID
	Optional bool
	Level    Level    // needed to give it, where higher than the command's
	Values   []string // the only values, if not empty
	Help     string
	// Complete returns words for the value; those that do not begin with what
	// is typed already are left out by the caller.
	Complete func(prefix string) []Choice
	// CompleteAfter is Complete where the words given before it matter.
	CompleteAfter func(given []string) []Choice
}

func (a *Arg) hint() string {
	if a.Hint != "" {
		return a.Hint
	}
	if len(a.Values) > 0 {
		return strings.Join(a.Values, "|")
	}
	return strings.ToUpper(a.Name)
}

func (a *Arg) usage() string {
	s := a.hint()
	switch a.Kind {
	case Option:
		s = a.Name + "=" + s
	case Flag:
		s = a.Name
	}
	if a.Optional || a.Kind == Flag {
		return "[" + s + "]"
	}
	return s
}

// check refuses values of the wrong form with 501 and impossible ones with 553.
func (a *Arg) check(cmd *Entry, v string) *Error {
	if a.Kind == Flag {
		return nil
	}
	if len(a.Values) > 0 {
		if !slices.Contains(a.Values, v) {
			err := cmd.misuse("%q is not one of %s", v, strings.Join(a.Values, ", "))
			err.Pairs = err.Pairs[:1] // the usage lists them
			return err
		}
		return nil
	}
	switch a.Type {
	case TypeText:
		if utf8.RuneCountInString(v) > maxChars {
			return badValue(a.Name, v, fmt.Sprintf("the text is longer than %d characters", maxChars))
		}
		return nil
	case TypeAny:
		return nil
	case TypeServer:
		if !isNumber(v) {
			err := cmd.misuse("%q is not a server ID", v)
			err.Text += ` The IDs are shown by "servers".`
			return err
		}
	case TypeNumber:
		if !isNumber(v) {
			return cmd.misuse("%q is not a number", v)
		}
	case TypeTime:
		d, ok := parseTime(v)
		if !ok {
			return cmd.misuse("%q is not a time: a number of seconds, or a number with s, m, h or d", v)
		}
		if d <= 0 || d > 366*24*time.Hour {
			return badValue(a.Name, v, "a time must be more than 0 and at most 366d")
		}
	}
	if v == "" {
		return cmd.misuse("%s is empty", a.hint())
	}
	return nil
}

func badValue(key, value, msg string) *Error {
	err := Errorf(553, []Pair{{"key", key}, {"value", value}}, "%s", msg)
	err.Text = fmt.Sprintf("%s=%q is not possible: %s.", key, cut(value, 80), msg)
	return err
}

// isNumber tells whether v is a positive decimal number, however large.
func isNumber(v string) bool {
	return isDigits(v) && strings.Trim(v, "0") != ""
}

func isDigits(v string) bool {
	for i := 0; i < len(v); i++ {
		if v[i] < '0' || v[i] > '9' {
			return false
		}
	}
	return v != ""
}

// parseTime reads a time of PROTOCOL 3.2.
func parseTime(v string) (time.Duration, bool) {
	unit := time.Second
	if v != "" {
		switch v[len(v)-1] {
		case 's':
			v = v[:len(v)-1]
		case 'm':
			v, unit = v[:len(v)-1], time.Minute
		case 'h':
			v, unit = v[:len(v)-1], time.Hour
		case 'd':
			v, unit = v[:len(v)-1], 24*time.Hour
		}
	}
	whole, part, dotted := strings.Cut(v, ".")
	if !isDigits(whole) || dotted && !isDigits(part) {
		return 0, false
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || f > 1e9 {
		f = 1e9 // too large in any unit; check refuses it
	}
	return time.Duration(min(f*float64(unit), float64(1<<62))), true
}

// Entry is one command: a row of the table.
type Entry struct {
	Name    string
	Level   Level
	Group   string
	Args    []Arg
	Summary string
	About   []string // lines of the long help
	Example string
	See     []string
	// Full keeps the monitor from expanding abbreviations of the name: it ends
	// sessions or deletes something.
	Full bool
	// Rest takes all that follows the name and one blank as it is, as the
	// argument "line".
	Rest bool
	// Hide tells that the arguments hold a secret: log and audit show the
	// command's name alone. Nil: they never do. It is not asked about arguments
	// that were refused: they are not shown.
	Hide func(args map[string]string) bool
	Run  func(ctx context.Context, c *Call) (Reply, error)
}

// needs tells whether the command has an argument that must be given.
func (cmd *Entry) needs() bool {
	for i := range cmd.Args {
		if a := &cmd.Args[i]; !a.Optional && a.Kind != Flag {
			return true
		}
	}
	return false
}

// Usage is the command with its arguments, as help shows it.
func (cmd *Entry) Usage() string {
	s := cmd.Name
	for i := range cmd.Args {
		s += " " + cmd.Args[i].usage()
	}
	return s
}

// Call is one command on its way: what Run gets.
type Call struct {
	Args   map[string]string
	Level  Level
	Caller Caller
	conn   *conn
}

// Has tells whether an argument or a flag was given.
func (c *Call) Has(name string) bool {
	_, ok := c.Args[name]
	return ok
}

// ID is the number given for an argument. One that is too large for any
// object is the largest number, which nothing has.
func (c *Call) ID(name string) uint64 {
	n, _ := strconv.ParseUint(c.Args[name], 10, 64) // at the limit where it is too large
	return n
}

// Time is the time given for an argument, 0 where there is none.
func (c *Call) Time(name string) time.Duration {
	d, _ := parseTime(c.Args[name])
	return d
}

// Groups of the help, in their order.
const (
	general      = "general"
	servers      = "servers"
	sessions     = "sessions"
	registration = "registration"
	jobs         = "jobs"
	alarms       = "alarms"
	working      = "operation"
)

var groups = []string{general, servers, sessions, registration, jobs, alarms, working}

// notBuilt are the commands that the protocol knows and this build has not.
// They answer 502 and are left out of help.
var notBuilt = []string{
	"migrate",
	"images", "image", "versions", "replicas", "replica", "createreplica", "startreplica", "stopreplica", "deletereplica",
	"publish", "rollback", "deleteversion", "desktops", "desktop", "deploy", "undeploy",
	"templates", "template", "addtemplate", "deletetemplate", "templatemethod", "synctemplates",
	"roamclusters", "roamcluster", "createroamcluster", "editroamcluster", "deleteroamcluster",
	"roamservers", "roamserver", "createroamserver", "editroamserver", "deleteroamserver", "testroamserver",
	"heartbeat", "refreshroamservers",
	"ocfs2", "ocfs2nodes", "createocfs2", "addocfs2node", "deleteocfs2node", "ocfs2config", "pushocfs2",
}

// Table holds all commands. It does not change after NewTable and may be used
// by many goroutines.
type Table struct {
	backend  Backend
	commands []*Entry // by group and, within it, as declared
	byName   map[string]*Entry
	missing  map[string]bool
}

// NewTable makes the table over a master. The backend may be nil for programs
// that want the declarations alone; Run functions are not to be called then.
func NewTable(b Backend) *Table {
	t := &Table{backend: b, byName: map[string]*Entry{}, missing: map[string]bool{}}
	for _, part := range [][]Entry{
		builtinCommands(t, b), clusterCommands(b), drainCommands(b), checkCommands(b), hostCommands(b), trustCommands(b), sessionCommands(b), jobCommands(b), operationCommands(t, b),
		alarmCommands(b), auditCommands(t, b),
	} {
		for i := range part {
			t.commands = append(t.commands, &part[i])
			t.byName[part[i].Name] = &part[i]
		}
	}
	for _, name := range notBuilt {
		t.missing[name] = t.byName[name] == nil
	}
	slices.SortStableFunc(t.commands, func(a, b *Entry) int {
		return cmp.Compare(slices.Index(groups, a.Group), slices.Index(groups, b.Group))
	})
	return t
}

// Commands returns all commands, by group. They must not be changed.
func (t *Table) Commands() []*Entry { return t.commands }

// Lookup finds a command by its full name in lower case.
func (t *Table) Lookup(name string) (*Entry, bool) {
	cmd, ok := t.byName[name]
	return cmd, ok
}

// unknown is the refusal of a name that is no command.
func (t *Table) unknown(name string, level Level) *Error {
	if t.missing[name] {
		return &Error{
			Code:  502,
			Pairs: []Pair{{"command", name}, {"msg", "this build does not have the command yet"}},
			Text:  fmt.Sprintf("This build does not have the command %s yet.", name),
		}
	}
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "")
	}
	pairs := []Pair{{"command", name}}
	text := fmt.Sprintf("Unknown command %q.", name)
	if near := t.near(name, level); len(near) > 0 {
		pairs = append(pairs, Pair{"near", strings.Join(near, ",")})
		text += " Did you mean " + orList(near) + "?"
	} else {
		text += ` Type "help" for the commands.`
	}
	return &Error{Code: 500, Pairs: append(pairs, Pair{"msg", "no such command"}), Text: text}
}

func orList(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// near returns at most four commands that the level may use and that look
// like name, the nearest first.
func (t *Table) near(name string, level Level) []string {
	type hit struct {
		name string
		d    int
	}
	var hits []hit
	for _, cmd := range t.commands {
		if cmd.Level > level {
			continue
		}
		d := distance(name, cmd.Name, 3)
		if d <= 2 || len(name) >= 3 && strings.HasPrefix(cmd.Name, name[:3]) {
			hits = append(hits, hit{cmd.Name, d})
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.d, b.d) })
	var out []string
	for _, h := range hits[:min(len(hits), 4)] {
		out = append(out, h.name)
	}
	return out
}

// distance is the number of letters to add, drop or change to get from a to
// b, or limit if it is more.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			d := diagonal
			if a[i-1] != b[j-1] {
				d = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], d
		}
	}
	return min(row[len(b)], limit)
}

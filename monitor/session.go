package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sessionCommands are those about users and their sessions.
func sessionCommands(b Backend) []Entry {
	user := Arg{Name: "user", Type: TypeUser, Help: "a login name or a UID; name=1234 for a login name of digits",
		Complete: func(prefix string) []Choice { return userChoices(b, prefix) }}
	running := user // only who has a session can lose it
	running.Complete = func(string) []Choice { return sessionChoices(b) }
	limit := Arg{Name: "timeout", Kind: Option, Type: TypeTime, Hint: "TIME", Optional: true}
	nowait := Arg{Name: "nowait", Kind: Flag, Help: "do not wait for the end; see job"}
	waits := func(help string) []Arg {
		l := limit
		l.Help = help
		return []Arg{running, l, nowait}
	}
	end := func(how How) func(context.Context, *Call) (Reply, error) {
		return func(ctx context.Context, c *Call) (Reply, error) { return endSession(ctx, c, b, how) }
	}
	return []Entry{{
		Name: "users", Group: sessions,
		Args: []Arg{
			{Name: "server", Kind: Option, Type: TypeServer, Hint: "ID", Optional: true, Help: "only those on this server", Complete: func(string) []Choice { return serverChoices(b) }},
			{Name: "state", Kind: Option, Hint: "STATE", Optional: true, Help: "only those in this state",
				Values: []string{"starting", "running", "hung", "stopping", "aborting", "migrating", "lost", "failed"}},
			{Name: "image", Kind: Option, Hint: "NAME", Optional: true, Help: "only those with this image"},
		},
		Summary: "list the sessions",
		About:   []string{"Lists all sessions of the cluster, by login name."},
		Example: "users server=1",
		See:     []string{"user", "servers"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return listUsers(c, b), nil },
	}, {
		Name: "user", Group: sessions, Args: []Arg{user},
		Summary: "show one user and the session",
		About:   []string{"Shows where and how a user's session runs and, if something is wrong with it, what,", "since when, and which command helps."},
		Example: "user alice",
		See:     []string{"users", "placement"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			u, seq, err := findUser(ctx, c, b)
			if err != nil {
				return Reply{}, err
			}
			return showUser(&u, seq), nil
		},
	}, {
		Name: "abortuser", Group: sessions, Level: Operator, Full: true,
		Args:    []Arg{running, {Name: "force", Kind: Flag, Level: Admin, Help: "drop the record of a lost session (level admin)"}},
		Summary: "end a session at once, without asking the guest",
		About: []string{"Ends the session at once; what was not saved is lost. With force, the record of a lost",
			"session is dropped: you affirm that its server is powered off."},
		Example: "abortuser alice",
		See:     []string{"shutdownuser", "logoffuser", "fenceserver"},
		Run:     end(Abort),
	}, {
		Name: "shutdownuser", Group: sessions, Level: Operator, Full: true,
		Args:    waits("how long to wait for the guest"),
		Summary: "ask a user's guest to shut down, and wait for it",
		About:   []string{"Asks the guest to shut down and waits for it. It is never aborted."},
		Example: "shutdownuser bob timeout=5m",
		See:     []string{"logoffuser", "abortuser", "jobs"},
		Run:     end(Shutdown),
	}, {
		Name: "logoffuser", Group: sessions, Level: Operator, Full: true,
		Args:    waits("when to abort a guest that does not shut down"),
		Summary: "end a session: ask the guest first, abort it after a time",
		About:   []string{"Asks the guest to shut down; after the time the session is aborted."},
		Example: "logoffuser carol timeout=30",
		See:     []string{"shutdownuser", "abortuser", "jobs"},
		Run:     end(Logoff),
	}}
}

// findUser finds the user that the argument means: digits are a UID unless
// they were given as name=.
func findUser(ctx context.Context, c *Call, b Backend) (UserDetail, uint64, error) {
	name := c.Args["user"]
	u, seq, err := b.User(ctx, name, isDigits(name) && !c.Has(byName))
	var refusal *Error
	if errors.As(err, &refusal) && refusal.Code == 550 {
		text, near := fmt.Sprintf("No account is named %q.", cut(name, 64)), ""
		if isDigits(name) && !c.Has(byName) {
			text = fmt.Sprintf("No account has the UID %s.", cut(name, 24))
		} else if names := nearUsers(b, name); len(names) > 0 {
			near = " Did you mean " + orList(names) + "?"
		}
		err = &Error{
			Code:  550,
			Pairs: []Pair{{"kind", "user"}, {"id", name}, {"msg", "no such account"}},
			Text:  text + near + ` Type "users" to see who is logged in.`,
		}
	}
	return u, seq, err
}

// nearUsers are at most four login names that look like name, the nearest
// first: of those who are logged in, and of the accounts with the same
// beginning.
func nearUsers(b Backend, name string) []string {
	if len(name) > 64 {
		return nil
	}
	type hit struct {
		name string
		d    int
	}
	var hits []hit
	known := map[string]bool{}
	for _, c := range userChoices(b, firstLetter(name)) {
		if d := distance(name, c.Word, 3); d <= 2 && d < len(name) && !known[c.Word] {
			known[c.Word] = true
			hits = append(hits, hit{c.Word, d})
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.d, b.d) })
	var out []string
	for _, h := range hits[:min(len(hits), 4)] {
		out = append(out, h.name)
	}
	return out
}

func firstLetter(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return s[:n]
}

func sessionChoices(b SessionAdmin) []Choice {
	list, _ := b.Users()
	out := make([]Choice, len(list))
	for i := range list {
		out[i] = Choice{list[i].User, list[i].State + " on server " + strconv.FormatUint(list[i].Server, 10)}
	}
	return out
}

// userChoices are the users with a session, and accounts.
func userChoices(b Backend, prefix string) []Choice {
	out := sessionChoices(b)
	known := make(map[string]bool, len(out))
	for _, c := range out {
		known[c.Word] = true
	}
	for _, name := range b.Accounts(prefix, maxChoice+1) {
		if !known[name] {
			out = append(out, Choice{Word: name})
		}
	}
	return out
}

var userColumns = []Column{
	{"user", "USER", Plain}, {"uid", "UID", Number}, {"server", "SERVER", Number}, {"desktop", "DESKTOP", Plain},
	{"image", "IMAGE", Plain}, {"state", "STATE", Plain}, {"started", "STARTED", Stamp}, {"client", "CLIENT", Plain}, {"session", "", Plain},
}

func listUsers(c *Call, b SessionAdmin) Reply {
	list, seq := b.Users()
	if len(c.Args) > 0 {
		server, image := c.ID("server"), c.Args["image"]
		kept := make([]Session, 0, len(list))
		for i := range list {
			s := &list[i]
			if (!c.Has("server") || s.Server == server) && (!c.Has("state") || s.State == c.Args["state"]) &&
				(image == "" || s.Image == image || strings.HasPrefix(s.Image, image+"/")) {
				kept = append(kept, *s)
			}
		}
		list = kept
	}
	text := count(len(list), "user") + "."
	if len(list) == 0 {
		text = "No sessions."
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}, {"seq", seq}}, Text: text,
		List: &List{Columns: userColumns, Len: len(list), Row: func(i int, r *Row) {
			s := &list[i]
			r.String(s.User)
			r.Uint(uint64(s.UID))
			r.Uint(s.Server)
			r.String(s.Desktop)
			r.String(s.Image)
			r.String(s.State)
			r.Time(s.Started)
			r.String(s.Client)
			r.String(s.ID)
		}},
	}
}

// noSession is the state of an account without a session.
const noSession = "none"

func showUser(u *UserDetail, seq uint64) Reply {
	has := u.State != noSession
	only := func(v any) any { // for those who have a session
		if !has {
			return nil
		}
		return v
	}
	var job, memory, cpu, pid any
	if u.Job != 0 {
		job = u.Job
	}
	if u.PID != 0 {
		pid, memory, cpu = u.PID, u.Memory, percent(u.CPU)
	}
	text := "One session."
	if !has {
		text = "No session."
	}
	return Reply{
		Code: 211,
		Detail: []Pair{
			{"user", u.User}, {"uid", u.UID}, {"state", u.State}, {"session", orNil(u.ID)}, {"server", only(u.Server)},
			{"servername", orNil(u.ServerName)}, {"desktop", orNil(u.Desktop)}, {"image", orNil(u.Image)}, {"current", only(u.Current)},
			{"started", only(u.Started)}, {"client", orNil(u.Client)}, {"display", orNil(u.Display)}, {"memory", only(memory)},
			{"cpu", only(cpu)}, {"pid", only(pid)}, {"job", job},
			{"why", orNil(u.Why)}, {"last", orNil(u.Last)}, {"serial", orNil(strings.Join(u.Serial, "\n"))},
		},
		Pairs: []Pair{{"seq", seq}}, Text: text,
		Prose: func(h Human) []string { return userProse(u, h) },
	}
}

func userProse(u *UserDetail, h Human) []string {
	title := fmt.Sprintf("User %s (UID %d)", u.User, u.UID)
	if u.State == noSession {
		return paragraph(title, note{"Session", "none"}, note{"Reserved", u.Why}, note{"Before", u.Last})
	}
	session := u.ID + ", " + u.State
	switch {
	case u.Started.IsZero():
	case u.State == "running":
		session += " since " + h.Time(u.Started)
	default:
		session += ", started " + h.Time(u.Started)
	}
	notes := []note{{"Session", session}, {"Server", fmt.Sprintf("%d, %s", u.Server, u.ServerName)}}
	if image, version, ok := strings.Cut(u.Image, "/"); ok {
		current := ""
		if u.Current {
			current = " (current)"
		}
		notes = append(notes, note{"Desktop", fmt.Sprintf("%s from image %s, version %s%s", u.Desktop, image, version, current)})
	} else {
		notes = append(notes, note{"Desktop", u.Desktop})
	}
	notes = append(notes, note{"Client", cmp.Or(u.Client, "disconnected")})
	if u.PID != 0 {
		notes = append(notes, note{"Resources", fmt.Sprintf("%s memory, %.0f%% of one processor", h.Bytes(u.Memory), u.CPU)})
	}
	notes = append(notes, note{"Display", u.Display}, note{"Why", u.Why})
	if u.Job != 0 {
		notes = append(notes, note{"Job", fmt.Sprintf(`%d, see "job %d"`, u.Job, u.Job)})
	}
	notes = append(notes, note{"Before", u.Last})
	for _, line := range u.Serial {
		notes = append(notes, note{"Console", line})
	}
	return paragraph(title, notes...)
}

// endSession is abortuser, shutdownuser and logoffuser.
func endSession(ctx context.Context, c *Call, b Backend, how How) (Reply, error) {
	u, _, err := findUser(ctx, c, b)
	if err != nil {
		return Reply{}, err
	}
	none := Reply{Code: 204, Pairs: []Pair{{"user", u.User}, {"state", noSession}},
		Text: fmt.Sprintf("There is no session of %s.", u.User)}
	if u.State == noSession {
		return none, nil
	}
	limit := c.Time("timeout")
	j, joined, err := b.End(ctx, u.User, how, limit, c.Has("force"))
	if err != nil {
		return Reply{}, err
	}
	if j.ID == 0 {
		if j.Code != 0 {
			return Reply{Code: j.Code, Pairs: j.Pairs, Text: j.Text}, nil
		}
		return none, nil
	}
	if c.Has("nowait") {
		return accepted(j, joined, Pair{"user", u.User}), nil
	}
	text := startedText(u, how, j)
	if joined {
		text = joinedText(j)
	}
	j, err = c.wait(ctx, b, j, 0, text)
	if err != nil {
		return Reply{}, err
	}
	return withJob(j, joined), nil
}

func startedText(u UserDetail, how How, j Job) string {
	if how == Abort {
		return fmt.Sprintf("Aborting the session of %s on server %d (job %d).", u.User, u.Server, j.ID)
	}
	text := fmt.Sprintf("Asking the guest of %s on server %d to shut down (job %d)", u.User, u.Server, j.ID)
	if how == Logoff && j.Limit > 0 {
		text += fmt.Sprintf("; abort after %d s", int(j.Limit.Seconds()))
	}
	return text + "."
}

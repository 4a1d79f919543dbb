package monitor

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
)

// clusterCommands are those about servers, reservations and placement.
func clusterCommands(b Backend) []Entry {
	server := Arg{Name: "server", Type: TypeServer, Hint: "SERVER-ID", Help: `the number shown by "servers"`,
		Complete: func(string) []Choice { return serverChoices(b) }}
	return []Entry{{
		Name: "servers", Group: servers,
		Args: []Arg{
			{Name: "state", Kind: Option, Values: []string{Online, Offline, Draining}, Hint: "STATE", Optional: true, Help: "only those: online, offline or draining"},
			{Name: "link", Kind: Option, Values: []string{LinkUp, LinkDown, LinkStale}, Hint: "up|down", Optional: true, Help: "only those that are connected, or are not"},
		},
		Summary: "list the servers",
		About:   []string{"Lists all servers that the master knows, by ID, with their load."},
		Example: "servers link=up",
		See:     []string{"server", "users", "placement"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return listServers(c, b), nil },
	}, {
		Name: "server", Group: servers, Args: []Arg{server},
		Summary: "show one server",
		About:   []string{"Shows a server's state, load, memory, sessions, and why it gets no logins."},
		Example: "server 1",
		See:     []string{"servers"},
		Run: func(_ context.Context, c *Call) (Reply, error) {
			s, seq, ok := b.Server(c.ID("server"))
			if !ok {
				return Reply{}, noServer(c, b)
			}
			return showServer(&s, seq), nil
		},
	}, {
		Name: "offlineserver", Group: servers, Level: Operator,
		Args:    []Arg{server, {Name: "reason", Kind: Option, Type: TypeText, Hint: "TEXT", Optional: true, Help: "a note for the other administrators"}},
		Summary: "take a server out of service for new logins",
		About: []string{"Takes a server out of service: nobody can log in to it any more. Running sessions go on.",
			"Pending reservations for it are cancelled and the clients are sent to another server.",
			"It also ends draining; who is being logged off goes on ending."},
		Example: `offlineserver 2 reason="memory exchange"`,
		See:     []string{"onlineserver", "drainserver", "servers"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return setServer(ctx, c, b, Offline) },
	}, {
		Name: "onlineserver", Group: servers, Level: Operator, Args: []Arg{server},
		Summary: "put a server into service again",
		About:   []string{"New logins may go to the server again. It also ends draining; who is being logged off", "goes on ending."},
		Example: "onlineserver 2",
		See:     []string{"offlineserver", "drainserver", "servers"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return setServer(ctx, c, b, Online) },
	}, {
		Name: "fenceserver", Group: servers, Level: Admin, Full: true, Args: []Arg{server},
		Summary: "affirm that a server is powered off, to free its lost sessions",
		About: []string{"You affirm that this server is powered off. Its lost sessions are released, so that",
			"their users can log in elsewhere. If it still runs, their data may be damaged. It may come",
			"back as it is; where a new machine is to take its place, see replaceserver."},
		Example: "fenceserver 3",
		See:     []string{"server", "abortuser", "replaceserver"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			if _, _, ok := b.Server(c.ID("server")); !ok {
				return Reply{}, noServer(c, b)
			}
			n, err := b.Fence(ctx, c.ID("server"))
			if err != nil {
				return Reply{}, err
			}
			return Reply{Code: 200, Pairs: []Pair{{"released", n}},
				Text: fmt.Sprintf("%s of server %s released.", count(n, "lost session"), c.Args["server"])}, nil
		},
	}, {
		Name: "forgetserver", Group: servers, Level: Admin, Full: true, Args: []Arg{server},
		Summary: "remove a server that is gone for ever",
		About: []string{"Removes a server from the list. It must not be connected and no session may be on it:",
			"see fenceserver. Its number is not given again. Its identity is revoked: that machine is",
			"refused from now on, until it is registered or enrolled anew, under a new number."},
		Example: "forgetserver 3",
		See:     []string{"servers", "fenceserver", "replaceserver"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			s, _, ok := b.Server(c.ID("server"))
			if !ok {
				return Reply{}, noServer(c, b)
			}
			if err := b.Forget(ctx, s.ID); err != nil {
				return Reply{}, err
			}
			return Reply{Code: 200, Pairs: []Pair{{"server", s.ID}, {"name", s.Name}}, Text: fmt.Sprintf("Server %d (%s) is forgotten.", s.ID, s.Name)}, nil
		},
	}, {
		Name: "placement", Group: servers,
		Args:    []Arg{{Name: "user", Type: TypeUser, Optional: true, Help: "the login of this user", Complete: func(p string) []Choice { return userChoices(b, p) }}},
		Summary: "show which server the next login would get, and why",
		About:   []string{"Shows for each server whether the next login would get it; the first row is the one that", "would be chosen. Nothing is reserved."},
		Example: "placement alice",
		See:     []string{"servers", "reservations"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return placement(ctx, c, b) },
	}, {
		Name: "reservations", Group: servers,
		Summary: "list the places that are held for logins",
		About:   []string{"Lists who was referred to a server and has not yet connected there."},
		Example: "reservations",
		See:     []string{"cancelreservation", "placement"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return reservations(b), nil },
	}, {
		Name: "cancelreservation", Group: servers, Level: Operator, Full: true,
		Args:    []Arg{{Name: "id", Hint: "ID|all", Help: `the id shown by "reservations", or all`, Complete: func(string) []Choice { return reservationChoices(b) }}},
		Summary: "give up a place that is held for a login",
		About:   []string{"The place is free again; the client has to ask for another one."},
		Example: "cancelreservation all",
		See:     []string{"reservations"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			n, err := b.CancelReservation(ctx, c.Args["id"])
			if err != nil {
				return Reply{}, err
			}
			if n == 0 {
				return Reply{Code: 204, Pairs: []Pair{{"cancelled", 0}}, Text: "There is no such reservation."}, nil
			}
			return Reply{Code: 200, Pairs: []Pair{{"cancelled", n}}, Text: count(n, "reservation") + " cancelled."}, nil
		},
	}}
}

// noServer is the refusal of an ID that no server has, with those that look
// like it.
func noServer(c *Call, b ServerAdmin) *Error {
	id := c.Args["server"]
	list, _ := b.Servers()
	var near []string
	for i := range list {
		if n := strconv.FormatUint(list[i].ID, 10); distance(id, n, 2) < 2 && len(near) < 4 {
			near = append(near, n)
		}
	}
	err := &Error{
		Code:  550,
		Pairs: []Pair{{"kind", "server"}, {"id", id}, {"msg", "no server has this ID"}},
		Text:  fmt.Sprintf(`No server has the ID %s. Type "servers" to see the known ones.`, cut(id, 24)),
	}
	if len(near) > 0 && len(near) < len(list) {
		err.Text = fmt.Sprintf(`No server has the ID %s. Did you mean %s? Type "servers" to see them all.`, cut(id, 24), orList(near))
	}
	return err
}

func serverChoices(b ServerAdmin) []Choice {
	list, _ := b.Servers()
	out := make([]Choice, len(list))
	for i := range list {
		out[i] = Choice{strconv.FormatUint(list[i].ID, 10), list[i].Name}
	}
	return out
}

func reservationChoices(b ReservationAdmin) []Choice {
	list, _ := b.Reservations()
	out := []Choice{{"all", "all of them"}}
	for i := range list {
		out = append(out, Choice{list[i].ID, list[i].User})
	}
	return out
}

var serverColumns = []Column{
	{"id", "ID", Number}, {"name", "NAME", Plain}, {"address", "ADDRESS", Plain}, {"state", "STATE", Plain},
	{"link", "LINK", Plain}, {"users", "USERS", Number}, {"reserved", "RSVD", Number}, {"cpu", "CPU", Percent},
	{"memtotal", "", Bytes}, {"memfree", "MEM FREE", Bytes}, {"age", "SEEN", Ago}, {"version", "", Plain}, {"score", "", Number},
}

func listServers(c *Call, b ServerAdmin) Reply {
	list, seq := b.Servers()
	all := len(list)
	if c.Has("state") || c.Has("link") {
		kept := make([]Server, 0, len(list))
		for i := range list {
			if s := &list[i]; (!c.Has("state") || s.State == c.Args["state"]) && (!c.Has("link") || s.Link == c.Args["link"]) {
				kept = append(kept, *s)
			}
		}
		list = kept
	}
	online := 0
	for i := range list {
		if list[i].State == Online && list[i].Link != LinkDown {
			online++
		}
	}
	text := fmt.Sprintf("%s, %d online.", count(len(list), "server"), online)
	switch {
	case all == 0:
		text = "No server has connected yet."
	case len(list) == 0:
		text = "None of " + count(all, "server") + " is like that."
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}, {"seq", seq}}, Text: text,
		List: &List{Columns: serverColumns, Len: len(list), Row: func(i int, r *Row) { serverRow(&list[i], r) }},
	}
}

func serverRow(s *Server, r *Row) {
	r.Uint(s.ID)
	r.String(s.Name)
	r.String(s.Address)
	r.String(s.State)
	r.String(s.Link)
	r.Int(int64(s.Users))
	r.Int(int64(s.Reserved))
	if s.Age < 0 { // it has never reported
		r.Nil()
		r.Nil()
		r.Nil()
	} else {
		r.Percent(s.CPU)
		r.Uint(s.MemTotal)
		r.Uint(s.MemFree)
	}
	r.Seconds(s.Age)
	r.String(s.Version)
	if s.Eligible {
		r.Int(s.Score)
	} else {
		r.Nil()
	}
}

func showServer(s *Server, seq uint64) Reply {
	reported := func(v any) any {
		if s.Age < 0 {
			return nil
		}
		return v
	}
	var score, job any
	if s.Eligible {
		score = s.Score
	}
	if s.Job != 0 {
		job = s.Job
	}
	text := fmt.Sprintf("Score %d.", s.Score)
	if !s.Eligible {
		text = "It gets no logins: " + cmp.Or(s.Why, "it is not eligible") + "."
	}
	return Reply{
		Code: 211,
		Detail: append([]Pair{
			{"id", s.ID}, {"name", s.Name}, {"address", s.Address}, {"state", s.State}, {"reason", orNil(s.Reason)},
			{"link", s.Link}, {"since", s.Since}, {"age", reported(s.Age)}, {"version", orNil(s.Version)},
			{"arch", orNil(s.Arch)}, {"cpus", reported(s.CPUs)}, {"cpu", reported(percent(s.CPU))}, {"load1", reported(s.Load1)},
			{"memtotal", reported(s.MemTotal)}, {"memfree", reported(s.MemFree)}, {"snapdir", orNil(s.SnapDir)},
			{"snapfree", reported(s.SnapFree)}, {"users", s.Users}, {"reserved", s.Reserved}, {"score", score},
			{"why", orNil(s.Why)}, {"snapkind", orNil(s.SnapKind)}, {"homefree", reported(s.HomeFree)},
			{"accelerator", orNil(s.Accelerator)}, {"sessions", orNil(strings.Join(s.Sessions, ","))},
			{"problems", orNil(strings.Join(s.Problems, "; "))}, {"job", job}, {"waits", orNil(s.Waits)},
			{"checks", orNil(s.Checks.summary())}, {"checked", s.Checks.at()},
			{"uuid", orNil(s.UUID)}, {"certuntil", s.CertUntil}, {"serial", orNil(s.Serial)},
		}, s.Trust.pairs()...),
		Pairs: []Pair{{"seq", seq}}, Text: text,
		Prose: func(h Human) []string { return serverProse(s, h) },
	}
}

// orNil is no value for an empty text.
func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

var linkWords = map[string]string{LinkUp: "connected", LinkStale: "connected but silent", LinkDown: "not connected"}

func serverProse(s *Server, h Human) []string {
	state := s.State + ", " + cmp.Or(linkWords[s.Link], s.Link)
	if !s.Since.IsZero() {
		state += " since " + h.Time(s.Since)
	}
	who := ""
	if len(s.Sessions) > 0 {
		who = " (" + strings.Join(s.Sessions, ", ") + ")"
	}
	notes := []note{{"State", state}, {"Reason", s.Reason}}
	if s.Job != 0 {
		notes = append(notes, note{"Emptied", fmt.Sprintf(`by job %d: %s; "canceljob %d" stops it`, s.Job, cmp.Or(s.Waits, "it has just begun"), s.Job)})
	}
	notes = append(notes, note{"Last seen", h.Ago(s.Age)})
	if s.Age >= 0 {
		snap := ""
		if s.SnapDir != "" {
			snap = fmt.Sprintf("%s, %s free", s.SnapDir, h.Bytes(s.SnapFree))
		}
		notes = append(notes,
			note{"Processor", fmt.Sprintf("%s, %.0f%% busy, load %.2f", count(s.CPUs, "core"), s.CPU, s.Load1)},
			note{"Memory", h.Bytes(s.MemFree) + " of " + h.Bytes(s.MemTotal) + " free"},
			note{"Snapshots", snap}, note{"Accelerator", s.Accelerator})
	}
	software := s.Version
	if s.Arch != "" {
		software += ", " + s.Arch
	}
	notes = append(notes, note{"Sessions", fmt.Sprintf("%d%s, %d reserved", s.Users, who, s.Reserved)}, note{"Software", software})
	if !s.Checks.At.IsZero() {
		notes = append(notes, note{"Checks", fmt.Sprintf("%s (%s)", s.Checks.summary(), h.Ago(s.Checks.Age))})
	}
	identity := s.UUID
	if !s.CertUntil.IsZero() {
		identity += ", certificate until " + h.Time(s.CertUntil)
	}
	notes = append(notes, note{"Identity", identity}, note{"Trust bundle", s.Trust.prose(s.Link)})
	for _, p := range s.Problems {
		notes = append(notes, note{"Problem", p})
	}
	return paragraph(fmt.Sprintf("Server %d: %s (%s)", s.ID, s.Name, s.Address), notes...)
}

func setServer(ctx context.Context, c *Call, b ServerAdmin, state string) (Reply, error) {
	id := c.ID("server")
	if _, _, ok := b.Server(id); !ok {
		return Reply{}, noServer(c, b)
	}
	s, changed, left, err := b.SetServer(ctx, id, state, c.Args["reason"])
	if err != nil {
		return Reply{}, err
	}
	if !changed {
		return Reply{Code: 204, Pairs: []Pair{{"server", id}, {"state", state}},
			Text: fmt.Sprintf("Server %d is %s already.", id, state)}, nil
	}
	pairs := []Pair{{"server", id}, {"state", state}, {"sessions", s.Users}}
	text := fmt.Sprintf("Server %d (%s) is %s.", id, s.Name, state)
	if state == Offline {
		switch {
		case s.Users == 1:
			text += " 1 session goes on there."
		case s.Users > 1:
			text += fmt.Sprintf(" %d sessions go on there.", s.Users)
		}
		if left == 0 {
			pairs = append(pairs, Pair{"last", true})
			text += " No server is online now: nobody can log in."
		}
	} else if s.Link == LinkDown {
		text += " It is not connected: logins go there once it is back."
	}
	return Reply{Code: 200, Pairs: pairs, Text: text}, nil
}

func placement(ctx context.Context, c *Call, b Backend) (Reply, error) {
	var u UserDetail
	if c.Has("user") {
		var err error
		if u, _, err = findUser(ctx, c, b); err != nil {
			return Reply{}, err
		}
	}
	name := u.User
	seq := b.Seq() // before the rows: an event may then be told again, never missed
	list, err := b.Placement(ctx, name)
	if err != nil {
		return Reply{}, err
	}
	text := "No server has connected yet."
	if len(list) > 0 {
		who := "The next login"
		if name != "" {
			who = "The next login of " + name
		}
		text = who + " would be refused: no server can take it."
		if first := list[0]; first.Eligible {
			text = fmt.Sprintf("%s would get server %d (%s).", who, first.Server, first.Name)
		}
		switch {
		case name == "" || u.State == noSession:
		case u.State == "lost":
			text = fmt.Sprintf("%s would be refused: session %s on server %d is lost; see \"user %s\".", who, u.ID, u.Server, name)
		default:
			text = fmt.Sprintf("%s goes back to session %s on server %d (%s).", who, u.ID, u.Server, u.ServerName)
		}
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}, {"seq", seq}}, Text: text,
		List: &List{
			Columns: []Column{{"server", "SERVER", Number}, {"", "NAME", Plain}, {"eligible", "ELIGIBLE", Plain}, {"score", "SCORE", Number}, {"reason", "REASON", Plain}},
			Len:     len(list),
			Row: func(i int, r *Row) {
				k := &list[i]
				r.Uint(k.Server)
				r.String(k.Name)
				r.Bool(k.Eligible)
				if k.Eligible {
					r.Int(k.Score)
				} else {
					r.Nil()
				}
				r.String(k.Reason)
			},
		},
	}, nil
}

func reservations(b ReservationAdmin) Reply {
	list, seq := b.Reservations()
	text := count(len(list), "reservation") + "."
	if len(list) == 0 {
		text = "No place is held for a login."
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}, {"seq", seq}}, Text: text,
		List: &List{
			Columns: []Column{{"id", "ID", Plain}, {"user", "USER", Plain}, {"uid", "UID", Number}, {"server", "SERVER", Number},
				{"state", "STATE", Plain}, {"made", "MADE", Stamp}, {"expires", "", Stamp}, {"remaining", "LEFT", Seconds}, {"client", "CLIENT", Plain}},
			Len: len(list),
			Row: func(i int, r *Row) {
				v := &list[i]
				r.String(v.ID)
				r.String(v.User)
				r.Uint(uint64(v.UID))
				r.Uint(v.Server)
				r.String(v.State)
				r.Time(v.Made)
				r.Time(v.Expires)
				r.Seconds(max(v.Remaining, 0))
				r.String(v.Client)
			},
		},
	}
}

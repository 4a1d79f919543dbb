package monitor

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// protocolVersion is the one version that the master speaks.
const protocolVersion = 1

var onOff = []string{"on", "off"}

func switchArg(help string) []Arg {
	return []Arg{{Name: "switch", Values: onOff, Optional: true, Help: help}}
}

// builtinCommands are those about the connection itself.
func builtinCommands(t *Table, b Backend) []Entry {
	return []Entry{{
		Name: "help", Group: general,
		Args:    []Arg{{Name: "command", Optional: true, Complete: t.topics, Help: "one command"}},
		Summary: "list the commands, or explain one",
		About:   []string{"Lists the commands that this connection may use, or explains one of them."},
		Example: "help offlineserver",
		See:     []string{"hello", "complete"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return t.help(c) },
	}, {
		Name: "hello", Group: general,
		Args:    []Arg{{Name: "proto", Kind: Option, Type: TypeNumber, Hint: "N", Optional: true, Help: "the version of the protocol that the client speaks: 1"}},
		Summary: "show the greeting and an overview",
		About:   []string{"Shows the version, the master, your level and how much there is, and keeps the", "connection open until the client leaves."},
		Example: "hello proto=1",
		See:     []string{"version", "servers", "users"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return hello(c, b) },
	}, {
		Name: "verbose", Group: general,
		Args:    switchArg("on: sentences, hints and progress; off: terse lines for programs"),
		Summary: "show or set whether a person is reading",
		About:   []string{"On: format text and progress on. Off: format tsv and progress off. Both can be", "changed afterwards with format and progress. It is off at first, except in the monitor."},
		Example: "verbose on",
		See:     []string{"format", "progress"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return verbose(c) },
	}, {
		Name: "format", Group: general,
		Args:    []Arg{{Name: "format", Values: []string{"text", "tsv", "json"}, Optional: true, Help: "text for people; tsv and json for programs"}},
		Summary: "show or set how replies are written",
		About:   []string{"Sets the form of rows and of last lines, starting with the reply to this command."},
		Example: "format json",
		See:     []string{"verbose"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return format(c) },
	}, {
		Name: "progress", Group: general,
		Args:    switchArg("on: waiting commands tell how far they are"),
		Summary: "show or set whether waiting commands tell their progress",
		About:   []string{"With progress on, a waiting command says that it has started and, every 5 seconds,", "how far it is."},
		Example: "progress on",
		See:     []string{"verbose", "jobs"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return progress(c) },
	}, {
		Name: "level", Group: general,
		Args:    []Arg{{Name: "level", Values: levelNames[:], Hint: "viewer|operator", Optional: true, Help: "the level to go down to"}},
		Summary: "show or lower what this connection may do",
		About:   []string{"Shows your level, or lowers it for the rest of the connection. It cannot be raised", "again; open a new connection for that."},
		Example: "level viewer",
		See:     []string{"hello", "help"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return level(c) },
	}, {
		Name: "events", Group: general,
		Args: []Arg{
			{Name: "switch", Values: onOff, Optional: true, Help: "begin or end to show events"},
			{Name: "types", Kind: Option, Hint: "PATTERN,...", Optional: true, Complete: eventTypes, Help: "only these types; session.* is all about sessions"},
			{Name: "since", Kind: Option, Hint: "SEQ", Optional: true, Help: "begin after the event of this number"},
			{Name: "numbered", Kind: Flag, Help: "begin each line in text format with the number of the event"},
		},
		Summary: "show or set whether events are reported on this connection",
		About:   []string{"Every list carries the seq of its instant, so that \"events on since=SEQ\" after it", "misses nothing."},
		Example: "events on types=session.*,server.*",
		See:     []string{"servers", "users"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return eventsCommand(c, b) },
	}, {
		Name: "ping", Group: general,
		Args:    []Arg{{Name: "text", Type: TypeText, Optional: true, Help: "comes back in the reply"}},
		Summary: "answer, to show that the master is alive",
		About:   []string{"Answers at once. With TEXT it is an end mark between pipelined commands."},
		Example: "ping done",
		See:     []string{"hello"},
		Run: func(_ context.Context, c *Call) (Reply, error) {
			if !c.Has("text") {
				return Reply{Code: 200, Text: "Pong."}, nil
			}
			return Reply{Code: 200, Pairs: []Pair{{"pong", c.Args["text"]}}, Text: "Pong: " + c.Args["text"]}, nil
		},
	}, {
		Name: "version", Group: general,
		Summary: "show what program the master is",
		About:   []string{"Shows the product, the version of the protocol, and how the program was built."},
		Example: "version",
		See:     []string{"hello"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return version(c, b) },
	}, {
		Name: "complete", Group: general, Rest: true,
		Args:    []Arg{{Name: "line", Optional: true, Help: "the line so far; what follows one blank is taken as it is"}},
		Summary: "list what the last word of a line may become",
		About:   []string{"This is what the Tab key of the monitor asks. At most 200 words are listed."},
		Example: "complete offlineserver ",
		See:     []string{"help"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return t.complete(c), nil },
	}, {
		Name: "quit", Group: general,
		Summary: "end the connection",
		About:   []string{"Lines sent after quit are not executed. Jobs that were started go on."},
		Example: "quit",
		See:     []string{"hello"},
		Run: func(_ context.Context, c *Call) (Reply, error) {
			c.conn.quit = true
			return Reply{Code: 221, Text: "Bye."}, nil
		},
	}}
}

func hello(c *Call, b Backend) (Reply, error) {
	if c.Has("proto") && c.ID("proto") != protocolVersion {
		return Reply{}, &Error{
			Code:  506,
			Pairs: []Pair{{"proto", c.Args["proto"]}, {"speaks", protocolVersion}},
			Text:  fmt.Sprintf("The master speaks version %d of the protocol, not %s.", protocolVersion, c.Args["proto"]),
		}
	}
	o := b.Overview()
	c.conn.session = true
	pairs := []Pair{
		{"proto", protocolVersion}, {"version", o.Version}, {"master", o.Host}, {"level", c.Level.String()},
		{"uptime", o.Uptime}, {"servers", o.Servers}, {"online", o.Online}, {"users", o.Users},
		{"reservations", o.Reservations}, {"alarms", o.Alarms}, {"seq", o.Seq},
	}
	if o.RetryAfter > 0 {
		pairs = append(pairs, Pair{"retry", o.RetryAfter})
	}
	if o.IntervalWhy != "" {
		pairs = append(pairs, Pair{"interval", o.Interval.Seconds()}, Pair{"wish", o.Wish.Seconds()}, Pair{"why", o.IntervalWhy})
	}
	return Reply{
		Code: 220, Pairs: pairs,
		Text: fmt.Sprintf(`Your level is %s. Type "help" for the commands, "quit" to leave.`, c.Level),
		Prose: func(h Human) []string {
			alarms := count(o.Alarms, "active alarm")
			lines := []string{
				fmt.Sprintf("verdecmd %s cluster master on %s, up %s.", o.Version, o.Host, h.Span(o.Uptime)),
				fmt.Sprintf("%s (%d online), %s, %s, %s.", count(o.Servers, "server"), o.Online,
					count(o.Users, "user"), count(o.Reservations, "reservation"), alarms),
			}
			if o.Critical > 0 {
				lines = append(lines, fmt.Sprintf(`%s that nobody has acknowledged: "alarms severity=critical".`, count(o.Critical, "critical alarm")))
			}
			if o.RetryAfter > 0 {
				lines = append(lines, fmt.Sprintf("The master has just started and still learns what runs; all is known in %s.", h.Span(o.RetryAfter)))
			}
			if o.IntervalWhy != "" {
				lines = append(lines, fmt.Sprintf("Servers report every %v, not every %v as is wished: %s.", o.Interval, o.Wish, o.IntervalWhy))
			}
			return lines
		},
	}, nil
}

// restyle changes how the connection is written to, and makes the 212 that
// tells one of its settings.
func restyle(c *Call, change func(*style), key, value, text string) Reply {
	c.conn.mu.Lock()
	change(&c.conn.style)
	c.conn.mu.Unlock()
	return Reply{Code: 212, Pairs: []Pair{{key, value}}, Text: text}
}

func offOn(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func verbose(c *Call) (Reply, error) {
	on := c.conn.style.verbose
	if c.Has("switch") {
		on = c.Args["switch"] == "on"
	}
	return restyle(c, func(s *style) {
		if !c.Has("switch") {
			return
		}
		*s = style{verbose: on, progress: on, format: TSV}
		if on {
			s.format = Text
			c.conn.session = true
		}
	}, "verbose", offOn(on), "Verbose is "+offOn(on)+"."), nil
}

func format(c *Call) (Reply, error) {
	f := c.conn.style.format
	if c.Has("format") {
		f = Format(slices.Index(formatNames[:], c.Args["format"]))
	}
	return restyle(c, func(s *style) { s.format = f }, "format", f.String(), "The format is "+f.String()+"."), nil
}

func progress(c *Call) (Reply, error) {
	on := c.conn.style.progress
	if c.Has("switch") {
		on = c.Args["switch"] == "on"
	}
	return restyle(c, func(s *style) { s.progress = on }, "progress", offOn(on), "Progress is "+offOn(on)+"."), nil
}

func level(c *Call) (Reply, error) {
	if c.Has("level") {
		to, _ := ParseLevel(c.Args["level"])
		if to > c.Level {
			err := denied(to, c.Level)
			err.Text = fmt.Sprintf("Your level is %s and cannot be raised on this connection.", c.Level)
			return Reply{}, err
		}
		c.conn.level = to
	}
	now := c.conn.level.String()
	return Reply{
		Code:  212,
		Pairs: []Pair{{"level", now}, {"uid", c.Caller.UID}, {"pid", c.Caller.PID}},
		Text:  fmt.Sprintf("Your level is %s (%s, UID %d, process %d).", now, c.Caller.Name, c.Caller.UID, c.Caller.PID),
	}, nil
}

func eventsCommand(c *Call, b Backend) (Reply, error) {
	switch {
	case c.Args["switch"] == "on":
		s, err := newSubscription(c, b)
		if err != nil {
			return Reply{}, err
		}
		c.conn.unsubscribe()
		c.conn.events = s
		c.conn.session = true
	case c.Has("types") || c.Has("since") || c.Has("numbered"):
		return Reply{}, c.conn.s.cfg.Table.byName["events"].misuse(`types, since and numbered go with "events on"`)
	case c.Has("switch"):
		c.conn.unsubscribe()
	}
	s := c.conn.events
	if s == nil {
		return Reply{Code: 212, Pairs: []Pair{{"events", "off"}}, Text: "Events are off."}, nil
	}
	types, seq := strings.Join(s.types, ","), b.Seq()
	if s.start {
		seq = s.since // the next line is the event after it
	}
	text := "Events are on: " + types + "."
	if s.numbered {
		text = number(seq, true) + text
	}
	return Reply{Code: 212, Pairs: []Pair{{"events", "on"}, {"types", types}, {"seq", seq}}, Text: text}, nil
}

func newSubscription(c *Call, b Backend) (*subscription, error) {
	s := &subscription{types: []string{"*"}, since: b.Seq(), start: true, numbered: c.Has("numbered")}
	if c.Has("types") {
		s.types = strings.Split(c.Args["types"], ",")
		for _, p := range s.types {
			head := strings.TrimSuffix(p, "*")
			if p == "" || strings.Trim(head, "abcdefghijklmnopqrstuvwxyz.") != "" || head != p && head != "" && !strings.HasSuffix(head, ".") {
				return nil, badValue("types", p, "a pattern is a type like server.up, server.* or *")
			}
		}
	}
	if c.Has("since") {
		n, err := strconv.ParseUint(c.Args["since"], 10, 64)
		if err != nil || n > s.since {
			return nil, badValue("since", c.Args["since"], fmt.Sprintf("the newest event is %d", s.since))
		}
		s.since = n
	}
	return s, nil
}

// eventTypes are the types of PROTOCOL 10, for completion.
func eventTypes(string) []Choice {
	var out []Choice
	for _, kind := range []string{
		"server.* up down online offline draining registered replacing replaced rejoined forgotten unfit fit refused duplicate skew clock nospace space lost away",
		"password.* wrong locked", "token.* refused", "cert.* expiring renewed", "trust.* lag current",
		"session.* starting started stopping ended failed hung migrated",
		"reservation.* made used expired cancelled", "image.* published rolledback",
		"replica.* ready started stopped failed", "template.* synced failed", "roam.* up down",
		"alarm.* raised acked cleared", "job.* started finished", "config.* changed", "master.* started restored slow readonly nospace space interval", "audit.* failed kept",
	} {
		words := strings.Fields(kind)
		out = append(out, Choice{Word: words[0]})
		for _, w := range words[1:] {
			out = append(out, Choice{Word: strings.TrimSuffix(words[0], "*") + w})
		}
	}
	return out
}

func version(c *Call, b Backend) (Reply, error) {
	v := cmp.Or(c.conn.s.cfg.Version, b.Overview().Version)
	build := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				build = s.Value
			}
		}
	}
	return Reply{
		Code: 211,
		Detail: []Pair{
			{"product", "verdecmd"}, {"version", v}, {"protocol", protocolVersion},
			{"go", runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}, {"build", build}, {"license", "Apache-2.0"},
		},
		Text: "verdecmd " + v + ".",
	}, nil
}

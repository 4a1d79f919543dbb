package monitor

import (
	"context"
	"fmt"
	"time"
)

// DrainAdmin is what the emptying of servers needs.
type DrainAdmin interface {
	// Drain starts the job that empties a server, or joins the one that does it in
	// the same way; an *Error with code 440 where it is done in another way. limit
	// 0: none. A server that is offline and empty gives a job with ID 0.
	Drain(ctx context.Context, id uint64, method string, limit time.Duration) (j Job, joined bool, err error)
}

// What is done about the sessions of a server that is emptied.
const (
	drainWait    = "wait"
	drainLogoff  = "logoff"
	drainMigrate = "migrate"
	drainLive    = "live"
)

// drainCommands are those that empty servers.
func drainCommands(b Backend) []Entry {
	return []Entry{{
		Name: "drainserver", Group: servers, Level: Operator, Full: true,
		Args: []Arg{
			{Name: "server", Type: TypeServer, Hint: "SERVER-ID", Help: `the number shown by "servers"`, Complete: func(string) []Choice { return serverChoices(b) }},
			{Name: "method", Kind: Option, Values: []string{drainWait, drainLogoff, drainMigrate, drainLive}, Optional: true,
				Help: "wait: until the users have left; logoff: ask the guests, a few at a time, and abort them after a time"},
			{Name: "timeout", Kind: Option, Type: TypeTime, Hint: "TIME", Optional: true,
				Help: "when to give up; with logoff, when the last guests are aborted. Without it there is no end"},
			{Name: "nowait", Kind: Flag, Help: "do not wait for the end; see job"},
		},
		Summary: "empty a server: no new logins, then wait until it is left or log everybody off",
		About: []string{"Takes a server out of service for new logins, waits until its last session has ended, and",
			"leaves it offline. method=logoff logs the sessions off, as logoffuser does. The methods",
			"migrate and live are not available yet. Where sessions are left after the time, the server",
			"is offline all the same and the reply names them. \"canceljob\" stops it and leaves the",
			"server offline, \"onlineserver\" stops it and lets logins in; who is being logged off goes on",
			"ending. The same command again joins; one with another method or time is refused."},
		Example: "drainserver 2 method=logoff timeout=10m",
		See:     []string{"offlineserver", "onlineserver", "server", "jobs"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return drainServer(ctx, c, b) },
	}}
}

func drainServer(ctx context.Context, c *Call, b Backend) (Reply, error) {
	id, method := c.ID("server"), c.Args["method"]
	s, _, ok := b.Server(id)
	if !ok {
		return Reply{}, noServer(c, b)
	}
	switch method {
	case "":
		method = drainWait
	case drainMigrate, drainLive:
		return Reply{}, Errorf(502, []Pair{{"command", "drainserver"}, {"method", method}},
			"sessions cannot be moved to other servers yet; method=logoff ends them, method=wait waits for their users")
	}
	j, joined, err := b.Drain(ctx, id, method, c.Time("timeout"))
	if err != nil {
		return Reply{}, err
	}
	if j.ID == 0 {
		return Reply{Code: 204, Pairs: []Pair{{"server", id}, {"state", Offline}, {"left", 0}},
			Text: fmt.Sprintf("Server %d is offline and empty already.", id)}, nil
	}
	if c.Has("nowait") {
		r := accepted(j, joined, Pair{"server", id})
		if last := lastOnline(b); last != "" {
			r.Pairs, r.Text = append(r.Pairs, Pair{"last", true}), r.Text+last
		}
		return r, nil
	}
	text := joinedText(j)
	if !joined {
		text = fmt.Sprintf("Emptying server %d (%s) of %s (job %d)%s.", id, s.Name, count(s.Users, "session"), j.ID, drainText(method, j.Limit))
	}
	j, err = c.wait(ctx, b, j, 0, text+lastOnline(b))
	if err != nil {
		return Reply{}, err
	}
	return withJob(j, joined), nil
}

// drainText says what will be done.
func drainText(method string, limit time.Duration) string {
	text := ": waiting until the users have left"
	if method == drainLogoff {
		text = ": the guests are asked to shut down"
	}
	if limit > 0 {
		text += fmt.Sprintf(", for %d s at most", int(limit.Seconds()))
	}
	return text
}

// lastOnline warns where nobody can log in any more.
func lastOnline(b ServerAdmin) string {
	list, _ := b.Servers()
	for i := range list {
		if list[i].State == Online {
			return ""
		}
	}
	return " No server is online now: nobody can log in."
}

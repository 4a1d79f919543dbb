package drain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"verdecmd/master/cluster"
)

// Method is what becomes of the sessions of a server that is emptied.
type Method string

// Wait waits until the users have left, Logoff logs them off.
const (
	Wait   Method = "wait"
	Logoff Method = "logoff"
)

const (
	// atOnce is how many sessions are logged off at a time: guests that shut
	// down are busy, and those that do not are aborted one after the other.
	atOnce = 8
	// shortest is the least that a guest gets for its shutdown.
	shortest = time.Second
	// reported is how long after its limit the end of a session is awaited: the
	// abort by the satellite, and its way here.
	reported = 20 * time.Second
	// again is when a log off that could not be begun is tried again.
	again = 2 * time.Second
	// mostNames is how many sessions are told by name.
	mostNames = 10
)

// Plan is the emptying of one server: what was asked for, and what has been done
// so far.
type Plan struct {
	Server     uint64
	Method     Method
	Started    time.Time
	Limit      time.Duration // 0: none
	LogoffWait time.Duration // the most that a guest gets for its shutdown

	seen  map[string]bool      // every session that was here
	asked map[string]time.Time // by session: until when its log off counts as under way
}

// NewPlan returns the plan for a server that had these sessions at its start.
func NewPlan(p Plan, sessions []string) *Plan {
	p.seen, p.asked = map[string]bool{}, map[string]time.Time{}
	for _, id := range sessions {
		p.seen[id] = true
	}
	return &p
}

// Session is one that is still there.
type Session struct{ ID, User, State string }

// View is the server at an instant.
type View struct {
	Known    bool // false: it has been forgotten
	State    cluster.State
	Name     string
	Up       bool          // its link
	Silent   time.Duration // without a link for so long
	Awaited  time.Duration // the master has just started and still gives it this time to come back
	Sessions []Session     // by user
	Unowned  []string      // whose desktops run there and are not in the books: they are adopted or ended
	Moved    int           // sessions of the plan that are on another server by now
}

// Look takes the view of a plan's server.
func (p *Plan) Look(c *cluster.Cluster, now time.Time) View {
	s := c.Server(p.Server)
	if s == nil {
		return View{}
	}
	v := View{Known: true, State: s.State, Name: s.Name, Up: s.Attachment != 0, Awaited: c.Awaited(now, s.ID), Unowned: c.Unowned(s.ID)}
	if !v.Up {
		v.Silent = now.Sub(s.Since)
	}
	for _, x := range c.SessionsOn(s.ID) {
		v.Sessions = append(v.Sessions, Session{ID: x.ID, User: x.User, State: x.State()})
	}
	for id := range p.seen {
		if x := c.SessionByID(id); x != nil && x.Server != p.Server {
			v.Moved++
		}
	}
	return v
}

// Over is how the work has come to its end.
type Over int

// The ends, and that there is none yet.
const (
	Going     Over = iota
	Empty          // nothing is left
	Late           // the limit has passed
	Changed        // the server is no longer draining: somebody has put it online or offline
	Forgotten      // there is no such server any more
)

// Order tells a session to log off and to be aborted after Limit.
type Order struct {
	Session, User string
	Limit         time.Duration
}

// Step is what follows from a View.
type Step struct {
	Over    Over
	Logoff  []Order
	Percent int
	Message string // what it waits for, in words
}

// Next decides what is to be done now. It counts the orders that it returns as
// given; see Failed.
func (p *Plan) Next(now time.Time, v View) Step {
	for _, x := range v.Sessions {
		p.seen[x.ID] = true
	}
	var s Step
	switch {
	case !v.Known:
		s.Over = Forgotten
	case v.State != cluster.Draining:
		s.Over = Changed
	case len(v.Sessions) == 0 && len(v.Unowned) == 0:
		s.Over = Empty
	case p.Limit > 0 && !now.Before(p.Started.Add(p.Limit)):
		s.Over = p.late(now, v)
	case p.Method == Logoff && v.Up:
		s.Logoff = p.logoff(now, v)
	}
	if total := len(p.seen); total > 0 {
		s.Percent = 100 * (total - len(v.Sessions)) / total
	}
	s.Message = p.message(v)
	return s
}

// late ends the work when the limit has passed, or lets the log offs come to
// their end that began before it: their guests are being aborted.
func (p *Plan) late(now time.Time, v View) Over {
	for _, x := range v.Sessions {
		if v.Up && now.Before(p.asked[x.ID]) && now.Before(p.Started.Add(p.Limit+reported)) {
			return Going
		}
	}
	return Late
}

// logoff chooses who is logged off next. Who is leaving already is told first:
// it takes no further place, and only a log off ends for sure.
func (p *Plan) logoff(now time.Time, v View) (out []Order) {
	leaving := func(x Session) bool { return x.State == cluster.Stopping || x.State == cluster.Aborting }
	busy := 0
	var rest []Session
	for _, x := range v.Sessions {
		underWay := now.Before(p.asked[x.ID])
		if underWay || leaving(x) {
			busy++
		}
		if !underWay {
			rest = append(rest, x)
		}
	}
	slices.SortStableFunc(rest, func(a, b Session) int {
		if leaving(a) == leaving(b) {
			return cmp.Compare(a.User, b.User)
		}
		if leaving(a) {
			return -1
		}
		return 1
	})
	limit := p.share(now, len(rest))
	for _, x := range rest {
		if !leaving(x) {
			if busy >= atOnce {
				break
			}
			busy++
		}
		p.asked[x.ID] = now.Add(limit + reported)
		out = append(out, Order{Session: x.ID, User: x.User, Limit: limit})
	}
	return out
}

// share is how long each of n sessions gets that are still to be logged off, so
// that all of them get their turn before the limit.
func (p *Plan) share(now time.Time, n int) time.Duration {
	if p.Limit == 0 {
		return p.LogoffWait
	}
	rounds := time.Duration((n + atOnce - 1) / atOnce)
	left := p.Started.Add(p.Limit).Sub(now) / max(rounds, 1)
	return min(p.LogoffWait, max(shortest, left.Round(time.Second)))
}

// Failed takes an order back that could not be given.
func (p *Plan) Failed(now time.Time, session string) {
	p.asked[session] = now.Add(again)
}

// Ended is how many sessions have left the cluster.
func (p *Plan) Ended(v View) int { return max(0, len(p.seen)-len(v.Sessions)-v.Moved) }

// message says what the work waits for.
func (p *Plan) message(v View) string {
	if len(v.Sessions) == 0 && len(v.Unowned) == 0 {
		return "no session is left"
	}
	return p.left(v) + p.hints(v)
}

// left says who is still there.
func (p *Plan) left(v View) string {
	n, total := len(v.Sessions), len(p.seen)
	if n == 0 {
		return "desktops that the master does not own are to end first, of " + strings.Join(v.Unowned, ", ")
	}
	return fmt.Sprintf("%d of %s left: %s", n, sessions(total), Names(v))
}

// Names tells the sessions of a view with their states.
func Names(v View) string {
	var names []string
	for i, x := range v.Sessions {
		if i == mostNames {
			names = append(names, fmt.Sprintf("and %d more", len(v.Sessions)-i))
			break
		}
		names = append(names, fmt.Sprintf("%s (%s)", x.User, x.State))
	}
	return strings.Join(names, ", ")
}

// hints tell which command helps against what does not end by itself.
func (p *Plan) hints(v View) (text string) {
	switch {
	case v.Up || !v.Known:
	case v.Awaited > 0:
		text += fmt.Sprintf("; server %d (%s) has not come back yet since the master started", p.Server, v.Name)
	default:
		text += fmt.Sprintf("; server %d (%s) has had no link for %d s: \"fenceserver %d\" releases its sessions if that host is powered off",
			p.Server, v.Name, int64(v.Silent/time.Second), p.Server)
	}
	if p.Method == Logoff {
		return text // it ends them
	}
	for _, state := range []string{cluster.Hung, cluster.Failed} {
		if i := slices.IndexFunc(v.Sessions, func(x Session) bool { return x.State == state }); i >= 0 {
			text += fmt.Sprintf("; \"abortuser %s\" ends what is %s", v.Sessions[i].User, state)
		}
	}
	return text
}

func sessions(n int) string {
	if n == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", n)
}

package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// life is the life of one desktop, as it told it itself.
type life struct {
	user, session, uuid, host string
	pid                       int // in its name space
	start, last               time.Duration
	locked                    bool  // its user's disk was in use when it started
	told                      []one // what it was told by somebody, and its end
}

// one is something that happened at a time since the computer started.
type one struct {
	at   time.Duration
	what string
}

func (l *life) String() string {
	return fmt.Sprintf("desktop of %s, session %s on %s, process %d, seen %s to %s", l.user, l.session, l.host, l.pid, clock(l.start), clock(l.last))
}

func clock(at time.Duration) string { return fmt.Sprintf("%.3f", at.Seconds()) }

// readLives reads what all desktops told. A record is one write; of one that is
// just being written the end may be missing.
func readLives(path string) ([]*life, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lives []*life
	by := map[string]*life{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var at time.Duration
		var what string
		var x life
		if _, err := fmt.Sscan(line, &at, &what, &x.user, &x.session, &x.uuid, &x.host, &x.pid); err != nil {
			return nil, fmt.Errorf("witness: %q: %w", line, err)
		}
		key := fmt.Sprint(x.host, x.pid, x.uuid)
		l := by[key]
		if l == nil {
			l = &x
			l.start = at
			by[key], lives = l, append(lives, l)
		}
		l.last = max(l.last, at)
		switch what {
		case "start", "beat":
		case "locked":
			l.locked = true
		default:
			l.told = append(l.told, one{at, what})
		}
	}
	slices.SortStableFunc(lives, func(a, b *life) int { return cmp.Compare(a.start, b.start) })
	return lives, nil
}

// breach is a broken promise and when it was broken.
type breach struct {
	at   time.Duration
	text string
}

func (v breach) String() string { return v.text + " (at " + clock(v.at) + ")" }

// oneDesktopEach: no two desktops of a user are there at an instant (S1), none
// finds its user's disk in use (S2).
func oneDesktopEach(lives []*life) (out []breach) {
	before := map[string]*life{} // of those that have started, the one that is seen longest
	for _, l := range lives {
		b := before[l.user]
		if b != nil && l.start <= b.last {
			out = append(out, breach{l.start, fmt.Sprintf("S1: two at once: %v; %v", b, l)})
		}
		if l.locked {
			out = append(out, breach{l.start, fmt.Sprintf("S2: started while the disk was in use: %v", l)})
		}
		if b == nil || l.last > b.last {
			before[l.user] = l
		}
	}
	return out
}

// claim is a word of a master: this user may have this session there.
type claim struct {
	user, session, host string
	at                  time.Duration
}

// allowedEach: no desktop starts without a claim of its own (S4).
func allowedEach(lives []*life, claims map[string]claim) (out []breach) {
	used := map[string]*life{}
	for _, l := range lives {
		c, ok := claims[l.session]
		switch {
		case !ok:
			out = append(out, breach{l.start, fmt.Sprintf("S4: started, and no master has granted it: %v", l)})
		case c.user != l.user || c.host != l.host:
			out = append(out, breach{l.start, fmt.Sprintf("S4: %v was granted to %s on %s", l, c.user, c.host)})
		case used[l.session] != nil:
			out = append(out, breach{l.start, fmt.Sprintf("S4: one grant, two starts: %v; %v", used[l.session], l)})
		}
		used[l.session] = l
	}
	return out
}

// wish is the end of a user's session that an administrator asked for: it may
// have been taken in between from and to, and is carried out at any time after.
type wish struct {
	user     string
	from, to time.Duration
}

// lastSign is how long the last sign of a desktop that was killed may be before
// its end, on a busy machine.
const lastSign = 10 * heartbeat

// logGrace is how much later than it was done something may be in a log, on a
// slow machine.
const logGrace = 3 * time.Second

// windowEnd is the end of a time that has not ended yet.
const windowEnd = time.Duration(1<<63 - 1)

// endedAsAsked: a desktop is told to end, or gone, only where somebody asked
// for the end of that very session (S7, S8); killed are the processes that the
// test itself has ended. Nothing ever stops a guest.
func endedAsAsked(lives []*life, claims map[string]claim, wishes []wish, killed, alive map[int]bool) (out []breach) {
	for _, l := range lives {
		// An order may come before the process is there.
		granted := min(l.start, claims[l.session].at-logGrace)
		asked := slices.ContainsFunc(wishes, func(w wish) bool { return w.user == l.user && granted <= w.to && w.from <= l.last+lastSign })
		for _, t := range l.told {
			switch {
			case t.what == "end":
			case t.what != "quit" && t.what != "system_powerdown" && t.what != "guest-shutdown":
				out = append(out, breach{t.at, fmt.Sprintf("S7: told %q: %v", t.what, l)})
			case !asked:
				out = append(out, breach{t.at, fmt.Sprintf("S8: told %q and nobody had asked for that: %v", t.what, l)})
			}
		}
		if !asked && !killed[l.pid] && !alive[l.pid] {
			out = append(out, breach{l.last, fmt.Sprintf("S7: gone, and nobody had asked for that: %v", l)})
		}
	}
	return out
}

// window is a time during which a server was offline, from the acknowledgement
// to the first word of an administrator that let logins on again.
type window struct {
	host     string
	from, to time.Duration
}

// noneWhileOffline: no desktop is granted on a server that is offline (S6). It
// may start long after that.
func noneWhileOffline(lives []*life, claims map[string]claim, offline []window) (out []breach) {
	for _, l := range lives {
		granted := claims[l.session].at
		for _, w := range offline {
			if w.host == l.host && w.from+logGrace < granted && granted < w.to {
				out = append(out, breach{l.start, fmt.Sprintf("S6: granted on a server that is offline since %s: %v", clock(w.from), l)})
			}
		}
	}
	return out
}

// judge is all checkers.
func judge(lives []*life, claims map[string]claim, wishes []wish, killed, alive map[int]bool, offline []window) []breach {
	return slices.Concat(oneDesktopEach(lives), allowedEach(lives, claims), endedAsAsked(lives, claims, wishes, killed, alive), noneWhileOffline(lives, claims, offline))
}

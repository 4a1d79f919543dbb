package monitor

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// TrustAdmin is what the commands about the cluster's authority need.
type TrustAdmin interface {
	// RotateCA starts the job that puts another authority into the place of the
	// present one, or joins it. skip are servers that it is not to wait for; abort
	// takes it back, an *Error with code 554 where there is nothing to take back or
	// it is too late.
	RotateCA(ctx context.Context, abort bool, skip []uint64) (j Job, joined bool, err error)
}

// mostSkip is how many servers one command may leave out.
const mostSkip = 1000

// trustCommands are those about the cluster's authority.
func trustCommands(b Backend) []Entry {
	return []Entry{{
		Name: "rotateca", Group: servers, Level: Admin, Full: true,
		Args: []Arg{
			{Name: "abort", Kind: Flag, Help: "take it back: the authority from before is the one again"},
			{Name: "skip", Kind: Option, Hint: "ID,...", Optional: true, Help: "servers that are not waited for; they must be registered again"},
			{Name: "nowait", Kind: Flag, Help: "do not wait for the end; see job"},
		},
		Summary: "put another authority into the place of the one that certificates come from",
		About: []string{"Makes a new authority, waits until all servers trust it, lets them get certificates from",
			"it, and removes the old one when the last server has one. Sessions go on. It goes on after",
			"a restart of the master. While a server is away it waits: \"job\" names it, \"rotateca",
			"skip=ID\" goes on without it, and \"rotateca abort\" takes all of it back, until the old",
			"authority is removed. Tokens of before are void from the moment at which the new one issues."},
		Example: "rotateca nowait",
		See:     []string{"server", "job", "createtoken"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return rotateCA(ctx, c, b) },
	}}
}

func rotateCA(ctx context.Context, c *Call, b Backend) (Reply, error) {
	abort := c.Has("abort")
	var skip []uint64
	if c.Has("skip") {
		words := strings.Split(c.Args["skip"], ",")
		for _, w := range words {
			id, err := strconv.ParseUint(w, 10, 64)
			if err != nil || id == 0 || len(words) > mostSkip {
				return Reply{}, badValue("skip", c.Args["skip"], `these are no IDs of servers with commas between them; "servers" shows them`)
			}
			skip = append(skip, id)
		}
		if abort {
			return Reply{}, Errorf(501, nil, "give either abort or skip")
		}
	}
	j, joined, err := b.RotateCA(ctx, abort, skip)
	if err != nil {
		return Reply{}, err
	}
	if c.Has("nowait") {
		return accepted(j, joined, Pair{"abort", abort}), nil
	}
	text := fmt.Sprintf("Changing the cluster's authority (job %d).", j.ID)
	switch {
	case abort:
		text = fmt.Sprintf("Taking the change of the cluster's authority back (job %d).", j.ID)
	case joined:
		text = joinedText(j)
	}
	if j, err = c.wait(ctx, b, j, 0, text); err != nil {
		return Reply{}, err
	}
	r := withJob(j, joined)
	if abort && j.Code == 444 { // what was wanted
		r.Code = 200
	}
	return r, nil
}

// Trust is how a server stands to the trust bundle of the cluster.
type Trust struct {
	Current uint64 // version of the newest bundle; 0: there are none
	Takes   bool   // the server is known to take bundles: it has been connected since the master started
	Version uint64 // that is in force there
	// Behind is for how long it has been connected without the newest; 0: it has
	// it, or is not connected.
	Behind time.Duration
	Error  string // why it refuses a newer one
}

// pairs are the keys of a server's detail.
func (t Trust) pairs() []Pair {
	var version, current, behind any
	if t.Current > 0 {
		current = t.Current
	}
	if t.Takes {
		version = t.Version
		if t.Behind > 0 {
			behind = t.Behind
		}
	}
	return []Pair{{"trust", version}, {"trustcurrent", current}, {"trustbehind", behind}, {"trusterror", orNil(t.Error)}}
}

// prose is the same for people; empty where there is nothing to tell.
func (t Trust) prose(link string) string {
	switch {
	case t.Current == 0:
		return ""
	case !t.Takes && link == LinkDown:
		return "not known while it is not connected"
	case !t.Takes:
		return "it takes none: its version is an older one"
	case t.Version == t.Current:
		return fmt.Sprintf("version %d", t.Version)
	case t.Behind == 0:
		return fmt.Sprintf("version %d of %d, when it was connected", t.Version, t.Current)
	}
	text := fmt.Sprintf("version %d of %d, behind for %d s", t.Version, t.Current, int64(t.Behind.Seconds()))
	if t.Error != "" {
		text += ": " + t.Error
	}
	return text
}

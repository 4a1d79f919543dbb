package drain

import (
	"fmt"
	"strings"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/job"
	"verdecmd/monitor"
)

// outcome is the final reply of the job, PROTOCOL 12.2. Going is one that an
// administrator has cancelled.
func (p *Plan) outcome(now time.Time, v View, over Over) job.Outcome {
	took := int64(now.Sub(p.Started).Round(time.Second) / time.Second)
	pairs := []monitor.Pair{{Key: "server", Value: p.Server}, {Key: "moved", Value: v.Moved}, {Key: "ended", Value: p.Ended(v)}, {Key: "left", Value: len(v.Sessions)}}
	server := fmt.Sprintf("server %d (%s)", p.Server, v.Name)
	rest := "no session is left"
	if len(v.Sessions) > 0 || len(v.Unowned) > 0 {
		rest = p.left(v)
	}
	not := func(code int, text string) job.Outcome {
		return job.Outcome{Code: code, Pairs: append(pairs, monitor.Pair{Key: "state", Value: string(v.State)}, monitor.Pair{Key: "msg", Value: text}),
			Text: strings.ToUpper(text[:1]) + text[1:] + "."}
	}
	going := ""
	if p.Method == Logoff && len(v.Sessions) > 0 {
		going = "; those that are being logged off go on ending"
	}
	switch {
	case over == Forgotten:
		return not(444, fmt.Sprintf("server %d was forgotten meanwhile", p.Server))
	case over == Changed && v.State == cluster.Online:
		return not(444, fmt.Sprintf("%s was put online: it is not emptied any more; %s%s", server, rest, going))
	case over == Changed, over == Going:
		return not(444, fmt.Sprintf("cancelled: %s is %s and is not emptied any more; %s%s", server, v.State, rest, going))
	case over == Late:
		return not(443, fmt.Sprintf("%s is %s, but not empty after %d s: %s%s%s", server, v.State, took, rest, p.hints(v), going))
	}
	how := "there was no session"
	if n := p.Ended(v); n > 0 {
		how = fmt.Sprintf("%s ended in %d s", sessions(n), took)
	}
	return job.Outcome{Code: 200, Pairs: pairs, Text: fmt.Sprintf("Server %d (%s) is empty and %s: %s.", p.Server, v.Name, v.State, how)}
}

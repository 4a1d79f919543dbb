package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// jobCommands are those about long operations.
func jobCommands(b Backend) []Entry {
	job := Arg{Name: "job", Type: TypeNumber, Hint: "N", Help: `the number shown by "jobs"`,
		Complete: func(string) []Choice { return jobChoices(b) }}
	return []Entry{{
		Name: "jobs", Group: jobs,
		Args:    []Arg{{Name: "all", Kind: Flag, Help: "with those that have finished"}},
		Summary: "list the long operations",
		About:   []string{"Lists the jobs that are under way; with all, also the finished ones of the last day."},
		Example: "jobs all",
		See:     []string{"job", "waitjob", "canceljob"},
		Run:     func(_ context.Context, c *Call) (Reply, error) { return listJobs(b, c.Has("all")), nil },
	}, {
		Name: "job", Group: jobs, Args: []Arg{job},
		Summary: "show one long operation",
		About:   []string{"Shows how far a job is and what it waits for."},
		Example: "job 19",
		See:     []string{"jobs"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			seq := b.Seq()
			j, ok := b.Job(c.ID("job"))
			if !ok {
				return Reply{}, noJob(c.Args["job"])
			}
			return showJob(j, seq, whereJob(ctx, b, j)), nil
		},
	}, {
		Name: "waitjob", Group: jobs,
		Args:    []Arg{job, {Name: "timeout", Kind: Option, Type: TypeTime, Hint: "TIME", Optional: true, Help: "how long to wait"}},
		Summary: "wait for a long operation",
		About:   []string{"Answers with the final reply of the job, as if it had been waited for from its start."},
		Example: "waitjob 19 timeout=1m",
		See:     []string{"jobs"},
		Run:     func(ctx context.Context, c *Call) (Reply, error) { return waitJob(ctx, c, b) },
	}, {
		Name: "canceljob", Group: jobs, Level: Operator, Full: true, Args: []Arg{job},
		Summary: "stop a long operation",
		About:   []string{"Stops a job if it can still be stopped; what it has done already stays."},
		Example: "canceljob 19",
		See:     []string{"jobs"},
		Run: func(ctx context.Context, c *Call) (Reply, error) {
			if _, ok := b.Job(c.ID("job")); !ok {
				return Reply{}, noJob(c.Args["job"])
			}
			j, cancelled, err := b.CancelJob(ctx, c.ID("job"))
			if err != nil {
				return Reply{}, err
			}
			pairs := []Pair{{"job", c.ID("job")}, {"state", j.State}}
			if !cancelled {
				return Reply{Code: 204, Pairs: pairs, Text: "Job " + c.Args["job"] + " has finished already."}, nil
			}
			return Reply{Code: 200, Pairs: pairs, Text: "Job " + c.Args["job"] + " is cancelled."}, nil
		},
	}}
}

func noJob(id string) *Error {
	return &Error{
		Code:  550,
		Pairs: []Pair{{"kind", "job"}, {"id", id}, {"msg", "no job has this number"}},
		Text:  fmt.Sprintf(`No job has the number %s. Type "jobs all" to see the known ones.`, id),
	}
}

func jobChoices(b JobAdmin) []Choice {
	list, _ := b.Jobs(false)
	out := make([]Choice, len(list))
	for i, j := range list {
		out[i] = Choice{strconv.FormatUint(j.ID, 10), j.Action + " " + j.Object}
	}
	return out
}

func listJobs(b JobAdmin, all bool) Reply {
	list, seq := b.Jobs(all)
	text := count(len(list), "job") + "."
	if len(list) == 0 {
		text = "No jobs."
	}
	return Reply{
		Code: 210, Pairs: []Pair{{"count", len(list)}, {"seq", seq}}, Text: text,
		List: &List{
			Columns: []Column{{"job", "JOB", Number}, {"action", "ACTION", Plain}, {"object", "OBJECT", Plain}, {"state", "STATE", Plain},
				{"percent", "", Number}, {"started", "STARTED", Stamp}, {"elapsed", "ELAPSED", Seconds}, {"limit", "LIMIT", Seconds},
				{"by", "BY", Plain}, {"code", "CODE", Number}},
			Len: len(list),
			Row: func(i int, r *Row) {
				j := &list[i]
				r.Uint(j.ID)
				r.String(j.Action)
				r.String(j.Object)
				r.String(j.State)
				r.Int(int64(j.Percent))
				r.Time(j.Started)
				r.Seconds(j.Elapsed)
				if j.Limit > 0 {
					r.Seconds(j.Limit)
				} else {
					r.Nil()
				}
				r.String(j.By)
				if j.Finished() {
					r.Int(int64(j.Code))
				} else {
					r.Nil()
				}
			},
		},
	}
}

// whereJob says in words what a job that has not finished works on.
func whereJob(ctx context.Context, b Backend, j Job) string {
	if j.Finished() || objectKey(j) != "user" {
		return ""
	}
	u, _, err := b.User(ctx, j.Object, false)
	switch {
	case err != nil:
		return ""
	case u.State == noSession:
		return "the session has ended"
	}
	return fmt.Sprintf("session %s on server %d (%s), %s", u.ID, u.Server, u.ServerName, u.State)
}

// helpJob says which commands help where a job takes too long.
func helpJob(j Job) string {
	switch j.Action {
	case "shutdownuser":
		return fmt.Sprintf(`"logoffuser %s" ends it by force after a time, "abortuser %s" at once; "canceljob %d" only stops to wait`, j.Object, j.Object, j.ID)
	case "logoffuser":
		return fmt.Sprintf(`"abortuser %s" ends it at once`, j.Object)
	case "drainserver":
		return fmt.Sprintf(`"canceljob %d" stops it and leaves the server offline, "onlineserver %s" lets logins in again; "users server=%s" shows who is there`, j.ID, j.Object, j.Object)
	case "rotateca":
		return fmt.Sprintf(`"rotateca skip=ID" goes on without a server, "rotateca abort" or "canceljob %d" takes it back`, j.ID)
	case "abortuser":
		return fmt.Sprintf(`"user %s" shows the session and its server`, j.Object)
	}
	return fmt.Sprintf(`"canceljob %d" stops it`, j.ID)
}

func showJob(j Job, seq uint64, where string) Reply {
	var limit, code any
	if j.Limit > 0 {
		limit = j.Limit
	}
	text := "It goes on."
	if j.Finished() {
		code, text = j.Code, "It has finished."
	}
	msg := cmp.Or(j.Message, j.Text)
	if j.Finished() {
		msg = cmp.Or(j.Text, j.Message)
	}
	return Reply{
		Code: 211, Pairs: []Pair{{"seq", seq}}, Text: text,
		Detail: []Pair{{"job", j.ID}, {"action", j.Action}, {"object", j.Object}, {"state", j.State}, {"percent", j.Percent},
			{"started", j.Started}, {"elapsed", j.Elapsed}, {"limit", limit}, {"by", orNil(j.By)}, {"code", code}, {"msg", orNil(msg)}, {"where", orNil(where)}},
		Prose: func(h Human) []string {
			since := j.State
			if !j.Started.IsZero() {
				since += ", started " + h.Time(j.Started)
			}
			elapsed := h.Span(j.Elapsed)
			if j.Limit > 0 {
				elapsed += " of " + h.Span(j.Limit)
			}
			notes := []note{{"State", since}, {"Elapsed", elapsed}, {"Started by", j.By}}
			if j.Finished() {
				notes = append(notes, note{"Result", fmt.Sprintf("%d %s", j.Code, j.Text)})
			} else {
				notes = append(notes, note{"Now", j.Message}, note{"Where", where}, note{"Help", helpJob(j)})
			}
			return paragraph(fmt.Sprintf("Job %d: %s %s", j.ID, j.Action, j.Object), notes...)
		},
	}
}

func waitJob(ctx context.Context, c *Call, b Backend) (Reply, error) {
	j, ok := b.Job(c.ID("job"))
	if !ok {
		return Reply{}, noJob(c.Args["job"])
	}
	start := time.Now()
	j, err := c.wait(ctx, b, j, c.Time("timeout"), fmt.Sprintf("Waiting for job %d: %s %s.", j.ID, j.Action, j.Object))
	if errors.Is(err, errLimit) {
		return Reply{}, &Error{
			Code:  443,
			Pairs: []Pair{{"job", j.ID}, {"elapsed", time.Since(start)}, {"msg", "the job goes on"}},
			Text:  fmt.Sprintf("Job %d goes on; waited %d s.", j.ID, int(time.Since(start).Seconds())),
		}
	}
	if err != nil {
		return Reply{}, err
	}
	return withJob(j, false), nil
}

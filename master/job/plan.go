package job

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"verdecmd/monitor"
)

// How long finished jobs are kept, PROTOCOL 9.
const (
	KeepFor = 24 * time.Hour
	KeepMax = 1000
)

// States of a job, PROTOCOL 12.9.
const (
	Waiting   = "waiting" // was running when the master ended and is not resumed yet
	Running   = "running"
	Done      = "done"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Spec is what a job is to do.
type Spec struct {
	Action string        // required: the command's name
	Object string        // what it works on: a user, a server
	By     string        // who started it
	Limit  time.Duration // how long it may take, kept by its Func; 0: none
	// Data is what a resumed job needs to know beside the above; nil: nothing.
	Data json.RawMessage
	// Variant tells ways to do the same thing apart: a job with another one is not
	// joined but excludes this one.
	Variant string
	// Exclusive are actions that must not be under way on the same object.
	Exclusive []string
}

// Record is a job as it is kept on the disk.
type Record struct {
	ID        uint64
	Action    string
	Object    string `json:",omitempty"`
	Variant   string `json:",omitempty"`
	By        string `json:",omitempty"`
	Started   time.Time
	Limit     time.Duration   `json:",omitempty"`
	Data      json.RawMessage `json:",omitempty"`
	Cancelled bool            `json:",omitempty"` // somebody asked for it
	Finished  time.Time       `json:",omitzero"`
	Outcome   *Outcome        `json:",omitempty"` // nil: not finished
}

// Outcome is the final reply of a job.
type Outcome struct {
	Code  int // PROTOCOL 5; required
	Pairs []monitor.Pair
	Text  string
}

// state is the word for a finished job's code.
func (o Outcome) state() string {
	switch {
	case o.Code >= 200 && o.Code < 300:
		return Done
	case o.Code == 444:
		return Cancelled
	}
	return Failed
}

// failed makes an Outcome whose msg pair and text are the same words.
func failed(code int, text string) Outcome {
	return Outcome{Code: code, Pairs: []monitor.Pair{{Key: "msg", Value: text}}, Text: text}
}

// under finds the unfinished job that spec joins, and the one that excludes
// it. Joining goes first: the same action on the same object is one job, if it
// is done in the same way. Both are 0 where there is none.
func under(jobs []*Record, spec Spec) (join, busy uint64) {
	for _, j := range jobs {
		if j.Outcome != nil || j.Object != spec.Object {
			continue
		}
		if j.Action == spec.Action {
			if j.Variant == spec.Variant {
				return j.ID, 0
			}
			return 0, j.ID
		}
		if slices.Contains(spec.Exclusive, j.Action) && (busy == 0 || j.ID < busy) {
			busy = j.ID
		}
	}
	return 0, busy
}

// expired names the finished jobs that are to be forgotten at now, lowest
// first: older than KeepFor, and of the others the oldest beyond KeepMax.
func expired(jobs []*Record, now time.Time) []uint64 {
	finished := make([]*Record, 0, len(jobs))
	for _, j := range jobs {
		if j.Outcome != nil {
			finished = append(finished, j)
		}
	}
	slices.SortFunc(finished, func(a, b *Record) int {
		return cmp.Or(b.Finished.Compare(a.Finished), cmp.Compare(b.ID, a.ID))
	})
	var ids []uint64
	for i, j := range finished {
		if i >= KeepMax || now.Sub(j.Finished) > KeepFor {
			ids = append(ids, j.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

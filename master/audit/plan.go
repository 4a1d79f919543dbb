package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"verdecmd/master/store"
	"verdecmd/monitor"
)

// How many commands are kept, and how much of each.
const (
	Keep       = 10_000
	KeepDenied = 1_000
	maxText    = 1000 // bytes
)

// denied is the code of a command that was not permitted.
const denied = 530

// Record is a command as it is kept on the disk.
type Record struct {
	ID      uint64
	Time    time.Time
	User    string
	UID     int
	GID     int
	PID     int
	Level   monitor.Level
	Command string
	Line    string
	Code    int
	Took    time.Duration
}

func record(a monitor.Audited) Record {
	return Record{ID: a.ID, Time: a.Time.UTC().Round(time.Millisecond), User: cut(a.Caller.Name), UID: a.Caller.UID, GID: a.Caller.GID, PID: a.Caller.PID,
		Level: a.Level, Command: a.Command, Line: cut(a.Line), Code: a.Code, Took: a.Took}
}

func (r Record) audited() monitor.Audited {
	return monitor.Audited{ID: r.ID, Time: r.Time, Caller: monitor.Caller{PID: r.PID, UID: r.UID, GID: r.GID, Name: r.User},
		Level: r.Level, Command: r.Command, Line: r.Line, Code: r.Code, Took: r.Took}
}

func cut(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

// decode reads a record and refuses one that no command can have.
func decode(v []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(v, &r); err != nil {
		return r, err
	}
	if r.ID == 0 || r.ID > store.MaxNumber || r.Level < monitor.Viewer || r.Level > monitor.Admin || r.Command == "" {
		return r, fmt.Errorf("number %d, level %d, command %q", r.ID, r.Level, r.Command)
	}
	return r, nil
}

// kept are the numbers of the commands on the disk: first those that were
// carried out, then those that were denied, the oldest first.
type kept struct {
	ids  [2][]uint64
	most [2]int
}

func newKept(most, mostDenied int) kept {
	if most <= 0 {
		most = Keep
	}
	if mostDenied <= 0 {
		mostDenied = KeepDenied
	}
	return kept{most: [2]int{most, mostDenied}}
}

// mostPushed bounds how many of each class one commit drops.
const mostPushed = batchSize / 2

func class(r Record) int {
	if r.Code == denied {
		return 1
	}
	return 0
}

// pushed are the commands that have to go when these come.
func (k *kept) pushed(batch []Record) (old []uint64) {
	var more [2]int
	for _, r := range batch {
		more[class(r)]++
	}
	for c, ids := range k.ids {
		n := min(len(ids)+more[c]-k.most[c], len(ids), mostPushed)
		old = append(old, ids[:max(n, 0)]...)
	}
	return old
}

// add enters commands that are on the disk, and takes out those that are not any
// more.
func (k *kept) add(batch []Record, old []uint64) {
	for _, r := range batch {
		k.ids[class(r)] = append(k.ids[class(r)], r.ID)
	}
	for c := range k.ids {
		n := 0
		for n < len(k.ids[c]) && slices.Contains(old, k.ids[c][n]) {
			n++
		}
		k.ids[c] = k.ids[c][n:]
	}
}

package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

type simLine struct {
	at    time.Time
	event bool
	text  string
}

func (w *simWorld) note(event bool, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.quiet {
		w.lines = append(w.lines, simLine{time.Now(), event, fmt.Sprintf(format, args...)})
	}
}

var timeOfDay = regexp.MustCompile(`\b(at|since) \d\d:\d\d:\d\d\b`)

// take returns what has come since the last call. What happens at one instant
// comes in any order, but for what is about one user: so events are sorted by
// user, and other things follow, sorted.
func (w *simWorld) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.lines, func(a, b simLine) int {
		byKind := strings.Compare(a.text, b.text)
		if a.event || b.event {
			byKind = cmp.Or(boolCompare(b.event, a.event), strings.Compare(a.subject(), b.subject()))
		}
		return cmp.Or(a.at.Compare(b.at), byKind)
	})
	var out strings.Builder
	for i, l := range w.lines {
		if i+1 < len(w.lines) && l.overtaken(w.lines[i+1]) {
			continue
		}
		fmt.Fprintf(&out, "%7.1fs %s\n", l.at.Sub(w.start).Seconds(), w.mask(l.text))
	}
	w.lines = nil
	return out.String()
}

var aUser = regexp.MustCompile(`\b(alice|bob|carol|dave)\b`)

// subject is the user whom an event is about, or empty. The ends of jobs are
// each about themselves.
func (l simLine) subject() string {
	user := aUser.FindString(l.text)
	if strings.HasPrefix(l.text, "Job ") && strings.Contains(l.text, " has finished: ") {
		return user + " " + l.text
	}
	return user
}

// overtaken tells that a session's state was replaced by the next one at the
// same instant: whether the one between is told depends on who is faster.
func (l simLine) overtaken(next simLine) bool {
	return l.event && l.at.Equal(next.at) && l.subject() == next.subject() &&
		strings.HasSuffix(l.text, " is ending.") && strings.Contains(next.text, " has ended: ")
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// mask takes out what differs from run to run.
func (w *simWorld) mask(text string) string {
	return strings.ReplaceAll(timeOfDay.ReplaceAllString(text, "$1 TIME"), w.dir, "DIR")
}

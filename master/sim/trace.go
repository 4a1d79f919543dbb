package sim

import (
	"strconv"
	"strings"
	"time"
)

// trace is what has happened, a line for each event. Its hash tells histories
// apart.
type trace struct {
	keep  bool
	lines []string
	hash  uint64 // FNV-1a of all lines
	buf   []byte
	full  bool // the lines before the last ones were dropped
}

// maxLines is how many lines a trace keeps.
const maxLines = 400_000

// note adds a line. What is noted must not depend on anything but the seed.
func (w *world) note(what string, details ...any) {
	b := w.trace.buf[:0]
	b = strconv.AppendInt(b, int64(w.time/time.Microsecond), 10)
	b = append(b, ' ')
	b = append(b, what...)
	for _, d := range details {
		b = append(b, ' ')
		switch d := d.(type) {
		case string:
			b = append(b, d...)
		case uint64:
			b = strconv.AppendUint(b, d, 10)
		case int:
			b = strconv.AppendInt(b, int64(d), 10)
		case time.Duration:
			b = append(b, d.String()...)
		case bool:
			b = strconv.AppendBool(b, d)
		case error:
			b = append(b, d.Error()...)
		case nil:
			b = append(b, "ok"...)
		default:
			panic("a detail of this type cannot be noted")
		}
	}
	w.trace.buf = b
	h := w.trace.hash
	if h == 0 {
		h = 14695981039346656037
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	w.trace.hash = h
	if w.trace.keep {
		if len(w.trace.lines) >= maxLines {
			w.trace.lines, w.trace.full = append([]string(nil), w.trace.lines[maxLines/2:]...), true
		}
		w.trace.lines = append(w.trace.lines, readable(string(b)))
	}
}

// readable writes the time of a line as seconds.
func readable(line string) string {
	us, rest, _ := strings.Cut(line, " ")
	n, err := strconv.ParseInt(us, 10, 64)
	if err != nil {
		return line
	}
	s := strconv.FormatFloat(float64(n)/1e6, 'f', 3, 64)
	return strings.Repeat(" ", max(0, 9-len(s))) + s + " " + rest
}

package monitor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"
)

// Human writes values for people: units that fit, times where the master is.
type Human struct {
	Location *time.Location // nil: the machine's
}

// Time is a local time to the minute.
func (h Human) Time(t time.Time) string { return h.local(t).Format("2006-01-02 15:04") }

// Clock is a local time of day.
func (h Human) Clock(t time.Time) string { return h.local(t).Format("15:04:05") }

func (h Human) local(t time.Time) time.Time {
	if h.Location == nil {
		return t.Local()
	}
	return t.In(h.Location)
}

// Bytes is a size: 5.8 GiB.
func (h Human) Bytes(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// Span is a duration in its two largest units: 1 day 2 h.
func (h Human) Span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s%3600/60)
	}
	return fmt.Sprintf("%s %d h", count(int(s/86400), "day"), s%86400/3600)
}

// Ago is how long something is past; negative is never.
func (h Human) Ago(d time.Duration) string {
	if d < 0 {
		return "never"
	}
	s := int64(d / time.Second)
	switch {
	case s < 120:
		return fmt.Sprintf("%d s ago", s)
	case s < 7200:
		return fmt.Sprintf("%d min ago", s/60)
	case s < 2*86400:
		return fmt.Sprintf("%d h ago", s/3600)
	}
	return fmt.Sprintf("%d days ago", s/86400)
}

// Value is any value of a Pair.
func (h Human) Value(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		if v == "" {
			return "-"
		}
		return v
	case bool:
		return yesNo(v)
	case time.Time:
		if v.IsZero() {
			return "-"
		}
		return h.Time(v)
	case time.Duration:
		return h.Span(v)
	case percent:
		return fmt.Sprintf("%.0f%%", float64(v))
	case float64:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return fmt.Sprint(v)
}

// unit is a number of a table; plain is how it looks without a unit.
func (h Human) unit(u Unit, v float64, plain string) string {
	switch u {
	case Bytes:
		return h.Bytes(uint64(max(v, 0)))
	case Percent:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return "-"
		}
		return fmt.Sprintf("%.0f%%", v)
	case Ago:
		return h.Ago(time.Duration(v) * time.Second)
	case Seconds:
		return plain + " s"
	}
	return plain
}

// count is a number with its noun: 1 server, 2 servers.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// cellWidth is how many cells of a terminal s takes.
func cellWidth(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x300:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		default:
			n++
			if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
				n++
			}
		}
	}
	return n
}

// table appends a list in aligned columns.
func (r *Row) table(code int, l *List) {
	if l.Len == 0 {
		return
	}
	r.cols = l.Columns
	var heads []Column
	var widths []int
	for _, c := range l.Columns {
		if c.Head != "" {
			heads = append(heads, c)
			widths = append(widths, len(c.Head))
		}
	}
	n := len(heads)
	cells := make([]string, 0, n*(l.Len+1))
	for _, c := range heads {
		cells = append(cells, c.Head)
	}
	r.cells, r.limit = cells, stringLimit
	for i := range l.Len {
		r.col = 0
		before := len(r.cells)
		l.Row(i, r)
		for len(r.cells)-before < n {
			r.cells = append(r.cells, "-")
		}
		for j, cell := range r.cells[before:] {
			widths[j] = max(widths[j], cellWidth(cell))
		}
	}
	for i := 0; i < len(r.cells); i += n {
		r.mark(code, '-')
		for j, cell := range r.cells[i : i+n] {
			pad := widths[j] - cellWidth(cell)
			if j > 0 {
				r.buf = append(r.buf, "  "...)
			}
			right := heads[j].Unit != Plain && heads[j].Unit != Stamp
			if right {
				r.buf = appendBlanks(r.buf, pad)
			}
			r.buf = append(r.buf, cell...)
			if !right && j < n-1 {
				r.buf = appendBlanks(r.buf, pad)
			}
		}
		r.buf = append(r.buf, '\n')
	}
	r.cells = nil
}

func appendBlanks(b []byte, n int) []byte {
	for ; n > 0; n-- {
		b = append(b, ' ')
	}
	return b
}

// note is one line of the prose of a detail: a label and what is said.
type note struct{ label, text string }

// paragraph lays out a title and its notes; empty notes are left out.
func paragraph(title string, notes ...note) []string {
	width := 0
	for _, n := range notes {
		if n.text != "" {
			width = max(width, len(n.label))
		}
	}
	lines := []string{title}
	for _, n := range notes {
		if n.text != "" {
			lines = append(lines, "  "+n.label+strings.Repeat(" ", width-len(n.label)+2)+n.text)
		}
	}
	return lines
}

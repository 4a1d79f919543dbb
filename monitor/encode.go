package monitor

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Format is how rows and end-lines are written, PROTOCOL 6.
type Format int

// The formats.
const (
	TSV Format = iota
	JSON
	Text
)

var formatNames = [...]string{"tsv", "json", "text"}

func (f Format) String() string { return formatNames[f] }

// Reply is what a command answers. The formats are made from it: tsv and json
// from List or Detail and Pairs, text from the same rows or from Prose, and
// Text.
type Reply struct {
	Code  int
	Pairs []Pair
	Text  string // the end-line for people; made from Pairs where it is empty

	List   *List  // rows, one per object
	Detail []Pair // rows, one per property
	// Prose gives the mid-lines in text where a table is not the right form.
	Prose func(h Human) []string
	// Document are mid-lines that are the same in all formats (code 216).
	Document []string
}

// List is a table. Row is called once for each row, maybe twice, and gives the
// cells in the order of the columns.
type List struct {
	Columns []Column
	Len     int
	Row     func(i int, r *Row)
}

// Unit is how a column is shown to people.
type Unit int

// The units: text to the left; numbers to the right; bytes, percents and ages
// with their unit; local times.
const (
	Plain Unit = iota
	Number
	Bytes
	Percent
	Ago
	Seconds
	Stamp
)

// Column is one column of a List. Without Name it is in text alone, without
// Head it is not in text.
type Column struct {
	Name string
	Head string
	Unit Unit
}

// percent is a value that is written with one decimal.
type percent float64

var keywords = map[int]string{
	110: "progress", 150: "started", 200: "ok", 201: "created", 202: "accepted", 204: "unchanged",
	210: "ok", 211: "ok", 212: "ok", 213: "ok", 214: "ok", 216: "ok", 220: "ok", 221: "bye", 331: "secret-needed",
	421: "closing", 430: "not-ready", 440: "busy", 441: "unreachable", 442: "no-capacity", 443: "timed-out",
	444: "cancelled", 451: "internal", 452: "no-space",
	500: "unknown-command", 501: "bad-arguments", 502: "not-available", 503: "bad-line", 504: "line-too-long",
	505: "bad-character", 506: "bad-version", 530: "denied",
	550: "not-found", 551: "exists", 552: "in-use", 553: "bad-value", 554: "precondition", 555: "failed",
	650: "event", 651: "lost", 652: "stopping",
}

// Row takes the cells of one row and writes them in the connection's format.
// It is also the encoder of whole replies.
type Row struct {
	buf    []byte
	format Format
	human  Human
	cols   []Column
	col    int
	sep    bool // something stands before the next cell
	limit  int  // bytes of a string before it is cut
	cells  []string
}

const stringLimit = 4096

// reply appends a whole reply.
func (r *Row) reply(p *Reply) {
	code := p.Code
	switch {
	case p.Document != nil:
		for _, line := range p.Document {
			r.mark(code, '-')
			r.buf = append(appendClean(r.buf, line, maxReply/4), '\n')
		}
	case p.Prose != nil && r.format == Text:
		for _, line := range p.Prose(r.human) {
			r.mark(code, '-')
			r.buf = append(appendClean(r.buf, line, maxReply/4), '\n')
		}
	case p.List != nil && r.format == Text:
		r.table(code, p.List)
	case p.List != nil:
		r.list(code, p.List)
	case p.Detail != nil:
		r.detail(code, p.Detail)
	}
	r.end(code, p.Pairs, p.Text)
}

// end appends a line that is complete by itself: end-lines, preliminary lines
// and events.
func (r *Row) end(code int, pairs []Pair, text string) {
	start := len(r.buf)
	for _, r.limit = range []int{stringLimit, 64} {
		r.buf = r.buf[:start]
		r.mark(code, ' ')
		switch {
		case r.format == Text && text != "":
			r.buf = appendClean(r.buf, text, maxReply/4)
		case r.format == JSON:
			r.buf = append(r.buf, `{"status":"`...)
			r.buf = append(append(r.buf, keywords[code]...), '"')
			for _, p := range pairs {
				r.buf = append(appendJSON(append(r.buf, ','), p.Key, r.limit), ':')
				r.value(p.Value)
			}
			r.buf = append(r.buf, '}')
		default:
			r.buf = append(r.buf, keywords[code]...)
			for _, p := range pairs {
				r.buf = append(append(append(r.buf, ' '), p.Key...), '=')
				r.endValue(p.Value)
			}
		}
		r.buf = append(r.buf, '\n')
		if len(r.buf)-start <= maxReply {
			return
		}
	}
}

func (r *Row) mark(code int, mark byte) {
	r.buf = append(strconv.AppendInt(r.buf, int64(code), 10), mark)
}

func (r *Row) list(code int, l *List) {
	r.cols = l.Columns
	if r.format == TSV {
		r.mark(code, '-')
		r.buf = append(r.buf, '#')
		sep := false
		for _, c := range l.Columns {
			if c.Name == "" {
				continue
			}
			if sep {
				r.buf = append(r.buf, '\t')
			}
			sep = true
			r.buf = append(r.buf, c.Name...)
		}
		r.buf = append(r.buf, '\n')
	}
	for i := range l.Len {
		start := len(r.buf)
		for _, r.limit = range [...]int{stringLimit, 64} {
			r.buf = r.buf[:start]
			r.col, r.sep = 0, false
			r.mark(code, '-')
			if r.format == JSON {
				r.buf = append(r.buf, '{')
			}
			l.Row(i, r)
			if r.format == JSON {
				r.buf = append(r.buf, '}')
			}
			r.buf = append(r.buf, '\n')
			if len(r.buf)-start <= maxReply {
				break
			}
		}
	}
}

func (r *Row) detail(code int, pairs []Pair) {
	switch r.format {
	case TSV:
		r.mark(code, '-')
		r.buf = append(r.buf, "#key\tvalue\n"...)
		r.limit = stringLimit
		for _, p := range pairs {
			r.mark(code, '-')
			r.buf = append(append(r.buf, p.Key...), '\t')
			r.value(p.Value)
			r.buf = append(r.buf, '\n')
		}
	case JSON:
		start := len(r.buf)
		for _, r.limit = range []int{stringLimit, 64} {
			r.buf = r.buf[:start]
			r.mark(code, '-')
			r.buf = append(r.buf, '{')
			for i, p := range pairs {
				if i > 0 {
					r.buf = append(r.buf, ',')
				}
				r.buf = append(appendJSON(r.buf, p.Key, r.limit), ':')
				r.value(p.Value)
			}
			r.buf = append(r.buf, "}\n"...)
			if len(r.buf)-start <= maxReply {
				return
			}
		}
	case Text:
		width := 0
		for _, p := range pairs {
			width = max(width, len(p.Key))
		}
		for _, p := range pairs {
			r.mark(code, '-')
			r.buf = fmt.Appendf(r.buf, "  %-*s  ", width, p.Key)
			r.buf = append(appendClean(r.buf, r.human.Value(p.Value), stringLimit), '\n')
		}
	}
}

// next begins a cell; it returns false where the format leaves the column out.
func (r *Row) next() bool {
	if r.col == len(r.cols) {
		return false // a row with more cells than columns keeps its shape
	}
	c := &r.cols[r.col]
	r.col++
	if r.format == Text {
		return c.Head != ""
	}
	if c.Name == "" {
		return false
	}
	if r.format == JSON {
		if r.sep {
			r.buf = append(r.buf, ',')
		}
		r.buf = append(append(append(r.buf, '"'), c.Name...), `":`...)
	} else if r.sep {
		r.buf = append(r.buf, '\t')
	}
	return true
}

// Nil writes that there is no value.
func (r *Row) Nil() {
	if r.next() {
		r.null()
	}
}

func (r *Row) null() {
	switch r.format {
	case TSV:
		r.buf = append(r.buf, '-')
	case JSON:
		r.buf = append(r.buf, "null"...)
	case Text:
		r.cells = append(r.cells, "-")
	}
	r.sep = true
}

// Uint writes a number.
func (r *Row) Uint(v uint64) {
	if !r.next() {
		return
	}
	if r.format == Text {
		r.cells = append(r.cells, r.human.unit(r.cols[r.col-1].Unit, float64(v), strconv.FormatUint(v, 10)))
		return
	}
	r.buf = strconv.AppendUint(r.buf, v, 10)
	r.sep = true
}

// Int writes a number.
func (r *Row) Int(v int64) {
	if !r.next() {
		return
	}
	if r.format == Text {
		r.cells = append(r.cells, r.human.unit(r.cols[r.col-1].Unit, float64(v), strconv.FormatInt(v, 10)))
		return
	}
	r.buf = strconv.AppendInt(r.buf, v, 10)
	r.sep = true
}

// Percent writes a share of something with one decimal.
func (r *Row) Percent(v float64) {
	if !r.next() {
		return
	}
	if r.format == Text {
		r.cells = append(r.cells, r.human.unit(Percent, v, ""))
		return
	}
	r.percent(v)
	r.sep = true
}

func (r *Row) percent(v float64) {
	if math.IsNaN(v) || math.Abs(v) > 1e12 {
		r.null()
		return
	}
	tenths := int64(math.Round(v * 10))
	if tenths < 0 {
		r.buf = append(r.buf, '-')
		tenths = -tenths
	}
	r.buf = append(strconv.AppendInt(r.buf, tenths/10, 10), '.', byte('0'+tenths%10))
}

// Float writes a number with three decimals.
func (r *Row) Float(v float64) {
	if !r.next() {
		return
	}
	if r.format == Text {
		r.cells = append(r.cells, r.human.Value(v))
		return
	}
	r.value(v)
	r.sep = true
}

// String writes a text; an empty one is no value.
func (r *Row) String(v string) {
	if v == "" {
		r.Nil()
		return
	}
	first := r.col == 0
	if !r.next() {
		return
	}
	r.text(v, first)
	r.sep = true
}

func (r *Row) text(v string, first bool) {
	switch r.format {
	case TSV:
		switch {
		case v == "-":
			r.buf = append(r.buf, `\x2d`...)
			return
		case first && v[0] == '#':
			r.buf = append(r.buf, `\x23`...)
			v = v[1:]
		}
		r.buf = appendTSV(r.buf, v, r.limit)
	case JSON:
		r.buf = appendJSON(r.buf, v, r.limit)
	case Text:
		r.cells = append(r.cells, string(appendClean(nil, v, 512)))
	}
}

// Bool writes a truth.
func (r *Row) Bool(v bool) {
	if !r.next() {
		return
	}
	r.truth(v)
	r.sep = true
}

func (r *Row) truth(v bool) {
	switch {
	case r.format == Text:
		r.cells = append(r.cells, yesNo(v))
	case r.format == JSON:
		r.buf = strconv.AppendBool(r.buf, v)
	default:
		r.buf = append(r.buf, yesNo(v)...)
	}
}

// Time writes an instant; the zero time is no value.
func (r *Row) Time(v time.Time) {
	if v.IsZero() {
		r.Nil()
		return
	}
	if !r.next() {
		return
	}
	if r.format == Text {
		r.cells = append(r.cells, r.human.Time(v))
		return
	}
	r.stamp(v)
	r.sep = true
}

func (r *Row) stamp(v time.Time) {
	if r.format == JSON {
		r.buf = append(r.buf, '"')
	}
	r.buf = v.UTC().AppendFormat(r.buf, "2006-01-02T15:04:05Z")
	if r.format == JSON {
		r.buf = append(r.buf, '"')
	}
}

// Seconds writes a duration; a negative one is no value.
func (r *Row) Seconds(v time.Duration) {
	if v < 0 {
		r.Nil()
		return
	}
	r.Int(int64(v / time.Second))
}

// value writes one property of a detail or, in JSON, of an end-line.
func (r *Row) value(v any) {
	switch v := v.(type) {
	case nil:
		r.null()
	case string:
		if v == "" && r.format == TSV {
			r.null()
		} else {
			r.text(v, false)
		}
	case bool:
		r.truth(v)
	case int:
		r.buf = strconv.AppendInt(r.buf, int64(v), 10)
	case int64:
		r.buf = strconv.AppendInt(r.buf, v, 10)
	case uint64:
		r.buf = strconv.AppendUint(r.buf, v, 10)
	case uint32:
		r.buf = strconv.AppendUint(r.buf, uint64(v), 10)
	case percent:
		r.percent(float64(v))
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			r.null()
			return
		}
		r.buf = strconv.AppendFloat(r.buf, math.Round(v*1000)/1000, 'f', -1, 64)
	case time.Duration:
		r.buf = strconv.AppendInt(r.buf, int64(v/time.Second), 10)
	case time.Time:
		if v.IsZero() {
			r.null()
			return
		}
		r.stamp(v)
	default:
		r.value(fmt.Sprint(v))
	}
}

// endValue writes a value of key=value in an end-line in tsv: bare where it
// has only harmless characters.
func (r *Row) endValue(v any) {
	s, ok := v.(string)
	if !ok {
		format := r.format
		r.format = TSV // also for text without words
		r.value(v)
		r.format = format
		return
	}
	bare := s != "" && s != "-"
	for i := 0; bare && i < len(s); i++ {
		bare = bareByte[s[i]]
	}
	if bare && len(s) <= r.limit {
		r.buf = append(r.buf, s...)
		return
	}
	r.buf = appendQuoted(r.buf, cut(s, r.limit))
}

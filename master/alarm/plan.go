package alarm

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"verdecmd/monitor"
)

// How much is kept.
const (
	// MaxEach is how many alarms of one kind may be active; what is more stands
	// under the object More, in one alarm.
	MaxEach = 200
	More    = "more"

	KeepFor = 30 * 24 * time.Hour // cleared alarms
	KeepMax = 1000

	// comeBack is after what time an alarm that somebody has cleared is raised
	// again, where its cause lasts.
	comeBack = time.Minute

	maxText   = 1000 // bytes
	maxObject = 256
)

// Sign is what an event says about what can be wrong.
type Sign struct {
	Kind, Object string
	Over         bool // it is right again; the rest does not count
	Severity     string
	Text         string
	// Lasting: it is wrong until a sign says that it is over. Else it has
	// happened, and counts as over when it has not happened again for Quiet;
	// Quiet 0: an administrator says so.
	Lasting bool
	Quiet   time.Duration
}

// Record is an alarm as it is kept on the disk.
type Record struct {
	ID        uint64
	Kind      string
	Object    string
	Severity  string
	Text      string
	Since     time.Time
	Last      time.Time
	Count     uint64
	Acked     time.Time     `json:",omitzero"`
	AckedBy   string        `json:",omitempty"`
	Note      string        `json:",omitempty"`
	Cleared   time.Time     `json:",omitzero"`
	ClearedBy string        `json:",omitempty"`
	Lasting   bool          `json:",omitempty"`
	Quiet     time.Duration `json:",omitempty"`
}

func (r *Record) active() bool { return r.Cleared.IsZero() }

// identity is what there is one active alarm of.
type identity struct{ kind, object string }

func (r *Record) identity() identity { return identity{r.Kind, r.Object} }

func (i identity) compare(j identity) int {
	return cmp.Or(strings.Compare(i.kind, j.kind), strings.Compare(i.object, j.object))
}

// cause is something wrong that lasts, whether an alarm tells of it or not.
type cause struct {
	sign Sign
	from time.Time // before comeBack after this it raises no alarm by itself
}

// Book has the alarms as they are decided. It is a plain value: times come in,
// numbers of changed alarms come out.
type Book struct {
	next   uint64
	all    map[uint64]*Record   // also the cleared ones that are kept
	active map[identity]*Record // of all
	each   map[string]int       // active ones by kind, those of More not counted
	causes map[identity]cause
}

// NewBook returns a Book without alarms. The first one gets this number.
func NewBook(next uint64) *Book {
	return &Book{next: max(next, 1), all: map[uint64]*Record{}, active: map[identity]*Record{}, each: map[string]int{}, causes: map[identity]cause{}}
}

// Next is the number of the next alarm.
func (b *Book) Next() uint64 { return b.next }

// Restored takes over an alarm that was kept. Whether its cause lasts is told
// anew by whoever knows; until then it is taken to do.
func (b *Book) Restored(r Record) {
	b.enter(&r)
	b.next = max(b.next, r.ID+1)
	if r.active() && r.Lasting && r.Object != More {
		b.causes[r.identity()] = cause{Sign{Kind: r.Kind, Object: r.Object, Severity: r.Severity, Text: r.Text, Lasting: true}, r.Last}
	}
}

func (b *Book) enter(r *Record) {
	b.all[r.ID] = r
	if r.active() {
		b.active[r.identity()] = r
		if r.Object != More {
			b.each[r.Kind]++
		}
	}
}

// Get returns an alarm, or nil. It must not be changed.
func (b *Book) Get(id uint64) *Record { return b.all[id] }

// Sign takes in what an event says, and returns the number of the alarm that
// has changed by it; 0: none. counted tells that only its count has.
func (b *Book) Sign(now time.Time, s Sign) (id uint64, counted bool) {
	s.Text, s.Object = cut(s.Text, maxText), cut(s.Object, maxObject)
	i := identity{s.Kind, s.Object}
	if s.Over {
		delete(b.causes, i)
		return b.over(now, i), false
	}
	if s.Lasting {
		b.causes[i] = cause{s, now}
	}
	if b.active[i] == nil && b.each[s.Kind] >= MaxEach {
		i.object = More
	}
	return b.raise(now, i, s)
}

// raise folds into the active alarm, or raises a new one.
func (b *Book) raise(now time.Time, i identity, s Sign) (id uint64, counted bool) {
	if r := b.active[i]; r != nil {
		r.Count++
		r.Last, r.Text = later(r.Last, now), s.Text
		return r.ID, true
	}
	r := &Record{ID: b.next, Kind: i.kind, Object: i.object, Severity: s.Severity, Text: s.Text, Since: now, Last: now, Count: 1, Lasting: s.Lasting, Quiet: s.Quiet}
	b.next++
	b.enter(r)
	return r.ID, false
}

// over clears the active alarm of an identity.
func (b *Book) over(now time.Time, i identity) uint64 {
	r := b.active[i]
	if r == nil {
		return 0
	}
	b.clear(r, now, "")
	return r.ID
}

func (b *Book) clear(r *Record, now time.Time, by string) {
	r.Cleared, r.ClearedBy = later(r.Since, now), by
	delete(b.active, r.identity())
	if r.Object != More {
		b.each[r.Kind]--
	}
}

// Ack decides that somebody knows of these alarms, or for nil of all of which
// nobody does: it returns how they will be, and changes nothing. Those that are
// not active, or that would not change, are left out. The caller makes it
// durable and then calls Acked.
func (b *Book) Ack(now time.Time, ids []uint64, by, note string) (out []Record) {
	all := ids == nil
	if all {
		ids = slices.Sorted(maps.Keys(b.all))
	}
	for _, id := range ids {
		r := b.all[id]
		if r == nil || !r.active() || !r.Acked.IsZero() && (all || note == "" || note == r.Note) {
			continue
		}
		x := *r
		x.Acked, x.AckedBy, x.Note = now, by, note
		out = append(out, x)
	}
	return out
}

// Acked takes an Ack over that is durable; what has happened to the alarm
// meanwhile stays.
func (b *Book) Acked(x Record) {
	if r := b.all[x.ID]; r != nil {
		r.Acked, r.AckedBy, r.Note = x.Acked, x.AckedBy, x.Note
	}
}

// Clear decides that an administrator removes an alarm. It returns how it will
// be and changes nothing; ok is false where it is not active. The caller makes
// it durable and then calls Removed.
func (b *Book) Clear(now time.Time, id uint64, by string) (x Record, ok bool) {
	r := b.all[id]
	if r == nil || !r.active() {
		return x, false
	}
	x = *r
	x.Cleared, x.ClearedBy = later(r.Since, now), by
	return x, true
}

// Removed takes a Clear over that is durable. If the cause lasts, the alarm comes
// back, see Tick.
func (b *Book) Removed(x Record) {
	r := b.all[x.ID]
	if r == nil || !r.active() { // over meanwhile
		return
	}
	b.clear(r, x.Cleared, x.ClearedBy)
	if c, ok := b.causes[r.identity()]; ok {
		c.from = x.Cleared
		b.causes[r.identity()] = c
	}
}

// Tick clears what has not happened again for long enough, and raises what was
// cleared and lasts. It returns the numbers of the alarms that have changed.
func (b *Book) Tick(now time.Time) (changed []uint64) {
	quiet := some(b.active, func(_ identity, r *Record) bool { return r.Quiet > 0 && now.Sub(r.Last) >= r.Quiet })
	for _, i := range quiet {
		changed = append(changed, b.over(now, i))
	}
	hidden := map[string]bool{} // kinds with causes that have no alarm of their own
	for _, i := range some(b.causes, func(i identity, _ cause) bool { return b.active[i] == nil }) {
		c := b.causes[i]
		if b.each[i.kind] >= MaxEach {
			i.object = More
		}
		hidden[i.kind] = hidden[i.kind] || i.object == More
		if b.active[i] == nil && now.Sub(c.from) >= comeBack {
			id, _ := b.raise(now, i, c.sign)
			changed = append(changed, id)
		}
	}
	for _, i := range some(b.active, func(i identity, r *Record) bool { return i.object == More && r.Lasting && !hidden[i.kind] }) {
		changed = append(changed, b.over(now, i))
	}
	return changed
}

// Expired names the cleared alarms that are to be forgotten at now, lowest first:
// older than KeepFor, and of the others the oldest beyond KeepMax.
func (b *Book) Expired(now time.Time) []uint64 {
	if len(b.all) == len(b.active) {
		return nil
	}
	over := make([]*Record, 0, len(b.all)-len(b.active))
	for _, r := range b.all {
		if !r.active() {
			over = append(over, r)
		}
	}
	slices.SortFunc(over, func(x, y *Record) int { return cmp.Or(y.Cleared.Compare(x.Cleared), cmp.Compare(y.ID, x.ID)) })
	var ids []uint64
	for i, r := range over {
		if i >= KeepMax || now.Sub(r.Cleared) > KeepFor {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// Forget drops an alarm that Expired has named.
func (b *Book) Forget(id uint64) {
	if r := b.all[id]; r != nil && !r.active() {
		delete(b.all, id)
	}
}

// News names what has become of an alarm between two of its states, as events,
// in their order; before is nil for one that was not known.
func News(before *Record, after Record) (out []string) {
	if before == nil {
		out = append(out, Raised)
		before = &Record{}
	}
	if before.Acked.IsZero() && !after.Acked.IsZero() {
		out = append(out, Acked)
	}
	if before.active() && !after.active() {
		out = append(out, Cleared)
	}
	return out
}

// The types of events about alarms.
const (
	Raised  = "alarm.raised"
	Acked   = "alarm.acked"
	Cleared = "alarm.cleared"
)

// order sorts alarms as they are shown: active ones first, then the worst, then
// the oldest.
func order(x, y monitor.Alarm) int {
	rank := func(a monitor.Alarm) int {
		n := len(monitor.Severities) - slices.Index(monitor.Severities, a.Severity)
		if !a.Active() {
			n += 100
		}
		return n
	}
	return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.ID, y.ID))
}

// some are the keys for which f is true, in their order: map order must not leak
// into the numbers of alarms.
func some[T any](m map[identity]T, f func(identity, T) bool) (out []identity) {
	for i, x := range m {
		if f(i, x) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, identity.compare)
	return out
}

func later(a, b time.Time) time.Time {
	if b.Before(a) {
		return a
	}
	return b
}

func cut(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}

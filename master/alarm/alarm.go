// Package alarm keeps what is wrong in the cluster in sight: raised once,
// however often it comes, until it is over or an administrator has removed it
// (S11).
//
// Events come in and are decided at once, in memory that nobody sees (Book).
// What is shown and announced is what the disk has, which follows behind: so an
// alarm is stored before it is shown, a disk that is slow or full holds nobody
// up, and the order in which an alarm was raised, acknowledged and cleared is
// the order in which it is told. What a master that dies has not stored, the
// next one hears again from those who know: servers that are away, satellites'
// reports. Which event means what stands in table.go.
package alarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/planted"
)

// Config is everything a Manager needs.
type Config struct {
	Store store.Store // required
	Epoch store.Epoch
	// Event announces what has become of an alarm; it must not block, and may
	// call Manager.Event.
	Event func(typ, text string, pairs ...monitor.Pair)
	Log   zerolog.Logger

	// Now is the time, Turn lets one change of the records pass at a time, and
	// Wake is told, with no lock held, that Work has something to do. A simulation
	// hands in its own; the defaults are the real ones, and Run's.
	Now  func() time.Time
	Turn sync.Locker
	Wake func()
}

// countEvery is how often the count of an alarm that comes again is stored.
const countEvery = 5 * time.Second

// Manager has the alarms of a master. All methods may be called by many
// goroutines.
type Manager struct {
	cfg  Config
	wake chan struct{}

	mu     sync.Mutex        // guards all below
	book   *Book             // what is decided
	shown  map[uint64]Record // what is on the disk
	unsaid map[uint64]bool   // differ from shown by more than their count
	folded map[uint64]bool   // differ by their count
	saved  map[uint64]time.Time
	failed string // why the last commit was refused; empty: it was not
	told   time.Time
}

// New reads the alarms that earlier masters kept.
func New(ctx context.Context, cfg Config) (*Manager, error) {
	if cfg.Store == nil || cfg.Event == nil {
		return nil, errors.New("alarm: Config needs Store and Event")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Turn == nil {
		cfg.Turn = &sync.Mutex{}
	}
	m := &Manager{cfg: cfg, wake: make(chan struct{}, 1), shown: map[uint64]Record{}, unsaid: map[uint64]bool{}, folded: map[uint64]bool{}, saved: map[uint64]time.Time{}}
	if cfg.Wake == nil {
		m.cfg.Wake = func() {
			select {
			case m.wake <- struct{}{}:
			default: // Run has been told already
			}
		}
	}
	m.cfg.Log = cfg.Log.With().Str("part", "alarm").Logger()
	if err := m.load(ctx); err != nil {
		return nil, fmt.Errorf("alarm: reading the alarms: %w", err)
	}
	return m, nil
}

// Run stores and tells what Event has taken in, until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second + 300*time.Millisecond) // not with the other parts
	defer tick.Stop()
	for {
		wake := m.wake
		if m.Waiting() > 0 { // the disk has refused something: it is tried again at the next tick
			wake = nil
		}
		select {
		case <-ctx.Done():
			_ = m.Work(context.WithoutCancel(ctx)) // counts; what fails here is in the log
			return nil
		case <-wake:
		case <-tick.C:
			tick.Reset(time.Second)
			m.Tick()
		}
		_ = m.Work(context.WithoutCancel(ctx)) // it has told of an error
	}
}

// Event takes in what has happened in the cluster. It does not wait.
func (m *Manager) Event(typ, text string, pairs ...monitor.Pair) {
	signs := Signs(typ, text, pairs)
	if len(signs) == 0 {
		return
	}
	now := m.cfg.Now().UTC().Round(time.Millisecond)
	m.mu.Lock()
	var news []Record
	for _, s := range signs {
		switch id, counted := m.book.Sign(now, s); {
		case id == 0:
		case counted:
			m.folded[id] = true
		default:
			m.unsaid[id] = true
			news = append(news, *m.book.Get(id))
		}
	}
	m.mu.Unlock()
	if len(news) > 0 {
		m.cfg.Wake()
	}
	for _, r := range news {
		if !r.active() && planted.Bug("alarm-clear-overtakes") {
			m.announce(Cleared, r)
		}
	}
}

// Settle clears, at the start of a master, the alarms of servers and users'
// sessions that do not exist by its books: the master before may have died when
// it had removed them and not yet stored that their alarms are over. of is
// "server" or "user", object a server's number or a user. Alarms about what is
// judged anew after a start are cleared, too.
func (m *Manager) Settle(exists func(of, object string) bool) {
	now := m.cfg.Now().UTC().Round(time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range some(m.book.active, func(identity, *Record) bool { return true }) {
		r := raises(i.kind)
		gone := (r.object == "server" || r.object == "user") && i.object != More && !exists(r.object, i.object)
		if !gone && !r.anew {
			continue
		}
		if id, _ := m.book.Sign(now, Sign{Kind: i.kind, Object: i.object, Over: true}); id != 0 {
			m.unsaid[id] = true
		}
	}
}

// Tick clears what has been quiet for long enough, and raises again what lasts.
// Run does it each second.
func (m *Manager) Tick() {
	now := m.cfg.Now().UTC().Round(time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.book.Tick(now) {
		m.unsaid[id] = true
	}
}

// Work stores what has been decided and then tells it. The error is that of the
// disk; what it did not take is tried by the next call.
func (m *Manager) Work(ctx context.Context) error {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	for {
		batch, old, next := m.due()
		if len(batch)+len(old) == 0 {
			return nil
		}
		if planted.Bug("alarm-shown-before-stored") {
			m.show(batch)
		}
		if err := m.commit(ctx, batch, old, next); err != nil {
			m.undo(batch, err)
			return err
		}
		m.show(batch)
		m.forgotten(old)
	}
}

// due takes out what is to be stored now, the oldest alarm first, as much as one
// commit may hold.
func (m *Manager) due() (batch []Record, old []uint64, next uint64) {
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := slices.Sorted(maps.Keys(m.unsaid))
	for _, id := range slices.Sorted(maps.Keys(m.folded)) {
		if !m.unsaid[id] && now.Sub(m.saved[id]) >= countEvery {
			ids = append(ids, id)
		}
	}
	for _, id := range ids[:min(len(ids), store.MaxChanges/2)] {
		batch = append(batch, *m.book.Get(id))
		delete(m.unsaid, id)
		delete(m.folded, id)
		m.saved[id] = now
	}
	if old = m.book.Expired(now); len(old) > store.MaxChanges/4 {
		old = old[:store.MaxChanges/4]
	}
	old = slices.DeleteFunc(old, func(id uint64) bool {
		return m.unsaid[id] || m.folded[id] || slices.ContainsFunc(batch, func(r Record) bool { return r.ID == id })
	})
	return batch, old, m.book.Next()
}

// undo notes what the disk did not take, and logs the reason, though not each
// second.
func (m *Manager) undo(batch []Record, err error) {
	now := m.cfg.Now()
	m.mu.Lock()
	for _, r := range batch {
		if !planted.Bug("alarm-not-tried-again") {
			m.unsaid[r.ID] = true
		}
	}
	news := m.failed != err.Error() || now.Sub(m.told) >= time.Minute
	m.failed = err.Error()
	if news {
		m.told = now
	}
	m.mu.Unlock()
	if news {
		for _, r := range batch {
			m.cfg.Log.Error().Err(err).Uint64("alarm", r.ID).Str("severity", r.Severity).Str("kind", r.Kind).Str("object", r.Object).Str("text", r.Text).
				Msg("an alarm could not be stored and is not shown yet; trying again")
		}
	}
}

// show makes records that are on the disk the ones that are shown, and announces
// what is new in them. The caller has the turn.
func (m *Manager) show(batch []Record) {
	for _, r := range batch {
		m.mu.Lock()
		var before *Record
		if was, ok := m.shown[r.ID]; ok {
			before = &was
		}
		m.shown[r.ID] = r
		m.mu.Unlock()
		for _, typ := range News(before, r) {
			m.announce(typ, r)
		}
	}
}

func (m *Manager) announce(typ string, r Record) {
	pairs := []monitor.Pair{{Key: "alarm", Value: r.ID}, {Key: "severity", Value: r.Severity}, {Key: "kind", Value: r.Kind}, {Key: "object", Value: r.Object}}
	log := m.cfg.Log.Info()
	text := fmt.Sprintf("Alarm %d (%s): %s", r.ID, r.Severity, r.Text)
	switch typ {
	case Raised:
		log = m.cfg.Log.Warn()
	case Acked:
		pairs = append(pairs, monitor.Pair{Key: "by", Value: r.AckedBy})
		text = fmt.Sprintf("Alarm %d (%s %s) is acknowledged by %s.", r.ID, r.Kind, r.Object, r.AckedBy)
	case Cleared:
		pairs = append(pairs, monitor.Pair{Key: "count", Value: r.Count})
		text = fmt.Sprintf("Alarm %d (%s %s) is over.", r.ID, r.Kind, r.Object)
		if r.ClearedBy != "" {
			pairs = append(pairs, monitor.Pair{Key: "by", Value: r.ClearedBy})
			text = fmt.Sprintf("Alarm %d (%s %s) is cleared by %s.", r.ID, r.Kind, r.Object, r.ClearedBy)
		}
	}
	log.Uint64("alarm", r.ID).Str("severity", r.Severity).Str("kind", r.Kind).Str("object", r.Object).Str("text", r.Text).Msg(typ)
	m.cfg.Event(typ, text, pairs...)
}

// forgotten drops alarms that the disk has dropped.
func (m *Manager) forgotten(ids []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.book.Forget(id)
		delete(m.shown, id)
		delete(m.saved, id)
	}
}

// Ack notes durably that somebody knows of an alarm, or for id 0 of all of which
// nobody does, and returns how many have changed by it.
func (m *Manager) Ack(ctx context.Context, id uint64, by, note string) (n int, err error) {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	var ids []uint64
	if id != 0 {
		ids = []uint64{id}
	}
	m.mu.Lock()
	all, next := m.book.Ack(m.cfg.Now().UTC().Round(time.Millisecond), ids, by, note), m.book.Next()
	all = slices.DeleteFunc(all, func(r Record) bool { _, ok := m.shown[r.ID]; return !ok }) // nobody can know of it
	m.mu.Unlock()
	for batch := range slices.Chunk(all, store.MaxChanges/2) {
		if err := m.commit(ctx, batch, nil, next); err != nil {
			return n, fmt.Errorf("acknowledging alarms: %w", err)
		}
		m.mu.Lock()
		for _, r := range batch {
			m.book.Acked(r)
		}
		m.mu.Unlock()
		m.show(batch)
		n += len(batch)
	}
	return n, nil
}

// Clear removes an alarm durably. cleared is false where it is not active.
func (m *Manager) Clear(ctx context.Context, id uint64, by string) (cleared bool, err error) {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	m.mu.Lock()
	r, ok := m.book.Clear(m.cfg.Now().UTC().Round(time.Millisecond), id, by)
	_, known := m.shown[id]
	next := m.book.Next()
	m.mu.Unlock()
	if !ok || !known {
		return false, nil
	}
	if err := m.commit(ctx, []Record{r}, nil, next); err != nil {
		return false, fmt.Errorf("clearing alarm %d: %w", id, err)
	}
	m.mu.Lock()
	m.book.Removed(r)
	m.mu.Unlock()
	m.show([]Record{r})
	return true, nil
}

// List returns the alarms that are shown, in the order in which they are: the
// active ones, or all.
func (m *Manager) List(all bool) []monitor.Alarm {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]monitor.Alarm, 0, len(m.shown))
	for _, r := range m.shown {
		if all || r.active() {
			out = append(out, r.alarm())
		}
	}
	slices.SortFunc(out, order)
	return out
}

// Get returns one alarm that is shown.
func (m *Manager) Get(id uint64) (monitor.Alarm, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.shown[id]
	return r.alarm(), ok
}

// Counts returns how many are active by severity, and how many of the critical
// ones nobody has acknowledged.
func (m *Manager) Counts() (by map[string]int, unknown int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	by = map[string]int{}
	for _, r := range m.shown {
		if r.active() {
			by[r.Severity]++
			if r.Severity == monitor.Critical && r.Acked.IsZero() {
				unknown++
			}
		}
	}
	return by, unknown
}

// Waiting is how many alarms are not shown as they are, since the disk has
// refused them.
func (m *Manager) Waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == "" {
		return 0
	}
	return len(m.unsaid)
}

// alarm is the record as an administrator sees it.
func (r *Record) alarm() monitor.Alarm {
	return monitor.Alarm{ID: r.ID, Severity: r.Severity, Kind: r.Kind, Object: r.Object, Since: r.Since, Last: r.Last, Count: r.Count, Acked: r.Acked,
		AckedBy: r.AckedBy, Note: r.Note, Cleared: r.Cleared, ClearedBy: r.ClearedBy, Text: r.Text, Help: help(r.Kind, r.Object)}
}

// commit stores records and the next number with them, so that no number is used
// twice, and drops old ones.
func (m *Manager) commit(ctx context.Context, batch []Record, old []uint64, next uint64) error {
	v, err := json.Marshal(next)
	if err != nil {
		return err
	}
	changes := []store.Change{{Key: nextKey, Value: v}}
	for _, r := range batch {
		if v, err = json.Marshal(r); err != nil {
			return err
		}
		changes = append(changes, store.Change{Key: key(r.ID), Value: v})
	}
	for _, id := range old {
		changes = append(changes, store.Change{Key: key(id)})
	}
	if err := m.cfg.Store.Commit(context.WithoutCancel(ctx), m.cfg.Epoch, nil, changes); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failed = ""
	return nil
}

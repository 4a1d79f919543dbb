package host

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// checked is the bucket of the last results of hosts' checks, by server.
const checked = "checks"

// Bounds of what a host may hand in, and of what is kept.
const (
	maxCheckText = 500 // bytes of one text
	maxFindings  = 64
	maxTexts     = 64 // texts of one list, entries of one map
)

// ChecksConfig is everything that Checks needs.
type ChecksConfig struct {
	// State runs f with the cluster under its lock. f must not block.
	State   func(f func(*cluster.Cluster))
	Store   store.Store
	Epoch   store.Epoch
	Version string
	// Settings are the master's own of those that must be the same everywhere.
	Settings map[string]string
	// Peer is where other satellites reach the server with this identity, as
	// host:port; empty: nowhere. Default: nowhere.
	Peer func(uuid string) string
	// Event announces what has happened; it must not block.
	Event func(typ, text string, pairs ...monitor.Pair)
	Log   zerolog.Logger
	Now   func() time.Time // default: time.Now
}

// Checks keeps what hosts have found out about themselves: the last result of
// each, durably, and the newest surveys, with which others are compared. What
// keeps desktops away from a host is told to the cluster.
type Checks struct {
	cfg ChecksConfig

	mu      sync.Mutex // guards what follows
	kept    map[uint64]result
	surveys []survey // the newest last
	often   map[uint64]*wire.Bucket
	turn    sync.Mutex // one result at a time becomes durable
}

// result is the durable form of what a host has found out.
type result struct {
	Server   uint64    `json:"server"`
	UUID     string    `json:"uuid"` // of the machine that was checked
	At       time.Time `json:"at"`
	Version  string    `json:"version"`
	Findings []finding `json:"findings"`

	seen time.Time // when the host was heard of last: nothing has changed since At
}

type finding struct {
	Check    string `json:"check"`
	Level    string `json:"level"`
	Measured string `json:"measured"`
	Wanted   string `json:"wanted"`
	Fix      string `json:"fix,omitempty"`
	Hard     bool   `json:"hard,omitempty"`
}

// NewChecks returns Checks that know nothing yet.
func NewChecks(cfg ChecksConfig) *Checks {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Peer == nil {
		cfg.Peer = func(string) string { return "" }
	}
	return &Checks{cfg: cfg, kept: map[uint64]result{}, often: map[uint64]*wire.Bucket{}}
}

// Restore reads the results that the store holds. The servers must be there
// already.
func (k *Checks) Restore(ctx context.Context, c *cluster.Cluster) error {
	return k.cfg.Store.View(ctx, func(s store.Snapshot) error {
		for id, b := range s.All(checked) {
			var r result
			if err := json.Unmarshal(b, &r); err != nil {
				return fmt.Errorf("checks of server %s: %w", id, err)
			}
			if strconv.FormatUint(r.Server, 10) != id {
				return fmt.Errorf("the checks of server %s are those of server %d", id, r.Server)
			}
			if err := r.check(); err != nil {
				return fmt.Errorf("checks of server %s: %w", id, err)
			}
			k.kept[r.Server] = r
			c.Checked(r.Server, r.UUID, r.hard())
		}
		return nil
	})
}

var checkName = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)

// check refuses what is no result.
func (r result) check() error {
	if len(r.Findings) > maxFindings {
		return fmt.Errorf("%d findings, at most %d", len(r.Findings), maxFindings)
	}
	for _, f := range r.Findings {
		if !checkName.MatchString(f.Check) || !slices.Contains([]string{monitor.CheckPass, monitor.CheckWarn, monitor.CheckFail}, f.Level) {
			return fmt.Errorf("the finding %.40q has the level %.20q", f.Check, f.Level)
		}
	}
	return nil
}

// hard is what keeps desktops away, in words.
func (r result) hard() (out []string) {
	for _, f := range r.Findings {
		if f.Hard && f.Level == monitor.CheckFail {
			text := fmt.Sprintf("its check %s fails: %s", f.Check, f.Measured)
			if f.Wanted != "" {
				text += ", wanted: " + f.Wanted
			}
			out = append(out, text)
		}
	}
	return out
}

// server is the server of an identity.
func (k *Checks) server(uuid string) (id uint64, name string, err error) {
	k.cfg.State(func(c *cluster.Cluster) {
		if s := c.ServerByUUID(uuid); s != nil {
			id, name = s.ID, s.Name
		}
	})
	if id == 0 {
		return 0, "", wire.Errorf(wire.NotReady, "this machine is not registered yet: its satellite has not connected")
	}
	return id, name, nil
}

// pass bounds how often a server may ask: each question costs memory and the
// network, each result the disk.
func (k *Checks) pass(id uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.often[id]
	if b == nil {
		b = &wire.Bucket{Rate: 0.2, Burst: 20}
		k.often[id] = b
	}
	if !b.Take(k.cfg.Now()) {
		return wire.Errorf(wire.TooOften, "server %d has been checked %v times within a short time; try again in a few seconds", id, b.Burst)
	}
	return nil
}

// keep makes a result durable and lets it count; it answers under which time it
// is kept. The same result again costs nothing.
func (k *Checks) keep(ctx context.Context, uuid string, findings []finding, version string) (time.Time, error) {
	id, name, err := k.server(uuid)
	if err != nil {
		return time.Time{}, err
	}
	if err := k.pass(id); err != nil {
		return time.Time{}, err
	}
	r := result{Server: id, UUID: uuid, At: k.cfg.Now().UTC().Truncate(time.Millisecond), Version: version, Findings: findings}
	if err := r.check(); err != nil {
		return time.Time{}, wire.Errorf(wire.BadRequest, "%v", err)
	}
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	before, had := k.kept[id]
	k.mu.Unlock()
	if had && before.UUID == r.UUID && before.Version == r.Version && slices.Equal(before.Findings, r.Findings) {
		k.mu.Lock()
		before.seen = r.At
		k.kept[id] = before
		k.mu.Unlock()
		return before.At, nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return time.Time{}, err
	}
	change := store.Change{Key: checksKey(id), Value: b}
	if err := k.cfg.Store.Commit(context.WithoutCancel(ctx), k.cfg.Epoch, nil, []store.Change{change}); err != nil {
		return time.Time{}, fmt.Errorf("keeping the checks of server %d: %w", id, err)
	}
	k.mu.Lock()
	k.kept[id] = r
	k.mu.Unlock()
	k.cfg.State(func(c *cluster.Cluster) { c.Checked(id, uuid, r.hard()) })
	k.tell(id, name, before.hard(), r.hard())
	return r.At, nil
}

// tell announces that a host has become unfit or fit.
func (k *Checks) tell(id uint64, name string, before, now []string) {
	switch msg := strings.Join(now, "; "); {
	case len(now) > 0 && !slices.Equal(before, now):
		k.cfg.Log.Error().Uint64("server", id).Str("satellite", name).Strs("checks", now).Msg("a host is not fit to run desktops")
		k.cfg.Event("server.unfit", fmt.Sprintf("Server %d (%s) gets no desktops: %s.", id, name, msg),
			monitor.Pair{Key: "server", Value: id}, monitor.Pair{Key: "name", Value: name}, monitor.Pair{Key: "msg", Value: msg})
	case len(now) == 0 && len(before) > 0:
		k.cfg.Log.Info().Uint64("server", id).Str("satellite", name).Msg("a host is fit to run desktops again")
		k.cfg.Event("server.fit", fmt.Sprintf("Server %d (%s) passes its checks again.", id, name),
			monitor.Pair{Key: "server", Value: id}, monitor.Pair{Key: "name", Value: name})
	}
}

func checksKey(id uint64) store.Key {
	return store.Key{Bucket: checked, ID: strconv.FormatUint(id, 10)}
}

// Forget drops what is remembered of a server that is gone.
func (k *Checks) Forget(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.kept, id)
	delete(k.often, id)
	k.surveys = slices.DeleteFunc(k.surveys, func(s survey) bool { return s.server == id })
}

// Of returns the last result of a server. One of a machine whose place another
// one has taken is none.
func (k *Checks) Of(id uint64) (out monitor.Checks, ok bool) {
	uuid := ""
	k.cfg.State(func(c *cluster.Cluster) {
		if s := c.Server(id); s != nil {
			uuid, ok = s.UUID, true
		}
	})
	k.mu.Lock()
	r, had := k.kept[id]
	k.mu.Unlock()
	if !ok || !had || r.UUID != uuid {
		return monitor.Checks{}, ok
	}
	out.At, out.Version = r.At, r.Version
	if r.seen.After(r.At) {
		out.At = r.seen
	}
	out.Age = max(0, k.cfg.Now().Sub(out.At))
	for _, f := range r.Findings {
		switch f.Level {
		case monitor.CheckPass:
			out.Pass++
		case monitor.CheckWarn:
			out.Warn++
		default:
			out.Fail++
		}
		out.Rows = append(out.Rows, monitor.Check{Name: f.Check, Level: f.Level, Measured: f.Measured, Wanted: f.Wanted, Fix: f.Fix, Hard: f.Hard})
	}
	// What must be looked at comes first.
	worst := map[string]int{monitor.CheckFail: 0, monitor.CheckWarn: 1, monitor.CheckPass: 2}
	slices.SortStableFunc(out.Rows, func(a, b monitor.Check) int { return cmp.Compare(worst[a.Level], worst[b.Level]) })
	return out, true
}

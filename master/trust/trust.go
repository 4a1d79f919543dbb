// Package trust is what all machines of a cluster believe about it, the trust
// bundle: which authorities are trusted, who is of the cluster no more, and which
// servers there are. It is made here, signed, pushed to every satellite, and
// followed until each of them has made it its own; and one authority takes the
// place of another by it.
//
// A version of the bundle is on the disk before anybody sees it, and names one
// content for ever: satellites refuse a lower one. What has changed is found by
// comparing contents, never told by who changed it.
package trust

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"verdecmd/master/job"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// Member is a server of the cluster.
type Member struct {
	ID            uint64
	UUID          string // of its identity
	Name, Address string // Address: empty where it is not known yet
}

// Revocation is an identity that is of the cluster no more.
type Revocation struct {
	ID     string // UUID
	Serial string // empty: all its certificates
	Why    string // in words for who shows it
	Until  time.Time
}

// Address is where a master is reached.
type Address struct{ Name, Address string }

// Config is everything a Manager needs.
type Config struct {
	Store store.Store
	Epoch store.Epoch
	Jobs  *job.Manager
	// Event announces what has happened; it must not block.
	Event func(typ, text string, pairs ...monitor.Pair)
	// Dir is the PKI directory with the keys of the authorities, Credentials are
	// the master's own.
	Dir         string
	Credentials *wire.Credentials
	Masters     []Address
	Members     func() []Member
	Revocations func() []Revocation
	// Push sends a bundle to every satellite that takes bundles, and Cut ends the
	// link of an identity. Neither may block.
	Push func([]*pb.TrustPart)
	Cut  func(uuid string)
	Log  zerolog.Logger

	Now func() time.Time // the default is time.Now
	// Root names the authority that has issued the certificate which a caller has
	// shown; the default is Credentials.PeerRoot.
	Root func(context.Context) string
}

// Manager has the trust bundle. Use New, Restore, then Run.
type Manager struct {
	cfg  Config
	wake chan struct{}
	stop chan struct{} // closed when Run ends

	turn sync.Mutex // one change of the bundle at a time; taken before mu

	mu        sync.Mutex // guards what follows
	gather    Gather
	bundle    bundle
	floor     uint64 // the next version is higher
	rotation  Rotation
	applied   bool              // files and credentials are what the rotation wants
	roots     []*wire.Authority // the one that issues first
	told      map[string]Told   // by UUID
	unsaved   map[string]bool   // of told
	standings map[uint64]*standing
}

// bundle is one version.
type bundle struct {
	version uint64
	digest  string
	urgent  string // digest of what is pushed at once
	signed  *pb.SignedTrust
	parts   []*pb.TrustPart
	members int
}

// standing is a server's with the link that it comes from.
type standing struct {
	Standing
	uuid       string
	attachment uint64
}

// Told is what a satellite tells of itself when its link opens.
type Told struct {
	Peer     string   `json:"peer,omitempty"` // host:port for other satellites
	HostKeys []string `json:"host_keys,omitempty"`
	UserKey  string   `json:"user_key,omitempty"`
}

// New returns a Manager that knows nothing yet.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Root == nil {
		cfg.Root = cfg.Credentials.PeerRoot
	}
	return &Manager{cfg: cfg, wake: make(chan struct{}, 1), stop: make(chan struct{}), told: map[string]Told{}, unsaved: map[string]bool{}, standings: map[uint64]*standing{}}
}

// Changed says that there may be something new to tell. It neither blocks nor
// calls back.
func (m *Manager) Changed() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Current is the bundle in force.
func (m *Manager) Current() *pb.SignedTrust {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bundle.signed
}

// Authority is the one that issues; nil where its key is not here.
func (m *Manager) Authority() *wire.Authority {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.roots) == 0 {
		return nil
	}
	return m.roots[0]
}

// lagEvery is how often it is looked for servers that are behind, and retry how
// long to wait after a bundle that could not be made.
const (
	lagEvery = 5 * time.Second
	retry    = time.Second
)

// Run makes and pushes bundles until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.stop)
	m.resume(ctx)
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			m.lag()
		case <-timer.C:
		case <-m.wake:
			m.look()
		}
		wait, due := m.due()
		if !due {
			continue
		}
		if wait == 0 {
			if err := m.publish(ctx); err == nil {
				failed = ""
				continue
			} else if ctx.Err() != nil {
				return nil
			} else if text := err.Error(); text != failed {
				failed = text
				m.cfg.Log.Error().Err(err).Msg("the trust bundle cannot be made; trying again")
			}
			wait = retry
		}
		timer.Reset(wait)
	}
}

// due tells when the next bundle is to be made. Without an authority there are
// none.
func (m *Manager) due() (wait time.Duration, due bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.roots) == 0 {
		return 0, false
	}
	return m.gather.Wait(m.cfg.Now(), len(m.standings))
}

// look finds out whether what has changed is to be told at once.
func (m *Manager) look() {
	revoked := m.revoked()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gather.Changed(m.floor > m.bundle.version || urgent(m.rootNames(), revoked) != m.bundle.urgent)
}

// rootNames names the trusted authorities. m.mu is held.
func (m *Manager) rootNames() (out []string) {
	for _, a := range m.roots {
		out = append(out, wire.RootName(a.DER()))
	}
	return out
}

// urgent is a digest of what is to be told at once.
func urgent(roots []string, revoked []*pb.Revoked) string {
	h := sha256.New()
	fmt.Fprintln(h, roots)
	for _, r := range revoked {
		fmt.Fprintln(h, r.Id, r.Serial)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// revoked is who is of the cluster no more.
func (m *Manager) revoked() (out []*pb.Revoked) {
	now := m.cfg.Now()
	for _, r := range m.cfg.Revocations() {
		if now.Before(r.Until) {
			out = append(out, &pb.Revoked{Id: r.ID, Serial: r.Serial, Why: wire.Clean(r.Why, 512), UntilUnix: r.Until.Unix()})
		}
	}
	return out
}

// content is the bundle as it is to be, without a version.
func (m *Manager) content() *pb.Trust {
	t := &pb.Trust{Cluster: m.cfg.Credentials.Identity.Cluster, Revoked: m.revoked()}
	for _, a := range m.cfg.Masters {
		t.Masters = append(t.Masters, &pb.Manager{Name: a.Name, Address: a.Address})
	}
	members := m.cfg.Members()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.roots {
		t.Roots = append(t.Roots, a.DER())
	}
	for _, x := range members {
		told := m.told[x.UUID]
		t.Members = append(t.Members, &pb.Member{ServerId: x.ID, Id: x.UUID, Name: x.Name, Address: wire.Clean(x.Address, mostText),
			Peer: told.Peer, SshHostKeys: told.HostKeys, SshUserKey: told.UserKey})
	}
	return t
}

// digest names a content.
func digest(t *pb.Trust) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// publish makes a new version, if anything has changed, and pushes it.
func (m *Manager) publish(ctx context.Context) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	return m.renew(ctx)
}

// renew is publish with the turn taken.
func (m *Manager) renew(ctx context.Context) error {
	if err := m.saveTold(ctx); err != nil {
		return err
	}
	t := m.content()
	d, err := digest(t)
	if err != nil {
		return err
	}
	m.mu.Lock()
	b, floor := m.bundle, m.floor
	roots, names := m.roots, m.rootNames()
	if d == b.digest && floor <= b.version {
		m.gather.Pushed(m.cfg.Now()) // what there is
		if b.signed != nil {
			m.mu.Unlock()
			return nil
		}
	}
	m.mu.Unlock()
	if d != b.digest || floor > b.version {
		b.version, b.digest = max(b.version, floor)+1, d
		if err := m.saveBundle(ctx, b); err != nil {
			return err
		}
	}
	t.Version = b.version
	if b.signed, err = wire.SignTrust(t, roots...); err != nil {
		return err
	}
	if b.parts, err = wire.SplitTrust(b.signed, b.version); err != nil {
		return err
	}
	b.urgent, b.members = urgent(names, t.Revoked), len(t.Members)
	m.push(b)
	return nil
}

// push makes a bundle the present one, for links that open from now on and for
// those that are open.
func (m *Manager) push(b bundle) {
	now := m.cfg.Now()
	m.mu.Lock()
	m.bundle = b
	m.gather.Pushed(now)
	for _, s := range m.standings {
		s.Pushed(now, b.version)
	}
	m.mu.Unlock()
	m.cfg.Push(b.parts)
	m.cfg.Log.Debug().Uint64("version", b.version).Int("servers", b.members).Int("parts", len(b.parts)).Msg("trust bundle pushed")
}

// lag tells of servers that are behind for too long, and of those that have
// caught up.
func (m *Manager) lag() {
	now := m.cfg.Now()
	type news struct {
		id    uint64
		lags  bool
		s     Standing
		since time.Duration
	}
	var all []news
	m.mu.Lock()
	current := m.bundle.version
	for id, s := range m.standings {
		behind := s.Behind
		if lags, caught := s.Lag(now); lags || caught {
			all = append(all, news{id, lags, s.Standing, now.Sub(behind)})
		}
	}
	m.mu.Unlock()
	if len(all) == 0 {
		return
	}
	names := map[uint64]string{}
	for _, x := range m.cfg.Members() {
		names[x.ID] = x.Name
	}
	for _, n := range all {
		pairs := []monitor.Pair{{Key: "server", Value: n.id}, {Key: "name", Value: names[n.id]}, {Key: "version", Value: n.s.Version}, {Key: "current", Value: current}}
		if !n.lags {
			m.cfg.Event("trust.current", fmt.Sprintf("Server %d (%s) has the newest trust bundle again, version %d.", n.id, names[n.id], n.s.Version), pairs...)
			continue
		}
		text := fmt.Sprintf("Server %d (%s) has had trust bundle %d for %d s, the newest is %d: it does not know yet who was revoked.", n.id, names[n.id], n.s.Version, int(n.since.Seconds()), current)
		if n.s.Error != "" {
			text = strings.TrimSuffix(text, ".") + ". It says: " + n.s.Error
			pairs = append(pairs, monitor.Pair{Key: "msg", Value: n.s.Error})
		}
		m.cfg.Event("trust.lag", text, pairs...)
	}
}

// errNoKey is why no bundle can be made.
var errNoKey = errors.New("the key of the cluster's authority is not here")

package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// trustFile is the trust bundle in the PKI directory, as it came.
const trustFile = "trust.bin"

// maxTrust is more than a bundle has, in bytes.
const maxTrust = 33 << 20

// TrustConfig is everything that a Trust needs.
type TrustConfig struct {
	Dir         string // with the files of the credentials
	Credentials *wire.Credentials
	SSH         *SSH // nil: no SSH keys
	Log         zerolog.Logger

	// Random is from 0 to 1; the default is random.
	Random func() float64
}

// Trust keeps the trust bundle of the cluster on a satellite: what it says of
// authorities and revoked identities is in force for all connections from the
// moment at which it is acknowledged, and on the disk before that.
//
// The files of authorities and certificate change under one lock, and in an
// order in which they fit together whatever ends the program.
type Trust struct {
	cfg          TrustConfig
	soon, relink func()
	news         chan struct{} // the bundle is another one
	gone         atomic.Bool   // this host is of the cluster no more

	files sync.Mutex // guards the files, and what follows

	link   uint64
	joiner wire.TrustJoiner
	failed *pb.SignedTrust // could not be written; nil: none

	bundle  atomic.Pointer[pb.Trust] // in force; never nil
	outlaws atomic.Pointer[outlaws]
	keysErr atomic.Pointer[string] // what was logged last about SSH keys
}

// NewTrust reads the bundle that was in force before. One that cannot be used
// is left out: the master sends the newest.
func NewTrust(cfg TrustConfig) *Trust {
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	t := &Trust{cfg: cfg, news: make(chan struct{}, 1), soon: func() {}, relink: func() {}}
	t.bundle.Store(&pb.Trust{})
	t.outlaws.Store(&outlaws{})
	cfg.Credentials.SetRevoked(func(id, serial string) (string, bool) { return t.outlaws.Load().revoked(id, serial) })
	signed, err := readTrust(filepath.Join(cfg.Dir, trustFile))
	var b *pb.Trust
	if err == nil {
		b, err = wire.OpenTrust(signed, cfg.Credentials.Roots())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		cfg.Log.Warn().Err(err).Msg("the trust bundle of before is left out")
	default:
		if !slices.EqualFunc(b.Roots, cfg.Credentials.Roots(), slices.Equal) {
			b.Version = 0 // the program ended right between the two, or the host was registered anew
		}
		t.force(b)
	}
	t.changed()
	return t
}

// Connect hands in who asks for a new certificate soon, and who makes the link to
// the master anew. Neither may block. It must be called before Run.
func (t *Trust) Connect(soon, relink func()) { t.soon, t.relink = soon, relink }

func readTrust(path string) (*pb.SignedTrust, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxTrust {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", path, st.Size(), maxTrust)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &pb.SignedTrust{}
	if err := proto.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return s, nil
}

// force makes a bundle count.
func (t *Trust) force(b *pb.Trust) {
	o := outlawsOf(b.Revoked)
	t.outlaws.Store(&o)
	t.bundle.Store(b)
}

func (t *Trust) changed() {
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// Version is that of the bundle in force; 0: there is none yet.
func (t *Trust) Version() uint64 { return t.bundle.Load().Version }

// Members are the servers of the cluster, by their numbers.
func (t *Trust) Members() []*pb.Member { return t.bundle.Load().Members }

// Member tells whether an identity is that of a server of the cluster.
func (t *Trust) Member(id string) bool {
	return slices.ContainsFunc(t.Members(), func(m *pb.Member) bool { return m.Id == id })
}

// Keys are the SSH keys that the cluster is told; nil: none are managed here.
func (t *Trust) Keys() *pb.HostKeys {
	if t.cfg.SSH == nil {
		return nil
	}
	keys, err := t.cfg.SSH.Keys()
	text := fmt.Sprint(err)
	if was := t.keysErr.Swap(&text); err != nil && (was == nil || *was != text) {
		t.cfg.Log.Warn().Err(err).Msg("not all SSH keys of this host are told to the cluster")
	}
	return keys
}

// Part takes in a piece of a bundle that came on a link, by its number. The
// answer is nil until the last piece is there.
func (t *Trust) Part(link uint64, p *pb.TrustPart) *pb.TrustAck {
	t.files.Lock()
	defer t.files.Unlock()
	if link != t.link {
		t.link, t.joiner = link, wire.TrustJoiner{}
	}
	s, err := t.joiner.Add(p)
	if s == nil && err == nil {
		return nil
	}
	if err == nil {
		err = t.take(s)
	}
	ack := &pb.TrustAck{Version: t.Version()}
	if err != nil {
		ack.Error = wire.Clean(err.Error(), 512)
		t.cfg.Log.Warn().Err(err).Uint64("version", p.GetVersion()).Msg("a trust bundle is not taken")
	}
	return ack
}

// take makes a bundle the one in force. What is written first counts after a
// crash: new authorities before a bundle that tells of them. Who is revoked
// counts in any case.
func (t *Trust) take(s *pb.SignedTrust) error {
	c := t.cfg.Credentials
	b, err := wire.OpenTrust(s, c.Roots())
	if err != nil {
		return err
	}
	if err := Believe(b, t.Version(), c.OwnRoot()); err != nil {
		return err
	}
	if b.Version == t.Version() {
		return nil
	}
	o := outlawsOf(b.Revoked)
	t.outlaws.Store(&o)
	if err := t.write(s, b.Roots); err != nil {
		t.failed = s
		t.changed()
		return fmt.Errorf("bundle %d cannot be written, only whom it revokes counts already: %w", b.Version, err)
	}
	t.failed = nil
	if err := c.SetRoots(b.Roots); err != nil {
		return err
	}
	t.force(b)
	t.changed()
	t.cfg.Log.Info().Uint64("version", b.Version).Int("servers", len(b.Members)).Int("revoked", len(b.Revoked)).Int("authorities", len(b.Roots)).Msg("new trust bundle")
	return nil
}

func (t *Trust) write(s *pb.SignedTrust, roots [][]byte) error {
	if !slices.EqualFunc(roots, t.cfg.Credentials.Roots(), slices.Equal) {
		if err := put(filepath.Join(t.cfg.Dir, wire.CAFile), rootsPEMOf(roots), 0o644); err != nil {
			return err
		}
	}
	all, err := proto.Marshal(s)
	if err != nil {
		return err
	}
	return put(filepath.Join(t.cfg.Dir, trustFile), all, 0o644)
}

// Install makes a new certificate with its key the own one, and before that the
// bundle that came with it the one in force; nil: none came. The certificate must
// come from the authority that issues by then: an answer may be overtaken by a
// change of the authority, and its certificate would soon be worth nothing.
func (t *Trust) Install(identityPEM []byte, bundle *pb.SignedTrust) error {
	t.files.Lock()
	defer t.files.Unlock()
	c := t.cfg.Credentials
	if bundle != nil {
		if err := t.take(bundle); err != nil {
			t.cfg.Log.Warn().Err(err).Msg("the trust bundle that came with a certificate is not taken")
		}
	}
	if err := c.Fits(identityPEM); err != nil {
		return err
	}
	before := c.OwnRoot()
	if err := put(filepath.Join(t.cfg.Dir, wire.IdentityFile), identityPEM, 0o600); err != nil {
		return err
	}
	if err := c.Renew(identityPEM); err != nil {
		return err
	}
	// The master learns from the next link that this host has a certificate of
	// the new authority.
	if c.OwnRoot() != before {
		t.relink()
	}
	return nil
}

// How long to wait until what did not succeed is tried again.
const (
	rewriteEvery = 5 * time.Second
	soonAgain    = 30 * time.Second
)

// Run does what follows from a new bundle, until ctx ends: SSH keys, a
// certificate of another authority, and the writing of what could not be
// written.
func (t *Trust) Run(ctx context.Context) error {
	timer := time.NewTimer(soonAgain)
	timer.Stop()
	defer timer.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.news:
			text := ""
			if err := t.spread(); err != nil {
				text = err.Error()
			}
			if text != "" && text != told {
				t.cfg.Log.Error().Str("error", text).Msg("the SSH keys of the cluster (WIN4_SSH_KEYS)")
			}
			told = text
			if wait, due := t.due(true); due {
				timer.Reset(wait)
			}
		case <-timer.C:
			t.rewrite()
			if !t.cfg.Credentials.NewestRoot() {
				t.soon()
			}
			if wait, due := t.due(false); due {
				timer.Reset(wait)
			}
		}
	}
}

// spread writes the keys of the cluster into root's files. Before the first
// bundle nothing is known of it.
func (t *Trust) spread() error {
	if t.cfg.SSH == nil || t.cfg.SSH.On && len(t.bundle.Load().Roots) == 0 {
		return nil
	}
	err := t.cfg.SSH.Update(t.Members())
	if t.gone.Load() { // meanwhile
		err = t.cfg.SSH.Update(nil)
	}
	return err
}

// due tells when there is something to be done again. first is set where the
// bundle is a new one.
func (t *Trust) due(first bool) (time.Duration, bool) {
	t.files.Lock()
	failed := t.failed != nil
	t.files.Unlock()
	switch {
	case failed:
		return rewriteEvery, true
	case t.cfg.Credentials.NewestRoot():
		return 0, false
	case first:
		return RenewDelay(len(t.Members()), t.cfg.Random()), true
	}
	return soonAgain + RenewDelay(len(t.Members()), t.cfg.Random()), true
}

// rewrite tries again to write a bundle. The master is told by a new link.
func (t *Trust) rewrite() {
	t.files.Lock()
	defer t.files.Unlock()
	if t.failed == nil {
		return
	}
	if err := t.take(t.failed); err == nil {
		t.relink()
	}
}

// Withdraw takes the keys of the cluster out of root's files for good: this host
// is of it no more.
func (t *Trust) Withdraw() {
	t.gone.Store(true)
	if t.cfg.SSH == nil {
		return
	}
	if err := t.cfg.SSH.Update(nil); err != nil {
		t.cfg.Log.Error().Err(err).Msg("the SSH keys of the cluster could not be removed")
	}
}

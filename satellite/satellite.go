// Package satellite is the acting daemon: it runs desktops for their users,
// reports to the master, and lets users log in on this computer.
//
// Desktops outlive this program: whatever ends it lets go of them, and the next
// start finds them again. New sessions need the master; running ones do not.
package satellite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/host"
	"verdecmd/satellite/link"
	"verdecmd/satellite/session"
)

// Config is everything a Satellite needs from outside.
type Config struct {
	Local    net.Listener // where win4 connects; required
	Accounts session.Accounts
	Masters  []string
	Dial     []grpc.DialOption
	Facts    *pb.HostFacts
	Address  string // where clients reach this satellite
	// Trust keeps what the cluster says of itself, and Peer is the port for other
	// satellites; nil: there is none.
	Trust    *host.Trust
	Peer     *host.Peer
	Version  string
	Instance string
	Session  session.Config
	// Guard keeps Session.Guard at work until its context ends; nil: there is
	// nothing to do for it.
	Guard func(context.Context) error
	// Barred is why the cluster has given up this computer, as noted by an earlier
	// start: nothing is started here then, and what runs is ended. Nil: it has not.
	Barred error
	// Revoked notes durably that it has, in the master's words, and returns what
	// users are told; nil: nobody revokes this satellite.
	Revoked func(why string) error
	// Renew keeps the certificate from ending until its context ends, and tells
	// revoked if the master will not; nil: nobody does.
	Renew func(ctx context.Context, revoked func(why string)) error
	// Checks makes the checks of this host until its context ends; linked tells
	// whether the link is up. Nil: nobody wants them.
	Checks func(ctx context.Context, linked func() (up bool, changed <-chan struct{})) error
	// Soon makes Renew ask for a new certificate soon; it must be there where
	// Trust is.
	Soon func()
	// Left is called when everything has ended; nil: nothing is to be done then.
	Left func()
	// Jitter spreads new connections to the master: 0 to 1, a part of the
	// longest delay. The default is random.
	Jitter func() float64
	Log    zerolog.Logger
}

// Satellite is the acting daemon. Use New, then Run.
type Satellite struct {
	cfg     Config
	session *session.Manager
	link    *link.Link
	local   *session.Local
	gone    sync.Once // the cluster has given up this computer
	off     func()    // ends all talk with the master; set by Run
}

// New reads the journal and joins the parts. It starts nothing.
func New(cfg Config) (*Satellite, error) {
	if cfg.Local == nil || cfg.Accounts == nil || len(cfg.Masters) == 0 || cfg.Session.Driver == nil {
		return nil, errors.New("satellite: Config needs Local, Accounts, Masters and a driver")
	}
	m, err := session.New(cfg.Session)
	if err != nil {
		return nil, fmt.Errorf("satellite: %w", err)
	}
	s := &Satellite{cfg: cfg, session: m}
	links := link.Config{Masters: cfg.Masters, Dial: cfg.Dial, Host: m, Facts: cfg.Facts, Address: cfg.Address,
		Version: cfg.Version, Instance: cfg.Instance, Jitter: cfg.Jitter, Log: cfg.Log.With().Str("part", "link").Logger()}
	if cfg.Revoked != nil {
		links.Revoked = s.revoked
	}
	if cfg.Trust != nil {
		links.Trust = cfg.Trust
	}
	if cfg.Peer != nil {
		links.Peer = cfg.Peer.Address
	}
	s.link = link.New(links)
	if cfg.Trust != nil {
		cfg.Trust.Connect(cfg.Soon, s.link.Break)
	}
	if cfg.Peer != nil {
		cfg.Peer.Connect(s.link.Restate)
	}
	m.Connect(s.link)
	s.local = &session.Local{Manager: m, Accounts: cfg.Accounts}
	return s, nil
}

// revoked is told by a master of the own cluster that this computer is of it no
// more. It is on the disk before anything ends.
func (s *Satellite) revoked(why string) {
	s.gone.Do(func() {
		s.bar(s.cfg.Revoked(why))
		s.off()
	})
}

// bar ends everything here but the answers to users.
func (s *Satellite) bar(why error) {
	s.cfg.Log.Error().Err(why).Msg("the cluster has given up this computer: nothing is started here, and desktops are ended")
	s.session.Bar(why)
	if s.cfg.Trust != nil {
		s.cfg.Trust.Withdraw()
	}
}

// settleWithin bounds how long the first connection to the master waits for what
// it is to tell.
const settleWithin = time.Second

// Run works until ctx ends, lets go of the desktops, and returns when
// everything it started has ended.
func (s *Satellite) Run(ctx context.Context) error {
	if s.cfg.Barred != nil {
		s.bar(s.cfg.Barred)
	}
	if err := s.session.Adopt(ctx); err != nil {
		return fmt.Errorf("satellite: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.session.Run(ctx) })
	on, off := context.WithCancel(ctx)
	defer off()
	s.off = off
	if s.cfg.Barred == nil {
		g.Go(func() error {
			s.settle(on)
			return s.link.Run(on)
		})
		if s.cfg.Renew != nil {
			g.Go(func() error { return s.cfg.Renew(on, s.revoked) })
		}
		if s.cfg.Checks != nil {
			g.Go(func() error {
				return s.cfg.Checks(on, func() (bool, <-chan struct{}) {
					up, _, _, changed := s.link.Status()
					return up, changed
				})
			})
		}
		if s.cfg.Trust != nil {
			g.Go(func() error { return s.cfg.Trust.Run(on) })
		}
		if s.cfg.Peer != nil {
			g.Go(func() error { return s.cfg.Peer.Run(on) })
		}
	}
	if s.cfg.Guard != nil {
		g.Go(func() error { return s.cfg.Guard(ctx) })
	}
	g.Go(func() error {
		return s.local.Serve(ctx, s.cfg.Local, func(r wire.Report) {
			s.cfg.Log.Warn().Interface("report", r).Msg("a local connection failed")
		})
	})
	err := g.Wait()
	if s.cfg.Left != nil {
		s.cfg.Left()
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("satellite: %w", err)
	}
	return nil
}

// settle waits for what the first hello is to say, though not for long: who comes
// to know of it later has to connect once more.
func (s *Satellite) settle(ctx context.Context) {
	if s.cfg.Peer == nil {
		return
	}
	select {
	case <-s.cfg.Peer.Tried():
	case <-time.After(settleWithin):
	case <-ctx.Done():
	}
}

// alive returns at once unless the satellite hangs.
func (s *Satellite) alive() { s.session.Leased() }

// Open logs in a user whose identity the caller has made sure of, as win4 does
// on the local socket. progress is told what is being waited for.
func (s *Satellite) Open(ctx context.Context, u desktop.User, client string, progress func(text string)) (session.Opened, error) {
	return s.session.Open(ctx, u, client, progress)
}

// problems says in words what keeps this computer from running desktops.
func problems(snapDir string, driver []string) []string {
	out := driver
	if snapDir != "" {
		if err := writable(snapDir); err != nil {
			out = append(out, fmt.Sprintf("the snap directory cannot be used: %v (WIN4_SNAP_DIR)", err))
		}
	}
	return out
}

// writable tries to write in a directory.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".verdecmd-*")
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// pingEvery is how often a hypervisor is asked for a sign of life.
func pingEvery(l desktop.Limits) time.Duration {
	return min(5*time.Second, max(time.Second, l.HungAfter/3))
}

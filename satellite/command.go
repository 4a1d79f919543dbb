package satellite

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/qemu"
	"verdecmd/satellite/guard"
	"verdecmd/satellite/host"
	"verdecmd/satellite/load"
	"verdecmd/satellite/session"
	"verdecmd/settings"
	"verdecmd/settings/account"
	"verdecmd/settings/address"
	"verdecmd/settings/service"
)

// Commands returns satellite, win4, guardian, and those of host.Commands. log
// makes the daemon's logger for a level.
func Commands(version string, log func(level string) zerolog.Logger) []*cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "satellite",
		Short: "Run the satellite on this computer: users' desktops",
		Long: `Run the satellite: the daemon that runs users' desktops on this computer.

It connects to the master at WIN4_VERDE_CMADDR with the certificate in
WIN4_VERDE_PKI_DIR, and retries until it gets through; "verdecmd register" makes
both. The certificate is renewed in time, and one that has ended while the
computer was off is replaced. Users of this computer log in with "win4". Started by
hand it works in the foreground and logs to standard error; SIGTERM ends it and
leaves the desktops running: the next start finds them again. Where the cluster
has leases (WIN4_VERDE_LOST_SESSIONS) it starts a second process, the guardian:
that stays when this program ends, and ends the desktops with their lease if
nobody renews it. What the guardian does is in guardian.log in the satellite's
directory.`,
		Example: "  verdecmd satellite\n  verdecmd satellite --settings ./settings.global",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), path, version, log)
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	return append([]*cobra.Command{c, win4Command(), guardianCommand(log)}, host.Commands(version, probe)...)
}

// serve runs the satellite until a signal ends it.
func serve(ctx context.Context, path, version string, newLog func(string) zerolog.Logger) error {
	v, err := settings.Load(path)
	if err != nil {
		return err
	}
	log := newLog(v.String(settings.LogLevel))
	for _, w := range v.Warnings() {
		log.Warn().Msg(w)
	}
	manager, err := service.Connect()
	if err != nil {
		return err
	}
	// Desktops run as their users and must get through to their own directories,
	// whatever umask a service manager has given us.
	syscall.Umask(0o022)
	if err := host.MakeSnapDir(v); err != nil {
		log.Error().Err(err).Msg("the snap directory cannot be made (WIN4_SNAP_DIR)")
	}
	socket := v.String(settings.SatSocket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return fmt.Errorf("directory of the local socket: %w", err)
	}
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()

	dir := settings.SatelliteDir(v)
	held, err := host.HoldDir(dir)
	if errors.Is(err, host.ErrHeld) {
		return fmt.Errorf("%w; each satellite needs its own WIN4_STATE_DIR", err)
	}
	if err != nil {
		return err
	}
	defer held.Close()
	cfg, err := configure(ctx, v, dir, version, log)
	if err != nil {
		return err
	}
	if cfg.Local, err = session.Listen(socket); err != nil {
		return err
	}
	s, err := New(cfg)
	if err != nil {
		return err
	}
	log.Info().Int("pid", os.Getpid()).Str("socket", socket).Str("master", cfg.Session.Masters).Str("accelerator", cfg.Facts.Accelerator).
		Bool("as_root", cfg.Facts.AsRoot).Str("version", version).Msg("satellite started")
	manager.Ready()
	context.AfterFunc(ctx, manager.Stopping)
	go manager.Watch(ctx, s.alive)
	err = s.Run(ctx)
	if s.session.Leased() {
		log.Info().Msg("satellite ended; desktops run on until their lease is over")
	} else {
		log.Info().Msg("satellite ended; desktops run on")
	}
	return err
}

// configure puts together what the satellite needs from settings and computer.
func configure(ctx context.Context, v *settings.Values, dir, version string, log zerolog.Logger) (Config, error) {
	keys := host.PKI(v)
	creds, err := wire.Load(keys, wire.Satellite)
	if err != nil {
		return Config{}, err
	}
	why, err := barred(dir, creds.Identity)
	if err != nil {
		return Config{}, err
	}
	go creds.Remind(ctx, func(w string) { log.Warn().Msg(w) })
	find := address.New(v)
	masters, err := find.Masters()
	if err != nil {
		return Config{}, err
	}
	hostLog := log.With().Str("part", "host").Logger()
	trust := host.NewTrust(host.TrustConfig{Dir: keys, Credentials: creds, Log: hostLog,
		SSH: &host.SSH{Dir: v.String(settings.SSHDir), On: v.Bool(settings.SSHKeys), Name: creds.Identity.Name}})
	renewer, err := host.NewRenewer(host.RenewerConfig{Credentials: creds, Masters: masters, Install: trust.Install, Log: hostLog})
	if err != nil {
		return Config{}, err
	}
	peer := host.NewPeer(host.PeerConfig{Credentials: creds, Listen: find.Peers, Version: version, Trust: trust.Version, Locks: host.NewLockTrial(v), Log: hostLog,
		Only: func(l net.Listener, by []string) net.Listener {
			return find.Only(l, func(from, over string) {
				hostLog.Warn().Str("from", from).Str("interface", over).Strs("settings", by).Msg("a connection over another network than that of the settings is refused")
			}, by...)
		},
		May: func(who wire.Identity) (bool, string) {
			return host.Allowed(v.Bool(settings.Relocation), v.Words(settings.RelocationHosts), who.Name, trust.Member(who.ID))
		}})
	asRoot := os.Geteuid() == 0
	prepared := filepath.Join(dir, "prepared")
	if err := os.MkdirAll(prepared, 0o700); err != nil {
		return Config{}, fmt.Errorf("directory of prepared overlays: %w", err)
	}
	driver, err := qemu.New(qemu.Config{Binary: v.String(settings.QEMU), Accel: v.String(settings.Accel), Network: v.String(settings.Network),
		AsRoot: asRoot, PreparedDir: prepared, Log: log})
	if err != nil {
		return Config{}, err
	}
	sampler := load.New(v.String(settings.SnapDir), homeRoot(v))
	facts, err := sampler.Facts()
	if err != nil {
		log.Warn().Err(err).Msg("not everything about this computer could be found out")
	}
	probe := driver.Probe(ctx)
	info := facts.Proto()
	info.Accelerator, info.AcceleratorWhy, info.Qemu = probe.Accel, probe.Why, probe.Version
	info.Problems = problems(v.String(settings.SnapDir), probe.Problems)
	info.MaxSessions, info.AsRoot = uint32(v.Int(settings.MaxSessions)), asRoot
	info.SnapReserveBytes = uint64(v.MiB(settings.SnapReserve)) << 20
	if v.String(settings.SnapDir) == "" {
		info.SnapKind = string(load.Network)
		log.Warn().Msg("WIN4_SNAP_DIR is not set: what desktops write goes to the users' homes, usually on network storage and slower")
	} else if facts.SnapKind != load.Local {
		log.Warn().Str("dir", facts.SnapDir).Str("kind", string(facts.SnapKind)).Msg("the snap directory is not on a local disk: desktops are slower, or take memory")
	}
	for _, p := range info.Problems {
		log.Error().Msg("this computer cannot run desktops: " + p)
	}
	journal, err := session.JournalName(dir)
	if err != nil {
		return Config{}, err
	}
	keeper, err := guard.NewKeeper(dir, journal, log.With().Str("part", "guard").Logger())
	if err != nil {
		return Config{}, err
	}
	public, remarks, err := find.Public(ctx, facts.Hostname)
	if err != nil {
		return Config{}, err
	}
	// Desktops must not wait for the network; a mistake is told at once.
	if _, err := find.Peers(ctx); err != nil && !errors.Is(err, address.ErrNotYet) {
		return Config{}, err
	}
	for _, r := range remarks {
		log.Warn().Msg(r)
	}
	l := desktop.Limits{StartTimeout: v.Duration(settings.StartTimeout), HungAfter: v.Duration(settings.HungAfter)}
	return Config{
		Accounts: accounts{account.New(v.String(settings.PasswdFile))},
		Masters:  masters, Dial: wire.DialOptions(creds), Facts: info, Address: public, Trust: trust, Peer: peer, Version: version,
		Instance: rand.Text(), Log: log, Guard: keeper.Run, Checks: checks(v, creds, version, driver, log), Barred: why,
		Renew: renewer.Run, Soon: renewer.Soon,
		Revoked: func(why string) error { return giveUp(dir, creds.Identity, why, log) },
		Left: func() {
			if left, err := guarded(dir, journal); err == nil && len(left) == 0 {
				keeper.Leave()
			}
		},
		Session: session.Config{
			Driver: driver, StateDir: dir, SnapDir: v.String(settings.SnapDir), DesktopName: v.String(settings.DesktopName),
			Cluster: creds.Identity.Cluster, Masters: strings.Join(masters, ", "),
			MemoryMax: v.MiB(settings.MemoryMax), CPUsMax: v.Int(settings.CPUsMax),
			Limits: l, MasterLost: v.Duration(settings.MasterLost), Standalone: v.Bool(settings.StandaloneLogin),
			PingEvery: pingEvery(l), Guard: keeper, Log: log.With().Str("part", "session").Logger(),
			Sample: func() *pb.Load {
				sample, err := sampler.Sample(time.Now())
				if err != nil {
					log.Debug().Err(err).Msg("load sample")
				}
				return sample.Proto()
			},
		},
	}, nil
}

// barred is what users are told where the cluster has given up this computer; nil:
// it has not.
func barred(dir string, who wire.Identity) (why, err error) {
	s, is, err := host.IsSuperseded(dir, who)
	if err != nil || !is {
		return nil, err
	}
	return s.Barred(), nil
}

// giveUp notes that the cluster has given up this computer.
func giveUp(dir string, who wire.Identity, why string, log zerolog.Logger) error {
	s, err := host.Supersede(dir, who, why, time.Now())
	if err != nil {
		log.Error().Err(err).Msg("that the cluster has given up this computer could not be noted: it asks again after a restart")
	}
	return s.Barred()
}

// homeRoot is a directory on the file system where the homes are.
func homeRoot(v *settings.Values) string {
	if f := v.String(settings.PasswdFile); f != "" {
		return filepath.Dir(f)
	}
	return "/home"
}

// accounts adapts the account database.
type accounts struct{ db *account.Lookup }

func (a accounts) ByName(_ context.Context, name string) (desktop.User, error) {
	return user(a.db.ByName(name))
}

func (a accounts) ByUID(_ context.Context, uid uint32) (desktop.User, error) {
	return user(a.db.ByUID(uid))
}

func user(u account.User, err error) (desktop.User, error) {
	return desktop.User{Name: u.Name, UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}, err
}

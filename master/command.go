package master

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"

	"verdecmd/master/cluster"
	"verdecmd/master/host"
	"verdecmd/master/pki"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/simulated"
	"verdecmd/proto/wire"
	"verdecmd/settings"
	"verdecmd/settings/account"
	"verdecmd/settings/address"
	"verdecmd/settings/service"
)

// resync is how long a new master waits for the satellites it knew.
const resync = 15 * time.Second

// limits of the port for satellites, RELIABILITY 1.2.
const (
	maxConnections = 16384
	maxPerAddress  = 32 // of connections that have not proved who they are

	// Files for everything else: the database, administrators.
	keptFiles = 512
)

// connections is how many the port may have open where the program may have so
// many files open: strangers must not take the last one from the database or
// the administrator.
func connections(files uint64) int {
	return int(min(maxConnections, max(files-min(files, keptFiles), files/2)))
}

// Commands returns master, init, enrol, fingerprint and simulate. log makes the daemon's
// logger for a level, satellite the program of a simulated satellite.
func Commands(version string, log func(level string) zerolog.Logger, satellite func(simulated.Config) simulated.Satellite) []*cobra.Command {
	var path, profile, restore string
	var service, replace bool
	c := &cobra.Command{
		Use:   "master",
		Short: "Run the cluster master on this computer",
		Long: `Run the cluster master: the daemon that decides where desktops run.

It listens for satellites on WIN4_VERDE_LISTEN (TLS, certificates of the cluster
only) and for administrators on the Unix socket VERDECMD_SOCKET; talk to it with
"verdecmd monitor". Run "verdecmd init" once before. Started by hand it works in
the foreground and logs to standard error; SIGTERM ends it in order, SIGHUP
reads the settings again. Desktops run on while the master is away.

A damaged database is never used: the master does not start and says which copy
is the newest good one. Copies are made at each start and every hour, below
"copies" beside the database. --restore puts one in the place of the damaged
file, keeps that file, and starts the master. What administrators have changed
since the copy was made is lost; running desktops go on and are learned again
from their servers. A database that is not damaged is left alone, unless a copy
is named and --replace is given.`,
		Example: "  verdecmd init && verdecmd master\n  verdecmd master --settings ./settings.global\n  verdecmd master --restore\n  verdecmd master --restore=/root/monday.db --replace",
		Args: func(cmd *cobra.Command, args []string) error {
			if restore == newestCopy && len(args) > 0 {
				return fmt.Errorf("a copy is named with an equals sign: --restore=%s", args[0])
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if profile != "" {
				end, err := startProfile(profile)
				if err != nil {
					return err
				}
				defer end()
			}
			if replace && (restore == "" || restore == newestCopy) {
				return errors.New("--replace needs the copy that is to be used: --restore=FILE")
			}
			return serve(cmd.Context(), options{path, service, restore, replace}, version, log)
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	c.Flags().StringVar(&profile, "profile", "", "write profiles into this `directory` (for developers)")
	c.Flags().Lookup("profile").Hidden = true
	c.Flags().BoolVar(&service, "service", false, "end at once, with success, where WIN4_VERDE_CLUSTER_MASTER is not yes (for the service manager)")
	c.Flags().StringVar(&restore, "restore", "", "put a copy of the database in the place of a damaged one: the newest good copy, or `FILE`")
	c.Flags().Lookup("restore").NoOptDefVal = newestCopy
	c.Flags().BoolVar(&replace, "replace", false, "with --restore=FILE: also where the database is not damaged (it is kept under another name)")
	return append([]*cobra.Command{c, simulateCommand(satellite)}, host.Commands()...)
}

// options are the flags of the command.
type options struct {
	settings string
	service  bool
	restore  string // newestCopy, a file, or nothing
	replace  bool
}

// serve runs the master until a signal ends it.
func serve(ctx context.Context, o options, version string, newLog func(string) zerolog.Logger) error {
	v, err := settings.Load(o.settings)
	if err != nil {
		return err
	}
	level := NewLevel(v.String(settings.LogLevel))
	log := newLog("debug").Hook(level)
	grpclog.SetLoggerV2(wire.GRPCLogger(log)) // with the level
	for _, w := range v.Warnings() {
		log.Warn().Msg(w)
	}
	manager, err := service.Connect()
	if err != nil {
		return err
	}
	if o.service && !v.Bool(settings.ClusterMaster) {
		manager.Ready() // to end before that is a failure for a service manager
		manager.Stopping()
		log.Info().Str("settings", v.Path()).Msg("WIN4_VERDE_CLUSTER_MASTER is not yes: this computer is not the master, nothing to do")
		return nil
	}
	// The umask keeps every file and socket from being wider for a moment.
	syscall.Umask(0o077)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	cfg, closeAll, err := open(ctx, v, o, version, log)
	if err != nil {
		return err
	}
	defer closeAll()
	cfg.Settings, cfg.Level = v, level
	m, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	log.Info().Int("pid", os.Getpid()).Str("socket", v.String(settings.Socket)).Str("listen", cfg.Link.Addr().String()).
		Uint64("epoch", uint64(cfg.Epoch)).Str("version", version).Msg("cluster master started")

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				if v, err := settings.Load(o.settings); err != nil {
					log.Error().Err(err).Msg("settings were not taken over")
				} else {
					m.Apply(v)
					log.Info().Msg("settings read again")
				}
			}
		}
	}()
	manager.Ready()
	context.AfterFunc(ctx, manager.Stopping)
	go manager.Watch(ctx, m.alive)
	err = m.Run(ctx)
	log.Info().Msg("cluster master ended")
	return err
}

// open opens everything that the master needs from outside.
func open(ctx context.Context, v *settings.Values, o options, version string, log zerolog.Logger) (cfg Config, closeAll func(), err error) {
	var closers []func()
	shut := func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	defer func() {
		if err != nil {
			shut()
		}
	}()
	lock, err := monitor.Lock(settings.LockFile(v))
	if errors.Is(err, monitor.ErrLocked) {
		return cfg, nil, fmt.Errorf("another master runs already on this computer: %w", err)
	}
	if err != nil {
		return cfg, nil, err
	}
	closers = append(closers, lock)

	if renewed, err := host.RenewOwn(settings.PKI(v), time.Now()); err != nil {
		log.Error().Err(err).Msg("the master's own certificate cannot be made anew")
	} else if renewed {
		log.Info().Msg("the master's own certificate was made anew")
	}
	creds, err := wire.Load(settings.PKI(v), wire.Master)
	if err != nil {
		return cfg, nil, err
	}
	if _, err := pki.Issuer(settings.PKI(v)); errors.Is(err, fs.ErrNotExist) {
		log.Warn().Str("pki", settings.PKI(v)).Msg("the key of the cluster's authority is not here: by this master no host can be registered, no certificate renewed, and satellites do not learn who was revoked")
	} else if err != nil {
		return cfg, nil, err
	}
	go creds.Remind(ctx, func(w string) { log.Warn().Msg(w) })
	dir := settings.MasterDir(v)
	if err := store.MakeDir(dir); err != nil {
		return cfg, nil, fmt.Errorf("directory of the database: %w", err)
	}
	copies := filepath.Join(dir, "copies")
	path := filepath.Join(dir, "verdecmd.db")
	if o.restore != "" {
		if err := restoreDatabase(path, copies, o.restore, o.replace, log); err != nil {
			return cfg, nil, err
		}
	}
	db, err := store.Open(path, copies)
	if errors.Is(err, store.ErrDamaged) && o.settings != settings.DefaultPath {
		err = fmt.Errorf("%w. With these settings: verdecmd master --settings %s --restore", err, o.settings)
	}
	if err != nil {
		return cfg, nil, err
	}
	closers = append(closers, func() { db.Close() })

	find := address.New(v)
	listen, remarks, err := find.Master(ctx)
	if err != nil {
		return cfg, nil, err
	}
	for _, r := range remarks {
		log.Warn().Str("listen", listen).Msg(r)
	}
	link, err := net.Listen("tcp", listen)
	if err != nil {
		return cfg, nil, fmt.Errorf("cannot listen for satellites: %w; see %s (%s)", err, settings.Listen, v.Where(settings.Listen))
	}
	closers = append(closers, func() { link.Close() })
	link = find.Only(link, func(from, over string) {
		log.Warn().Str("from", from).Str("interface", over).Msg("a connection over another network than that of " + settings.Listen + " is refused")
	}, settings.Listen)
	names := directory{system: account.New("")}
	admin, err := monitor.Listen(monitor.ListenConfig{
		Directory: names,
		Path:      v.String(settings.Socket),
		Owner:     v.String(settings.ConnUID), OwnerSource: settings.ConnUID + ", " + v.Where(settings.ConnUID),
		Group: v.String(settings.ConnGID), GroupSource: settings.ConnGID + ", " + v.Where(settings.ConnGID),
	})
	if err != nil {
		return cfg, nil, err
	}
	closers = append(closers, func() { admin.Close() })

	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	var files unix.Rlimit // Go has raised the soft limit to the hard one
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return cfg, nil, fmt.Errorf("limit of open files: %w", err)
	}
	total := connections(files.Cur)
	if total < maxConnections {
		log.Info().Uint64("files", files.Cur).Int("connections", total).Msg("the limit of open files bounds how many satellites may connect; LimitNOFILE or ulimit -n raises it")
	}
	report := func(r wire.Report) { log.Warn().Interface("report", r).Msg("a connection was refused or failed") }
	cfg = Config{
		Monitor: admin, Link: wire.Limit(link, wire.Bounds{Total: total, PerAddress: maxPerAddress, Report: report}), GRPC: wire.ServerOptions(creds, report),
		Store: db, Epoch: db.Epoch(), Copies: store.Copies{Store: db, Dir: copies, Log: part(log, "store")}, Accounts: accounts{account.New(v.String(settings.PasswdFile))},
		Admin: monitor.Config{
			Tuning: tuning(v), Log: log, Version: version, Directory: names,
		},
		Limits: limits(v), ShutdownWait: v.Duration(settings.ShutdownWait), LogoffWait: v.Duration(settings.LogoffWait),
		Credentials: creds, Rejoin: time.Duration(v.Int(settings.RejoinDays)) * 24 * time.Hour,
		PKI: settings.PKI(v), Version: version, Host: name, Log: log,
		Space: func() (uint64, error) { return freeSpace(dir) },
	}
	if cfg.Limits.Lost == cluster.Lease {
		cfg.LeaseSelf = v.Duration(settings.LeaseSelf)
	}
	return cfg, shut, nil
}

func limits(v *settings.Values) cluster.Limits {
	l := cluster.Limits{
		Interval: v.Duration(settings.StatsInterval), ReservationTimeout: v.Duration(settings.ReservationTime),
		Resync: resync, LeaseReplace: v.Duration(settings.LeaseReplace),
	}
	if v.String(settings.LostSessions) == "lease" {
		l.Lost = cluster.Lease
	}
	return l
}

// accounts adapts the account database.
type accounts struct{ db *account.Lookup }

func (a accounts) Find(_ context.Context, name string, byUID bool) (string, uint32, bool) {
	var u account.User
	var err error
	if byUID {
		n, perr := strconv.ParseUint(name, 10, 32)
		if perr != nil {
			return "", 0, false
		}
		u, err = a.db.ByUID(uint32(n))
	} else {
		u, err = a.db.ByName(name)
	}
	return u.Name, u.UID, err == nil
}

func (a accounts) Names(prefix string, limit int) []string {
	names, err := a.db.Names(prefix, limit)
	if err != nil {
		return nil
	}
	return names
}

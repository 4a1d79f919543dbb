// Package qemu runs desktops as QEMU processes.
//
// A desktop is a process of its own session, with its user's identity, no
// capabilities and a system call filter. The satellite holds nothing of it but
// a pidfd and connections to Unix sockets in the session's directory, so it may
// die and find the desktop again. That directory, everything that QEMU answers
// and everything that a guest agent answers may be hostile: files are opened
// with the user's rights and without following links, reading is bounded in
// size and time, and a process is signalled by its pidfd and never by its number.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"verdecmd/proto/planted"
	"verdecmd/satellite/desktop"
)

var (
	sessionName = regexp.MustCompile(`^s[0-9]{1,18}$`)
	uuidText    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	macText     = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
	escapes     = regexp.MustCompile(`\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)`)
)

// Config is everything that a Driver needs from outside.
type Config struct {
	Binary    string // default qemu-system-x86_64
	ImageTool string // default qemu-img
	Accel     string // WIN4_ACCEL: kvm, auto, tcg; default kvm
	CPU       string // QEMU's -cpu; default qemu64 for TCG, Nehalem for KVM: both can migrate
	Network   string // WIN4_NETWORK: user, bridge:NAME; default user

	// AsRoot: the satellite is root and desktops run as their users. Else
	// they run as the caller, whatever Spec.User says.
	AsRoot bool

	PreparedDir string // for empty overlays, the satellite's own; required
	Log         zerolog.Logger
}

// Driver starts QEMU processes and finds them again. Its methods may be called
// from any goroutine.
type Driver struct {
	cfg    Config
	log    zerolog.Logger
	bridge string // empty: user-mode network
	host   host
	cgroup cgroups

	preparing sync.Mutex // one overlay is prepared at a time
	noCgroup  sync.Once  // said once
}

var _ desktop.Driver = (*Driver)(nil)

// New checks the configuration. It does not look at the machine, see Probe.
func New(cfg Config) (*Driver, error) {
	def := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	def(&cfg.Binary, "qemu-system-x86_64")
	def(&cfg.ImageTool, "qemu-img")
	def(&cfg.Accel, "kvm")
	def(&cfg.Network, "user")
	d := &Driver{cfg: cfg, log: cfg.Log.With().Str("part", "qemu").Logger(), host: realHost()}
	switch cfg.Accel {
	case "kvm", "auto", "tcg":
	default:
		return nil, fmt.Errorf("accelerator %q: want kvm, auto or tcg", cfg.Accel)
	}
	if bridge, ok := strings.CutPrefix(cfg.Network, "bridge:"); ok && bridge != "" {
		d.bridge = bridge
	} else if cfg.Network != "user" {
		return nil, fmt.Errorf("network %q: want user or bridge:NAME", cfg.Network)
	}
	if d.bridge != "" && !cfg.AsRoot {
		return nil, fmt.Errorf("network %q: only root can connect a desktop to a bridge", cfg.Network)
	}
	if cfg.PreparedDir == "" {
		return nil, errors.New("no directory for prepared overlays")
	}
	if mounts, err := os.ReadFile("/proc/mounts"); err == nil {
		d.cgroup.root = findCgroup2(string(mounts))
	}
	return d, nil
}

// as is who QEMU runs as.
func (d *Driver) as(u desktop.User) (desktop.User, error) {
	if d.cfg.AsRoot {
		if u.UID == 0 {
			return u, fmt.Errorf("desktops do not run as root: log in as another user than %q", u.Name)
		}
		return u, nil
	}
	groups, err := os.Getgroups()
	if err != nil {
		return u, err
	}
	self := desktop.User{Name: u.Name, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Home: u.Home}
	for _, g := range groups {
		self.Groups = append(self.Groups, uint32(g))
	}
	return self, nil
}

// cpu is the processor that guests see.
func (d *Driver) cpu(accel string) string {
	switch {
	case d.cfg.CPU != "":
		return d.cfg.CPU
	case accel == "kvm":
		return "Nehalem"
	}
	return "qemu64"
}

// adoptTimeout is how long a running desktop may take to answer before it is
// adopted as one that hangs.
const adoptTimeout = 3 * time.Second

// Start implements desktop.Driver.
func (d *Driver) Start(ctx context.Context, s desktop.Spec) (_ desktop.Desktop, err error) {
	if err := checkSpec(s); err != nil {
		return nil, err
	}
	user, err := d.as(s.User)
	if err != nil {
		return nil, err
	}
	path, err := exec.LookPath(d.cfg.Binary)
	if err != nil {
		return nil, d.missing(err)
	}
	var opt options
	if opt.accel, _, err = d.accelerator(); err != nil {
		return nil, err
	}
	opt.cpu = d.cpu(opt.accel)
	l := launch{path: path, dir: s.Dir}
	if d.cfg.AsRoot {
		l.user = &user
	}
	if opt.accel == "kvm" {
		group, err := d.host.kvmGroup()
		if err != nil {
			return nil, err
		}
		l.groups = append(l.groups, group)
	}

	prepared := ""
	if s.Image.Disk != "" {
		if prepared, err = d.prepare(ctx, s.Image.Disk, user); err != nil {
			return nil, err
		}
	}
	dir, err := makeDir(s.Dir, user, d.cfg.AsRoot)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.remove())
		}
	}()
	if prepared != "" {
		if err := copyOverlay(prepared, dir); err != nil {
			return nil, err
		}
	}
	if l.stderr, err = dir.create(stderrFile, unix.O_APPEND); err != nil {
		return nil, noSpace(err, s.Dir, overlaySize)
	}
	defer l.stderr.Close()
	if d.bridge != "" {
		tap, err := openTap(d.bridge)
		if err != nil {
			return nil, err
		}
		defer tap.Close()
		// Its only way out is the tap.
		l.extra, opt.tapFD, l.newNet = []*os.File{tap}, 3, true
	}
	if l.cgroup = d.group(s); l.cgroup != nil {
		defer l.cgroup.Close()
	}
	s.User = user
	l.args = arguments(s, opt)
	proc, pidfd, err := l.start()
	if err != nil {
		d.cgroup.remove(s.Session)
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return d.started(ctx, s, dir, proc, pidfd)
}

func (d *Driver) running(s desktop.Spec, dir *sessionDir) *running {
	return &running{driver: d, log: d.log.With().Str("session", s.Session).Logger(), spec: s, dir: dir,
		events: make(chan desktop.Event, 3), ended: make(chan struct{}), status: make(chan string, 1), connSem: make(chan struct{}, 1)}
}

// started waits until the new process answers. It owns proc and pidfd.
func (d *Driver) started(ctx context.Context, s desktop.Spec, dir *sessionDir, proc *os.Process, pidfd *os.File) (desktop.Desktop, error) {
	r := d.running(s, dir)
	r.pidfd = pidfd
	go func() { // reaps, also after Release
		st, err := proc.Wait()
		if err != nil {
			r.status <- err.Error()
			return
		}
		r.status <- st.String()
	}()
	st, err := readStat(proc.Pid)
	r.proc = desktop.Process{PID: proc.Pid, StartTime: st.startTime, UUID: s.UUID}
	r.watch()
	if err == nil {
		err = r.firstAnswer(ctx)
	}
	if err == nil {
		r.begin()
		return r, nil
	}
	if errors.Is(err, errClosed) {
		r.waitEnd(time.Second) // it is ending by itself and says why
	}
	// A start has failed only when its process is gone: until then it is one
	// that runs, be it stuck in the kernel.
	for kerr := r.Kill(); !r.waitEnd(5 * time.Second); kerr = r.Kill() {
		r.log.Error().AnErr("start", err).AnErr("kill", kerr).Int("pid", proc.Pid).Msg("the process of a failed start does not end")
	}
	if text := words(r.stderr); text != "" {
		err = startError(text, s.Dir)
	}
	return nil, err
}

// waitEnd returns whether the end has come.
func (r *running) waitEnd(limit time.Duration) bool {
	select {
	case <-r.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// firstAnswer connects to QMP as soon as there is something to connect to.
func (r *running) firstAnswer(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	conn, peer, err := r.dir.dialWhile(qmpSocket, func(error) bool {
		select {
		case <-tick.C:
			return true
		case <-r.ctx.Done(): // the process has ended
		case <-ctx.Done():
		}
		return false
	})
	switch {
	case err == nil:
		return r.connect(ctx, conn, peer)
	case ctx.Err() != nil:
		return fmt.Errorf("QEMU did not answer: %w", ctx.Err())
	}
	if !r.waitEnd(time.Second) {
		return err
	}
	return fmt.Errorf("QEMU ended at once: %s", r.detail)
}

// startError finds the known kinds in what QEMU said.
func startError(text, dir string) error {
	kinds := []struct {
		text string
		err  error
	}{
		{`Failed to get "write" lock`, desktop.ErrInUse},
		{`Failed to get shared "write" lock`, desktop.ErrInUse},
		{"No space left on device", desktop.ErrNoSpace},
		{"failed to initialize kvm", desktop.ErrNoAccel},
		{"Could not access KVM", desktop.ErrNoAccel},
		{"Could not open", desktop.ErrNoImage},
		{"could not load kernel", desktop.ErrNoImage},
		{"could not open kernel", desktop.ErrNoImage},
	}
	for _, k := range kinds {
		if !strings.Contains(text, k.text) {
			continue
		}
		if errors.Is(k.err, desktop.ErrNoSpace) {
			return fmt.Errorf("%w; QEMU: %s", noSpace(unix.ENOSPC, filepath.Dir(dir), overlaySize), text)
		}
		return fmt.Errorf("%w: QEMU: %s", k.err, text)
	}
	return fmt.Errorf("QEMU: %s", text)
}

// group makes the control group; nil where the machine offers none.
func (d *Driver) group(s desktop.Spec) *os.File {
	err := errors.New("no cgroup2 is mounted")
	if d.cgroup.root != "" && d.cfg.AsRoot {
		var f *os.File
		if f, err = d.cgroup.create(s); err == nil {
			return f
		}
	}
	d.noCgroup.Do(func() { d.log.Info().Err(err).Msg("desktops run without control group limits") })
	return nil
}

// Adopt implements desktop.Driver. A Process without a PID is searched: the
// satellite ended between the start and its record.
func (d *Driver) Adopt(ctx context.Context, s desktop.Spec, p desktop.Process) (_ desktop.Desktop, err error) {
	if err := checkSpec(s); err != nil {
		return nil, err
	}
	if s.User, err = d.as(s.User); err != nil {
		return nil, err
	}
	unsure := func(err error) error {
		return fmt.Errorf("session %s: whether its desktop runs cannot be found out: %w", s.Session, err)
	}
	// The process comes first. Only its proven absence is ErrGone: a desktop
	// that is called gone by mistake gets a second one beside it.
	if p.PID <= 0 {
		pid, err := find(s.UUID, s.User)
		if err != nil {
			return nil, unsure(err)
		}
		p = desktop.Process{PID: pid}
	}
	r := d.running(s, nil)
	if err := r.identify(p); err != nil {
		if r.pidfd != nil {
			r.pidfd.Close()
		}
		if !errors.Is(err, desktop.ErrGone) {
			return nil, unsure(err)
		}
		return nil, fmt.Errorf("session %s: %w", s.Session, err)
	}
	// Nothing in the directory is needed to end the desktop, and it may be on a
	// dead file server, or its user may have removed it.
	r.dir = &sessionDir{path: s.Dir, user: s.User}
	r.status <- "" // its parent learns how it ended, not we
	r.watch()
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	greeted := make(chan error, 1)
	r.background(func() { greeted <- r.greet(ctx) })
	select {
	case err = <-greeted:
	case <-ctx.Done():
		err = ctx.Err()
	}
	switch {
	case errors.Is(err, errOther):
		r.Release()
		return nil, fmt.Errorf("session %s: %w: %v", s.Session, desktop.ErrGone, err)
	case err != nil:
		// It is the right process but does not answer. To call it gone would
		// mean a second desktop beside it; Ping will tell that it hangs.
		r.log.Warn().Err(err).Int("pid", p.PID).Msg("adopted a desktop that does not answer")
	}
	r.begin()
	return r, nil
}

// errOther: QEMU answers, and is the one of another session.
var errOther = errors.New("another desktop")

// greet makes the first QMP connection to an adopted process.
func (r *running) greet(ctx context.Context) error {
	conn, peer, err := r.dir.dialPatiently(qmpSocket, time.Second)
	if err != nil {
		return err
	}
	if err := r.connect(ctx, conn, peer); err != nil {
		return err
	}
	var id struct {
		UUID string `json:"UUID"`
	}
	if err := r.call(ctx, "query-uuid", nil, &id); err != nil {
		return err
	}
	if id.UUID != r.spec.UUID {
		return fmt.Errorf("%w: process %d answers with UUID %.40q", errOther, r.proc.PID, id.UUID)
	}
	return nil
}

// identify opens the process and makes sure that it is the one. ErrGone means
// that it is proven not to be.
func (r *running) identify(p desktop.Process) error {
	if p.PID <= 0 {
		return fmt.Errorf("%w: no process with its UUID runs", desktop.ErrGone)
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, ended(err))
	}
	r.pidfd = newPidfd(fd)
	// From here on the number means this process, or nothing.
	st, err := readStat(p.PID)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	is, err := isDesktop(p.PID, r.spec.UUID, r.spec.User)
	switch {
	case err != nil:
		return fmt.Errorf("process %d: %w", p.PID, err)
	case planted.Bug("pid-alone"):
	case p.StartTime != 0 && st.startTime != p.StartTime:
		return fmt.Errorf("%w: process %d is another one: it was started at tick %d, not %d", desktop.ErrGone, p.PID, st.startTime, p.StartTime)
	case !is:
		return fmt.Errorf("%w: process %d is not QEMU with UUID %s of user %s", desktop.ErrGone, p.PID, r.spec.UUID, r.spec.User.Name)
	case exited(fd):
		return fmt.Errorf("%w: process %d has just ended", desktop.ErrGone, p.PID)
	}
	r.proc = desktop.Process{PID: p.PID, StartTime: st.startTime, UUID: r.spec.UUID}
	return nil
}

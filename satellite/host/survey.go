package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"verdecmd/satellite/load"
	"verdecmd/settings"
	"verdecmd/settings/address"
)

// survey measures what needs no other host.
func (d *doctor) survey(ctx context.Context) {
	v, m := d.cfg.Settings, &d.m
	s := &m.Survey
	s.Version, s.Settings = d.cfg.Version, settings.Same(v)
	if bridge, ok := strings.CutPrefix(v.String(settings.Network), "bridge:"); ok {
		m.Network = bridge
	}
	m.Self = uint32(os.Geteuid())
	facts, _ := load.New("", "/").Facts() // what is missing stays empty
	s.Hostname, s.Arch, s.BootID = facts.Hostname, facts.Arch, facts.BootID
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		m.Files = files.Cur
	}
	masters := d.masters()
	r := d.cfg.resolver()

	var wg sync.WaitGroup
	if d.cfg.Probe != nil && (m.Satellite || !m.Master) {
		wg.Go(func() {
			probe, ok := within(ctx, d.measurer, checkAccel, askFor, func(ctx context.Context) (Probe, error) { p := d.cfg.Probe(ctx); return p, ctx.Err() })
			if ok {
				m.Probe = &probe
			}
		})
	}
	wg.Go(func() {
		m.Names, _ = within(ctx, d.measurer, checkNames, askFor, func(ctx context.Context) (*Names, error) { return measureNames(ctx, r, s.Hostname, masters) })
		if m.Satellite {
			m.Address, _ = within(ctx, d.measurer, checkAddress, askFor, func(ctx context.Context) (*Address, error) {
				return measureAddress(ctx, r, address.New(v), s.Hostname)
			})
		}
		if m.Address != nil {
			s.PublicAddress, s.PublicIPs, s.PeerAddress = m.Address.Text, m.Address.IPs, m.Address.Peer
		}
		m.Cards, _ = within(ctx, d.measurer, checkSpeed, askFor, func(context.Context) ([]Card, error) {
			return measureCards("/sys", m.Names.masters(), s.PublicIPs)
		})
	})
	if m.Satellite || !m.Master {
		wg.Go(func() { d.homes(ctx) })
	}
	if m.Satellite {
		wg.Go(func() {
			m.Snap, _ = within(ctx, d.measurer, checkSnap, askFor, func(context.Context) (*Snap, error) { return measureSnap(v), nil })
		})
	}
	wg.Go(func() {
		s.Bridges, _ = within(ctx, d.measurer, checkBridges, askFor, func(context.Context) ([]Bridge, error) { return measureBridges() })
	})
	wg.Go(func() {
		m.Keys, _ = within(ctx, d.measurer, checkKeys, askFor, func(context.Context) ([]Secret, error) { return measureKeys(v) })
	})
	wg.Wait()
	s.NowMillis = d.cfg.now().UnixMilli()
}

// homes measures the file system of the homes, who has one, and its locks.
func (d *doctor) homes(ctx context.Context) {
	v, m := d.cfg.Settings, &d.m
	root := "/home"
	roots := []string{root}
	if f := v.String(settings.PasswdFile); f != "" {
		root, roots = filepath.Dir(f), nil
	}
	look := func(dir string, one bool) bool {
		home, ok := within(ctx, d.measurer, checkHomes, askFor, func(context.Context) (Mount, error) { return measureHome(d.cfg.mountinfo(), dir, one) })
		if ok {
			m.Survey.Home = home
		}
		return ok
	}
	if !look(root, false) { // who asks about the homes there would wait too
		d.measurer.fail(checkAccounts, "not looked at, since "+root+" cannot be")
		d.measurer.fail(checkLocks, "not looked at, since "+root+" cannot be")
		return
	}
	m.People, _ = within(ctx, d.measurer, checkAccounts, manyFor, func(ctx context.Context) (*People, error) {
		return measurePeople(ctx, d.cfg.accounts(), v.String(settings.DesktopName), roots)
	})
	var homes []Home
	if m.People != nil {
		m.Survey.Accounts, homes = m.People.surveyed(), m.People.Homes
	}
	if len(homes) > 0 {
		root = filepath.Dir(homes[0].Dir)
		if !look(homes[0].Dir, true) {
			d.measurer.fail(checkLocks, "not looked at, since "+homes[0].Dir+" cannot be")
			return
		}
	}
	t, ok := within(ctx, d.measurer, checkLocks, askFor, func(ctx context.Context) (tried, error) { return tryLocks(ctx, d.cfg.Holder, root, homes) })
	if ok {
		d.held, m.Locks = t.held, &t.locks
	}
}

// tried is what came of trying locks; the file is still locked.
type tried struct {
	held  *held // nil: there is none
	locks Locks
}

func (t tried) close() {
	if t.held != nil {
		t.held.close()
	}
}

// tryLocks tries whether a process is refused a lock that another one holds.
func tryLocks(ctx context.Context, holder []string, dir string, homes []Home) (t tried, err error) {
	t.locks.Dir = dir
	t.held, err = hold(ctx, holder, dir, homes)
	if err == nil {
		t.locks.Dir = t.held.dir
		t.locks.Excludes, err = t.held.try()
	}
	switch {
	case err != nil && ctx.Err() != nil: // the holder was ended since time was up: no answer, and no fault of the locks
		t.close()
		return tried{}, ctx.Err()
	case errors.Is(err, errNoLocks):
		t.locks.None = err.Error()
	case err != nil:
		t.locks.Error = err.Error()
	}
	return t, nil
}

func (n *Names) masters() (out []string) {
	if n == nil {
		return nil
	}
	for _, x := range n.Masters {
		out = append(out, x.IPs...)
	}
	return out
}

func measureSnap(v *settings.Values) *Snap {
	s := &Snap{Dir: v.String(settings.SnapDir), Reserve: uint64(v.MiB(settings.SnapReserve)) << 20}
	if s.Dir == "" {
		return s
	}
	free, kind, err := load.Space(s.Dir)
	s.Free, s.Kind = free, string(kind)
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

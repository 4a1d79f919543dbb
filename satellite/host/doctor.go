package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"verdecmd/proto/wire"
	"verdecmd/settings"
	"verdecmd/settings/account"
	"verdecmd/settings/address"
)

// DoctorConfig is what the checks of a host need from outside.
type DoctorConfig struct {
	Settings *settings.Values // required
	Version  string           // of this program; required
	// Credentials are the satellite's; nil: this computer has none, and no other
	// one is asked.
	Credentials *wire.Credentials
	// Unusable is why the credentials that there are cannot be used; nil: they
	// can, or there are none.
	Unusable error
	// NoMaster: the master is not asked, though there are credentials.
	NoMaster bool
	// HandIn lets the master keep the result and honour it. What went wrong with
	// that is then the error, beside the result.
	HandIn bool
	// Against are other hosts, beside those that the master tells.
	Against []Survey
	// Probe asks the hypervisor what it can do; nil: it is not asked.
	Probe func(context.Context) Probe
	// Progress is told what takes long. It is called by many goroutines. May be nil.
	Progress func(text string)
	// Holder is the command that holds a lock when the name of the file is
	// appended; required. See Self.
	Holder []string
	// Now is the clock; the default is the computer's.
	Now func() time.Time

	// What tests replace.
	Mountinfo string // default /proc/self/mountinfo
	Resolver  resolver
}

func (c *DoctorConfig) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *DoctorConfig) resolver() resolver {
	if c.Resolver != nil {
		return c.Resolver
	}
	return net.DefaultResolver
}

func (c *DoctorConfig) mountinfo() string {
	if c.Mountinfo != "" {
		return c.Mountinfo
	}
	return "/proc/self/mountinfo"
}

// Self is this program in its hidden role as the holder of a lock, for Holder.
// It is for programs that have this role: any other one would do again what it
// does.
func Self() []string { return []string{ownProgram, lockRole} }

func (c *DoctorConfig) accounts() accountsDB {
	return account.New(c.Settings.String(settings.PasswdFile))
}

// doctor is one round of checks.
type doctor struct {
	cfg      DoctorConfig
	measurer *measurer
	m        Measured
	held     *held // a file that is locked meanwhile; nil: none
}

// Doctor checks this host and compares it with others. It takes seconds; the
// error tells only what kept it from beginning, all else is a finding.
func Doctor(ctx context.Context, c DoctorConfig) (Result, error) {
	return examine(ctx, c, newMeasurer(), func(Result, told) bool { return c.HandIn }, nil)
}

// told is what the master has told beside the surveys.
type told struct {
	kept   time.Time // from when the result is that it keeps of this host
	others int       // hosts that this one was compared with
}

// examine is one round. wanted tells whether a result is to be handed in; handed
// is told from when it is for the master then, and may be nil.
func examine(ctx context.Context, c DoctorConfig, by *measurer, wanted func(Result, told) bool, handed func(Result, time.Time)) (Result, error) {
	if c.Settings == nil || c.Version == "" || len(c.Holder) == 0 {
		return Result{}, errors.New("the checks of a host need settings, version and the holder of a lock")
	}
	by.begin(c.Progress)
	d := &doctor{cfg: c, measurer: by}
	d.m.Master, d.m.Satellite = c.Settings.Bool(settings.ClusterMaster), c.Credentials != nil || c.Unusable != nil
	d.survey(ctx)
	defer func() {
		if d.held != nil {
			d.held.close()
		}
	}()
	if c.Unusable != nil && !c.NoMaster {
		by.fail(checkMaster, c.Unusable.Error())
	}
	others := c.Against
	var with *comparison
	if c.Credentials != nil && !c.NoMaster {
		var ok bool
		if with, ok = within(ctx, by, checkMaster, askFor, d.ask); ok {
			defer with.close()
			d.m.Answer, d.m.Survey.ServerID = &with.answer, with.own
			others = append(others[:len(others):len(others)], with.others...)
			d.peers(ctx, with)
		}
	}
	if p := d.m.People; p != nil {
		_, ok := within(ctx, by, checkAccounts, manyFor, func(context.Context) (struct{}, error) { return struct{}{}, p.known(c.accounts(), others) })
		if !ok {
			d.m.People = nil
		}
	}
	by.mu.Lock()
	d.m.Failed = maps.Clone(by.failed)
	by.mu.Unlock()
	r := Result{Findings: Check(d.m, others), Survey: d.m.Survey}
	if with == nil || !wanted(r, told{with.kept, len(with.others)}) {
		return r, nil
	}
	at, err := with.handIn(ctx, r, c.Version, c.now())
	if err != nil {
		return r, fmt.Errorf("handing the result in to the master: %w", err)
	}
	if handed != nil {
		handed(r, at)
	}
	return r, nil
}

// masters is where the master may be; none where nobody has said it.
func (d *doctor) masters() []string {
	all, err := address.New(d.cfg.Settings).Masters()
	if err != nil {
		return nil
	}
	return all
}

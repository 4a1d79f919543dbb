package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
	"verdecmd/settings"
)

// config is what of the settings is in force, and the way to change it.
type config struct {
	start *settings.Values // as read when the master started; nil: there is no file
	level *Level

	mu sync.Mutex // one change at a time
}

// secret stands for the value of a secret.
const secret = "***"

// Apply takes over what the file says now, as far as it can change while the
// master runs, and tells so in the log and as an event.
func (m *Master) Apply(v *settings.Values) {
	m.config.mu.Lock()
	defer m.config.mu.Unlock()
	m.apply(v)
	m.event("config.changed", "The settings were read again.")
}

// apply is Apply without the event; config.mu is held.
func (m *Master) apply(v *settings.Values) {
	m.SetLimits(limits(v))
	m.session.SetWaits(v.Duration(settings.ShutdownWait), v.Duration(settings.LogoffWait))
	m.tuner.Set(tuning(v))
	if m.config.level != nil {
		m.config.level.Set(v.String(settings.LogLevel))
	}
}

func tuning(v *settings.Values) monitor.Tuning {
	return monitor.Tuning{
		Levels: monitor.Levels{Admins: v.Raw(settings.ConnAdmins), Operators: v.Raw(settings.ConnOperators),
			Viewers: v.Raw(settings.ConnViewers), Default: v.String(settings.ConnLevel)},
		MaxConns: v.Int(settings.ConnMax), Linger: v.Duration(settings.ConnLinger), Idle: v.Duration(settings.ConnIdle),
	}
}

// file reads the settings file as it is now.
func (b backend) file() (*settings.Values, error) {
	c := &b.m.config
	if c.start == nil {
		return nil, monitor.Errorf(554, nil, "this master was started without a settings file")
	}
	v, err := settings.Load(c.start.Path())
	if err != nil {
		return nil, monitor.Errorf(554, nil, "the settings file is wrong and must be put right by hand: %v", err)
	}
	return v, nil
}

func (b backend) Settings() ([]monitor.Setting, error) {
	v, err := b.file()
	if err != nil {
		return nil, err
	}
	var out []monitor.Setting
	for _, s := range settings.Global() {
		if s.Scope&settings.Master != 0 {
			out = append(out, b.show(v, s))
		}
	}
	return out, nil
}

func (b backend) Setting(name string) (monitor.Setting, error) {
	s, err := find(name)
	if err != nil {
		return monitor.Setting{}, err
	}
	v, err := b.file()
	if err != nil {
		return monitor.Setting{}, err
	}
	return b.show(v, s), nil
}

// find finds a setting of the table, in letters of either case.
func find(name string) (settings.Setting, error) {
	if s, ok := settings.Global().Find(strings.ToUpper(name)); ok {
		return s, nil
	}
	pairs := []monitor.Pair{{Key: "kind", Value: "setting"}, {Key: "id", Value: name}}
	text := fmt.Sprintf("No setting is named %.80q.", name)
	if near := settings.Global().Nearest(name); len(near) > 0 {
		pairs = append(pairs, monitor.Pair{Key: "near", Value: strings.Join(near, ",")})
		text += " Did you mean " + strings.Join(near, " or ") + "?"
	} else {
		text += ` Type "settings" to see them.`
	}
	return settings.Setting{}, &monitor.Error{Code: 550, Pairs: append(pairs, monitor.Pair{Key: "msg", Value: "no such setting"}), Text: text}
}

func (b backend) show(v *settings.Values, s settings.Setting) monitor.Setting {
	out := monitor.Setting{
		Name: s.Name, Value: v.Raw(s.Name), Default: s.Default, Source: v.Where(s.Name), Kind: s.Wants(), Text: s.Text,
		Scope: s.Scope.String(), Restart: s.Restart, Secret: s.Secret,
		Pending: s.Restart && s.Scope&settings.Master != 0 && v.Raw(s.Name) != b.m.config.start.Raw(s.Name),
	}
	if s.Scope == settings.Satellite {
		out.Source = "default" // what this file says of it, no satellite reads
		if v.IsSet(s.Name) {
			out.Source = v.Where(s.Name) + ", read by a satellite on this computer alone"
		}
	}
	if s.Secret && out.Value != "" {
		out.Value = secret
	}
	return out
}

// SetSetting writes the master's file and applies it. Nothing is written that
// would keep the master from starting again.
func (b backend) SetSetting(ctx context.Context, name, value string) (monitor.SettingChange, error) {
	s, err := find(name)
	if err != nil {
		return monitor.SettingChange{}, err
	}
	if s.Scope == settings.Satellite {
		return monitor.SettingChange{}, b.elsewhere(s)
	}
	if err := s.CheckValue(value); err != nil {
		return monitor.SettingChange{}, badSetting(s, value, err)
	}
	c := &b.m.config
	c.mu.Lock()
	defer c.mu.Unlock()
	before, err := b.file()
	if err != nil {
		return monitor.SettingChange{}, err
	}
	var after *settings.Values
	err = settings.Edit(before.Path(), func(f *settings.File) error {
		if before.IsSet(s.Name) && before.Raw(s.Name) == value {
			return nil
		}
		if err := f.Set(s.Name, value); err != nil {
			return err
		}
		if after, err = settings.Parse(before.Path(), f.Bytes()); err != nil {
			return badSetting(s, value, err)
		}
		if err := tuning(after).Check(b.m.cfg.Admin.Directory); err != nil && strings.HasPrefix(s.Name, "VERDECMD_CONN_") {
			return badSetting(s, value, err)
		}
		return nil
	})
	var refused *monitor.Error
	switch {
	case errors.As(err, &refused):
		return monitor.SettingChange{}, refused
	case err != nil:
		return monitor.SettingChange{}, monitor.Errorf(555, []monitor.Pair{{Key: "setting", Value: s.Name}}, "%v", err)
	case after == nil:
		return b.change(s, before, false), nil
	}
	b.m.apply(after)
	shown := value
	if s.Secret {
		shown = secret
	}
	by := caller(ctx)
	ch := b.change(s, after, true)
	b.m.event("config.changed", fmt.Sprintf("%s has set %s to %q.", by, s.Name, shown), monitor.Pair{Key: "setting", Value: s.Name},
		monitor.Pair{Key: "value", Value: shown}, monitor.Pair{Key: "restart", Value: ch.Restart}, monitor.Pair{Key: "by", Value: by})
	return ch, nil
}

func (b backend) change(s settings.Setting, v *settings.Values, changed bool) monitor.SettingChange {
	out := monitor.SettingChange{Setting: b.show(v, s), Changed: changed}
	out.Restart = out.Setting.Pending
	if s.Scope == settings.Both && s.Name != settings.LogLevel {
		out.Note = "Satellites read it from their own files: set it there too."
	}
	return out
}

// elsewhere refuses to set what satellites read, and names their hosts.
func (b backend) elsewhere(s settings.Setting) error {
	var hosts []string
	b.m.with(func(c *cluster.Cluster) {
		for _, x := range c.Servers() {
			hosts = append(hosts, x.Name)
		}
	})
	where := "the host of the satellite"
	if n := len(hosts); n > 0 {
		where = strings.Join(hosts[:min(n, 5)], ", ")
		if n > 5 {
			where += fmt.Sprintf(" and %d more", n-5)
		}
	}
	return monitor.Errorf(554, []monitor.Pair{{Key: "setting", Value: s.Name}, {Key: "hosts", Value: strings.Join(hosts[:min(len(hosts), 50)], ",")}},
		"%s is read by each satellite from its own file: run \"verdecmd settings set %s VALUE\" on %s, and restart the satellite", s.Name, s.Name, where)
}

func badSetting(s settings.Setting, value string, err error) error {
	if s.Secret {
		value = secret
	}
	return monitor.Errorf(553, []monitor.Pair{{Key: "key", Value: s.Name}, {Key: "value", Value: value}}, "%v", err)
}

func (b backend) LogLevel() string {
	if b.m.config.level == nil {
		return "info"
	}
	return b.m.config.level.String()
}

func (b backend) SetLogLevel(ctx context.Context, level string) error {
	l := b.m.config.level
	if l == nil || !slices.Contains(monitor.LogLevels, level) {
		return monitor.Errorf(554, nil, "this master's log level cannot be changed")
	}
	if l.String() == level {
		return nil
	}
	l.Set(level)
	by := caller(ctx)
	b.m.event("config.changed", fmt.Sprintf("%s has set the log level to %s.", by, level), monitor.Pair{Key: "loglevel", Value: level}, monitor.Pair{Key: "by", Value: by})
	return nil
}

package master

import (
	"verdecmd/master/drain"
	"verdecmd/master/host"
	"verdecmd/master/hub"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// join makes the capabilities, and joins the links to them. The order matters:
// orders need the links, the register needs the sessions, the hub needs both.
func (m *Master) join() {
	cfg := m.cfg
	links := link.Config{Epoch: uint64(cfg.Epoch), Version: cfg.Version, Log: part(cfg.Log, "link"),
		Times: link.Times{Interval: cfg.Limits.Interval, LeaseSelf: cfg.LeaseSelf}}
	orders := &session.Link{}
	m.session = session.New(session.Config{State: m.with, Store: cfg.Store, Epoch: cfg.Epoch, Orders: orders, Jobs: m.jobs,
		Event: m.event, Log: part(cfg.Log, "session"), ShutdownWait: cfg.ShutdownWait, LogoffWait: cfg.LogoffWait})
	m.host = host.New(host.Config{State: m.with, Store: cfg.Store, Epoch: cfg.Epoch, Event: m.event, Cancelled: m.session.Cancelled,
		Cut: func(uuid string) { m.link.Cut(uuid) }, Dir: cfg.PKI, Rejoin: cfg.Rejoin,
		Authority: func() *wire.Authority { return cfg.Authority }, Log: part(cfg.Log, "host")})
	m.drain = drain.New(drain.Config{State: m.with, Servers: m.host, Sessions: m.session, Jobs: m.jobs, Log: part(cfg.Log, "drain")})
	same := map[string]string{}
	if cfg.Settings != nil {
		same = settings.Same(cfg.Settings)
	}
	m.checks = host.NewChecks(host.ChecksConfig{State: m.with, Store: cfg.Store, Epoch: cfg.Epoch, Version: cfg.Version, Settings: same,
		Event: m.event, Log: part(cfg.Log, "host")})
	m.hub = hub.New(hub.Config{State: m.with, Host: m.host, Session: m.session, Event: m.event, Log: cfg.Log})
	links.Hub, links.Revoked = m.hub, m.host.Revoked
	m.link = link.New(links)
	orders.Server = m.link
}

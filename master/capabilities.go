package master

import (
	"verdecmd/master/drain"
	"verdecmd/master/host"
	"verdecmd/master/hub"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/master/trust"
	pb "verdecmd/proto"
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
	// The bundle needs the register's servers, and the register the authority that
	// signs for both.
	if cfg.Credentials != nil && cfg.PKI != "" {
		m.trust = trust.New(trust.Config{Store: cfg.Store, Epoch: cfg.Epoch, Jobs: m.jobs, Event: m.event, Dir: cfg.PKI, Credentials: cfg.Credentials,
			Masters: []trust.Address{{Name: cfg.Host, Address: cfg.Link.Addr().String()}}, Members: m.members, Revocations: m.revocations,
			Push: func(parts []*pb.TrustPart) { m.link.Trust(parts) }, Cut: func(uuid string) { m.link.Cut(uuid) }, Log: part(cfg.Log, "trust")})
		links.Trust = m.trust
	}
	m.host = host.New(host.Config{State: m.with, Store: cfg.Store, Epoch: cfg.Epoch, Event: m.event, Cancelled: m.session.Cancelled,
		Cut: func(uuid string) { m.link.Cut(uuid) }, Dir: cfg.PKI, Rejoin: cfg.Rejoin,
		Changed: m.trustChanged, Authority: m.authority, Log: part(cfg.Log, "host")})
	m.drain = drain.New(drain.Config{State: m.with, Servers: m.host, Sessions: m.session, Jobs: m.jobs, Log: part(cfg.Log, "drain")})
	same := map[string]string{}
	if cfg.Settings != nil {
		same = settings.Same(cfg.Settings)
	}
	m.checks = host.NewChecks(host.ChecksConfig{State: m.with, Store: cfg.Store, Epoch: cfg.Epoch, Version: cfg.Version, Settings: same,
		Peer: m.peer, Event: m.event, Log: part(cfg.Log, "host")})
	m.hub = hub.New(hub.Config{State: m.with, Host: m.host, Session: m.session, Event: m.event, Again: m.again, Log: cfg.Log})
	links.Hub, links.Revoked = m.hub, m.host.Revoked
	m.link = link.New(links)
	orders.Server = m.link
}

// members are the servers that the trust bundle tells of.
func (m *Master) members() (out []trust.Member) {
	for _, x := range m.host.Members() {
		out = append(out, trust.Member{ID: x.ID, UUID: x.UUID, Name: x.Name, Address: x.Address})
	}
	return out
}

// revocations are who is of the cluster no more, for the trust bundle.
func (m *Master) revocations() (out []trust.Revocation) {
	for _, r := range m.host.Revocations() {
		out = append(out, trust.Revocation{ID: r.ID, Serial: r.Serial, Why: r.Text(), Until: r.Until})
	}
	return out
}

func (m *Master) trustChanged() {
	if m.trust != nil {
		m.trust.Changed()
	}
}

// authority is the one that issues; nil where its key is not here.
func (m *Master) authority() *wire.Authority {
	if m.trust != nil {
		return m.trust.Authority()
	}
	return nil
}

// peer is where other satellites reach the server with this identity.
func (m *Master) peer(uuid string) string {
	if m.trust != nil {
		return m.trust.Peer(uuid)
	}
	return ""
}

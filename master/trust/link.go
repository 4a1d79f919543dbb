package trust

import (
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// Bounds of what a satellite that claims to hold a newer bundle is believed, so
// that none drives the versions to their end: how much newer it may be, which is
// thousands of databases put back from copies, and of what version at most.
const (
	mostAhead   = 1 << 32
	mostVersion = 1 << 62
)

// Opened notes a new link with what the satellite has said in its hello, and
// tells whether it is to be sent the bundle.
//
// A satellite that holds a newer bundle than there is has it from a master whose
// database was lost: the next one is newer still.
func (m *Manager) Opened(ctx context.Context, server, attachment uint64, uuid string, h *pb.Hello) (send bool) {
	told := Told{Peer: h.GetPeerAddress(), HostKeys: h.GetKeys().GetHostKeys(), UserKey: h.GetKeys().GetUserKey()}.checked()
	takes, held := h.TrustVersion != nil, h.GetTrustVersion()
	root := m.cfg.Root(ctx)
	m.mu.Lock()
	s := m.standings[server]
	if s == nil {
		s = &standing{}
		m.standings[server] = s
	}
	if attachment < s.attachment {
		m.mu.Unlock()
		return false // a newer link has overtaken it
	}
	s.uuid, s.attachment = uuid, attachment
	version := m.bundle.version
	s.Open(m.cfg.Now(), takes, held, version, root)
	ahead := takes && held > version
	believed := ahead && held-version <= mostAhead && held < mostVersion
	if believed {
		m.floor = max(m.floor, held)
	}
	if !told.same(m.told[uuid]) {
		m.told[uuid] = told
		m.unsaved[uuid] = true
	}
	m.mu.Unlock()
	if ahead && !believed {
		m.cfg.Log.Warn().Uint64("server", server).Uint64("version", held).Uint64("current", version).Msg("a satellite claims a trust bundle that no master can have made")
	}
	m.Changed() // also its address may be another one
	return takes && held < version
}

// Closed notes that a link is down.
func (m *Manager) Closed(server, attachment uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.standings[server]; s != nil && s.attachment == attachment {
		s.Close()
	}
}

// Acked notes which bundle a satellite has made its own, and why not a newer
// one.
func (m *Manager) Acked(server, attachment, version uint64, why string) {
	m.mu.Lock()
	s := m.standings[server]
	if s == nil || s.attachment != attachment {
		m.mu.Unlock()
		return
	}
	news := why != "" && why != s.Error
	s.Acked(m.cfg.Now(), version, wire.Clean(why, 512), m.bundle.version)
	m.mu.Unlock()
	if news {
		m.cfg.Log.Warn().Uint64("server", server).Uint64("version", version).Str("error", wire.Clean(why, 512)).Msg("a satellite refuses the trust bundle")
	}
}

// View is how a server stands to the bundle, for people.
type View struct {
	Takes            bool // it knows of bundles, and is or was connected since the master started
	Version, Current uint64
	Behind           time.Duration // it is connected and has not had the newest for so long; 0: it has it
	Error            string
}

// Of tells how a server stands to the bundle.
func (m *Manager) Of(server uint64) View {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := View{Current: m.bundle.version}
	if s := m.standings[server]; s != nil {
		v.Takes, v.Version, v.Error = s.Takes, s.Version, s.Error
		if !s.Behind.IsZero() {
			v.Behind = max(m.cfg.Now().Sub(s.Behind), time.Nanosecond)
		}
	}
	return v
}

// Peer is where other satellites reach the server with this identity, as
// host:port; empty: nowhere, or it has not told yet.
func (m *Manager) Peer(uuid string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told[uuid].Peer
}

// servers are all that are known, with how they stand to the bundle. Those that
// are gone are forgotten here.
func (m *Manager) servers() (out []Server) {
	members := m.cfg.Members()
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make(map[uint64]bool, len(members))
	for _, x := range members {
		known[x.ID] = true
		s := Server{ID: x.ID, Name: x.Name}
		if at := m.standings[x.ID]; at != nil && at.uuid == x.UUID { // else it is that of a machine before
			s.Standing = at.Standing
		}
		out = append(out, s)
	}
	for id := range m.standings {
		if !known[id] {
			delete(m.standings, id)
		}
	}
	return out
}

const (
	mostKeys = 8
	mostText = 256 // bytes of an address
)

// checked is what of a satellite's words all others may be told.
func (t Told) checked() Told {
	var out Told
	if host, port, err := net.SplitHostPort(t.Peer); err == nil && host != "" && len(t.Peer) <= mostText && wire.Clean(t.Peer, mostText) == t.Peer {
		if n, err := strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			out.Peer = t.Peer
		}
	}
	for _, k := range t.HostKeys[:min(len(t.HostKeys), mostKeys)] {
		if key, err := wire.SSHKey(k, wire.SSHHostKinds); err == nil {
			out.HostKeys = append(out.HostKeys, key)
		}
	}
	slices.Sort(out.HostKeys)
	out.HostKeys = slices.Compact(out.HostKeys)
	if t.UserKey != "" {
		out.UserKey, _ = wire.SSHKey(t.UserKey, wire.SSHUserKinds)
	}
	return out
}

func (t Told) same(o Told) bool {
	return t.Peer == o.Peer && t.UserKey == o.UserKey && slices.Equal(t.HostKeys, o.HostKeys)
}

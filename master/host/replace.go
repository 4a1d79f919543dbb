package host

import (
	"context"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// Replace gives the place of a server to a machine that has its name and its
// address and shows the token: its number, its state, what it is called. In one
// step the identity of the old machine is revoked, another one awaited, and the
// token made. While the server is connected that takes force.
func (m *Manager) Replace(ctx context.Context, id uint64, life time.Duration, force bool) (monitor.NewToken, error) {
	a, err := m.authority()
	if err != nil {
		return monitor.NewToken{}, monitor.Errorf(554, nil, "%v", err)
	}
	ttl, err := tokenTTL(life)
	if err != nil {
		return monitor.NewToken{}, err
	}
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	now := m.cfg.Now()
	var r cluster.ServerRecord
	var known, up bool
	var wait time.Duration
	address := ""
	m.cfg.State(func(c *cluster.Cluster) {
		if s := c.Server(id); s != nil {
			r, known, up, wait, address = s.Record(), true, s.Attachment != 0, c.Awaited(now, id), s.Address
		}
	})
	switch {
	case !known:
		return monitor.NewToken{}, unknown(id)
	case up && !force:
		return monitor.NewToken{}, monitor.Errorf(554, []monitor.Pair{{Key: "server", Value: id}}, "server %[1]d (%[2]s) is connected: a live server is not replaced. Stop its satellite first; \"replaceserver %[1]d force\" shuts it out at once, and its sessions are lost", id, r.Name)
	case wait > 0 && !force:
		return monitor.NewToken{}, NotReady(id, wait)
	}
	p := m.proof(id)
	if address == "" {
		address = p.Address
	}
	out := revocation(now, r, p, Superseded)
	gone, err := out.change()
	if err != nil {
		return monitor.NewToken{}, err
	}
	r.UUID, r.Journal = wire.NewUUID(), ""
	secret, t, changes, kills, err := m.makeToken(now, a, token{Name: r.Name, Address: address, Server: id, Expires: now.Add(ttl).UTC(), By: caller(ctx)})
	if err == nil {
		err = m.save(ctx, r, proof{Address: address, Vacant: true}, append(changes, gone)...)
	}
	if err != nil {
		return monitor.NewToken{}, fmt.Errorf("server %d: %w", id, err)
	}
	m.made(t, kills...)
	m.cfg.State(func(c *cluster.Cluster) { c.Registered(now, r) })
	m.revoke(out)
	m.reenrol(r.Name, out.ID, r.UUID)
	m.cfg.Changed()
	m.cfg.Log.Warn().Uint64("server", id).Str("satellite", r.Name).Uint64("token", t.ID).Str("caller", t.By).Msg("another machine may take the place of a server")
	m.cfg.Event("server.replacing", fmt.Sprintf("Another machine may take the place of server %d (%s) until %s; the one before is shut out.", id, r.Name, t.Expires.Local().Format(time.DateTime)), pairs(r)...)
	return monitor.NewToken{Token: t.row(), Secret: secret.String()}, nil
}

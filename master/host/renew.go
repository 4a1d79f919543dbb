package host

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"strconv"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// Renewal is a machine that wants a certificate for a new key.
type Renewal struct {
	ID    wire.Identity // that it has proved
	Key   *ecdsa.PublicKey
	Until time.Time // end of the certificate that it has shown
	From  string    // address that the call comes from
}

// Renew makes a new certificate for a server whose own is valid.
func (m *Manager) Renew(ctx context.Context, r Renewal) (Joined, error) {
	return m.reissue(ctx, r, func(*owner) error { return nil })
}

// Rejoin makes a new certificate for a server whose own has expired, where the
// administrator has allowed it for that time.
func (m *Manager) Rejoin(ctx context.Context, r Renewal) (Joined, error) {
	j, err := m.reissue(ctx, r, func(o *owner) error {
		if o.LinkUp {
			return wire.Errorf(wire.InUse, "server %d (%s) is connected: the machine with the expired certificate is a copy of it, or an old state of it", o.ID, o.Name)
		}
		return comeback(m.cfg.Now(), r.Until, m.cfg.Rejoin, o.ID, o.Name)
	})
	switch wire.KindOf(err) {
	case "":
		m.cfg.Event("server.rejoined", fmt.Sprintf("Server %d (%s), whose certificate had expired at %s, has a new one.", j.Server, j.Name, r.Until.Local().Format(time.DateTime)),
			monitor.Pair{Key: "server", Value: j.Server}, monitor.Pair{Key: "name", Value: j.Name})
	case wire.Denied, wire.InUse:
		m.complain(Request{Name: r.ID.Name, From: r.From}, wire.Errorf(wire.InUse, "%v", err))
	}
	return j, err
}

// reissue makes a new certificate for a server that may have one.
func (m *Manager) reissue(ctx context.Context, r Renewal, may func(*owner) error) (Joined, error) {
	a, err := m.authority()
	if err != nil {
		return Joined{}, err
	}
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	if why, gone := m.Revoked(r.ID.ID, r.ID.Serial); gone {
		return Joined{}, wire.Errorf(wire.Revoked, "%s", why)
	}
	var s cluster.ServerRecord
	var o *owner
	m.cfg.State(func(c *cluster.Cluster) {
		if x := c.ServerByUUID(r.ID.ID); x != nil {
			s, o = x.Record(), ownerOf(c, x)
		}
	})
	if o == nil {
		return Joined{}, wire.Errorf(wire.NotFound, `the master does not know %s: register this host again, "verdecmd register"`, r.ID)
	}
	if err := may(o); err != nil {
		return Joined{}, err
	}
	now, from := m.cfg.Now(), strconv.FormatUint(s.ID, 10)
	m.mu.Lock()
	wait, ok := m.renewals.begin(now, from)
	if ok {
		m.renewals.count(now, from)
	}
	m.mu.Unlock()
	if !ok {
		return Joined{}, wire.Errorf(wire.TooOften, "server %d (%s) asks for certificates too often; the next one in %d s", s.ID, s.Name, ceilSeconds(wait.Until.Sub(now)))
	}
	p := m.proof(s.ID)
	cert, err := sign(a, s, p.Address, r.Key, now)
	if err == nil {
		p.Serial, p.From, p.Until = cert.Serial, cert.NotBefore.UTC(), cert.NotAfter.UTC()
		err = m.save(ctx, s, p)
	}
	if err != nil {
		return Joined{}, fmt.Errorf("a new certificate for %s: %w", s.Name, err)
	}
	m.cfg.State(func(c *cluster.Cluster) {
		c.Certified(s.ID, cluster.Certificate{Serial: p.Serial, From: p.From, Until: p.Until})
	})
	m.cfg.Log.Info().Uint64("server", s.ID).Str("satellite", s.Name).Str("serial", cert.Serial).Time("until", cert.NotAfter).Msg("a satellite has a new certificate")
	m.mu.Lock()
	delete(m.expiring, s.ID)
	m.mu.Unlock()
	m.renewed(s, p.Until)
	return Joined{Certificate: cert.PEM, Server: s.ID, UUID: s.UUID, Name: s.Name}, nil
}

package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
)

// mend brings what "enrol" remembers up to date, where the master has ended
// between a revocation and that.
func (m *Manager) mend() {
	for _, r := range m.Revocations() {
		next := ""
		m.cfg.State(func(c *cluster.Cluster) {
			if s := c.Server(r.Server); s != nil && s.Name == r.Name {
				next = s.UUID
			}
		})
		m.reenrol(r.Name, r.ID, next)
	}
}

// Run tidies up until ctx ends: certificates that end soon are told, and what
// is over is dropped.
func (m *Manager) Run(ctx context.Context) error {
	m.mend()
	often, hour := time.NewTicker(time.Minute), time.NewTicker(time.Hour)
	defer often.Stop()
	defer hour.Stop()
	for {
		m.tellExpiring()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-often.C:
		case <-hour.C:
			if err := m.tidy(ctx); err != nil && !errors.Is(err, context.Canceled) {
				m.cfg.Log.Warn().Err(err).Msg("tidying up tokens and revocations; it is tried again in an hour")
			}
		}
	}
}

// tidy drops revocations whose time is over, and tokens a day later: who shows one
// of yesterday is told that it has expired.
func (m *Manager) tidy(ctx context.Context) error {
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	now := m.cfg.Now()
	if err := m.tidyTokens(ctx, now.Add(-tokenRecall)); err != nil {
		return err
	}
	var changes []store.Change
	for _, r := range m.Revocations() {
		if now.After(r.Until) && len(changes) < store.MaxChanges {
			changes = append(changes, store.Change{Key: r.key()})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := m.commit(ctx, changes...); err != nil {
		return err
	}
	m.mu.Lock()
	for _, c := range changes {
		delete(m.revoked, c.Key.ID)
		delete(m.shown, c.Key.ID)
	}
	m.mu.Unlock()
	m.cfg.Changed()
	return nil
}

// tellExpiring tells once of each certificate of a connected server that it is
// in the last fifth of its life, and when another one has taken its place.
func (m *Manager) tellExpiring() {
	type shown struct {
		cluster.ServerRecord
		cluster.Certificate
	}
	var all []shown
	m.cfg.State(func(c *cluster.Cluster) {
		for _, s := range c.Servers() {
			if s.Attachment != 0 {
				all = append(all, shown{s.Record(), s.Certificate})
			}
		}
	})
	now := m.cfg.Now()
	for _, x := range all {
		ends := closing(now, x.From, x.Until)
		m.mu.Lock()
		told := m.expiring[x.ID]
		if ends {
			m.expiring[x.ID] = x.Serial
		} else {
			delete(m.expiring, x.ID)
		}
		m.mu.Unlock()
		switch {
		case ends && told != x.Serial:
			m.cfg.Log.Warn().Uint64("server", x.ID).Str("satellite", x.Name).Time("until", x.Until).Msg("a satellite's certificate ends soon and was not renewed")
			m.cfg.Event("cert.expiring", fmt.Sprintf("The certificate of server %d (%s) ends at %s and was not renewed: see the log of its satellite.", x.ID, x.Name, x.Until.Local().Format(time.DateTime)),
				append(pairs(x.ServerRecord), monitor.Pair{Key: "until", Value: x.Until})...)
		case !ends && told != "":
			m.renewed(x.ServerRecord, x.Until)
		}
	}
}

// renewed tells that a server has a new certificate.
func (m *Manager) renewed(r cluster.ServerRecord, until time.Time) {
	m.cfg.Event("cert.renewed", fmt.Sprintf("Server %d (%s) has a new certificate, until %s.", r.ID, r.Name, until.Local().Format(time.DateTime)), append(pairs(r), monitor.Pair{Key: "until", Value: until})...)
}

package host

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"verdecmd/master/cluster"
)

// Member is a server as the other machines of the cluster are to know it.
type Member struct {
	ID      uint64
	UUID    string
	Name    string
	Address string // for clients; empty: not known yet
}

// Members returns all servers by ID, with the identity that counts for each.
// Config.Changed tells when to ask again.
func (m *Manager) Members() []Member {
	var out []Member
	m.cfg.State(func(c *cluster.Cluster) {
		for _, s := range c.Servers() {
			out = append(out, Member{ID: s.ID, UUID: s.UUID, Name: s.Name, Address: s.Address})
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range out {
		out[i].Address = cmp.Or(out[i].Address, m.proofs[out[i].ID].Address)
	}
	return out
}

// Revocations returns all identities that are of the cluster no more, the
// oldest first.
func (m *Manager) Revocations() []Revocation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.revoked), func(a, b Revocation) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.key().ID, b.key().ID))
	})
}

// UnknownSince tells from when on revocations may be missing, since the database
// was restored from a copy of that time; zero: none is.
func (m *Manager) UnknownSince() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unknown == nil || m.cfg.Now().After(m.unknown.Until) {
		return time.Time{}
	}
	return m.unknown.Since
}

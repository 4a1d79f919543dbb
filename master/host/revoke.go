package host

import (
	"encoding/json"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// revoked is the bucket of identities that are of the cluster no more.
const revoked = "revoked" // by UUID or, for one certificate alone, UUID and serial

// Words for why an identity was revoked.
const (
	Superseded = "superseded" // another machine has its server's place
	Forgotten  = "forgotten"  // its server was removed
)

// Revocation is an identity, or one certificate of it, that is of the cluster no
// more. It is kept for revokedFor after the last certificate of that identity
// has ended, for clocks that differ.
type Revocation struct {
	ID     string    `json:"id"`               // UUID of the identity
	Serial string    `json:"serial,omitempty"` // empty: all its certificates
	Why    string    `json:"why"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until"`
	Server uint64    `json:"server"` // that it was
	Name   string    `json:"name"`
}

const revokedFor = 7 * 24 * time.Hour

func (r Revocation) key() store.Key {
	id := r.ID
	if r.Serial != "" {
		id += " " + r.Serial
	}
	return store.Key{Bucket: revoked, ID: id}
}

// Text says to whom shows the identity why it is refused, and what to do.
func (r Revocation) Text() string {
	at := r.At.UTC().Format(time.RFC3339)
	switch r.Why {
	case Superseded:
		return fmt.Sprintf("superseded: this machine was server %d (%s) until %s, when its place was given to another one. Take it out of service, or register it under another name: \"verdecmd register\"", r.Server, r.Name, at)
	case Forgotten:
		return fmt.Sprintf("forgotten: server %d (%s) was removed from the cluster at %s. To join again, register it: \"verdecmd register\"", r.Server, r.Name, at)
	}
	return fmt.Sprintf("%s: the identity of server %d (%s) was revoked at %s. To join again, register it: \"verdecmd register\"", wire.Clean(r.Why, 200), r.Server, r.Name, at)
}

// revocation is how an identity of a server ends. Its last certificate ends
// at end; where certificates may be out that nobody has noted, it is taken to
// be the longest that there are.
func revocation(now time.Time, r cluster.ServerRecord, p proof, why string) Revocation {
	end := p.Until
	if !p.Joined {
		end = now.Add(satelliteLife)
	}
	return Revocation{ID: r.UUID, Why: why, At: now.UTC(), Until: end.Add(revokedFor).UTC(), Server: r.ID, Name: r.Name}
}

// change makes a revocation durable.
func (r Revocation) change() (store.Change, error) {
	b, err := json.Marshal(r)
	return store.Change{Key: r.key(), Value: b}, err
}

// blindness is since when revocations may be missing: the database was restored
// from a copy. It ends when no certificate of that time can be valid any more.
type blindness struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

var unknownKey = store.Key{Bucket: meta, ID: "revocations-unknown"}

// restoreRevoked reads all revocations.
func restoreRevoked(s store.Snapshot) (map[string]Revocation, *blindness, error) {
	var unknown *blindness
	if err := getJSON(s, unknownKey, &unknown); err != nil {
		return nil, nil, err
	}
	all := map[string]Revocation{}
	for id, b := range s.All(revoked) {
		var r Revocation
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, nil, fmt.Errorf("revocation %s: %w", id, err)
		}
		if r.ID == "" || r.key().ID != id {
			return nil, nil, fmt.Errorf("revocation %s describes %q, serial %q", id, r.ID, r.Serial)
		}
		all[id] = r
	}
	return all, unknown, nil
}

// revocationOf finds what revokes an identity, or the certificate of it with this
// serial. It needs m.mu.
func (m *Manager) revocationOf(id, serial string) (Revocation, bool) {
	r, ok := m.revoked[id]
	if !ok && serial != "" {
		r, ok = m.revoked[id+" "+serial]
	}
	return r, ok
}

// Revoked tells whether an identity, or the certificate of it with this serial,
// is of the cluster no more, and why, in words for who shows it.
func (m *Manager) Revoked(id, serial string) (why string, revoked bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.revocationOf(id, serial)
	if !ok {
		return "", false
	}
	return r.Text(), true
}

// Refuse is Revoked for who shows the identity, and announces once that it was
// shown: a machine that was shut out is there again. It does not block.
func (m *Manager) Refuse(id, serial string) (why string, revoked bool) {
	m.mu.Lock()
	r, revoked := m.revocationOf(id, serial)
	news := revoked && !m.shown[r.key().ID]
	if news {
		m.shown[r.key().ID] = true
	}
	m.mu.Unlock()
	if !revoked {
		return "", false
	}
	why = r.Text()
	if news {
		m.cfg.Log.Warn().Uint64("server", r.Server).Str("satellite", r.Name).Str("identity", id).Str("why", r.Why).Msg("a machine that was shut out tries to connect")
		m.cfg.Event("server.refused", fmt.Sprintf("The machine that was server %d (%s) tries to connect and is refused: %s.", r.Server, r.Name, why),
			monitor.Pair{Key: "name", Value: r.Name}, monitor.Pair{Key: "server", Value: r.Server}, monitor.Pair{Key: "msg", Value: why})
	}
	return why, true
}

// revoke takes over revocations that are durable, and cuts what is open.
func (m *Manager) revoke(all ...Revocation) {
	m.mu.Lock()
	for _, r := range all {
		m.revoked[r.key().ID] = r
	}
	m.mu.Unlock()
	for _, r := range all {
		m.cfg.Cut(r.ID)
		m.cfg.Log.Warn().Uint64("server", r.Server).Str("satellite", r.Name).Str("identity", r.ID).Str("why", r.Why).Msg("an identity is revoked")
	}
}

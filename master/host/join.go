package host

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// noAuthority says why nobody can join.
const noAuthority = `the master does not have the key of the cluster's authority (ca.key in WIN4_VERDE_PKI_DIR): no certificate can be made. Put the file back with mode 0600 and restart the master, or use "verdecmd enrol" where the key is`

// Request is a machine that wants to join. The token or the password proves
// that it may; nothing else that it says is believed without them.
type Request struct {
	Key             *ecdsa.PublicKey
	Token, Password string // one of them
	Name            string // host name
	Address         string // where clients reach it; empty: its name
	From            string // address that the call comes from
	Clock           time.Time
	Version, Arch   string
}

// Join lets a machine join: the token is used up, the server registered and its
// certificate made in one step, or nothing is done. A machine that asks again
// with the same key, since the answer was lost, gets the same answer as long as
// its token would have lived.
func (m *Manager) Join(ctx context.Context, r Request) (Joined, error) {
	j, err := m.join(ctx, r)
	if err != nil {
		m.complain(r, err)
		return Joined{}, err
	}
	m.compareClock(j.Server, j.Name, r.Clock)
	return j, nil
}

// authority is who makes certificates, or why nobody does.
func (m *Manager) authority() (*wire.Authority, error) {
	a := m.cfg.Authority()
	if a == nil {
		return nil, wire.Errorf(wire.Denied, "%s", noAuthority)
	}
	if !m.cfg.Now().Before(a.NotAfter) {
		return nil, wire.Errorf(wire.Denied, "the cluster's authority ended at %s, no certificate can be made: look at the clock of the master", a.NotAfter.UTC().Format(time.RFC3339))
	}
	return a, nil
}

func (m *Manager) join(ctx context.Context, r Request) (Joined, error) {
	a, err := m.authority()
	if err != nil {
		return Joined{}, err
	}
	c, err := claimOf(&r)
	if err != nil {
		return Joined{}, err
	}
	var shown wire.Token
	switch {
	case r.Token != "" && r.Password == "":
		if shown, err = wire.ParseToken(r.Token); err != nil {
			return Joined{}, wire.Errorf(wire.Denied, "%v", err)
		}
		if shown.Cluster != a.Cluster {
			return Joined{}, wire.Errorf(wire.Denied, "the token is one of cluster %s, this is %s", shown.Cluster, a.Cluster)
		}
		if shown.CA != a.Fingerprint() {
			return Joined{}, wire.Errorf(wire.Denied, `the token is from before the cluster's authority was changed; "createtoken" on the master makes another`)
		}
		c.Hash = shown.SecretHash()
	case r.Password != "" && r.Token == "":
		if err := m.authenticate(ctx, r.Password, r.From); err != nil {
			return Joined{}, err
		}
	default:
		return Joined{}, wire.Errorf(wire.BadRequest, "a host joins with a token or with the manager's password")
	}

	// From here on nothing comes in between: the time that decides about a token
	// is that at which it is used up.
	m.cfg.Turn.Lock()
	defer m.cfg.Turn.Unlock()
	now := m.cfg.Now()
	var t *token
	again := false
	if r.Token != "" {
		t = m.tokens[shown.ID]
		if again, err = t.admit(now, c); err != nil {
			return Joined{}, err
		}
	} else if t = answered(m.tokens, now, c); t != nil {
		again = true
	} else {
		t = permit(m.tokens, now, c)
	}
	if again {
		if why, gone := m.Revoked(t.Used.Answer.UUID, ""); gone {
			return Joined{}, wire.Errorf(wire.Revoked, "%s", why)
		}
		return t.Used.Answer, nil
	}
	return m.register(ctx, now, a, r, c, t)
}

// claimOf reads what a machine shows beside its proof. An empty address becomes
// its name.
func claimOf(r *Request) (claim, error) {
	if !validName(r.Name) {
		return claim{}, wire.Errorf(wire.BadRequest, "%q is no name for a satellite: %s", wire.Clean(r.Name, 80), nameRule)
	}
	r.Address = cmp.Or(r.Address, r.Name)
	if err := checkAddress(r.Address); err != nil {
		return claim{}, wire.Errorf(wire.BadRequest, "the address of %s: %v", r.Name, err)
	}
	key, err := keyDigest(r.Key)
	if err != nil {
		return claim{}, wire.Errorf(wire.BadRequest, "the key of %s: %v", r.Name, err)
	}
	return claim{Key: key, Role: wire.Satellite, Name: r.Name, Address: r.Address}, nil
}

func keyDigest(key *ecdsa.PublicKey) (digest, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return sha256.Sum256(der), err
}

// checkAddress accepts what WIN4_VERDE_PUBADDR may be.
func checkAddress(address string) error {
	if len(address) > 260 {
		return errors.New("the address is too long")
	}
	_, _, err := settings.SplitAddress(address, 1)
	return err
}

// register makes a machine a server of the cluster, which its proof allows. t is
// the token that is used up; nil for one who knows the manager's password: then
// one is made and used up at once. The caller holds the turn.
func (m *Manager) register(ctx context.Context, now time.Time, a *wire.Authority, r Request, c claim, t *token) (Joined, error) {
	o := m.owner(c.Name)
	permitted := uint64(0)
	if t != nil {
		permitted = t.Server
	}
	id, err := place(o, permitted, c.Name)
	if err != nil {
		return Joined{}, err
	}
	used := token{ByPassword: true, Role: wire.Satellite, Name: c.Name, Address: c.Address, Made: now.UTC(), Expires: now.Add(tokenLife).UTC(), By: "the manager's password"}
	var changes []store.Change
	if t != nil {
		used = *t
	} else {
		var note store.Change
		used.ID, note = m.nextToken()
		changes = append(changes, note)
	}

	var s cluster.ServerRecord
	m.cfg.State(func(k *cluster.Cluster) {
		if id != 0 {
			s = k.Server(id).Record()
		} else {
			s = k.Enrol(wire.NewUUID(), c.Name)
		}
	})
	if id == 0 {
		changes = append(changes, store.Change{Key: store.Key{Bucket: meta, ID: lastServer}, Value: strconv.AppendUint(nil, s.ID, 10)})
	}
	cert, err := sign(a, s, c.Address, r.Key, now)
	if err == nil {
		used.Used = &use{At: now.UTC(), Key: c.Key, From: wire.Clean(r.From, 64), Password: r.Password != "",
			Answer: Joined{Certificate: cert.PEM, Server: s.ID, UUID: s.UUID, Name: s.Name, Replaced: id != 0}}
		// The identity of a replacement was drawn earlier, and "enrol" may have made
		// certificates of it since.
		p := proof{Address: c.Address, Joined: id == 0, Serial: cert.Serial, From: cert.NotBefore.UTC(), Until: cert.NotAfter.UTC()}
		var own store.Change
		if own, err = used.change(); err == nil {
			err = m.save(ctx, s, p, append(changes, own)...)
		}
	}
	if err != nil {
		if id == 0 && !errors.Is(err, store.ErrUnknown) { // else the number may be given
			m.cfg.State(func(k *cluster.Cluster) { k.Withdrawn(s.UUID) })
		}
		return Joined{}, fmt.Errorf("registering %s: %w", c.Name, err)
	}
	m.made(&used)
	m.cfg.State(func(k *cluster.Cluster) { k.Registered(now, s) })
	m.cfg.Changed()

	what, how := "registered", "is registered"
	if id != 0 {
		what, how = "replaced", "is a new machine"
	}
	proved := fmt.Sprintf("token %d", used.ID)
	if r.Password != "" {
		proved = "the manager's password"
	}
	m.cfg.Log.Info().Uint64("server", s.ID).Str("satellite", s.Name).Str("from", r.From).Str("identity", s.UUID).Str("by", proved).
		Str("version", wire.Clean(r.Version, 64)).Str("arch", wire.Clean(r.Arch, 64)).Msg("satellite " + what + " over the network")
	m.cfg.Event("server."+what, fmt.Sprintf("Server %d (%s) %s, from %s, by %s.", s.ID, s.Name, how, r.From, proved), pairs(s)...)
	return used.Used.Answer, nil
}

// sign makes the certificate of a server. All names in it are the master's.
func sign(a *wire.Authority, s cluster.ServerRecord, address string, key *ecdsa.PublicKey, now time.Time) (wire.Certificate, error) {
	names, ips := []string{s.Name}, []net.IP(nil)
	host, _, err := settings.SplitAddress(address, 1)
	switch ip := net.ParseIP(host); {
	case err != nil || host == s.Name || ip == nil && strings.Contains(host, ":"): // one with a zone counts here alone
	case ip != nil:
		ips = append(ips, ip)
	default:
		names = append(names, host)
	}
	return a.Sign(wire.Identity{Role: wire.Satellite, ID: s.UUID, Name: s.Name}, key, names, ips, now, joinedLife)
}

// owner is the server that has a name; nil where none has.
func (m *Manager) owner(name string) (o *owner) {
	m.cfg.State(func(c *cluster.Cluster) {
		for _, s := range c.Servers() {
			if s.Name == name {
				o = ownerOf(c, s)
				return
			}
		}
	})
	if o != nil {
		o.Vacant = m.proof(o.ID).Vacant
	}
	return o
}

func ownerOf(c *cluster.Cluster, s *cluster.Server) *owner {
	return &owner{ID: s.ID, Name: s.Name, LinkUp: s.Attachment != 0, Held: held(c, s.ID)}
}

// complain tells that a machine may not join, not too often.
func (m *Manager) complain(r Request, err error) {
	kind := wire.KindOf(err)
	if kind == wire.TooOften || kind == wire.Internal || r.Password != "" && kind == wire.Denied {
		return // told already, or no fault of the machine
	}
	from, now := sourceOf(r.From), m.cfg.Now()
	m.mu.Lock()
	_, ok := m.complains.begin(now, from)
	if ok {
		m.complains.count(now, from)
	}
	m.mu.Unlock()
	if !ok {
		return
	}
	name, text := wire.Clean(r.Name, 80), wire.Clean(err.Error(), 500)
	m.cfg.Log.Warn().Err(err).Str("from", from).Str("satellite", name).Msg("a host may not join")
	switch kind {
	case wire.InUse, wire.Revoked:
		m.cfg.Event("server.refused", fmt.Sprintf("A machine at %s wants to join as %s and is refused: %s.", from, name, text),
			monitor.Pair{Key: "name", Value: name}, monitor.Pair{Key: "from", Value: from}, monitor.Pair{Key: "msg", Value: text})
	case wire.Denied, wire.NotFound:
		m.cfg.Event("token.refused", fmt.Sprintf("A machine at %s has shown a token that is refused: %s.", from, text),
			monitor.Pair{Key: "from", Value: from}, monitor.Pair{Key: "msg", Value: text})
	}
}

// compareClock tells that the clock of a machine differs too much. From its first
// link on the links are where that is measured.
func (m *Manager) compareClock(server uint64, name string, clock time.Time) {
	d := skewed(m.cfg.Now(), clock)
	if d == 0 {
		return
	}
	m.mu.Lock()
	m.skewed[server] = true
	m.mu.Unlock()
	m.cfg.Log.Warn().Uint64("server", server).Str("satellite", name).Dur("skew", d).Msg("a satellite's clock differs")
	m.cfg.Event("server.skew", fmt.Sprintf("The clock of server %d (%s) differs from the master's by %v.", server, name, d.Round(time.Second)), clockPairs(server, name, d)...)
}

// clockMeasured tells that what compareClock has told counts no more.
func (m *Manager) clockMeasured(server uint64, name string) {
	m.mu.Lock()
	told := m.skewed[server]
	delete(m.skewed, server)
	m.mu.Unlock()
	if told {
		m.cfg.Event("server.clock", fmt.Sprintf("The clock of server %d (%s) is compared on its link from now on.", server, name), clockPairs(server, name, 0)...)
	}
}

func clockPairs(server uint64, name string, d time.Duration) []monitor.Pair {
	return []monitor.Pair{{Key: "server", Value: server}, {Key: "name", Value: name}, {Key: "seconds", Value: d.Seconds()}}
}

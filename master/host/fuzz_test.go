package host

import (
	"crypto/rand"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// FuzzRestore: what the database holds of a server is refused with its number,
// or it is a server that has a number, a known state and an identity; the next
// one gets a number that none had (S5, S19).
func FuzzRestore(f *testing.F) {
	f.Add("1", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"online","journal":"j"}`), []byte("1"))
	f.Add("2", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"offline","reason":"work"}`), []byte("7"))
	f.Add("1", []byte(`{"id":1,"uuid":"u1","name":"sat1","state":"dancing"}`), []byte(`"1"`))
	f.Add("0", []byte(`null`), []byte(`null`))
	f.Fuzz(func(t *testing.T, id string, record, high []byte) {
		s := store.NewMem()
		for _, c := range []store.Change{{Key: store.Key{Bucket: servers, ID: id}, Value: record}, {Key: store.Key{Bucket: meta, ID: lastServer}, Value: high}} {
			if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{c}) != nil {
				return // no key, or too large for a record
			}
		}
		c := cluster.New(cluster.Limits{Interval: time.Second, ReservationTimeout: time.Minute}, time.Now())
		m := New(Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop(), Event: func(string, string, ...monitor.Pair) {}, State: func(f func(*cluster.Cluster)) { f(c) }})
		last, err := m.Restore(t.Context(), time.Now(), c)
		if err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		for _, x := range c.Servers() {
			if x.ID == 0 || x.ID > last || x.UUID == "" || x.State != cluster.Online && x.State != cluster.Offline && x.State != cluster.Draining {
				t.Errorf("record %q %s gives server %d %q %s, the last number being %d", id, record, x.ID, x.UUID, x.State, last)
			}
		}
	})
}

// FuzzProofs: what the database holds of tokens, revocations and the password
// is refused, or nobody is let in by it who should not be: no token without a
// number, none for another role, no revocation that hits nobody (S16, S17, S19).
func FuzzProofs(f *testing.F) {
	f.Add("3", []byte(`{"id":3,"hash":"`+strings.Repeat("00", 32)+`","role":"satellite","made":"2026-11-21T20:00:00Z","expires":"2026-11-21T21:00:00Z","by":"root"}`), "u1", []byte(`{"id":"u1","why":"forgotten","at":"2026-11-21T20:00:00Z","until":"2027-11-21T20:00:00Z","server":1,"name":"sat1"}`), []byte(`"$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA"`))
	f.Add("3", []byte(`{"id":3,"hash":"","role":"master"}`), "u1 0a", []byte(`{"id":"u1","serial":"0a"}`), []byte(`""`))
	f.Add("4", []byte(`{"id":3}`), "u1", []byte(`null`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, id string, token []byte, gone string, revocation, password []byte) {
		s := store.NewMem()
		for _, c := range []store.Change{{Key: store.Key{Bucket: tokens, ID: id}, Value: token}, {Key: store.Key{Bucket: revoked, ID: gone}, Value: revocation}, {Key: passwordKey, Value: password}} {
			if s.Commit(t.Context(), s.Epoch(), nil, []store.Change{c}) != nil {
				return // no key, or too large for a record
			}
		}
		m := New(Config{Store: s, Epoch: s.Epoch(), Log: zerolog.Nop(), State: func(f func(*cluster.Cluster)) {}})
		if err := s.View(t.Context(), m.restore); err != nil {
			if err.Error() == "" {
				t.Error("an empty error")
			}
			return
		}
		for n, x := range m.tokens {
			if n == 0 || n != x.ID || n > m.lastToken || x.Role != wire.Satellite {
				t.Errorf("record %q gives token %d, %+v, the last one being %d", token, n, x, m.lastToken)
			}
		}
		for _, x := range m.Revocations() {
			if why, ok := m.Revoked(x.ID, x.Serial); x.ID == "" || !ok || why == "" {
				t.Errorf("record %q revokes nobody: %+v", revocation, x)
			}
		}
	})
}

// FuzzJoin: whatever a stranger sends, nobody joins without a token that is good;
// who has one becomes what the master's record says, whatever the request for a
// certificate names, and any other answer says why in clean words (S17, RELIABILITY
// 4.4, pitfall 7).
func FuzzJoin(f *testing.F) {
	key, csr, err := wire.NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	named, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"master", "*"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, key)
	if err != nil {
		f.Fatal(err)
	}
	a, err := wire.NewAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr, "", "", "sat1", "192.0.2.1", true)
	f.Add(named, "", "", "sat1.example.com", "[2001:db8::1]:8443", true)
	f.Add(csr, wire.NewToken(a.Cluster, a.Fingerprint(), 1).String(), "", "sat1", "", false)
	f.Add(csr, "", "a password", "sat1", "", false)
	f.Add(csr, "vd1-", "", "../sat1\x1b", "http://", false)
	f.Add([]byte("0"), "", "", "", "", true)
	f.Fuzz(func(t *testing.T, csr []byte, token, password, name, address string, good bool) {
		s := store.NewMem()
		r := start(t, s)
		r.cfg.Authority = func() *wire.Authority { return a }
		q := &pb.JoinRequest{Csr: csr, Name: name, Address: address}
		if good {
			k, err := r.CreateToken(t.Context(), monitor.TokenWish{})
			if err != nil {
				t.Fatal(err)
			}
			token = k.Secret
		}
		q.Proof = &pb.JoinRequest_Token{Token: token}
		if password != "" && !good {
			q.Proof = &pb.JoinRequest_Password{Password: password}
		}
		e := &Enrolment{Manager: r.Manager, Cluster: a.Cluster, Roots: func() [][]byte { return nil }}
		reply, err := e.Join(t.Context(), q)
		if err != nil {
			if text := wire.FromStatus(err).Error(); text == "" || text != wire.Clean(text, 4096) || len(r.ids()) != 0 {
				t.Errorf("refused with %q, servers %v", text, r.ids())
			}
			return
		}
		leaf := leafOf(t, reply.Certificate)
		id, err := wire.IdentityOf(leaf)
		if !good || err != nil || id.Role != wire.Satellite || id.ID != reply.Id || leaf.IsCA || leaf.DNSNames[0] != name || !validName(name) || len(leaf.DNSNames)+len(leaf.IPAddresses) > 2 {
			t.Errorf("with a good token: %v; the certificate is for %v, %v, %v; %v", good, id, leaf.DNSNames, leaf.IPAddresses, err)
		}
	})
}

package host

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// counter is an office that is open to the network.
type counter struct {
	*office
	t      *testing.T
	listen *bufconn.Listener
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{office: newOffice(t), t: t, listen: bufconn.Listen(1 << 16)}
	c.now = time.Now() // TLS looks at it too
	creds, err := c.a.Credentials(wire.Master, "cm", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	creds.SetRevoked(c.Revoked)
	s := grpc.NewServer(wire.ServerOptions(creds, nil)...)
	pb.RegisterEnrolmentServer(s, &Enrolment{Manager: c.Manager, Cluster: c.a.Cluster, Roots: creds.Roots})
	go func() { _ = s.Serve(c.listen) }()
	t.Cleanup(s.Stop)
	return c
}

func (c *counter) dial(options []grpc.DialOption) pb.EnrolmentClient {
	c.t.Helper()
	options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.listen.DialContext(ctx) }))
	cc, err := grpc.NewClient("passthrough:///master", options...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cc.Close() })
	return pb.NewEnrolmentClient(cc)
}

// stranger is a machine that trusts the authority whose fingerprint it was told.
func (c *counter) stranger() pb.EnrolmentClient {
	return c.dial(wire.JoinDialOptions(c.a.Fingerprint(), time.Now))
}

// member is a machine with a certificate of its own.
func (c *counter) member(a *wire.Authority, role wire.Role, life time.Duration, options func(*wire.Credentials) []grpc.DialOption) (*wire.Credentials, pb.EnrolmentClient) {
	c.t.Helper()
	creds, err := a.Credentials(role, "sat1", time.Now().Add(-3*time.Hour), 3*time.Hour+life)
	if err != nil {
		c.t.Fatal(err)
	}
	return creds, c.dial(options(creds))
}

func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, csr, err := wire.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// RELIABILITY 4.1, 4.4: a machine joins over the network, its answer makes
// credentials that the master accepts, by which it renews them.
func TestServiceJoins(t *testing.T) {
	c := newCounter(t)
	key, csr := request(t)
	q := &pb.JoinRequest{Csr: csr, Proof: &pb.JoinRequest_Token{Token: c.token(t, monitor.TokenWish{})}, Name: "sat1", Address: "192.0.2.1", NowUnixMs: time.Now().UnixMilli()}
	reply, err := c.stranger().Join(t.Context(), q)
	if err != nil {
		t.Fatal(wire.FromStatus(err))
	}
	if reply.Cluster != c.a.Cluster || reply.ServerId != 1 || reply.Name != "sat1" || reply.Replaced || string(reply.Roots) != string(c.a.CertPEM) || reply.Id == "" {
		t.Errorf("got %v", reply)
	}
	if d := time.Since(time.UnixMilli(reply.NowUnixMs)); d < -time.Minute || d > time.Minute {
		t.Errorf("the master's clock is told as %v", time.UnixMilli(reply.NowUnixMs))
	}
	if _, err := wire.IdentityPEM(reply.Certificate, key); err != nil {
		t.Errorf("certificate and key: %v", err)
	}

	// A member renews; the identity of the call counts, the name is the master's.
	creds, client := c.member(c.a, wire.Satellite, time.Hour, wire.DialOptions)
	_, csr = request(t)
	if _, err := client.Renew(t.Context(), &pb.RenewRequest{Csr: csr}); wire.KindOf(wire.FromStatus(err)) != wire.NotFound {
		t.Errorf("an identity that is no server's renews: %v", err)
	}
	if err := c.Ensure(t.Context(), helloOf(creds.Identity.ID, "j"), "sat9"); err != nil {
		t.Fatal(err)
	}
	renewed, err := client.Renew(t.Context(), &pb.RenewRequest{Csr: csr})
	if err != nil || renewed.Id != creds.Identity.ID || renewed.Name != "sat9" {
		t.Errorf("renewed: %v, %v", renewed, err)
	}
	if _, err := client.Rejoin(t.Context(), &pb.RenewRequest{Csr: csr}); wire.KindOf(wire.FromStatus(err)) != wire.Denied {
		t.Errorf("it comes back although its certificate is valid: %v", err)
	}
	if _, err := client.Join(t.Context(), q); wire.KindOf(wire.FromStatus(err)) != wire.Denied {
		t.Errorf("a member joins: %v", err)
	}

	// One whose certificate has ended may come back, and nothing else.
	late, client := c.member(c.a, wire.Satellite, -time.Minute, wire.RejoinDialOptions)
	if err := c.Ensure(t.Context(), helloOf(late.Identity.ID, "j"), "sat8"); err != nil {
		t.Fatal(err)
	}
	if back, err := client.Rejoin(t.Context(), &pb.RenewRequest{Csr: csr}); err != nil || back.Id != late.Identity.ID {
		t.Errorf("it comes back: %v, %v", back, err)
	}
	if _, err := client.Renew(t.Context(), &pb.RenewRequest{Csr: csr}); wire.KindOf(wire.FromStatus(err)) != wire.Denied {
		t.Errorf("it renews: %v", err)
	}

	// S16: and once it is revoked, neither.
	c.revoke(Revocation{ID: late.Identity.ID, Why: Superseded, Server: 3, Name: "sat8"})
	if _, err := client.Rejoin(t.Context(), &pb.RenewRequest{Csr: csr}); wire.KindOf(wire.FromStatus(err)) != wire.Revoked || !strings.Contains(err.Error(), "superseded") {
		t.Errorf("a revoked identity comes back: %v", err)
	}
}

// RELIABILITY 4.4, pitfall 6: who is of another cluster, also one whose authority
// has the same name, or has another role, gets nothing from the service.
func TestServiceRoles(t *testing.T) {
	c := newCounter(t)
	_, csr := request(t)
	q := &pb.RenewRequest{Csr: csr}
	foreign, err := wire.NewAuthority(time.Now().Add(-4 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	twin, err := wire.NewAuthorityOf(c.a.Cluster, time.Now().Add(-4*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		a    *wire.Authority
		role wire.Role
	}{
		"another cluster":           {foreign, wire.Satellite},
		"same name, another key":    {twin, wire.Satellite},
		"a master's certificate":    {c.a, wire.Master},
		"another cluster's master":  {foreign, wire.Master},
		"a master with another key": {twin, wire.Master},
	} {
		for what, options := range map[string]func(*wire.Credentials) []grpc.DialOption{"member": wire.DialOptions, "rejoiner": wire.RejoinDialOptions} {
			_, client := c.member(test.a, test.role, time.Hour, options)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := client.Renew(ctx, q); err == nil {
				t.Errorf("%s as %s renews", name, what)
			}
			if _, err := client.Rejoin(ctx, q); err == nil {
				t.Errorf("%s as %s comes back", name, what)
			}
			cancel()
		}
	}
	if _, err := c.stranger().Renew(t.Context(), q); wire.KindOf(wire.FromStatus(err)) != wire.Denied {
		t.Errorf("a stranger renews: %v", err)
	}
	// A machine with the fingerprint of another authority sends nothing.
	far := c.dial(wire.JoinDialOptions(foreign.Fingerprint(), time.Now))
	if _, err := far.Join(t.Context(), &pb.JoinRequest{Csr: csr}); err == nil || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("the wrong fingerprint: %v", err)
	}
	if len(c.events) != 0 || len(c.ids()) != 0 {
		t.Errorf("events %v, servers %v", c.events, c.ids())
	}
}

// RELIABILITY 4.4, pitfalls 1, 2 and 7: bad requests over the network: one clear
// text each, nothing of it in the certificate, and the token stays good.
func TestServiceBadRequests(t *testing.T) {
	c := newCounter(t)
	secret := c.token(t, monitor.TokenWish{})
	key, good := request(t)
	csrOf := func(r *x509.CertificateRequest, k any) []byte {
		t.Helper()
		der, err := x509.CreateCertificateRequest(rand.Reader, r, k)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	authority, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048) // one of 16,384 bits takes minutes; it is refused by its kind
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 10000 {
		many = append(many, fmt.Sprintf("host%d.example.com", i))
	}
	spoilt := append([]byte(nil), good...)
	spoilt[len(spoilt)-1] ^= 1
	tests := map[string]struct {
		csr   []byte
		token string
		want  string
	}{
		"CA:TRUE":           {csr: csrOf(&x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Value: authority}}}, key), want: "CA:TRUE"},
		"an RSA key":        {csr: csrOf(&x509.CertificateRequest{}, big), want: "ECDSA on P-256"},
		"another curve":     {csr: csrOf(&x509.CertificateRequest{}, p384), want: "ECDSA on P-256"},
		"10,000 names":      {csr: csrOf(&x509.CertificateRequest{DNSNames: many}, key), want: "at most 8192"},
		"a bad signature":   {csr: spoilt, want: "not signed by its key"},
		"no request":        {csr: []byte("hello"), want: "cannot be read"},
		"nothing":           {want: "cannot be read"},
		"no token":          {csr: good, token: "-", want: "no token"},
		"without a CA hash": {csr: good, token: "vd1-1-" + strings.Repeat("0", 32), want: "cut off"},
		"a token of 1 MB":   {csr: good, token: strings.Repeat("v", 1<<20-4096), want: "no token"},
	}
	client := c.stranger()
	for name, test := range tests {
		if test.token == "" {
			test.token = secret
		}
		_, err := client.Join(t.Context(), &pb.JoinRequest{Csr: test.csr, Proof: &pb.JoinRequest_Token{Token: test.token}, Name: "sat1"})
		err = wire.FromStatus(err)
		if err == nil || !strings.Contains(err.Error(), test.want) || wire.KindOf(err) != wire.BadRequest && wire.KindOf(err) != wire.Denied {
			t.Errorf("%s: got %v (%s), want %q", name, err, wire.KindOf(err), test.want)
		}
	}

	// Names in a request are ignored, a wildcard and an identity too.
	csr := csrOf(&x509.CertificateRequest{Subject: pkix.Name{CommonName: "master"}, DNSNames: []string{"*.example.com", "master"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs: []*url.URL{{Scheme: "verde", Host: c.a.Cluster, Path: "/master/" + wire.NewUUID()}}}, key)
	reply, err := client.Join(t.Context(), &pb.JoinRequest{Csr: csr, Proof: &pb.JoinRequest_Token{Token: secret}, Name: "sat1"})
	if err != nil {
		t.Fatal(err)
	}
	leaf := leafOf(t, reply.Certificate)
	if id, err := wire.IdentityOf(leaf); err != nil || id.Role != wire.Satellite || id.ID != reply.Id || fmt.Sprint(leaf.DNSNames) != "[sat1]" || len(leaf.IPAddresses) != 0 || strings.Contains(leaf.Subject.String(), "master") {
		t.Errorf("the certificate is for %v, %v, %v, %v", id, leaf.DNSNames, leaf.IPAddresses, leaf.Subject)
	}
}

// F-09 over the network: the limit is per address, and told as such.
func TestServiceLockout(t *testing.T) {
	c := newCounter(t)
	if err := c.SetPassword(t.Context(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	client := c.stranger()
	_, csr := request(t)
	join := func(password string) error {
		_, err := client.Join(t.Context(), &pb.JoinRequest{Csr: csr, Proof: &pb.JoinRequest_Password{Password: password}, Name: "sat1"})
		return wire.FromStatus(err)
	}
	if err := join(strings.Repeat("x", 5000)); wire.KindOf(err) != wire.BadRequest {
		t.Errorf("a password of 5,000 bytes: %v", err)
	}
	for range 5 {
		if err := join("battery staple"); wire.KindOf(err) != wire.Denied {
			t.Errorf("a wrong one: %v", err)
		}
	}
	if err := join("correct horse"); wire.KindOf(err) != wire.TooOften || !strings.Contains(err.Error(), "too many wrong passwords") {
		t.Errorf("the right one in the lock-out: %v", err)
	}
	c.now = c.now.Add(15 * time.Minute)
	if err := join("correct horse"); err != nil {
		t.Errorf("the right one after it: %v", err)
	}
}

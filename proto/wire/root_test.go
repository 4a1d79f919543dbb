package wire

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
)

// ponger answers and tells by which authority the caller is known.
type ponger struct {
	pb.UnimplementedPeerServer
	c *Credentials
}

func (p ponger) Ping(ctx context.Context, _ *pb.PeerPing) (*pb.PeerPong, error) {
	return &pb.PeerPong{Name: p.c.PeerRoot(ctx)}, nil
}

// RELIABILITY 4.2: it is known by which of the trusted authorities a caller is
// known; when that one is removed, the very next call on an open connection is
// refused, in words and without the word that would end its desktops.
func TestPeerRoot(t *testing.T) {
	old, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	next, err := NewAuthorityOf(old.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials := func(a *Authority, name string) *Credentials {
		c, err := a.Credentials(Satellite, name, time.Now(), time.Hour)
		if err == nil {
			err = c.SetRoots([][]byte{old.DER(), next.DER()})
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	server := credentials(next, "sat1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(PeerServerOptions(server, func(Report) {})...)
	pb.RegisterPeerServer(s, ponger{c: server})
	go s.Serve(l)
	defer s.Stop()
	call := func(c *Credentials) func() (string, error) {
		cc, err := grpc.NewClient("passthrough:///"+l.Addr().String(), PeerDialOptions(c, "")...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return func() (string, error) {
			p, err := pb.NewPeerClient(cc).Ping(t.Context(), &pb.PeerPing{})
			return p.GetName(), FromStatus(err)
		}
	}
	a, b := call(credentials(old, "sat2")), call(credentials(next, "sat3"))
	// One that the old key has signed in the name of the new authority: who signs
	// chooses the key identifier.
	posing := *next
	parent := *next.cert
	parent.PublicKey = old.key.Public()
	posing.cert, posing.key = &parent, old.key
	key, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := posing.Sign(Identity{Role: Satellite, ID: NewUUID(), Name: "sat4"}, &key.PublicKey, nil, nil, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	own, err := IdentityPEM(cert.PEM, key)
	if err != nil {
		t.Fatal(err)
	}
	posed, err := Parse(append(bytes.Clone(old.CertPEM), next.CertPEM...), own, Satellite)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(posed.live.leaf.AuthorityKeyId, next.cert.SubjectKeyId) {
		t.Fatal("it does not pose as the new authority's")
	}
	c := call(posed)
	if got, err := c(); err != nil || got != RootName(old.DER()) {
		t.Errorf("the old key, as if it were the new one: got %.8s, %v; want %.8s", got, err, RootName(old.DER()))
	}
	for want, f := range map[*Authority]func() (string, error){old: a, next: b} {
		if got, err := f(); err != nil || got != RootName(want.DER()) {
			t.Errorf("got %.8s, %v; want %.8s", got, err, RootName(want.DER()))
		}
	}
	if err := server.SetRoots([][]byte{next.DER()}); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (string, error){"plain": a, "posing as the new one": c} {
		if _, err := f(); KindOf(err) != Denied || !strings.Contains(err.Error(), "is trusted no more") {
			t.Errorf("%s, after its authority was removed: %v", name, err)
		}
	}
	if got, err := b(); err != nil || got != RootName(next.DER()) {
		t.Errorf("the other one: %.8s, %v", got, err)
	}
	if got := (&Credentials{live: server.live}).PeerRoot(t.Context()); got != "" {
		t.Errorf("without a caller: %q", got)
	}
}

// Fits tells before anything is written whether a certificate would do.
func TestFits(t *testing.T) {
	a, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthorityOf(a.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Credentials(Satellite, "sat1", time.Now(), time.Hour)
	if err == nil {
		err = c.SetRoots([][]byte{a.DER(), other.DER()})
	}
	if err != nil {
		t.Fatal(err)
	}
	issue := func(a *Authority, id Identity, at time.Time) []byte {
		own, err := a.Issue(id, at, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return own
	}
	somebody := Identity{Role: Satellite, ID: NewUUID(), Name: "sat1"}
	for name, test := range map[string]struct {
		own  []byte
		want string
	}{
		"right":               {issue(a, c.Identity, time.Now()), ""},
		"of somebody else":    {issue(a, somebody, time.Now()), "is that of"},
		"of the other one":    {issue(other, c.Identity, time.Now()), "not from the authority that issues"},
		"over":                {issue(a, c.Identity, time.Now().Add(-3*time.Hour)), "expired"},
		"nothing":             {nil, "no certificate with its key"},
		"without its own key": {a.CertPEM, "no certificate with its key"},
	} {
		if err := c.Fits(test.own); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

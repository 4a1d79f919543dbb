package wire

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Role is what a machine may do in its cluster.
type Role string

// The roles that certificates are made for.
const (
	Master    Role = "master"
	Satellite Role = "satellite"
)

// Identity is who a certificate stands for.
type Identity struct {
	Cluster string // UUID of the cluster
	Role    Role
	ID      string // UUID of the machine, kept over restarts and new certificates
	Name    string // host name for people; proves nothing
	Serial  string // of the certificate that was shown, hexadecimal; empty where there is none
}

// URI is the form of the identity in a certificate.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: "verde", Host: i.Cluster, Path: "/" + string(i.Role) + "/" + i.ID}
}

func (i Identity) String() string {
	if i.Name != "" {
		return fmt.Sprintf("%s %s (%s)", i.Role, i.Name, i.ID)
	}
	return fmt.Sprintf("%s %s", i.Role, i.ID)
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ParseIdentity reads verde://CLUSTER/ROLE/ID. It takes the one form that URI
// writes and no other, so equal identities are equal strings. Name is empty.
func ParseIdentity(uri string) (Identity, error) {
	bad := func(why string) (Identity, error) {
		return Identity{}, fmt.Errorf("identity %.120q: %s", uri, why)
	}
	rest, ok := strings.CutPrefix(uri, "verde://")
	if !ok {
		return bad(`does not begin with "verde://"`)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return bad("is not verde://CLUSTER/ROLE/ID")
	}
	i := Identity{Cluster: parts[0], Role: Role(parts[1]), ID: parts[2]}
	switch {
	case !uuid.MatchString(i.Cluster):
		return bad("the cluster is no UUID")
	case i.Role != Master && i.Role != Satellite:
		return bad("the role is neither master nor satellite")
	case !uuid.MatchString(i.ID):
		return bad("the machine is no UUID")
	}
	return i, nil
}

// IdentityOf reads the identity out of a certificate. It does not verify the
// certificate.
func IdentityOf(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URIs instead of one verde:// identity", len(c.URIs))
	}
	i, err := ParseIdentity(c.URIs[0].String())
	if err != nil {
		return Identity{}, err
	}
	if len(c.DNSNames) > 0 {
		i.Name = Clean(c.DNSNames[0], 255)
	}
	if c.SerialNumber != nil {
		i.Serial = serialOf(c)
	}
	return i, nil
}

// PeerIdentity is who is at the other end of the call that ctx belongs to. A
// call without a proved identity is refused with kind BadRequest.
func PeerIdentity(ctx context.Context) (Identity, error) {
	leaf := peerLeaf(ctx)
	if leaf == nil {
		return Identity{}, Errorf(BadRequest, "the call has no certificate")
	}
	i, err := IdentityOf(leaf)
	if err != nil {
		return Identity{}, Errorf(BadRequest, "%v", err)
	}
	return i, nil
}

// PeerCertificate is what PeerIdentity was read from: until when it is valid.
func PeerCertificate(ctx context.Context) (notBefore, notAfter time.Time) {
	if leaf := peerLeaf(ctx); leaf != nil {
		return leaf.NotBefore, leaf.NotAfter
	}
	return
}

// peerLeaf is the certificate that the other end of a call has shown, or nil.
func peerLeaf(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if l, counted := p.AuthInfo.(provedInfo); counted {
		info, ok = l.TLSInfo, true
	}
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}

// PeerAddress is the host that a call comes from; empty where that is not known.
func PeerAddress(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return Clean(p.Addr.String(), 64)
	}
	return host
}

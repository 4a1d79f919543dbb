package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

// Lives of certificates. They begin an hour early, for clocks that differ.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	early         = time.Hour
)

// Authority makes the certificates of one cluster. Whoever has it can become
// any machine of the cluster: it stays on the master.
type Authority struct {
	Cluster  string // UUID
	CertPEM  []byte // for everybody
	NotAfter time.Time

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a new cluster at now.
func NewAuthority(now time.Time) (*Authority, error) { return NewAuthorityOf(NewUUID(), now) }

// NewAuthorityOf makes a new authority for a cluster that exists, to take the
// place of the one before.
func NewAuthorityOf(cluster string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "verdecmd cluster " + cluster},
		URIs:                  []*url.URL{{Scheme: "verde", Host: cluster}},
		NotBefore:             now.Add(-early).UTC(),
		NotAfter:              now.Add(authorityLife).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	return ParseAuthority(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM)
}

// ParseAuthority is the opposite of CertPEM and KeyPEM.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := parseCA(certPEM)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the authority's key file holds no private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the authority's key and certificate do not belong together")
	}
	cluster, err := clusterOf(cert)
	if err != nil {
		return nil, err
	}
	return &Authority{Cluster: cluster, CertPEM: certPEM, NotAfter: cert.NotAfter, cert: cert, key: key}, nil
}

// KeyPEM is the secret of the cluster.
func (a *Authority) KeyPEM() ([]byte, error) { return marshalKey(a.key) }

// Certificate is one that an authority has made.
type Certificate struct {
	PEM                 []byte
	Serial              string // hexadecimal
	NotBefore, NotAfter time.Time
}

// Sign makes a certificate of the machine id for its key. It stands for the
// names and addresses given, beside the identity; nothing of a request is taken
// over but the key. life is shortened to the authority's own.
func (a *Authority) Sign(id Identity, pub *ecdsa.PublicKey, names []string, ips []net.IP, now time.Time, life time.Duration) (Certificate, error) {
	id.Cluster = a.Cluster
	if _, err := ParseIdentity(id.URI().String()); err != nil {
		return Certificate{}, err
	}
	end := now.Add(life)
	if end.After(a.NotAfter) {
		end = a.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(id.Role) + " " + id.ID},
		URIs:         []*url.URL{id.URI()},
		DNSNames:     names,
		IPAddresses:  ips,
		NotBefore:    now.Add(-early).UTC(),
		NotAfter:     end.UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, pub, a.key)
	if err != nil {
		return Certificate{}, err
	}
	return Certificate{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Serial: t.SerialNumber.Text(16), NotBefore: t.NotBefore, NotAfter: t.NotAfter}, nil
}

// Issue makes a certificate with a new key for the machine id, both in one
// PEM text as in IdentityFile. life is shortened to the authority's own.
func (a *Authority) Issue(id Identity, now time.Time, life time.Duration) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := a.Sign(id, &key.PublicKey, []string{id.Name}, nil, now, life)
	if err != nil {
		return nil, err
	}
	return IdentityPEM(cert.PEM, key)
}

// IdentityPEM is what IdentityFile holds: a certificate and its key.
func IdentityPEM(certPEM []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(certPEM, keyPEM), nil
}

// Fingerprint is the SHA-256 of the authority's certificate: what people and
// tokens know it by.
func (a *Authority) Fingerprint() [32]byte { return sha256.Sum256(a.cert.Raw) }

// DER is the authority's certificate.
func (a *Authority) DER() []byte { return a.cert.Raw }

// Credentials makes credentials of a new machine that never were a file, for
// clusters inside one program.
func (a *Authority) Credentials(role Role, name string, now time.Time, life time.Duration) (*Credentials, error) {
	own, err := a.Issue(Identity{Role: role, ID: NewUUID(), Name: name}, now, life)
	if err != nil {
		return nil, err
	}
	return Parse(a.CertPEM, own, role)
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// mostRoots is how many authorities one file or bundle may name. There are two
// while one takes the place of the other.
const mostRoots = 8

// parseRoots reads the certificates of one or several authorities.
func parseRoots(pemText []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for rest := pemText; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			break
		}
		cert, err := parseRoot(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", CAFile, err)
		}
		if roots = append(roots, cert); len(roots) > mostRoots {
			return nil, fmt.Errorf("%s holds more than %d certificates", CAFile, mostRoots)
		}
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s holds no certificate", CAFile)
	}
	return roots, nil
}

// parseCA reads the certificate of the authority that issues.
func parseCA(certPEM []byte) (*x509.Certificate, error) {
	roots, err := parseRoots(certPEM)
	if err != nil {
		return nil, err
	}
	return roots[0], nil
}

// parseDER reads certificates of authorities of one cluster.
func parseDER(der [][]byte, cluster string) ([]*x509.Certificate, error) {
	if len(der) == 0 || len(der) > mostRoots {
		return nil, fmt.Errorf("%d authorities are named, want 1 to %d", len(der), mostRoots)
	}
	var roots []*x509.Certificate
	for _, d := range der {
		cert, err := parseRoot(d)
		if err != nil {
			return nil, err
		}
		of, err := clusterOf(cert)
		if err != nil {
			return nil, err
		}
		if of != cluster {
			return nil, fmt.Errorf("an authority of cluster %s is named for cluster %s", of, cluster)
		}
		roots = append(roots, cert)
	}
	return roots, nil
}

func parseRoot(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("it is not the certificate of an authority")
	}
	return cert, nil
}

// clusterOf is the cluster that an authority's certificate names.
func clusterOf(cert *x509.Certificate) (string, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "verde" || !uuid.MatchString(cert.URIs[0].Host) {
		return "", errors.New("the authority's certificate names no cluster")
	}
	return cert.URIs[0].Host, nil
}

func serialOf(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// serial draws the number of a certificate.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[0] &= 0x7f
	b[0] |= 0x01
	return new(big.Int).SetBytes(b[:])
}

// NewUUID draws a random UUID (version 4).
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

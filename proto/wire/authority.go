package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
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
func NewAuthority(now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cluster := NewUUID()
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
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "verde" || !uuid.MatchString(cert.URIs[0].Host) {
		return nil, errors.New("the authority's certificate names no cluster")
	}
	return &Authority{Cluster: cert.URIs[0].Host, CertPEM: certPEM, NotAfter: cert.NotAfter, cert: cert, key: key}, nil
}

// KeyPEM is the secret of the cluster.
func (a *Authority) KeyPEM() ([]byte, error) { return marshalKey(a.key) }

// Issue makes a certificate with a new key for the machine id, both in one
// PEM text as in IdentityFile. life is shortened to the authority's own.
func (a *Authority) Issue(id Identity, now time.Time, life time.Duration) ([]byte, error) {
	id.Cluster = a.Cluster
	if _, err := ParseIdentity(id.URI().String()); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	end := now.Add(life)
	if end.After(a.NotAfter) {
		end = a.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: string(id.Role) + " " + id.ID},
		URIs:         []*url.URL{id.URI()},
		DNSNames:     []string{id.Name},
		NotBefore:    now.Add(-early).UTC(),
		NotAfter:     end.UTC(),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM...), nil
}

// Credentials makes credentials of a new machine that never were a file, for
// clusters inside one program.
func (a *Authority) Credentials(role Role, name string, now time.Time, life time.Duration) (*Credentials, error) {
	own, err := a.Issue(Identity{Role: role, ID: NewUUID(), Name: name}, now, life)
	if err != nil {
		return nil, err
	}
	return newCredentials(a.CertPEM, own)
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseCA reads the certificate of an authority.
func parseCA(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate", CAFile)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", CAFile, err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of an authority", CAFile)
	}
	return cert, nil
}

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

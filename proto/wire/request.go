package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
)

// maxRequest is the longest request for a certificate, in bytes. One for a key
// on P-256 has about 200.
const maxRequest = 8 << 10

// NewRequest makes a key and the request for a certificate for it, PKCS#10 in
// DER. The request names nobody: the master knows who asks.
func NewRequest() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	csr, err = RequestFor(key)
	return key, csr, err
}

// RequestFor makes a request for a key that is there already.
func RequestFor(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

var (
	extensionBasic = asn1.ObjectIdentifier{2, 5, 29, 19}
	extensionUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
)

// ParseRequest takes the key out of a request whose sender has proved to have
// it. Every name in the request is ignored. Refusals are of kind BadRequest.
func ParseRequest(csr []byte) (*ecdsa.PublicKey, error) {
	if len(csr) > maxRequest {
		return nil, Errorf(BadRequest, "the certificate request has %d bytes, at most %d are taken: it needs a P-256 key and no names", len(csr), maxRequest)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, Errorf(BadRequest, "the certificate request cannot be read: %v", err)
	}
	pub, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, Errorf(BadRequest, "the certificate request has a key of kind %v: it must be ECDSA on P-256", r.PublicKeyAlgorithm)
	}
	for _, x := range r.Extensions {
		switch {
		case x.Id.Equal(extensionBasic) && bytes.Contains(x.Value, []byte{1, 1, 0xff}): // BOOLEAN TRUE
			return nil, Errorf(BadRequest, "the certificate request asks for an authority (CA:TRUE): a host gets none")
		case x.Id.Equal(extensionUsage):
			return nil, Errorf(BadRequest, "the certificate request asks for key usages: the master decides about them")
		}
	}
	if err := r.CheckSignature(); err != nil {
		return nil, Errorf(BadRequest, "the certificate request is not signed by its key: %v", err)
	}
	return pub, nil
}

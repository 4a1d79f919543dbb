package wire

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// RootName is the name of an authority: the SHA-256 of its certificate (DER), in
// hexadecimal.
func RootName(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// PeerRoot names the trusted authority that has issued the certificate which
// the caller has shown; empty where that is not known.
func (c *Credentials) PeerRoot(ctx context.Context) string {
	leaf := peerLeaf(ctx)
	if leaf == nil {
		return ""
	}
	c.live.mu.RLock()
	roots := c.live.roots // another one is put there, it never changes
	c.live.mu.RUnlock()
	return rootOf(leaf, roots)
}

// rootOf names the authority that has signed leaf; empty: none of roots has. The
// signature is checked: the key identifier in leaf is the word of whoever made it.
func rootOf(leaf *x509.Certificate, roots []*x509.Certificate) string {
	if r := issuer(leaf, roots); r != nil {
		return RootName(r.Raw)
	}
	return ""
}

// Fits tells whether a certificate with its key would do as the own one: of the
// same identity, valid now, and from the authority that issues.
func (c *Credentials) Fits(identityPEM []byte) error {
	_, leaf, err := c.another(identityPEM)
	if err != nil {
		return err
	}
	if err := inTime(leaf, c.now()); err != nil {
		return fmt.Errorf("the new certificate: %w", err)
	}
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	if issuer(leaf, c.live.roots[:1]) == nil {
		return fmt.Errorf("the new certificate of %s is not from the authority that issues", c.Identity)
	}
	return nil
}

// OwnRoot names the authority that has issued the own certificate.
func (c *Credentials) OwnRoot() string {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	return rootOf(c.live.leaf, c.live.roots)
}

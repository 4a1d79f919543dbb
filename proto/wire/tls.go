package wire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Names that a client gives in its TLS hello (SNI) to say what it comes for.
// They are no host names and are not looked up.
const (
	JoinServerName   = "join.verdecmd.invalid"   // it has no certificate yet
	RejoinServerName = "rejoin.verdecmd.invalid" // its certificate has expired
)

// rejoinWithin is how long after its end a certificate still proves who asks
// for a new one.
const rejoinWithin = 365 * 24 * time.Hour

// alpn is what gRPC speaks over TLS.
var alpn = []string{"h2"}

// ServerTLS is for the master's port: it admits satellites of the same cluster
// and, for what admit lets them do, those who want to become one.
func (c *Credentials) ServerTLS() *tls.Config {
	t := c.server(Satellite, 0)
	join := c.server(Satellite, 0)
	join.ClientAuth, join.VerifyConnection = tls.NoClientCert, nil
	join.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.withRoot(), nil }
	rejoin := c.server(Satellite, rejoinWithin)
	t.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch hello.ServerName {
		case JoinServerName:
			return join, nil
		case RejoinServerName:
			return rejoin, nil
		}
		return nil, nil
	}
	return t
}

// PeerTLS is for a satellite's port: it admits other satellites of the cluster.
func (c *Credentials) PeerTLS() *tls.Config { return c.server(Satellite, 0) }

// server is a configuration that admits machines with that role, whose
// certificates may be over for so long.
func (c *Credentials) server(want Role, late time.Duration) *tls.Config {
	t := c.config(want, late)
	t.ClientAuth = tls.RequireAnyClientCert // verified by VerifyConnection
	t.SessionTicketsDisabled = true
	t.NextProtos = alpn
	t.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.present(), nil }
	return t
}

// ClientTLS is for a satellite: it talks to a master of the same cluster and
// to nobody else, whatever name it was reached by.
func (c *Credentials) ClientTLS() *tls.Config { return c.client(Master, "") }

// client is for who calls a machine with that role and, where id is not empty,
// that identity.
func (c *Credentials) client(want Role, id string) *tls.Config {
	t := c.config(want, 0)
	// No host name is checked; VerifyConnection verifies everything else and
	// runs for every connection.
	t.InsecureSkipVerify = true
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.present(), nil }
	verify := t.VerifyConnection
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if err := verify(s); err != nil {
			return err
		}
		who, err := IdentityOf(s.PeerCertificates[0])
		if err != nil {
			return err
		}
		if id != "" && who.ID != id {
			return fmt.Errorf("%s answers where %s is wanted", who, id)
		}
		if why, revoked := c.isRevoked(who); revoked {
			return fmt.Errorf("%s is of the cluster no more: %s", who, why)
		}
		return nil
	}
	return t
}

func (c *Credentials) config(peer Role, late time.Duration) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       c.now,
		VerifyConnection: func(s tls.ConnectionState) error {
			return c.verify(s.PeerCertificates, peer, late)
		},
	}
}

// present is the own certificate.
func (c *Credentials) present() *tls.Certificate {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	own := c.live.own
	return &own
}

// withRoot is the own certificate with its authority's, for who does not know
// that yet and compares its fingerprint.
func (c *Credentials) withRoot() *tls.Certificate {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	own := c.live.own
	own.Certificate = own.Certificate[:1:1]
	if r := issuer(c.live.leaf, c.live.roots); r != nil {
		own.Certificate = append(own.Certificate, r.Raw)
	}
	return &own
}

// verify decides about a peer, whose certificate may be over for so long. The
// order makes the message the most telling one: another cluster, then the time,
// then the role.
func (c *Credentials) verify(chain []*x509.Certificate, want Role, late time.Duration) error {
	if len(chain) == 0 {
		return errors.New("the peer shows no certificate")
	}
	leaf := chain[0]
	id, err := IdentityOf(leaf)
	if err != nil {
		return fmt.Errorf("the peer is no machine of a cluster: %w", err)
	}
	if id.Cluster != c.Identity.Cluster {
		return fmt.Errorf("%s belongs to cluster %s, this machine to %s: register one of them again", id, id.Cluster, c.Identity.Cluster)
	}
	now := c.now()
	at := now
	if late > 0 && now.After(leaf.NotAfter) && now.Sub(leaf.NotAfter) <= late {
		at = leaf.NotAfter
	}
	if err := inTime(leaf, at); err != nil {
		return fmt.Errorf("the certificate of %s: %w", id, err)
	}
	c.live.mu.RLock()
	roots := x509.NewCertPool()
	for _, r := range c.live.roots {
		roots.AddCert(r)
	}
	c.live.mu.RUnlock()
	usage := x509.ExtKeyUsageClientAuth
	if want == Master {
		usage = x509.ExtKeyUsageServerAuth
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return fmt.Errorf("the certificate of %s is not from this cluster's authority, register it again: %w", id, err)
	}
	if id.Role != want {
		return fmt.Errorf("%s shows the certificate of a %s where a %s is wanted", id, id.Role, want)
	}
	return nil
}

// inTime says both times and the difference, since a wrong clock is the usual
// cause.
func inTime(leaf *x509.Certificate, now time.Time) error {
	show := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("not valid before %s and it is %s here, %v too early: set the clock", show(leaf.NotBefore), show(now), skew(leaf.NotBefore.Sub(now)))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("expired at %s and it is %s here, %v too late: look at the clock; a satellite asks for a new one by itself, or make one with \"verdecmd enrol\" on the master", show(leaf.NotAfter), show(now), skew(now.Sub(leaf.NotAfter)))
	}
	return nil
}

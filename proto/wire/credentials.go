package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The files of a PKI directory that a daemon needs.
const (
	CAFile       = "ca.pem"       // certificate of the cluster's authority
	IdentityFile = "identity.pem" // certificate and key of this machine, 0600
)

// warnBefore is how long before its end a certificate is worth a warning.
const warnBefore = 30 * 24 * time.Hour

// Credentials are this machine's identity and the authority that it trusts.
type Credentials struct {
	Identity Identity
	NotAfter time.Time // end of the own certificate

	// Now is asked at each handshake; the default is time.Now.
	Now func() time.Time

	own  tls.Certificate
	leaf *x509.Certificate
	ca   *x509.Certificate
}

// Load reads the credentials of a machine whose role is want out of a PKI
// directory. Whether they are still valid is checked by Check, so that a
// daemon can start with an expired certificate and say so.
func Load(dir string, want Role) (*Credentials, error) {
	fix := `make them on the master with "verdecmd enrol NAME" and copy them here`
	if want == Master {
		fix = `make them with "verdecmd init"`
	}
	caPEM, err := read(filepath.Join(dir, CAFile), 0o022, fix)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, IdentityFile)
	ownPEM, err := read(path, 0o077, fix)
	if err != nil {
		return nil, err
	}
	c, err := newCredentials(caPEM, ownPEM)
	if err != nil {
		return nil, fmt.Errorf("credentials in %s: %w", dir, err)
	}
	if c.Identity.Role != want {
		return nil, fmt.Errorf("%s is the certificate of a %s, a %s needs its own: %s", path, c.Identity.Role, want, fix)
	}
	return c, nil
}

// read returns a file that is not looser than allowed.
func read(path string, forbidden fs.FileMode, fix string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: %s: %w", path, fix, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	if got := st.Mode().Perm(); got&forbidden != 0 {
		return nil, fmt.Errorf("%s has mode %04o and is open to others: chmod %04o %s", path, got, got&^forbidden, path)
	}
	if st.Size() > 1<<20 {
		return nil, fmt.Errorf("%s has %d bytes, that is no certificate", path, st.Size())
	}
	b := new(bytes.Buffer)
	if _, err := b.ReadFrom(f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b.Bytes(), nil
}

// newCredentials parses both files. The error never quotes them.
func newCredentials(caPEM, ownPEM []byte) (*Credentials, error) {
	ca, err := parseCA(caPEM)
	if err != nil {
		return nil, err
	}
	own, err := tls.X509KeyPair(ownPEM, ownPEM)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificate with its key: %w", IdentityFile, err)
	}
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		return nil, err
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return nil, err
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("%s and %s are of two clusters: copy both files from one enrolment", IdentityFile, CAFile)
	}
	return &Credentials{Identity: id, NotAfter: leaf.NotAfter, own: own, leaf: leaf, ca: ca}, nil
}

func (c *Credentials) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// Check tells whether the own certificate is valid now, and what to do if it
// is not.
func (c *Credentials) Check() error {
	if err := inTime(c.leaf, c.now()); err != nil {
		return fmt.Errorf("the own certificate (%s): %w", c.Identity, err)
	}
	return nil
}

// Warning is a line for the log where the own certificate ends within 30 days
// or is not valid now, else empty.
func (c *Credentials) Warning() string {
	if err := c.Check(); err != nil {
		return err.Error()
	}
	left := c.NotAfter.Sub(c.now())
	if left > warnBefore {
		return ""
	}
	return fmt.Sprintf("the own certificate (%s) ends at %s, in %v: make a new one with \"verdecmd enrol\" on the master and restart", c.Identity, c.NotAfter.UTC().Format(time.RFC3339), skew(left))
}

// Remind tells the Warning, if there is one, now and once a day until ctx ends.
func (c *Credentials) Remind(ctx context.Context, tell func(warning string)) {
	day := time.NewTicker(24 * time.Hour)
	defer day.Stop()
	for {
		if w := c.Warning(); w != "" {
			tell(w)
		}
		select {
		case <-ctx.Done():
			return
		case <-day.C:
		}
	}
}

// ServerTLS is for the master's port: it admits satellites of the same
// cluster and nobody else.
func (c *Credentials) ServerTLS() *tls.Config {
	t := c.config(Satellite)
	t.ClientAuth = tls.RequireAnyClientCert // verified by VerifyConnection
	t.SessionTicketsDisabled = true
	return t
}

// ClientTLS is for a satellite: it talks to a master of the same cluster and
// to nobody else, whatever name it was reached by.
func (c *Credentials) ClientTLS() *tls.Config {
	t := c.config(Master)
	// No host name is checked; VerifyConnection verifies everything else and
	// runs for every connection.
	t.InsecureSkipVerify = true
	return t
}

func (c *Credentials) config(peer Role) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c.own},
		MinVersion:   tls.VersionTLS13,
		Time:         c.now,
		VerifyConnection: func(s tls.ConnectionState) error {
			return c.verify(s.PeerCertificates, peer)
		},
	}
}

// verify decides about a peer. The order makes the message the most telling
// one: another cluster, then the time, then the role.
func (c *Credentials) verify(chain []*x509.Certificate, want Role) error {
	if len(chain) == 0 {
		return errors.New("the peer shows no certificate")
	}
	leaf := chain[0]
	id, err := IdentityOf(leaf)
	if err != nil {
		return fmt.Errorf("the peer is no machine of a cluster: %w", err)
	}
	if id.Cluster != c.Identity.Cluster {
		return fmt.Errorf("%s belongs to cluster %s, this machine to %s: enrol one of them again", id, id.Cluster, c.Identity.Cluster)
	}
	now := c.now()
	if err := inTime(leaf, now); err != nil {
		return fmt.Errorf("the certificate of %s: %w", id, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca)
	usage := x509.ExtKeyUsageClientAuth
	if want == Master {
		usage = x509.ExtKeyUsageServerAuth
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		return fmt.Errorf("the certificate of %s is not from this cluster's authority, enrol it again: %w", id, err)
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
		return fmt.Errorf("expired at %s and it is %s here, %v too late: look at the clock, or make a new one with \"verdecmd enrol\" on the master", show(leaf.NotAfter), show(now), skew(now.Sub(leaf.NotAfter)))
	}
	return nil
}

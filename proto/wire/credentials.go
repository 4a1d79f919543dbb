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
	"sync"
	"syscall"
	"time"
)

// The files of a PKI directory that a daemon needs.
const (
	CAFile       = "ca.pem"       // certificate of the cluster's authority
	IdentityFile = "identity.pem" // certificate and key of this machine, 0600
)

// A certificate is worth a warning so long before its end, or in the last part
// of its life where that is shorter: it renews itself before.
const (
	warnBefore = 30 * 24 * time.Hour
	warnShare  = 6
)

// Credentials are this machine's identity and the authorities that it trusts.
// They may change while they are in use: each handshake takes what is in force
// when it begins. All methods may be called by many goroutines.
type Credentials struct {
	// Identity never changes. Its Serial is that of the first certificate.
	Identity Identity

	// Now is asked at each handshake; the default is time.Now.
	Now func() time.Time

	live *live
}

// live is the part of credentials that changes.
type live struct {
	mu      sync.RWMutex // guards what follows, held for a few assignments
	own     tls.Certificate
	leaf    *x509.Certificate
	roots   []*x509.Certificate
	revoked func(id, serial string) (why string, revoked bool)
}

// Load reads the credentials of a machine whose role is want out of a PKI
// directory. Whether they are still valid is checked by Check, so that a
// daemon can start with an expired certificate and say so.
func Load(dir string, want Role) (*Credentials, error) {
	fix := fixOf(want)
	caPEM, err := read(filepath.Join(dir, CAFile), 0o022, fix)
	if err != nil {
		return nil, err
	}
	ownPEM, err := read(filepath.Join(dir, IdentityFile), 0o077, fix)
	if err != nil {
		return nil, err
	}
	c, err := Parse(caPEM, ownPEM, want)
	if err != nil {
		return nil, fmt.Errorf("credentials in %s: %w", dir, err)
	}
	return c, nil
}

// Parse is Load without the files: what CAFile and IdentityFile hold. No error
// quotes it.
func Parse(caPEM, ownPEM []byte, want Role) (*Credentials, error) {
	roots, err := parseRoots(caPEM)
	if err != nil {
		return nil, err
	}
	own, leaf, err := parseOwn(ownPEM)
	if err != nil {
		return nil, err
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return nil, err
	}
	if issuer(leaf, roots) == nil {
		return nil, fmt.Errorf("%s and %s are of two clusters: register this host again, or copy both files from one enrolment", IdentityFile, CAFile)
	}
	if id.Role != want {
		return nil, fmt.Errorf("%s is the certificate of a %s, a %s needs its own: %s", IdentityFile, id.Role, want, fixOf(want))
	}
	return &Credentials{Identity: id, live: &live{own: own, leaf: leaf, roots: roots}}, nil
}

// fixOf is what to do where a machine with that role has no credentials.
func fixOf(want Role) string {
	if want == Master {
		return `make them with "verdecmd init"`
	}
	return `register this host with "verdecmd register", or make them on the master with "verdecmd enrol NAME" and copy them here`
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
	if err := Owned(path, st); err != nil {
		return nil, err
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

// Owned refuses a file that belongs to neither root nor the user who runs this
// program: whoever owns it can read it and put another one in its place.
func Owned(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 || int(st.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to uid %d, who can read and replace it: chown root:root %s", path, st.Uid, path)
}

// parseOwn reads a certificate with its key.
func parseOwn(pem []byte) (tls.Certificate, *x509.Certificate, error) {
	own, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		return own, nil, fmt.Errorf("%s holds no certificate with its key: %w", IdentityFile, err)
	}
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	return own, leaf, err
}

// issuer is the authority that has signed leaf, or nil.
func issuer(leaf *x509.Certificate, roots []*x509.Certificate) *x509.Certificate {
	for _, r := range roots {
		if leaf.CheckSignatureFrom(r) == nil {
			return r
		}
	}
	return nil
}

// Renew puts a new certificate of the same identity in the place of the old
// one, for all handshakes that begin from now on.
func (c *Credentials) Renew(identityPEM []byte) error {
	own, leaf, err := c.another(identityPEM)
	if err != nil {
		return err
	}
	l := c.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if issuer(leaf, l.roots) == nil {
		return fmt.Errorf("the new certificate of %s is not from an authority that is trusted here", c.Identity)
	}
	l.own, l.leaf = own, leaf
	return nil
}

// another reads a certificate with its key that is to take the place of the own
// one: it must be of the same identity.
func (c *Credentials) another(identityPEM []byte) (own tls.Certificate, leaf *x509.Certificate, err error) {
	if own, leaf, err = parseOwn(identityPEM); err != nil {
		return own, nil, err
	}
	id, err := IdentityOf(leaf)
	if err == nil && id.URI().String() != c.Identity.URI().String() {
		err = fmt.Errorf("the new certificate is that of %s, not of %s", id, c.Identity)
	}
	return own, leaf, err
}

// SetRoots says which authorities are trusted from now on, each as a
// certificate in DER, the one that issues first. The own certificate must come
// from one of them.
func (c *Credentials) SetRoots(der [][]byte) error {
	roots, err := parseDER(der, c.Identity.Cluster)
	if err != nil {
		return err
	}
	l := c.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if issuer(l.leaf, roots) == nil {
		return fmt.Errorf("none of the %d authorities has issued the own certificate (%s)", len(roots), c.Identity)
	}
	l.roots = roots
	return nil
}

// Roots are the trusted authorities in DER, the one that issues first.
func (c *Credentials) Roots() [][]byte {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	var out [][]byte
	for _, r := range c.live.roots {
		out = append(out, r.Raw)
	}
	return out
}

// SetRevoked hands in who tells which identities are of the cluster no more,
// and why. It is asked for every call and must not block.
func (c *Credentials) SetRevoked(f func(id, serial string) (why string, revoked bool)) {
	c.live.mu.Lock()
	defer c.live.mu.Unlock()
	c.live.revoked = f
}

// isRevoked tells whether an identity is of the cluster no more.
func (c *Credentials) isRevoked(id Identity) (why string, revoked bool) {
	c.live.mu.RLock()
	f := c.live.revoked
	c.live.mu.RUnlock()
	if f == nil {
		return "", false
	}
	return f(id.ID, id.Serial)
}

// Serial is the number of the own certificate, in hexadecimal.
func (c *Credentials) Serial() string { return serialOf(c.certificate()) }

// Valid is from when until when the own certificate is valid.
func (c *Credentials) Valid() (notBefore, notAfter time.Time) {
	leaf := c.certificate()
	return leaf.NotBefore, leaf.NotAfter
}

// NewestRoot tells whether the own certificate comes from the authority that
// issues now.
func (c *Credentials) NewestRoot() bool {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	return issuer(c.live.leaf, c.live.roots[:1]) != nil
}

func (c *Credentials) certificate() *x509.Certificate {
	c.live.mu.RLock()
	defer c.live.mu.RUnlock()
	return c.live.leaf
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
	if err := inTime(c.certificate(), c.now()); err != nil {
		return fmt.Errorf("the own certificate (%s): %w", c.Identity, err)
	}
	return nil
}

// Warning is a line for the log where the own certificate is not valid now, or
// where it should have renewed itself long ago; else empty.
func (c *Credentials) Warning() string {
	if err := c.Check(); err != nil {
		return err.Error()
	}
	from, until := c.Valid()
	left := until.Sub(c.now())
	if left > min(warnBefore, until.Sub(from)/warnShare) {
		return ""
	}
	return fmt.Sprintf("the own certificate (%s) ends at %s, in %v, and has not been renewed: is the master reachable? Else make a new one with \"verdecmd enrol\" there", c.Identity, until.UTC().Format(time.RFC3339), skew(left))
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

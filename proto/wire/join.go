package wire

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Shown is what a master shows to a machine that does not know it yet. It
// proves nothing until the fingerprint is compared with one that came another
// way: from the administrator, or in a token.
type Shown struct {
	Cluster     string   // UUID
	Fingerprint [32]byte // of the authority, see Authority.Fingerprint
	Name        string   // of the master, for people
}

// errNoAuthority is what a master before this version, or another program,
// answers to who wants to join.
var errNoAuthority = errors.New("it shows no authority: is this the master's address, and its software as new as here?")

// Look asks the master at address (host:port) who it is. Nothing is sent but
// the greeting of TLS.
func Look(ctx context.Context, address string) (Shown, error) {
	var shown Shown
	t := joining(time.Now, func(chain []*x509.Certificate) (*x509.Certificate, error) {
		if len(chain) < 2 || !chain[len(chain)-1].IsCA {
			return nil, errNoAuthority
		}
		return chain[len(chain)-1], nil
	}, &shown)
	t.NextProtos = alpn
	ctx, cancel := context.WithTimeout(ctx, HandshakeTimeout)
	defer cancel()
	c, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: t}).DialContext(ctx, "tcp", address)
	if err != nil {
		return Shown{}, Errorf(Unreachable, "the master at %s: %v", address, err)
	}
	c.Close()
	return shown, nil
}

// JoinDialOptions are the options of a connection that registers a host at the
// master whose authority has this fingerprint. Nothing is sent to any other.
func JoinDialOptions(ca [32]byte, now func() time.Time) []grpc.DialOption {
	return dialOptions(joining(now, func(chain []*x509.Certificate) (*x509.Certificate, error) {
		for _, c := range chain {
			sum := sha256.Sum256(c.Raw)
			if c.IsCA && subtle.ConstantTimeCompare(sum[:], ca[:]) == 1 {
				return c, nil
			}
		}
		if len(chain) < 2 {
			return nil, errNoAuthority
		}
		sum := sha256.Sum256(chain[len(chain)-1].Raw)
		return nil, fmt.Errorf("the master shows the authority %s, wanted is %s: this is another cluster, a token from before its authority was changed, or somebody is in between; nothing was sent",
			FormatFingerprint(sum), FormatFingerprint(ca))
	}, nil))
}

// joining is for who has no certificate yet. root finds the authority to
// believe in among the certificates that the master shows.
func joining(now func() time.Time, root func([]*x509.Certificate) (*x509.Certificate, error), shown *Shown) *tls.Config {
	return &tls.Config{
		ServerName:         JoinServerName,
		MinVersion:         tls.VersionTLS13,
		Time:               now,
		InsecureSkipVerify: true, // VerifyConnection verifies, and runs always
		VerifyConnection: func(s tls.ConnectionState) error {
			ca, err := root(s.PeerCertificates)
			if err != nil {
				return err
			}
			cluster, err := clusterOf(ca)
			if err != nil {
				return err
			}
			// What is verified is what a member of this cluster would verify.
			c := &Credentials{Identity: Identity{Cluster: cluster}, Now: now, live: &live{roots: []*x509.Certificate{ca}}}
			if err := c.verify(s.PeerCertificates, Master, 0); err != nil {
				return err
			}
			if shown != nil {
				id, err := IdentityOf(s.PeerCertificates[0])
				if err != nil {
					return err
				}
				*shown = Shown{Cluster: cluster, Fingerprint: sha256.Sum256(ca.Raw), Name: id.Name}
			}
			return nil
		},
	}
}

// FormatFingerprint writes a fingerprint for people: 16 groups of 4 digits.
func FormatFingerprint(f [32]byte) string {
	var b strings.Builder
	for i := 0; i < len(f); i += 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(hex.EncodeToString(f[i : i+2]))
	}
	return b.String()
}

// ParseFingerprint reads a fingerprint, with or without blanks or colons
// between its 64 hexadecimal digits.
func ParseFingerprint(s string) ([32]byte, error) {
	var f [32]byte
	s = strings.TrimPrefix(strings.TrimSpace(strings.ToLower(s)), "sha256:")
	digits := strings.NewReplacer(" ", "", ":", "").Replace(s)
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != len(f) {
		return f, fmt.Errorf("%.80q is no fingerprint: it has 64 hexadecimal digits", s)
	}
	return [32]byte(b), nil
}

package wire

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pb "verdecmd/proto"
)

// certificates are an authority's and one of its machines', made at now.
func certificates(f *testing.F, now time.Time) (a *Authority, own []byte) {
	a, err := NewAuthority(now)
	if err != nil {
		f.Fatal(err)
	}
	own, err = a.Issue(Identity{Role: Satellite, ID: NewUUID(), Name: "sat1"}, now, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	return a, own
}

// FuzzPeer: a certificate of anybody's, whatever is in it, is no machine of this
// cluster; the refusal can be shown and sent. Only what the authority has signed
// passes (S16, S21).
func FuzzPeer(f *testing.F) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	a, own := certificates(f, now)
	c, err := Parse(a.CertPEM, own, Satellite)
	if err != nil {
		f.Fatal(err)
	}
	c.Now = func() time.Time { return now }
	_, other := certificates(f, now)
	good, _ := pem.Decode(own)
	stranger, _ := pem.Decode(other)
	f.Add(good.Bytes)
	f.Add(stranger.Bytes)
	f.Add(bytes.Replace(good.Bytes, []byte("/satellite/"), []byte("/\x1b[2Jte/\xff/"), 1))
	f.Add(bytes.Replace(stranger.Bytes, []byte("sat1"), []byte("\x1b]0;"), -1))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if id, err := IdentityOf(cert); err == nil {
			if !utf8.ValidString(id.Name) || len(id.Name) > 255 || strings.ContainsAny(id.Name, "\x1b\n\x00") || differs(id) {
				t.Errorf("identity %+v", id)
			}
		}
		for _, role := range []Role{Master, Satellite} {
			err := c.verify([]*x509.Certificate{cert}, role, 0)
			if signed := cert.CheckSignatureFrom(c.live.roots[0]) == nil; err == nil && (!signed || role != Satellite) {
				t.Errorf("%x passes for a %s", der, role)
			} else if err != nil {
				if d := Detail(err); !utf8.ValidString(d.Text) || strings.ContainsAny(d.Text, "\x1b\n\x00") {
					t.Errorf("refused with %q", d.Text)
				}
			}
		}
	})
}

// differs tells of an identity that is not what its own URI says.
func differs(id Identity) bool {
	again, err := ParseIdentity(id.URI().String())
	again.Name, again.Serial = id.Name, id.Serial
	return err != nil || again != id
}

// FuzzFiles: the files of an enrolment are read or refused in words that name the
// file and never quote the key; what is read can be used.
func FuzzFiles(f *testing.F) {
	a, own := certificates(f, time.Now())
	key, err := a.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.CertPEM, key, own)
	f.Add(key, a.CertPEM, own)
	f.Add(own, key, a.CertPEM)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"), bytes.Repeat(own, 3))
	f.Fuzz(func(t *testing.T, ca, key, own []byte) {
		secret := func(err error) bool {
			for line := range strings.Lines(string(key) + string(own)) {
				if line = strings.TrimSpace(line); len(line) > 40 && strings.Contains(err.Error(), line) {
					return true
				}
			}
			return err.Error() == ""
		}
		if a, err := ParseAuthority(ca, key); err != nil {
			if secret(err) {
				t.Errorf("authority: %q", err)
			}
		} else if _, err := a.Issue(Identity{Role: Master, ID: NewUUID(), Name: "m"}, time.Now(), time.Hour); err != nil {
			t.Errorf("an authority that issues nothing: %v", err)
		}
		c, err := Parse(ca, own, Satellite)
		if err != nil {
			if secret(err) {
				t.Errorf("credentials: %q", err)
			}
			return
		}
		if differs(c.Identity) || c.ServerTLS() == nil {
			t.Errorf("credentials of %+v", c.Identity)
		}
		_ = c.Warning()
	})
}

// FuzzDetail: an error of the other end, whatever it says, is one of a known kind
// whose text can be shown, and comes through again unchanged.
func FuzzDetail(f *testing.F) {
	f.Add(string(NotFound), "no such session")
	f.Add("dancing", "\x1b[2J\xff\n")
	f.Add("", strings.Repeat("ä", 5000))
	f.Add(string(Internal), "\u202e\u2028")
	f.Fuzz(func(t *testing.T, kind, text string) {
		err := FromDetail(&pb.ErrorDetail{Kind: kind, Text: text})
		var e *Error
		if !errors.As(err, &e) || e.Text == "" || len(e.Text) > maxText || !utf8.ValidString(e.Text) || strings.ContainsAny(e.Text, "\x1b\n\r\x00\u202e") {
			t.Fatalf("got %#v", err)
		}
		if _, known := kinds[e.Kind]; !known {
			t.Errorf("kind %q", e.Kind)
		}
		if again := FromDetail(Detail(err)); KindOf(again) != e.Kind || again.Error() != e.Text {
			t.Errorf("%q came back as %q", e, again)
		}
		if again := FromStatus(ToStatus(err)); KindOf(again) != e.Kind || again.Error() != e.Text {
			t.Errorf("%q came back as %q over gRPC", e, again)
		}
	})
}

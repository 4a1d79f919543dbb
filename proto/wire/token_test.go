package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// RELIABILITY 4.4, pitfalls 1 and 2: there is no token without the authority's
// hash, and none makes the reader work much.
func TestToken(t *testing.T) {
	t.Parallel()
	a := authority(t)
	tok := NewToken(a.Cluster, a.Fingerprint(), 7)
	text := tok.String()
	if got, err := ParseToken("  " + text + "\n"); err != nil || got != tok {
		t.Fatalf("got %v, %v", got, err)
	}
	short := strings.Join(append(strings.Split(text, "-")[:2], strings.Split(text, "-")[3:]...), "-")
	tests := map[string]struct{ text, want string }{
		"nothing":             {"", "is empty"},
		"a password":          {"correct horse", "this is no token"},
		"cut off":             {text[:len(text)/2], "cut off"},
		"cut off at the end":  {text[:len(text)-1], "check sum does not fit"},
		"one letter":          {strings.Replace(text, "-7-", "-8-", 1), "check sum does not fit"},
		"something behind it": {text + "-x", "something behind"},
		"two tokens":          {text + text, "something behind"},
		"without the hash":    {short, "cut off"},
		"long":                {"vd1-" + strings.Repeat("a", 1<<20), "this is no token"},
		"of a later version":  {"vd2" + text[3:], "this is no token"},
		"a bomb":              {"H4sIAAAAAAAA" + strings.Repeat("A", 1<<16), "this is no token"},
	}
	for name, test := range tests {
		if _, err := ParseToken(test.text); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), fmt.Sprintf("%x", tok.Secret)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// RELIABILITY 4.4, pitfall 5: a token that reaches a log, an error or a JSON
// document does not show its secret.
func TestTokenIsRedacted(t *testing.T) {
	t.Parallel()
	tok := NewToken(NewUUID(), [32]byte{1}, 12)
	encoded, err := json.Marshal(map[string]any{"token": tok})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{fmt.Sprint(tok), fmt.Sprintf("%v %+v %#v %s %q %x", tok, tok, tok, tok, tok, tok), fmt.Errorf("x: %w", fmt.Errorf("%v", tok)).Error(), string(encoded)} {
		if strings.Contains(got, fmt.Sprintf("%x", tok.Secret)) || strings.Contains(got, "vd1-") {
			t.Errorf("shows the secret: %s", got)
		}
	}
	if NewToken(tok.Cluster, tok.CA, 12).SecretHash() == tok.SecretHash() {
		t.Error("two secrets with one hash")
	}
}

// FuzzToken: what is read as a token is one whose text is the same again.
func FuzzToken(f *testing.F) {
	good := Token{Cluster: "01234567-89ab-4cde-8f01-23456789abcd", CA: [32]byte{1, 2}, ID: 3, Secret: [16]byte{4}}
	f.Add(good.String())
	f.Add("vd1-----")
	f.Add("vd1-" + strings.Repeat("0", 32) + "-" + strings.Repeat("0", 64) + "-1-" + strings.Repeat("0", 32) + "-00000000")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.String() != strings.TrimSpace(s) {
			t.Errorf("%q became %q", s, tok.String())
		}
		if err != nil && (err.Error() == "" || len(err.Error()) > 200) {
			t.Errorf("refused with %q", err)
		}
	})
}

// bad makes a request that a joker might send.
func bad(t *testing.T, key any, template *x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// RELIABILITY 4.4, pitfall 7: a request cannot make its sender an authority, cost
// much, or choose a name.
func TestRequest(t *testing.T) {
	t.Parallel()
	key, good, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	if pub, err := ParseRequest(good); err != nil || !pub.Equal(key.Public()) {
		t.Fatalf("got %v, %v", pub, err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("host%d.example.com", i))
	}
	ca, err := asn1.Marshal(struct{ CA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	notCA, err := asn1.Marshal(struct {
		CA bool `asn1:"optional"`
	}{})
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	tests := map[string]struct {
		csr  []byte
		want string // in the refusal; empty: taken
	}{
		"names":         {bad(t, key, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "master"}, DNSNames: []string{"*", "*.example.com", "master"}, IPAddresses: []net.IP{{127, 0, 0, 1}}}), ""},
		"CA:FALSE":      {bad(t, key, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: extensionBasic, Value: notCA}}}), ""},
		"CA:TRUE":       {bad(t, key, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: extensionBasic, Critical: true, Value: ca}}}), "asks for an authority (CA:TRUE)"},
		"key usage":     {bad(t, key, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: extensionUsage, Value: []byte{3, 2, 1, 6}}}}), "asks for key usages"},
		"10,000 names":  {bad(t, key, &x509.CertificateRequest{DNSNames: many}), "bytes, at most 8192 are taken"},
		"RSA":           {bad(t, small, &x509.CertificateRequest{}), "kind RSA: it must be ECDSA on P-256"},
		"another curve": {bad(t, p384, &x509.CertificateRequest{}), "it must be ECDSA on P-256"},
		"a giant key":   {giant(t), "kind RSA: it must be ECDSA on P-256"},
		"forged":        {forged, "is not signed by its key"},
		"cut off":       {good[:len(good)-5], "cannot be read"},
		"nothing":       {nil, "cannot be read"},
	}
	for name, test := range tests {
		var err error
		took := time.Hour
		for try := 0; try < 3 && took > time.Second; try++ { // something else may have held it up
			began := time.Now()
			_, err = ParseRequest(test.csr)
			took = time.Since(began)
		}
		if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || KindOf(err) != BadRequest) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		if took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
	// What the authority signs stands for what the master knows, whatever was asked.
	a := authority(t)
	pub, err := ParseRequest(tests["names"].csr)
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{Role: Satellite, ID: NewUUID()}
	cert, err := a.Sign(id, pub, []string{"sat1.example.com"}, []net.IP{net.IPv4(192, 0, 2, 1)}, time.Now(), 30*day)
	if err != nil {
		t.Fatal(err)
	}
	own, err := IdentityPEM(cert.PEM, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(a.CertPEM, own, Satellite)
	if err != nil {
		t.Fatal(err)
	}
	leaf := c.certificate()
	if leaf.IsCA || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "sat1.example.com" || len(leaf.IPAddresses) != 1 || c.Identity.ID != id.ID || leaf.Subject.CommonName != "satellite "+id.ID || c.Serial() != cert.Serial {
		t.Errorf("the certificate: %v %v %v, serial %s and %s", leaf.DNSNames, leaf.IPAddresses, leaf.Subject, c.Serial(), cert.Serial)
	}
	if early := time.Since(cert.NotBefore); early < time.Hour || early > time.Hour+time.Minute {
		t.Errorf("valid since %v", early)
	}
}

// giant is a request with an RSA key of 16,384 bits that fits into the limit. It
// is put together by hand: to make such a key takes minutes.
func giant(t *testing.T) []byte {
	t.Helper()
	n := make([]byte, 2048)
	for i := range n {
		n[i] = 0xff
	}
	key, err := asn1.Marshal(struct {
		N asn1.RawValue
		E int
	}{asn1.RawValue{Tag: asn1.TagInteger, Bytes: append([]byte{0}, n...)}, 65537})
	if err != nil {
		t.Fatal(err)
	}
	type algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters asn1.RawValue
	}
	null := asn1.RawValue{Tag: asn1.TagNull}
	type info struct {
		Version int
		Subject pkix.RDNSequence
		Key     struct {
			Algorithm algorithm
			Key       asn1.BitString
		}
		Attributes []asn1.RawValue `asn1:"tag:0"`
	}
	var i info
	i.Key.Algorithm = algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, null}
	i.Key.Key = asn1.BitString{Bytes: key, BitLength: 8 * len(key)}
	csr, err := asn1.Marshal(struct {
		Info      info
		Algorithm algorithm
		Signature asn1.BitString
	}{i, algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, null}, asn1.BitString{Bytes: n, BitLength: 8 * len(n)}})
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// FuzzRequest: whatever a host sends as a request, the master does not fall, and
// what it takes is a key on P-256.
func FuzzRequest(f *testing.F) {
	key, good, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	if named, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"*"}, EmailAddresses: []string{"a@b"}}, key); err == nil {
		f.Add(named)
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, csr []byte) {
		pub, err := ParseRequest(csr)
		if err == nil && pub.Curve != elliptic.P256() {
			t.Errorf("took a key on %v", pub.Curve)
		}
		if err != nil && KindOf(err) != BadRequest {
			t.Errorf("refused with %s %v", KindOf(err), err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	f := authority(t).Fingerprint()
	text := FormatFingerprint(f)
	for _, s := range []string{text, strings.ReplaceAll(text, " ", ""), strings.ToUpper(strings.ReplaceAll(text, " ", ":")), "sha256:" + text, " " + text + "\n"} {
		if got, err := ParseFingerprint(s); err != nil || got != f {
			t.Errorf("%q: got %x, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "12", text + "00", strings.Replace(text, text[:1], "g", 1), strings.Repeat("a", 1<<16)} {
		if _, err := ParseFingerprint(s); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q: got %v", s, err)
		}
	}
}

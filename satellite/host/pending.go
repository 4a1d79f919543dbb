package host

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"verdecmd/proto/wire"
)

// pendingFile holds a registration whose answer has not come yet, 0600: should
// the answer be lost, the same key is what gets the certificate that was made.
const pendingFile = "pending.pem"

// maxPending is more than such a file ever has, in bytes.
const maxPending = 16 << 10

// pending is a registration that was begun.
type pending struct {
	key     *ecdsa.PrivateKey
	csr     []byte   // DER
	ca      [32]byte // fingerprint of the authority that was asked
	name    string   // of this host
	manager string   // host:port
}

// begin is the registration that was begun with the same authority and the same
// name, or a new one, which is on the disk before it returns. again tells which.
func begin(dir string, ca [32]byte, name, manager string) (p pending, again bool, err error) {
	if p, err := readPending(dir); err == nil && p.ca == ca && p.name == name {
		p.manager = manager
		return p, true, p.write(dir)
	}
	key, csr, err := wire.NewRequest()
	if err != nil {
		return p, false, err
	}
	p = pending{key, csr, ca, name, manager}
	return p, false, p.write(dir)
}

func (p pending) write(dir string) error {
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: p.csr, Headers: map[string]string{
		"Authority": hex.EncodeToString(p.ca[:]), "Host": p.name, "Manager": p.manager}})
	if text == nil {
		return fmt.Errorf("the name %q cannot be noted", p.name)
	}
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	return put(filepath.Join(dir, pendingFile), text, 0o600)
}

// readPending reads what was begun. The error is fs.ErrNotExist where nothing
// was.
func readPending(dir string) (pending, error) {
	path := filepath.Join(dir, pendingFile)
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return pending{}, err
	case !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || st.Size() > maxPending:
		return pending{}, fmt.Errorf("%s is not what a registration leaves there", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return pending{}, err
	}
	p, err := parsePending(b)
	if err != nil {
		return pending{}, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// parsePending reads the contents of the file.
func parsePending(b []byte) (p pending, err error) {
	request, rest := pem.Decode(b)
	key, _ := pem.Decode(rest)
	if request == nil || key == nil || request.Type != "CERTIFICATE REQUEST" || key.Type != "PRIVATE KEY" {
		return p, errors.New("it holds no request with its key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return p, errors.New("its key cannot be read")
	}
	var ok bool
	if p.key, ok = parsed.(*ecdsa.PrivateKey); !ok {
		return p, errors.New("its key is of another kind")
	}
	pub, err := wire.ParseRequest(request.Bytes)
	if err != nil {
		return p, err
	}
	if !p.key.PublicKey.Equal(pub) {
		return p, errors.New("request and key do not belong together")
	}
	ca, err := hex.DecodeString(request.Headers["Authority"])
	if err != nil || len(ca) != len(p.ca) {
		return p, errors.New("it names no authority")
	}
	copy(p.ca[:], ca)
	p.csr, p.name, p.manager = request.Bytes, request.Headers["Host"], request.Headers["Manager"]
	return p, nil
}

// forget removes what was begun: it has come to its end.
func forget(dir string) error { return drop(filepath.Join(dir, pendingFile)) }

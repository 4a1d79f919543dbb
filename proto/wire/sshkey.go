package wire

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Kinds of SSH keys that machines of a cluster make known to each other. A user
// key opens root's account everywhere: it is of the one kind that is made here.
var (
	SSHHostKinds = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA}
	SSHUserKinds = []string{ssh.KeyAlgoED25519}
)

const (
	maxSSHKey  = 4 << 10 // bytes of a line
	minRSABits = 2048
)

// SSHKey reads a public SSH key in the form of a file ssh_host_*_key.pub and
// returns it written anew, kind and key alone: whatever else stood in the line,
// options of authorized_keys above all, is dropped, so that a machine can hand
// in a key and nothing but a key.
func SSHKey(line string, kinds []string) (string, error) {
	if len(line) > maxSSHKey {
		return "", fmt.Errorf("an SSH key of %d bytes, at most %d", len(line), maxSSHKey)
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", fmt.Errorf("not a public SSH key: %.40q", line)
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return "", errors.New("more than one line where one public SSH key is wanted")
	}
	if !slices.Contains(kinds, key.Type()) {
		return "", fmt.Errorf("an SSH key of kind %.40q, wanted: %v", key.Type(), kinds)
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("an RSA key of %d bits, at least %d", k.N.BitLen(), minRSABits)
		}
	}
	return string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))), nil
}

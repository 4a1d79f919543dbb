package wire

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// Token lets one host join. Its text is
//
//	vd1-CLUSTER-CA-ID-SECRET-CRC
//
// with the cluster's UUID without dashes, the SHA-256 of its authority's
// certificate and a secret of 128 bits in hexadecimal, the token's number, and
// the CRC-32C of all before it, for those who type. There is no form without
// the authority's hash: a host must know the master before it sends a secret.
type Token struct {
	Cluster string // UUID
	CA      [32]byte
	ID      uint64
	Secret  [16]byte
}

// TokenPrefix is what every token begins with.
const TokenPrefix = "vd1-"

const maxToken = 1 << 10 // bytes that are looked at

// NewToken makes a token with a new secret.
func NewToken(cluster string, ca [32]byte, id uint64) Token {
	t := Token{Cluster: cluster, CA: ca, ID: id}
	rand.Read(t.Secret[:]) // never fails
	return t
}

// String is the text that the administrator hands over. It is a secret.
func (t Token) String() string {
	s := fmt.Sprintf("%s%s-%x-%d-%x", TokenPrefix, strings.ReplaceAll(t.Cluster, "-", ""), t.CA, t.ID, t.Secret)
	return s + "-" + tokenSum(s)
}

// Format keeps the secret out of logs and errors: only String tells it.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "token %d", t.ID) }

// MarshalText keeps the secret out of what is encoded as JSON.
func (t Token) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "token %d", t.ID), nil }

// SecretHash is what a master keeps of a token.
func (t Token) SecretHash() [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "verdecmd token\x00%s\x00%d\x00%s", t.Cluster, t.ID, t.Secret[:]))
}

func tokenSum(s string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli)))
}

// ParseToken reads a token. No error quotes it.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	parts := strings.Split(s[:min(len(s), maxToken)], "-")
	switch {
	case s == "":
		return Token{}, errors.New("the token is empty")
	case len(s) > maxToken || !strings.HasPrefix(s, TokenPrefix):
		return Token{}, fmt.Errorf("this is no token: one begins with %q, as createtoken shows it", TokenPrefix)
	case len(parts) < 6:
		return Token{}, fmt.Errorf("the token is cut off: it has %d of 6 parts, copy all of it", len(parts))
	case len(parts) > 6:
		return Token{}, errors.New("there is something behind the token: copy it alone")
	}
	cluster, err1 := hex.DecodeString(parts[1])
	ca, err2 := hex.DecodeString(parts[2])
	id, err3 := strconv.ParseUint(parts[3], 10, 64)
	secret, err4 := hex.DecodeString(parts[4])
	if tokenSum(s[:strings.LastIndexByte(s, '-')]) != parts[5] {
		return Token{}, errors.New("the token is cut off or mistyped: its check sum does not fit, copy all of it")
	}
	if errors.Join(err1, err2, err3, err4) != nil || len(cluster) != 16 || len(ca) != 32 || len(secret) != 16 || id == 0 {
		return Token{}, errors.New("this is no token of this version of verdecmd")
	}
	t := Token{Cluster: fmt.Sprintf("%x-%x-%x-%x-%x", cluster[:4], cluster[4:6], cluster[6:8], cluster[8:10], cluster[10:]),
		CA: [32]byte(ca), ID: id, Secret: [16]byte(secret)}
	if t.String() != s { // one form alone, so that equal tokens are equal texts
		return Token{}, errors.New("this is no token of this version of verdecmd")
	}
	return t, nil
}

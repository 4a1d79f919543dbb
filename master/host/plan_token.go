package host

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"time"

	"verdecmd/proto/wire"
)

// Life of a token, and how many there may be.
const (
	tokenLife    = time.Hour // where nobody says otherwise
	minTokenLife = time.Second
	maxTokenLife = 30 * 24 * time.Hour
	tokenRecall  = 24 * time.Hour // that it has expired is known for so long
	maxTokens    = 4096           // with those
)

// digest is a SHA-256.
type digest [sha256.Size]byte

// MarshalText writes it in hexadecimal.
func (d digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is the opposite of MarshalText.
func (d *digest) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(d[:], text[:min(len(text), 2*len(d))]); err != nil || n != len(d) || len(text) != 2*n {
		return errors.New("no SHA-256 in hexadecimal")
	}
	return nil
}

// token is what the master keeps of a token that lets one machine join; its
// secret is not among it. One that is given to many is never changed.
type token struct {
	ID   uint64 `json:"id"`
	Hash digest `json:"hash"` // of the secret; see wire.Token.SecretHash
	// ByPassword: it was made and used in one step by who knew the manager's
	// password. It has no secret, so none fits.
	ByPassword bool `json:"bypassword,omitempty"`

	Role    wire.Role `json:"role"`              // that it lets in
	Name    string    `json:"name,omitempty"`    // that it lets in; empty: any
	Address string    `json:"address,omitempty"` // that it lets in; empty: any
	Server  uint64    `json:"server,omitempty"`  // whose place it gives; 0: it makes a new server
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	By      string    `json:"by"`             // who made it
	Used    *use      `json:"used,omitempty"` // nil: it was not
}

// use is what a token was used for: all of the answer, since it may be lost on
// the way and asked for again.
type use struct {
	At   time.Time `json:"at"`
	Key  digest    `json:"key"`  // of the public key
	From string    `json:"from"` // address that it came from
	// Password: the machine has shown the manager's, not this token's secret.
	Password bool   `json:"password,omitempty"`
	Answer   Joined `json:"answer"`
}

// Joined is the answer to a machine that joins, or renews its certificate.
type Joined struct {
	Certificate []byte `json:"certificate"` // PEM
	Server      uint64 `json:"server"`
	UUID        string `json:"uuid"`
	Name        string `json:"name"`
	Replaced    bool   `json:"replaced,omitempty"` // it has taken the place of another machine
}

// claim is what a machine shows to join.
type claim struct {
	Hash, Key     digest
	Role          wire.Role
	Name, Address string
}

// live tells whether a token still lets somebody in.
func (t *token) live(now time.Time) bool { return t.Used == nil && now.Before(t.Expires) }

// admit decides whether a token lets a machine in at now; nil is one that there
// is not. again: it has let in this very machine already, with this key, and the
// answer is to be given again. Whoever uses a token makes that durable together
// with all that it leads to, and asks for now only when nothing can come in
// between: an expired token is never used, and none is used up by a refusal.
func (t *token) admit(now time.Time, c claim) (again bool, err error) {
	var want digest
	if t != nil && !t.ByPassword {
		want = t.Hash
	}
	// In constant time, whether there is such a token or not.
	if fits := subtle.ConstantTimeCompare(want[:], c.Hash[:]) == 1; t == nil || t.ByPassword || !fits {
		return false, wire.Errorf(wire.Denied, `this token is not known here: it was deleted, a newer one for the same name has taken its place, or the database was restored; "createtoken" on the master makes another`)
	}
	return t.uses(now, c)
}

// uses is admit for who has proved to know the secret.
func (t *token) uses(now time.Time, c claim) (again bool, err error) {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	expired := !now.Before(t.Expires)
	switch {
	case t.Used != nil && !expired && t.Used.Key == c.Key && t.Used.Answer.Name == c.Name:
		return true, nil
	case t.Used != nil:
		return false, wire.Errorf(wire.Denied, `token %d was used already, at %s by %s from %s: each lets in one machine; "createtoken" on the master makes another`, t.ID, at(t.Used.At), t.Used.Answer.Name, t.Used.From)
	case expired:
		return false, wire.Errorf(wire.Denied, `token %d expired at %s and it is %s at the master; "createtoken" there makes another`, t.ID, at(t.Expires), at(now))
	case t.Role != c.Role:
		return false, wire.Errorf(wire.Denied, "token %d is for a %s, not for a %s", t.ID, t.Role, c.Role)
	case t.Name != "" && t.Name != c.Name:
		return false, wire.Errorf(wire.Denied, "token %d is for the host %s, this one is %s; it still works there", t.ID, t.Name, c.Name)
	case t.Address != "" && t.Address != c.Address:
		return false, wire.Errorf(wire.Denied, "token %d is for the address %s, this host has %s (WIN4_VERDE_PUBADDR); it still works there", t.ID, t.Address, c.Address)
	}
	return false, nil
}

// killedBy are the tokens that a new one takes the place of: those for the same
// name that were not used. Used ones stay, for answers that were lost.
func killedBy(all map[uint64]*token, name string) (ids []uint64) {
	for id, t := range all {
		if name != "" && t.Name == name && t.Used == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// permit finds the live token that gives a machine, which has proved itself
// otherwise, the place of a server; nil where there is none.
func permit(all map[uint64]*token, now time.Time, c claim) *token {
	for _, t := range all {
		if t.Server == 0 || !t.live(now) {
			continue
		}
		if _, err := t.uses(now, c); err == nil {
			return t
		}
	}
	return nil
}

// answered finds the answer that was given to a machine which has joined by
// password and asks again; nil where there is none.
func answered(all map[uint64]*token, now time.Time, c claim) *token {
	for _, t := range all {
		if t.Used == nil || !t.Used.Password {
			continue
		}
		if again, err := t.uses(now, c); err == nil && again {
			return t
		}
	}
	return nil
}

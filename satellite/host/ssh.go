package host

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// The files of an SSH directory, and where sshd keeps the keys of the computer.
const (
	authorizedKeys = "authorized_keys"
	knownHosts     = "known_hosts"
	userKey        = "id_ed25519"
	userPub        = userKey + ".pub"
	sshdDir        = "/etc/ssh"
)

// maxHostKeys is how many keys of this computer are made known.
const maxHostKeys = 8

// SSH keeps the keys of the cluster's servers in root's SSH directory, in a
// block of their own, so that scripts of an administrator and rsync get from
// server to server. Lines of others are never touched.
type SSH struct {
	// Dir is root's SSH directory (WIN4_SSH_DIR).
	Dir string
	// On tells whether keys are managed (WIN4_SSH_KEYS). Else the blocks of an
	// earlier time are taken away.
	On bool
	// Sshd is where the public keys of the computer are; the default is /etc/ssh.
	Sshd string
	// Name is the host's, for the comment in root's key.
	Name string

	mu sync.Mutex // one change at a time
}

// Keys are the public keys that the cluster is told. root gets a key where it
// has none. They are nil where keys are not managed; what cannot be read is told
// by the error, beside the others.
func (s *SSH) Keys() (*pb.HostKeys, error) {
	if !s.On {
		return nil, nil
	}
	dir := s.Sshd
	if dir == "" {
		dir = sshdDir
	}
	out := &pb.HostKeys{}
	var errs []error
	files, err := filepath.Glob(filepath.Join(dir, "ssh_host_*_key.pub"))
	errs = append(errs, err)
	for _, f := range files {
		line, err := os.ReadFile(f)
		var key string
		if err == nil {
			key, err = wire.SSHKey(string(line), wire.SSHHostKinds)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		} else if len(out.HostKeys) < maxHostKeys {
			out.HostKeys = append(out.HostKeys, key)
		}
	}
	if len(files) == 0 {
		errs = append(errs, fmt.Errorf("%s holds no ssh_host_*_key.pub: is sshd installed?", dir))
	}
	out.UserKey, err = s.user()
	return out, errors.Join(append(errs, err)...)
}

// user is root's public key, which is made where there is none.
func (s *SSH) user() (string, error) {
	d, err := openSSHDir(s.Dir, true)
	if err != nil {
		return "", err
	}
	defer d.close()
	private, _, err := d.read(userKey)
	if err != nil {
		return "", err
	}
	line, _, err := d.read(userPub)
	if err != nil {
		return "", err
	}
	switch {
	case private == nil && line != nil:
		return "", fmt.Errorf("%s is there without %s: put that back, or remove both, and a key is made", d.path(userPub), userKey)
	case private == nil:
		return d.makeKey(s.Name)
	case line == nil:
		if line, err = public(private); err != nil {
			return "", fmt.Errorf("%s: %w", d.path(userKey), err)
		}
	}
	key, err := wire.SSHKey(string(line), wire.SSHUserKinds)
	if err != nil {
		return "", fmt.Errorf("%s: %w", d.path(userPub), err)
	}
	return key, nil
}

// public is the public part of a private key, as a line.
func public(private []byte) ([]byte, error) {
	signer, err := ssh.ParsePrivateKey(private)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked) && locked.PublicKey != nil:
		return ssh.MarshalAuthorizedKey(locked.PublicKey), nil
	case err != nil:
		return nil, errors.New("it cannot be read as a private key") // and is not quoted
	}
	return ssh.MarshalAuthorizedKey(signer.PublicKey()), nil
}

// makeKey makes root's key.
func (d *sshDir) makeKey(name string) (string, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	comment := "root@" + name
	block, err := ssh.MarshalPrivateKey(key, comment)
	if err != nil {
		return "", err
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", err
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	if err := d.create(userKey, pem.EncodeToMemory(block), 0o600); err != nil {
		return "", fmt.Errorf("making root's key: %w", err)
	}
	if err := d.create(userPub, []byte(line+" "+comment+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("making root's key: %w", err)
	}
	return line, nil
}

// Update makes the managed blocks hold the keys of these servers. Where keys are
// not managed there are no blocks.
func (s *SSH) Update(members []*pb.Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var authorized, known []string
	if s.On {
		authorized, known = SSHLines(members)
	}
	wanted := len(authorized)+len(known) > 0
	d, err := openSSHDir(s.Dir, wanted)
	if !wanted && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	return errors.Join(d.setBlock(authorizedKeys, authorized), d.setBlock(knownHosts, known))
}

// setBlock changes the managed block of one file, if it is another one.
func (d *sshDir) setBlock(name string, lines []string) error {
	for range 5 {
		old, was, err := d.read(name)
		if err != nil {
			return err
		}
		text, err := SetBlock(old, lines)
		if err != nil {
			return fmt.Errorf("%s: %w", d.path(name), err)
		}
		if was == nil && len(lines) == 0 || was != nil && slices.Equal(text, old) {
			return nil
		}
		if was == nil {
			err = d.create(name, text, 0o600)
		} else {
			err = d.replace(name, text, was)
		}
		if !errors.Is(err, errChanged) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", d.path(name), errChanged)
}

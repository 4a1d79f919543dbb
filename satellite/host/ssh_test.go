package host

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	pb "verdecmd/proto"
)

// sshHost is a computer with sshd's keys and no SSH directory of root's yet.
func sshHost(t *testing.T, name string) *SSH {
	t.Helper()
	s := &SSH{Dir: filepath.Join(t.TempDir(), "ssh"), On: true, Sshd: t.TempDir(), Name: name}
	writeTest(t, filepath.Join(s.Sshd, "ssh_host_ed25519_key.pub"), sshTestKey(t)+" root@"+name+"\n", 0o644)
	return s
}

func writeTest(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func readTest(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sshMember(t *testing.T, id uint64, s *SSH) *pb.Member {
	t.Helper()
	keys, err := s.Keys()
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Member{ServerId: id, Name: s.Name, SshHostKeys: keys.HostKeys, SshUserKey: keys.UserKey}
}

// F-10: the key sets are equal on all servers after a server was added and after
// one was removed, and what is root's own stays byte for byte, mode and all.
func TestSSHKeySets(t *testing.T) {
	var hosts []*SSH
	var members []*pb.Member
	own := []string{"ssh-rsa AAAA me@home\nno end", "", "# a note\r\n"}
	for i, name := range []string{"sat1", "sat2", "sat3"} {
		s := sshHost(t, name)
		hosts, members = append(hosts, s), append(members, sshMember(t, uint64(i+1), s))
		writeTest(t, filepath.Join(s.Dir, authorizedKeys), own[i], 0o640)
	}
	update := func(members []*pb.Member, want int) {
		t.Helper()
		var sets []string
		for i, s := range hosts {
			if err := s.Update(members); err != nil {
				t.Fatal(err)
			}
			text := readTest(t, filepath.Join(s.Dir, authorizedKeys))
			rest, block, _ := strings.Cut(strings.TrimPrefix(text, own[i]), blockBegin[:15])
			if !strings.HasPrefix(text, own[i]) || strings.TrimSpace(rest) != "" || strings.Count(block, "ssh-ed25519") != want {
				t.Errorf("%s has %q, want %q and a block of %d keys", s.Name, text, own[i], want)
			}
			_, block, _ = strings.Cut(block, "\n")
			sets = append(sets, block+readTest(t, filepath.Join(s.Dir, knownHosts)))
			if st, _ := os.Stat(filepath.Join(s.Dir, authorizedKeys)); st.Mode().Perm() != 0o640 {
				t.Errorf("%s: mode %v", s.Name, st.Mode())
			}
		}
		if sets[0] != sets[1] || sets[1] != sets[2] {
			t.Errorf("the key sets differ: %q", sets)
		}
	}
	update(members[:2], 2)
	update(members, 3)
	update(members, 3)
	update([]*pb.Member{members[0], members[2]}, 2)
	for i, s := range hosts {
		s.On = false
		if err := s.Update(members); err != nil {
			t.Fatal(err)
		}
		if got := readTest(t, filepath.Join(s.Dir, authorizedKeys)); got != own[i] {
			t.Errorf("%s, switched off: got %q, want %q", s.Name, got, own[i])
		}
		if keys, err := s.Keys(); keys != nil || err != nil {
			t.Errorf("%s, switched off: keys %v, %v", s.Name, keys, err)
		}
		if left, _ := filepath.Glob(filepath.Join(s.Dir, ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// Switched off, and never on before: nothing is touched or made.
func TestSSHOff(t *testing.T) {
	s := &SSH{Dir: filepath.Join(t.TempDir(), "none")}
	if err := s.Update([]*pb.Member{{Name: "sat1", SshUserKey: sshTestKey(t)}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Dir); err == nil {
		t.Error("the directory was made")
	}
}

// root's key is made once, and one that is there is root's own.
func TestSSHUserKey(t *testing.T) {
	s := sshHost(t, "sat1")
	first := sshMember(t, 1, s).SshUserKey
	if again := sshMember(t, 1, s).SshUserKey; again != first {
		t.Errorf("got %q, then %q", first, again)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, userKey: 0o600, userPub: 0o644} {
		if st, err := os.Stat(filepath.Join(s.Dir, name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v; want mode %v", name, st, err, mode)
		}
	}
	signer, err := ssh.ParsePrivateKey([]byte(readTest(t, filepath.Join(s.Dir, userKey))))
	if err != nil || strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) != first {
		t.Errorf("the private key does not belong to %q: %v", first, err)
	}
	// The public one was lost: it is read out of the private one, also where
	// that has a passphrase.
	check := func(what string, block *pem.Block, err error, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		writeTest(t, filepath.Join(s.Dir, userKey), string(pem.EncodeToMemory(block)), 0o600)
		os.Remove(filepath.Join(s.Dir, userPub))
		if got := sshMember(t, 1, s).SshUserKey; got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	p, _ := ssh.NewPublicKey(pub)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	block, err := ssh.MarshalPrivateKey(key, "")
	check("open", block, err, line)
	block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	check("with a passphrase", block, err, line)

	writeTest(t, filepath.Join(s.Dir, userKey), "no key", 0o600)
	if _, err := s.Keys(); err == nil || strings.Contains(err.Error(), "no key\"") {
		t.Errorf("a broken key: %v", err)
	}
	os.Remove(filepath.Join(s.Dir, userKey))
	writeTest(t, filepath.Join(s.Dir, userPub), line, 0o644)
	if _, err := s.Keys(); err == nil || !strings.Contains(err.Error(), "is there without") {
		t.Errorf("a public key alone: %v", err)
	}
}

// What is wrong with one key is told, and the others are taken.
func TestSSHHostKeys(t *testing.T) {
	s := sshHost(t, "sat1")
	writeTest(t, filepath.Join(s.Sshd, "ssh_host_dsa_key.pub"), "ssh-dss AAAA\n", 0o644)
	keys, err := s.Keys()
	if err == nil || !strings.Contains(err.Error(), "ssh_host_dsa_key.pub") || len(keys.HostKeys) != 1 || keys.UserKey == "" {
		t.Errorf("got %v, %v; want the good key and what is wrong with the other", keys, err)
	}
	s.Sshd = t.TempDir()
	if keys, err = s.Keys(); err == nil || !strings.Contains(err.Error(), "is sshd installed") || keys.UserKey == "" {
		t.Errorf("without sshd: got %v, %v", keys, err)
	}
}

// No symbolic link is followed and nothing is written where others may write.
func TestSSHRefusals(t *testing.T) {
	members := []*pb.Member{{Name: "sat1", SshUserKey: sshTestKey(t)}}
	tests := map[string]struct {
		prepare func(s *SSH, elsewhere string) error
		want    string
	}{
		"the file is a link": {func(s *SSH, elsewhere string) error {
			return errors.Join(os.Mkdir(s.Dir, 0o700), os.Symlink(elsewhere, filepath.Join(s.Dir, authorizedKeys)))
		}, "is a symbolic link"},
		"the directory is a link": {func(s *SSH, elsewhere string) error { return os.Symlink(filepath.Dir(elsewhere), s.Dir) }, "is a symbolic link"},
		"the file is a fifo": {func(s *SSH, _ string) error {
			return errors.Join(os.Mkdir(s.Dir, 0o700), os.Mkdir(filepath.Join(s.Dir, authorizedKeys), 0o700))
		}, "no regular file"},
		"others write there": {func(s *SSH, _ string) error { return errors.Join(os.Mkdir(s.Dir, 0o700), os.Chmod(s.Dir, 0o770)) }, "nobody else may write"},
		"no parent":          {func(s *SSH, _ string) error { s.Dir = filepath.Join(s.Dir, "a", "b"); return nil }, "WIN4_SSH_DIR"},
		"torn": {func(s *SSH, _ string) error {
			return errors.Join(os.Mkdir(s.Dir, 0o700), os.WriteFile(filepath.Join(s.Dir, authorizedKeys), []byte(blockBegin+"\nmine\n"), 0o600))
		}, "not there in pairs"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := &SSH{Dir: filepath.Join(t.TempDir(), "ssh"), On: true}
			elsewhere := filepath.Join(t.TempDir(), "secret")
			writeTest(t, elsewhere, "foreign", 0o600)
			if err := test.prepare(s, elsewhere); err != nil {
				t.Fatal(err)
			}
			if err := s.Update(members); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := readTest(t, elsewhere); got != "foreign" {
				t.Errorf("the other file is %q now", got)
			}
		})
	}
}

// Who writes the file at the same time loses nothing.
func TestSSHWrittenMeanwhile(t *testing.T) {
	s := sshHost(t, "sat1")
	m := sshMember(t, 1, s)
	d, err := openSSHDir(s.Dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	path := filepath.Join(s.Dir, authorizedKeys)
	writeTest(t, path, "first\n", 0o600)
	_, was, err := d.read(authorizedKeys)
	if err != nil {
		t.Fatal(err)
	}
	writeTest(t, path, "first\nsecond\n", 0o600)
	if err := d.replace(authorizedKeys, []byte("block"), was); !errors.Is(err, errChanged) {
		t.Errorf("got %v, want %v", err, errChanged)
	}
	if err := d.create(authorizedKeys, nil, 0o600); err == nil {
		t.Error("a file that is there was made anew")
	}
	if err := s.Update([]*pb.Member{m}); err != nil {
		t.Fatal(err)
	}
	if got := readTest(t, path); !strings.HasPrefix(got, "first\nsecond\n"+blockBegin) {
		t.Errorf("got %q", got)
	}
	names, _ := os.ReadDir(s.Dir)
	if i := slices.IndexFunc(names, func(n os.DirEntry) bool { return bytes.HasPrefix([]byte(n.Name()), []byte(".")) }); i >= 0 {
		t.Errorf("left behind: %s", names[i].Name())
	}
}

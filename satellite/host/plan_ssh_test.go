package host

import (
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	pb "verdecmd/proto"
)

// sshTestKey makes a public key as a line of a .pub file.
func sshTestKey(t testing.TB) string {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

// F-10: foreign lines are never touched, whatever the file looks like.
func TestSetBlock(t *testing.T) {
	block := func(begin string, lines ...string) string {
		return begin + "\n" + strings.Join(lines, "\n") + "\n" + blockEnd + "\n"
	}
	one, two := block(blockBegin, "one"), block(blockBegin, "two")
	tests := map[string]struct {
		file  string
		lines []string
		want  string // ! and a part of the error
	}{
		"first block":                  {"own\n", []string{"one"}, "own\n" + one},
		"several lines":                {"own\n", []string{"one", "two"}, "own\n" + block(blockBegin, "one", "two")},
		"empty file":                   {"", []string{"one"}, one},
		"another block":                {"own\n" + one, []string{"two"}, "own\n" + two},
		"the same block":               {"own\n" + one, []string{"one"}, "own\n" + one},
		"block in the middle":          {"a\n" + one + "b\n", []string{"two"}, "a\n" + two + "b\n"},
		"block at the top":             {one + "b", []string{"two"}, two + "b"},
		"removed":                      {"a\n" + one + "b\n", nil, "a\nb\n"},
		"none to remove":               {"a\nb", nil, "a\nb"},
		"line without an end":          {"a\nb", []string{"one"}, "a\nb\n" + block(blockBeginOpen, "one")},
		"and changed":                  {"b\n" + block(blockBeginOpen, "one"), []string{"two"}, "b\n" + block(blockBeginOpen, "two")},
		"and removed":                  {"b\n" + block(blockBeginOpen, "one"), nil, "b"},
		"removed, more came meanwhile": {"b\n" + block(blockBeginOpen, "one") + "c\n", nil, "b\nc\n"},
		"ends of Windows":              {"a\r\n" + strings.ReplaceAll(one, "\n", "\r\n") + "b\r\n", []string{"two"}, "a\r\n" + two + "b\r\n"},
		"no end after END":             {"a\n" + strings.TrimSuffix(one, "\n"), []string{"two"}, "a\n" + two},
		"bytes of any kind":            {"\x00\xff\r\n# END\n", []string{"one"}, "\x00\xff\r\n# END\n" + one},
		"twice":                        {"a\n" + one + "b\n" + one + "c\n", []string{"two"}, "a\n" + two + "b\nc\n"},
		"twice, removed":               {"a\n" + one + "b\n" + one + "c\n", nil, "a\nb\nc\n"},
		"begin without end":            {"a\n" + blockBegin + "\nmine\n", []string{"one"}, "!not there in pairs"},
		"end without begin":            {"a\n" + blockEnd + "\n", []string{"one"}, "!not there in pairs"},
		"begin twice":                  {blockBegin + "\n" + one, nil, "!not there in pairs"},
		"a line of two":                {"", []string{"one\ntwo"}, "!cannot stand in a managed block"},
		"a marking line":               {"", []string{blockEnd}, "!cannot stand in a managed block"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := []byte(test.file)
			got, err := SetBlock(file, test.lines)
			if part, bad := strings.CutPrefix(test.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, %v; want %q", got, err, part)
				}
				return
			}
			if err != nil || string(got) != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
			if string(file) != test.file {
				t.Errorf("the file that came in was changed to %q", file)
			}
		})
	}
}

// F-10: for any file, a block can be put there, changed and taken away, and the
// file is what it was; the same block twice changes nothing.
func FuzzSetBlock(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAA root@here\n"), "one", "two")
	f.Add([]byte("no end"), "one", "")
	f.Add([]byte(blockBegin+"\nx\n"+blockEnd+"\n"), "one", "two")
	f.Add([]byte("a\n"+blockBeginOpen+"\nx\n"+blockEnd+"\nb"), "one", "two")
	f.Add([]byte(blockEnd+"\n"+blockBegin), "one", "two")
	f.Fuzz(func(t *testing.T, file []byte, a, b string) {
		bare, err := SetBlock(file, nil)
		if err != nil {
			return // torn, and so it stays
		}
		first, err := SetBlock(bare, []string{a})
		if err != nil {
			return
		}
		if again, err := SetBlock(first, []string{a}); err != nil || string(again) != string(first) {
			t.Fatalf("the same again: got %q, %v; want %q", again, err, first)
		}
		second, err := SetBlock(first, []string{a, b})
		if err != nil {
			return
		}
		back, err := SetBlock(second, nil)
		if err != nil || string(back) != string(bare) {
			t.Fatalf("taken away: got %q, %v; want %q", back, err, bare)
		}
		kept, err := SetBlock(file, []string{a})
		if err != nil {
			t.Fatalf("where one block goes, another one does not: %v", err)
		}
		if gone, err := SetBlock(kept, nil); err != nil || string(gone) != string(bare) {
			t.Fatalf("changed in its place and taken away: got %q, %v; want %q", gone, err, bare)
		}
	})
}

// F-10: the keys of all servers, the same lines on each of them. A server can
// hand in a key and nothing else, and claim no name but its own.
func TestSSHLines(t *testing.T) {
	user, other, hostA, hostB := sshTestKey(t), sshTestKey(t), sshTestKey(t), sshTestKey(t)
	tests := map[string]struct {
		members           []*pb.Member
		authorized, known []string
	}{
		"none": {},
		"two, in any order": {
			[]*pb.Member{{ServerId: 2, Name: "sat2", Address: "192.0.2.2", SshUserKey: other, SshHostKeys: []string{hostB}},
				{ServerId: 1, Name: "sat1", Address: "192.0.2.1", Peer: "198.51.100.1:8444", SshUserKey: user, SshHostKeys: []string{hostA}}},
			[]string{user + " root@sat1", other + " root@sat2"},
			[]string{"sat1,192.0.2.1,198.51.100.1 " + hostA, "sat2,192.0.2.2 " + hostB}},
		"no keys":             {[]*pb.Member{{ServerId: 1, Name: "sat1"}}, nil, nil},
		"host keys alone":     {[]*pb.Member{{Name: "sat1", SshHostKeys: []string{hostA, hostA + " again"}}}, nil, []string{"sat1 " + hostA}},
		"options and comment": {[]*pb.Member{{Name: "sat1", SshUserKey: `command="x" ` + user + " evil"}}, []string{user + " root@sat1"}, nil},
		"no key":              {[]*pb.Member{{Name: "sat1", SshUserKey: "ssh-ed25519 x", SshHostKeys: []string{"*", ""}}}, nil, nil},
		"a second line":       {[]*pb.Member{{Name: "sat1", SshUserKey: user + "\n" + other}}, nil, nil},
		"name with a meaning": {[]*pb.Member{{Name: "*,sat1", SshUserKey: user, SshHostKeys: []string{hostA}}, {Name: "", SshUserKey: user}}, nil, nil},
		"another's name":      {[]*pb.Member{{Name: "sat1", Address: "bank.example.com", Peer: "other.example.com:1", SshHostKeys: []string{hostA}}}, nil, []string{"sat1 " + hostA}},
		"another's address": {[]*pb.Member{{ServerId: 1, Name: "sat1", Address: "192.0.2.1", SshHostKeys: []string{hostA}}, {ServerId: 2, Name: "sat2", Address: "192.0.2.2", Peer: "192.0.2.1:8444", SshHostKeys: []string{hostB}}},
			nil, []string{"sat1 " + hostA, "sat2,192.0.2.2 " + hostB}},
		"a port of its own": {[]*pb.Member{{ServerId: 1, Name: "sat1", Address: "192.0.2.1:3389", SshHostKeys: []string{hostA}}, {ServerId: 2, Name: "sat2", Address: "[2001:db8::5]:3389", SshHostKeys: []string{hostB}}},
			nil, []string{"sat1,192.0.2.1 " + hostA, "sat2,2001:db8::5 " + hostB}},
		"IPv6":     {[]*pb.Member{{Name: "sat1", Address: "2001:db8::5", Peer: "[2001:db8::6]:8444", SshHostKeys: []string{hostA}}}, nil, []string{"sat1,2001:db8::5,2001:db8::6 " + hostA}},
		"loopback": {[]*pb.Member{{Name: "sat1", Address: "127.0.0.1", Peer: "0.0.0.0:8444", SshHostKeys: []string{hostA}}}, nil, []string{"sat1 " + hostA}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			authorized, known := SSHLines(test.members)
			if !slices.Equal(authorized, test.authorized) {
				t.Errorf("authorized_keys: got %q, want %q", authorized, test.authorized)
			}
			if !slices.Equal(known, test.known) {
				t.Errorf("known_hosts: got %q, want %q", known, test.known)
			}
			for _, lines := range [][]string{authorized, known} {
				if len(lines) == 0 {
					continue
				}
				if _, err := SetBlock(nil, lines); err != nil {
					t.Errorf("the lines do not fit into a block: %v", err)
				}
			}
		})
	}
}

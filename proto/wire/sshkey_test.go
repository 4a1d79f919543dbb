package wire

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// sshLine is a public key as ssh-keygen writes it.
func sshLine(t testing.TB, key any) string {
	t.Helper()
	p, err := ssh.NewPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
}

// F-10: what a machine hands in as a key is a key and nothing else.
func TestSSHKey(t *testing.T) {
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	ed := sshLine(t, pub)
	// Nobody has the private keys to these.
	rsaKey := func(bits uint) string {
		one := big.NewInt(1)
		return sshLine(t, &rsa.PublicKey{N: one.Sub(new(big.Int).Lsh(one, bits), one), E: 65537})
	}
	small, large := rsaKey(1024), rsaKey(2048)
	tests := map[string]struct {
		line  string
		kinds []string
		want  string // the result, or part of the error with ! before it
	}{
		"as it is":            {ed, SSHUserKinds, ed},
		"comment":             {ed + " root@sat1", SSHUserKinds, ed},
		"line end":            {ed + "\n", SSHUserKinds, ed},
		"options":             {`command="rm -rf /",no-pty ` + ed, SSHUserKinds, ed},
		"comment before":      {"# a note\n" + ed, SSHUserKinds, ed},
		"RSA as a host's":     {large, SSHHostKinds, large},
		"RSA as a user's":     {large, SSHUserKinds, "!of kind"},
		"small RSA":           {small, SSHHostKinds, "!at least 2048"},
		"two keys":            {ed + "\n" + ed, SSHUserKinds, "!more than one line"},
		"a line behind it":    {ed + "\n* ssh-ed25519 x", SSHUserKinds, "!more than one line"},
		"an authority's mark": {"@cert-authority * " + ed, SSHHostKinds, "!not a public SSH key"},
		"nothing":             {"", SSHUserKinds, "!not a public SSH key"},
		"cut":                 {ed[:len(ed)-6], SSHUserKinds, "!not a public SSH key"},
		"kind and key differ": {strings.Replace(ed, "ssh-ed25519", "ssh-rsa", 1), SSHHostKinds, "!not a public SSH key"},
		"long":                {ed + strings.Repeat(" ", maxSSHKey), SSHUserKinds, "!at most"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := SSHKey(test.line, test.kinds)
			if part, bad := strings.CutPrefix(test.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, %v; want %q", got, err, part)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

// Whatever comes in, what goes out is one line of kind and key, and stays what
// it is when it goes through again.
func FuzzSSHKey(f *testing.F) {
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	f.Add(sshLine(f, pub) + " comment")
	f.Add(`command="x",from="*" ` + sshLine(f, pub))
	f.Add("ssh-ed25519 AAAA\n\n")
	f.Add("cert-authority ssh-rsa AAAAB3NzaC1yc2E=")
	f.Fuzz(func(t *testing.T, line string) {
		for _, kinds := range [][]string{SSHHostKinds, SSHUserKinds} {
			got, err := SSHKey(line, kinds)
			if err != nil {
				continue
			}
			if words := strings.Fields(got); len(words) != 2 || strings.Join(words, " ") != got {
				t.Errorf("got %q, want kind and key", got)
			}
			if again, err := SSHKey(got, kinds); err != nil || again != got {
				t.Errorf("again: got %q, %v; want %q", again, err, got)
			}
		}
	})
}

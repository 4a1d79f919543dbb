package host

import (
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// F-08, F-09: with a token nobody is asked; the key was made here, the files are
// for their owner alone, and the settings say where the master is.
func TestRegisterByToken(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	file, text := m.token(3)
	out, err := h.do("", "register", "--manager", m.address, "--name", "SAT1", "--address", "192.0.2.11", "--token-file", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Registering sat1 (192.0.2.11) at " + m.address + ".", "sat1 is registered: server 1 of cluster " + m.a.Cluster, "Start the satellite: verdecmd satellite --settings " + h.settings} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant in it %q", out, want)
		}
	}
	if strings.Contains(out, text[len(text)-41:len(text)-9]) {
		t.Error("the output shows the secret")
	}
	q := m.joins()[0]
	if q.Name != "sat1" || q.Address != "192.0.2.11" || q.Version != "1.0.0" || q.Arch == "" || q.GetToken() != text || time.Since(time.UnixMilli(q.NowUnixMs)).Abs() > time.Minute {
		t.Errorf("the request: %v", q)
	}
	c := h.identity()
	if c.Identity.Cluster != m.a.Cluster || c.Identity.Name != "sat1" || c.Check() != nil {
		t.Errorf("got %+v, %v", c.Identity, c.Check())
	}
	for path, want := range map[string]os.FileMode{h.pki(): 0o700 | os.ModeDir, h.pki() + "/identity.pem": 0o600, h.pki() + "/ca.pem": 0o644} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", path, st.Mode(), err, want)
		}
	}
	if got := listing(t, h.pki()); got != "ca.pem identity.pem" {
		t.Errorf("files: %s", got)
	}
	if got := h.text(); !strings.Contains(got, "WIN4_VERDE_CMADDR=\""+m.address+"\"\n") || !strings.Contains(got, "WIN4_VERDE_PUBADDR=\"192.0.2.11\"\n") || !strings.HasPrefix(got, "# of this host\n") {
		t.Errorf("settings:\n%s", got)
	}

	// Again: nothing happens, unless that is wanted.
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file); err != nil || !strings.Contains(out, "This host is registered already, as sat1 of cluster "+m.a.Cluster) {
		t.Errorf("again: %v\n%s", err, out)
	}
	other, _ := m.token(4)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", other, "--again"); err != nil || h.identity().Identity.ID == c.Identity.ID {
		t.Errorf("--again: %v\n%s", err, out)
	}
	// From standard input, as through ssh.
	_, third := m.token(5)
	if out, err := h.do(third+"\n", "register", "--manager", m.address, "--token-file", "-", "--again"); err != nil {
		t.Errorf("standard input: %v\n%s", err, out)
	}
	// A token of another cluster is no reason to leave this one.
	elsewhere := newManager(t)
	file, _ = elsewhere.token(1)
	if _, err := h.do("", "register", "--manager", elsewhere.address, "--token-file", file); err == nil || !strings.Contains(err.Error(), "--again leaves the one for the other") {
		t.Errorf("another cluster: %v", err)
	}
	if out, err := h.do("", "register", "--manager", elsewhere.address, "--token-file", file, "--again"); err != nil || h.identity().Identity.Cluster != elsewhere.a.Cluster || len(h.identity().Roots()) != 1 {
		t.Errorf("another cluster, wanted: %v\n%s", err, out)
	}
}

// F-09: at a terminal, in exactly this order: the manager's address, who that
// is, and the password, which is not shown. A wrong one may be typed again.
func TestRegisterAtATerminal_F09(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	c := newChair(t)
	done := make(chan error, 1)
	go func() { done <- h.start(t.Context(), c.tty, c.tty, "register") }()
	c.until("Manager's address: ")
	c.types("not an address!\n")
	c.until("is neither an IP address nor a host name")
	c.until("Manager's address: ")
	c.types(m.address + "\n")
	c.until("The master at " + m.address + " shows this:")
	c.until("cm.example.com")
	c.until(m.a.Cluster)
	c.until("verdecmd fingerprint")
	groups := strings.Fields(wire.FormatFingerprint(m.pin))
	for _, half := range []string{strings.Join(groups[:8], " "), strings.Join(groups[8:], " ")} {
		if !strings.Contains(c.screen(), half) {
			t.Errorf("no %q on the screen:\n%s", half, c.screen())
		}
	}
	c.until("Is this the fingerprint of your cluster? [y/N] ")
	c.types("perhaps\n")
	c.until("Type y or n.")
	c.types("y\n")
	c.until("Manager's password: ")
	if n := len(m.joins()); n != 0 {
		t.Errorf("%d requests came before the password", n)
	}
	c.types("a wrong password\n")
	c.until("The manager's password is not right.")
	c.until("Manager's password: ")
	c.types("a good password\n")
	c.until("is registered: server 1")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := c.screen(); strings.Contains(s, "good password") || strings.Contains(s, "wrong password") {
		t.Errorf("a password is on the screen:\n%s", s)
	}
	if got := listing(t, h.pki()); got != "ca.pem identity.pem" {
		t.Errorf("files: %s", got)
	}
}

// Whatever ends it before the end leaves nothing, and the terminal as it was.
func TestRegisterGivenUp(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	tests := map[string]func(c *chair, cancel func()) string{
		"not the fingerprint": func(c *chair, _ func()) string {
			c.until("[y/N] ")
			c.types("\n")
			return "not confirmed: nothing was sent"
		},
		"no password": func(c *chair, _ func()) string {
			c.until("[y/N] ")
			c.types("y\n")
			c.until("password: ")
			c.types("\n")
			return "no password: nothing was sent"
		},
		"Ctrl-C while the password is typed": func(c *chair, cancel func()) string {
			c.until("[y/N] ")
			c.types("y\n")
			c.until("password: ")
			c.types("a good")
			cancel()
			return "interrupted; nothing was changed here"
		},
		"the end of the input": func(c *chair, _ func()) string {
			c.until("[y/N] ")
			c.types("\x04")
			return "there was no answer"
		},
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newNewcomer(t)
			before := h.text()
			c := newChair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- h.start(ctx, c.tty, c.tty, "register", "--manager", m.address) }()
			want := f(c, cancel)
			if err := <-done; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if got := listing(t, h.pki()); got != "" || h.text() != before {
				t.Errorf("left: %s\n%s", got, h.text())
			}
			c.types("visible\n")
			c.until("visible")
		})
	}
	if n := len(m.joins()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// A password without a person needs the fingerprint; with it, it registers.
func TestRegisterByPasswordFile(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t)
	good, bad := m.file("a good password\n"), m.file("a bad password\n")
	pin := strings.ReplaceAll(wire.FormatFingerprint(m.pin), " ", ":")
	if _, err := h.do("", "register", "--manager", m.address, "--password-file", good); err == nil || !strings.Contains(err.Error(), "needs --ca-sha256") {
		t.Errorf("without a fingerprint: %v", err)
	}
	other := newManager(t)
	if _, err := h.do("", "register", "--manager", other.address, "--password-file", good, "--ca-sha256", pin); err == nil || !strings.Contains(err.Error(), "nothing was sent") || len(other.joins()) > 0 {
		t.Errorf("pitfall 1, the fingerprint of another master: %v, %d requests", err, len(other.joins()))
	}
	if got := listing(t, h.pki()); got != "" {
		t.Errorf("nothing was sent, and there is %s", got)
	}
	if _, err := h.do("", "register", "--manager", m.address, "--password-file", bad, "--ca-sha256", pin); err == nil || !strings.Contains(err.Error(), "the manager's password is not right") {
		t.Errorf("a wrong password: %v", err)
	}
	if out, err := h.do("", "register", "--manager", m.address, "--password-file", good, "--ca-sha256", pin, "--yes"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if got := listing(t, h.pki()); got != "ca.pem identity.pem" {
		t.Errorf("files: %s", got)
	}
}

// What cannot be right is told at once, and no secret is in the text.
func TestRegisterRefusals(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	token, text := m.token(7)
	open := m.file(text)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	mistyped := []byte(text)
	mistyped[60] ^= 1
	two := m.file(text + "\n" + text + "\n")
	secret := text[len(text)-41 : len(text)-9]
	if _, err := hex.DecodeString(secret); err != nil {
		t.Fatalf("%q is not the secret", secret)
	}
	tests := map[string]struct {
		args []string
		want string
	}{
		"a token as a word":            {[]string{text}, "can be read by every user of this computer"},
		"and what to do":               {[]string{text}, `delete it on the master with "deletetoken 7"`},
		"half of one":                  {[]string{text[:70]}, "(tokens, deletetoken)"},
		"a token as the file":          {[]string{"--token-file", text}, "stays in the history of the shell"},
		"a token as the address":       {[]string{"--manager", text}, "stays in the history of the shell"},
		"not a token in its flag":      {[]string{"--token", "abc"}, "there is no --token"},
		"a token in a flag":            {[]string{"--token", text}, `delete it on the master with "deletetoken 7"`},
		"a password in a flag":         {[]string{"--password", "hunter2"}, "change it on the master (managerpassword), and hand it over in a file"},
		"another word":                 {[]string{"sat1"}, `unknown command "sat1"`},
		"open to others":               {[]string{"--token-file", open}, "has mode 0644, so others could have read the token: chmod 0600 " + open},
		"no file":                      {[]string{"--token-file", "/nowhere"}, "file of the token: open /nowhere: no such file"},
		"a directory":                  {[]string{"--token-file", "/"}, "/ is no regular file"},
		"an empty file":                {[]string{"--token-file", m.file("")}, "is empty"},
		"two lines":                    {[]string{"--token-file", two}, "more than one line"},
		"a long file":                  {[]string{"--token-file", m.file(strings.Repeat("x", 5000))}, "more than 1024 bytes"},
		"cut off":                      {[]string{"--token-file", m.file(text[:100])}, "cut off"},
		"mistyped":                     {[]string{"--token-file", m.file(string(mistyped))}, "mistyped"},
		"not a token":                  {[]string{"--token-file", m.file("hello")}, "this is no token"},
		"both":                         {[]string{"--token-file", token, "--password-file", token}, "one is enough"},
		"token and wrong fingerprint":  {[]string{"--token-file", token, "--ca-sha256", strings.Repeat("ab", 32)}, "--ca-sha256 names another: nothing was sent"},
		"no fingerprint":               {[]string{"--ca-sha256", "abc"}, "is no fingerprint"},
		"a bad address of the manager": {[]string{"--token-file", token, "--manager", "a b"}, "the master's address"},
		"a bad own address":            {[]string{"--token-file", token, "--address", "a b"}, "WIN4_VERDE_PUBADDR"},
		"nobody to ask":                {nil, "there is nobody to ask for the password here"},
		"no master":                    {[]string{"--token-file", token}, "the master's address is missing: --manager ADDRESS, or WIN4_VERDE_CMADDR in "},
		"nobody listens":               {[]string{"--token-file", token, "--manager", "127.0.0.1:1"}, "nothing listens there"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newNewcomer(t)
			out, err := h.do("", append([]string{"register"}, test.args...)...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error()+out, secret) {
				t.Errorf("the secret is told: %v\n%s", err, out)
			}
			if got := listing(t, h.pki()); got != "" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// On the master's own computer the satellite's credentials are beside the
// master's, which are not touched; and its address is not written.
func TestRegisterOnTheMaster(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t, "WIN4_VERDE_CLUSTER_MASTER=yes", "WIN4_VERDE_LISTEN="+m.address)
	own, err := m.a.Issue(wire.Identity{Role: wire.Master, ID: wire.NewUUID(), Name: "cm"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeDir(h.pki()); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{wire.CAFile: m.a.CertPEM, wire.IdentityFile: own} {
		if err := put(filepath.Join(h.pki(), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := h.text()
	file, _ := m.token(1)
	if out, err := h.do("", "register", "--token-file", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v, err := settings.Load(h.settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Load(PKI(v), wire.Satellite); err != nil || PKI(v) == h.pki() || h.text() != before {
		t.Errorf("in %s: %v; settings:\n%s", PKI(v), err, h.text())
	}
	if _, err := wire.Load(h.pki(), wire.Master); err != nil {
		t.Errorf("the master's own: %v", err)
	}
}

// What is there and cannot be used is not thrown away unasked.
func TestRegisterOverSomething(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	h := newNewcomer(t, "WIN4_VERDE_CMADDR=192.0.2.99,"+m.address)
	if err := makeDir(h.pki()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{wire.CAFile, wire.IdentityFile} {
		if err := os.WriteFile(filepath.Join(h.pki(), name), []byte("something"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, _ := m.token(1)
	if _, err := h.do("", "register", "--manager", m.address, "--token-file", file); err == nil || !strings.Contains(err.Error(), "--again registers it anew") {
		t.Errorf("got %v", err)
	}
	before := h.text()
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", file, "--again"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if h.text() != before {
		t.Errorf("one of two masters is there already:\n%s", h.text())
	}
	// A file that is not what a registration leaves is not believed.
	if err := os.WriteFile(filepath.Join(h.pki(), "pending.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	second, _ := m.token(2)
	if out, err := h.do("", "register", "--manager", m.address, "--token-file", second, "--again"); err != nil || strings.Contains(out, "repeated") {
		t.Errorf("%v\n%s", err, out)
	}
}

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/master/pki"
	"verdecmd/proto/wire"
)

// RELIABILITY 1.1 F and G, pitfall 5, F-09: a whole scenario of trust, by the real
// programs on computers of their own. A password is set, by a pipe and at a
// terminal; hosts join with it, with a mistyped one, with a token and with a used
// one; users log in; a certificate is renewed; a machine takes the place of
// another one. Nobody has seen a password, the secret of a token or a private key
// then: not who takes every packet on every interface, not the logs, what the
// commands say, the events and the audit, the command lines of all processes, nor
// who has all files but those that are there to keep the secrets.
func TestRealSecrets(t *testing.T) {
	t.Parallel()
	c := prepareChaos(t, plan{seed: 1}, 2)
	planted := secrets{}
	words := map[string]string{}
	for _, what := range []string{"the password", "the second password", "a mistyped password"} {
		words[what] = "planted/" + rand.Text()
		planted.text(what, words[what])
	}
	said := map[string]string{} // by whoever said it
	watch := watchCommandLines(c.dir)

	tap := newWiretap(t)
	c.m = c.host(&daemon{r: c.real, name: "master", settings: c.path("m")}, "m", chaosMaster)
	tap.in(c.m.space)
	c.m.start()
	c.until("the master's socket", c.ready)
	planted.key(t, "the key of the authority", c.path("master/pki/ca.key"))
	planted.key(t, "the master's key", c.path("master/pki/"+wire.IdentityFile))
	said["managerpassword"] = <-c.netcat("managerpassword\n" + words["the password"] + "\n")
	if !strings.HasSuffix(said["managerpassword"], "200 ok\n") {
		t.Fatalf("managerpassword: %s", said["managerpassword"])
	}
	check(t, os.Mkdir(c.path("secret"), 0o700))

	// The first host, with the password; the second, with a token.
	one := c.newcomer("sat1", 1, "10.77.0.11", tap)
	register := func(code int, d *daemon, args ...string) {
		t.Helper()
		args = append([]string{"nsenter", "--net=/run/netns/" + d.space, "verdecmd", "register", "--settings", d.settings, "--yes",
			"--manager", chaosMaster, "--name", d.name, "--address", d.ip}, args...)
		said[fmt.Sprintf("register of %s (%d)", d.name, len(said))] = c.run(code, args...)
	}
	print := strings.TrimSpace(c.run(0, "verdecmd", "fingerprint", "--settings", c.path("m")))
	fingerprint := regexp.MustCompile(`([0-9a-f]{4} ){15}[0-9a-f]{4}`).FindString(print)
	file := func(name, text string) string {
		path := c.path("secret/" + name)
		check(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		return path
	}
	register(1, one, "--ca-sha256", fingerprint, "--password-file", file("wrong", words["a mistyped password"]))
	register(0, one, "--ca-sha256", fingerprint, "--password-file", file("password", words["the password"]))
	planted.key(t, "the key of sat1", c.path("ksat1/"+wire.IdentityFile))
	token := func(args ...string) string {
		t.Helper()
		text := regexp.MustCompile(`vd1-\S+`).FindString(<-c.netcat(strings.Join(args, " ") + "\n"))
		planted.token(t, fmt.Sprintf("the token of %q", args), text)
		return text
	}
	two := c.newcomer("sat2", 2, "10.77.0.12", tap)
	first := file("token", token("createtoken", "server=sat2"))
	register(0, two, "--token-file", first)
	planted.key(t, "the key of sat2", c.path("ksat2/"+wire.IdentityFile))
	mistyped := token("createtoken", "server=sat9")
	register(1, two, "--again", "--token-file", first) // it is used up
	register(1, two, "--again", "--token-file", file("mistyped", mistyped[:len(mistyped)-1]+"!"))

	// The password is changed at a terminal.
	check(t, os.Mkdir(c.path("history"), 0o755))
	p := pane{t, fmt.Sprintf("verdecmd-secrets-%d", os.Getpid())}
	t.Cleanup(func() { exec.Command("tmux", "-L", p.name, "kill-server").Run() }) // it may have ended
	p.do("-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "50", "env VERDECMON_HISTORY="+c.path("history/verdecmon")+" verdecmon -s "+c.path("sock"))
	p.prompt("verdecmd>")
	p.keys("managerpassword", "Enter")
	for _, question := range []string{"Secret:", "Again:"} { // the echo is switched off by then
		p.prompt(question)
		p.keys("-l", words["the second password"])
		p.keys("Enter")
	}
	p.prompt("verdecmd>")
	said["the terminal"] = p.screen()
	p.keys("C-d")
	patiently(t, "the history", func() bool {
		b, _ := os.ReadFile(c.path("history/verdecmon")) // it may not be there yet
		return strings.Contains(string(b), "managerpassword")
	})

	// Desktops.
	for _, d := range []*daemon{one, two} {
		d.start()
		c.sats = append(c.sats, d)
	}
	for n := 1; n <= 2; n++ {
		c.until("a satellite", func() bool { return c.up(n) })
	}
	c.admin("offlineserver", "1")
	c.win4(3, 1, "u1")
	c.win4(0, 2, "u1")
	c.admin("onlineserver", "1")

	// A certificate in the last part of its life: the host gets another one.
	one.kill()
	c.aged(one, 25*24*time.Hour)
	planted.key(t, "the key that sat1 had", c.path("ksat1/"+wire.IdentityFile))
	one.start()
	c.until("the renewal", func() bool { return strings.Contains(one.log.String(), "the certificate of this host was renewed") })
	planted.key(t, "the new key of sat1", c.path("ksat1/"+wire.IdentityFile))
	c.until("the link", func() bool { return c.up(1) })

	// The second host burns down.
	two.kill()
	for pid := range c.desktops() {
		check(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	c.ip("-n " + c.prefix + "sw link set to-n2 down")
	c.until("the loss", func() bool { return c.link(2) == "down" })
	c.admin("fenceserver", "2")
	again := c.newcomer("sat2", 3, two.ip, tap)
	register(0, again, "--token-file", file("replace", token("replaceserver", "2")))
	planted.key(t, "the key of the new sat2", c.path("ksat3/"+wire.IdentityFile))
	again.start()
	c.until("the new machine", func() bool { return c.up(2) })
	c.admin("offlineserver", "1")
	c.win4(0, 3, "u1")

	// What can be seen, and first that it would be.
	control := "control/" + rand.Text() + rand.Text()
	c.inTheClear(again.space, two.ip+":9999", control)
	passed := tap.stop()
	if !slices.ContainsFunc(slices.Collect(maps.Values(passed)), func(b []byte) bool { return bytes.Contains(b, []byte(control)) }) {
		t.Error("the capture does not have what was said in the clear, in two packets")
	}
	said["command lines"] = watch()
	if !strings.Contains(said["command lines"], "\x00register\x00") {
		t.Error("no command line of register was seen")
	}
	for _, line := range []string{"servers", "server 1", "server 2", "tokens", "revocations", "settings", "jobs all", "users", "metrics"} {
		said[line] = <-c.netcat(line + "\n")
	}
	for _, args := range []string{"audit", "alarms all"} {
		said[args] = c.admin(strings.Fields(args)...)
	}
	said["events"] = c.events("both desktops", func(out string) bool { return strings.Count(out, "type=session.started user=u1 ") >= 2 })
	for _, line := range []string{"managerpassword", "createtoken", "replaceserver"} {
		if !strings.Contains(said["audit"], line) {
			t.Errorf("the audit does not have %s: %s", line, said["audit"])
		}
	}
	for _, d := range c.all {
		said["log of "+d.name+" at "+d.space] = d.log.String()
	}
	for where, text := range said {
		passed[where] = []byte(text)
	}
	for where, data := range passed {
		for _, what := range planted.in(data) {
			t.Errorf("%s: there is %s", where, what)
		}
	}
	c.lookThroughFiles(planted)
}

// newcomer is a computer that is to be the nth satellite and has no credentials
// yet. The wiretap is on its interfaces before it begins.
func (c *chaosCluster) newcomer(name string, n int, address string, tap *wiretap) *daemon {
	c.t.Helper()
	check(c.t, os.Mkdir(c.path("ksat"+strconv.Itoa(n)), 0o700)) // else it is enrolled
	d := c.configure(n, values{"WIN4_VERDE_PUBADDR": address, "WIN4_PEER_LISTEN": ""}, "")
	c.host(d, fmt.Sprintf("n%d", n), address)
	tap.in(d.space)
	d.name = name
	return d
}

// aged gives a satellite a certificate that was made so long ago.
func (c *chaosCluster) aged(d *daemon, ago time.Duration) {
	c.t.Helper()
	dir := c.path("k" + strings.TrimPrefix(d.settings, c.path("c")))
	own, err := wire.Load(dir, wire.Satellite)
	check(c.t, err)
	a, err := pki.Issuer(c.path("master/pki"))
	check(c.t, err)
	b, err := a.Issue(own.Identity, time.Now().Add(-ago), 30*24*time.Hour)
	check(c.t, err, os.WriteFile(filepath.Join(dir, wire.IdentityFile), b, 0o600))
}

// inTheClear sends a text over a connection without TLS, in two packets.
func (c *chaosCluster) inTheClear(space, address, text string) {
	c.t.Helper()
	l, err := within(space, func() (net.Listener, error) { return net.Listen("tcp4", address) })
	check(c.t, err)
	defer l.Close()
	conn, err := dialFrom(c.t.Context(), c.m.space, address)
	check(c.t, err)
	there, err := l.Accept()
	check(c.t, err)
	for _, part := range []string{text[:len(text)/2], text[len(text)/2:]} {
		_, err := conn.Write([]byte(part))
		check(c.t, err)
		_, err = io.ReadFull(there, make([]byte, len(part)))
		check(c.t, err)
	}
	check(c.t, conn.Close(), there.Close())
}

// watchCommandLines looks at the command lines of all processes all the time;
// the function that it returns ends that and returns those of this cluster.
func watchCommandLines(dir string) func() string {
	seen := map[string]bool{}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, p := range procs {
				if line, err := os.ReadFile(p); err == nil && bytes.Contains(line, []byte(dir+"/")) {
					seen[string(line)] = true
				}
			}
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() string {
		close(end)
		<-ended
		return strings.Join(slices.Sorted(maps.Keys(seen)), "\n")
	}
}

// lookThroughFiles looks for secrets in all files of the cluster but those that
// keep them, which are their owner's alone.
func (c *chaosCluster) lookThroughFiles(planted secrets) {
	c.t.Helper()
	keeps := regexp.MustCompile(`/(secret/\w+|ca\.key|` + regexp.QuoteMeta(wire.IdentityFile) + `)$`)
	databases, kept := 0, 0
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the programs are at work
			return nil
		}
		if err != nil || !d.Type().IsRegular() || path == c.path("fakeqemu") {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".db" {
			databases++
		}
		found := planted.in(b)
		if !keeps.MatchString(path) {
			for _, what := range found {
				c.t.Errorf("%s: there is %s", path, what)
			}
			return nil
		}
		kept++
		if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 || len(found) == 0 {
			c.t.Errorf("%s: mode %v, with %q, %v", path, info.Mode(), found, err)
		}
		return nil
	})
	check(c.t, err)
	if databases == 0 || kept < 8 {
		c.t.Errorf("only %d databases and %d files that keep secrets were found", databases, kept)
	}
}

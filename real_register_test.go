package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"verdecmd/master/host"
	"verdecmd/proto/wire"
)

// newcomer makes the nth host, which no master knows yet, with an address of its
// own.
func (r *real) newcomer(n int) *daemon {
	r.t.Helper()
	check(r.t, os.Mkdir(r.path("ksat"+strconv.Itoa(n)), 0o700)) // where enrol would put something
	return r.configure(n, values{"WIN4_VERDE_CMADDR": "", "WIN4_VERDE_PUBADDR": fmt.Sprintf("127.0.0.%d", n)}, "")
}

// token is a new token in a file, and its text.
func (r *real) token(args ...string) (file, text string) {
	r.t.Helper()
	_, text, ok := strings.Cut(r.admin(args...), "token=")
	text, _, _ = strings.Cut(text, " ")
	f, err := os.CreateTemp(r.dir, "token")
	check(r.t, err)
	_, err = f.WriteString(text + "\n")
	check(r.t, err, f.Close())
	if !ok {
		r.t.Fatalf("%v shows no token", args)
	}
	return f.Name(), text
}

// register runs "verdecmd register" on a host.
func (d *daemon) register(code int, args ...string) string {
	d.r.t.Helper()
	return d.r.run(code, append([]string{"verdecmd", "register", "--settings", d.settings, "--name", d.name}, args...)...)
}

// password sets the manager's.
func (r *real) password(text string) {
	r.t.Helper()
	c := exec.Command("verdecmon", "-s", r.path("sock"))
	c.Stdin = strings.NewReader("managerpassword\n" + text + "\n")
	if out, err := c.CombinedOutput(); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
}

// F-01, F-08, F-09, F-11, LV2: while users log in all the time a host is
// registered by a token and a third one at a terminal by the manager's password.
// Each is in the list of servers at once, and takes logins as soon as it is
// started; nothing else is restarted, and no login is refused.
func TestRealRegister(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	r.password("my good password")
	r.satellite(1, values{"WIN4_VERDE_PUBADDR": "127.0.0.101"}, "")
	stop, done := make(chan struct{}), make(chan string, 1)
	go func() { // users who come and go
		for i := 0; ; i++ {
			user := realUsers[2+i%3]
			out, code := r.try("win4", "--satellite", r.path("sat1"), "--user", user)
			if code == 0 {
				r.try("verdecmon", "-s", r.path("sock"), "abortuser", user)
			}
			if code != 0 && code != 3 && !momentary(out) {
				done <- out
				return
			}
			select {
			case <-stop:
				done <- ""
				return
			default:
			}
		}
	}()

	second := r.newcomer(2)
	file, text := r.token("createtoken", "server=sat2")
	out := second.register(0, "--manager", r.address, "--token-file", file)
	for _, want := range []string{"sat2 is registered: server 2 of cluster ", "Checking this host.", " pass, ", "Start the satellite: verdecmd satellite --settings " + second.settings} {
		if !strings.Contains(out, want) {
			t.Errorf("register: no %q in\n%s", want, out)
		}
	}
	if !strings.Contains(r.admin("servers"), "2\tsat2\t127.0.0.2\tonline\tdown\t") {
		t.Errorf("servers:\n%s", r.admin("servers"))
	}
	r.takesLogins(second, "alice", "1")

	third := r.newcomer(3)
	p := tmux(t, "verdecmd register --settings "+third.settings+" --name sat3; sleep 60")
	p.until("Manager's address:")
	p.keys(r.address, "Enter")
	fingerprint := strings.Fields(r.run(0, "verdecmd", "fingerprint", "--settings", r.path("m")))
	p.until("Fingerprint  " + strings.Join(fingerprint[:8], " "))
	p.until(strings.Join(fingerprint[8:], " "))
	p.until("Is this the fingerprint of your cluster? [y/N]")
	p.keys("y", "Enter")
	p.until("Manager's password:")
	p.keys("not my password", "Enter")
	p.until("The manager's password is wrong")
	p.prompt("Manager's password:") // once more: what is typed before would be seen
	p.keys("my good password", "Enter")
	p.until("sat3 is registered: server 3 of cluster ")
	p.until("Start the satellite: ")
	if strings.Contains(p.screen(), "my good password") || strings.Contains(p.screen(), "not my password") {
		t.Errorf("a password is on the screen:\n%s", p.screen())
	}
	r.takesLogins(third, "bob", "1", "2")

	close(stop)
	if out := <-done; out != "" {
		t.Errorf("a login was refused meanwhile: %s", out)
	}
	// Pitfall 5: secrets are in no log.
	token, err := wire.ParseToken(text)
	check(t, err)
	for _, d := range r.all {
		for what, secret := range map[string]string{"password": "good password", "token": text[len(text)-41 : len(text)-9]} {
			if strings.Contains(d.log.String(), secret) {
				t.Errorf("the %s (token %d) is in the log of %s", what, token.ID, d.name)
			}
		}
	}
}

// takesLogins starts a host that was just registered, and looks that it gets a
// login within two report periods (F-11). The other servers take none meanwhile.
func (r *real) takesLogins(d *daemon, user string, others ...string) {
	r.t.Helper()
	d.start()
	id := strings.TrimPrefix(d.name, "sat")
	n, err := strconv.Atoi(id)
	check(r.t, err)
	r.until("the link of "+d.name, func() bool { return r.link(n) == "up" })
	up := time.Now()
	for _, o := range others {
		r.admin("offlineserver", o)
	}
	for {
		began := time.Now()
		out, code := r.try("win4", "--satellite", r.path("sat1"), "--user", user)
		if code == 3 && strings.Contains(out, "referred "+id+" "+d.name) {
			break
		}
		// Reports come once a second: who asks after two of them gets there.
		if after := began.Sub(up); after > 2*time.Second && !momentary(out) || after > mostWait {
			r.t.Fatalf("%s gets no login after %v: %s", d.name, after, out)
		}
	}
	r.win4(0, n, user)
	for _, o := range others {
		r.admin("onlineserver", o)
	}
	r.until("the desktop", func() bool { return r.value("state", "user", user) == "running" })
}

// F-09, pitfalls 1, 3, 4: what does not let a host in, each with a text that says
// why and what to do; the fifth wrong password locks.
func TestRealRegisterRefused(t *testing.T) {
	t.Parallel()
	r, other := newReal(t), newReal(t)
	r.master(nil, "")
	other.master(nil, "")
	r.password("my good password")
	h := r.newcomer(2)
	asked := []string{"--manager", r.address}

	late, _ := r.token("createtoken", "ttl=1")
	good, text := r.token("createtoken", "server=sat2")
	foreign, _ := other.token("createtoken")
	elsewhere, _ := r.token("createtoken", "server=sat9")
	cut, swapped := r.path("cut"), r.path("swapped")
	parts := strings.Split(text, "-")
	parts[2], parts[4] = parts[4], parts[2]
	check(t, os.WriteFile(cut, []byte(text[:len(text)-20]), 0o600), os.WriteFile(swapped, []byte(strings.Join(parts, "-")), 0o600))
	tests := []struct{ name, file, want string }{
		{"cut off", cut, "the token is cut off: it has 5 of 6 parts, copy all of it"},
		{"parts swapped", swapped, "check sum does not fit, copy all of it"},
		{"of another cluster", foreign, "this is another cluster, a token from before its authority was changed, or somebody is in between; nothing was sent"},
		{"for another host", elsewhere, "is for the host sat9, this one is sat2; it still works there"},
	}
	for _, x := range tests {
		if out := h.register(1, append(asked, "--token-file", x.file)...); !strings.Contains(out, x.want) {
			t.Errorf("%s: got %s, want %q", x.name, out, x.want)
		}
	}
	time.Sleep(1100 * time.Millisecond) // the life of the first token
	if out := h.register(1, append(asked, "--token-file", late)...); !strings.Contains(out, "expired") {
		t.Errorf("expired: %s", out)
	}
	h.register(0, append(asked, "--token-file", good)...)
	thief := r.newcomer(3)
	if out := r.run(1, "verdecmd", "register", "--settings", thief.settings, "--name", "sat2", "--manager", r.address, "--token-file", good); !strings.Contains(out, "was used") {
		t.Errorf("used: %s", out)
	}

	wrong := r.path("wrong")
	check(t, os.WriteFile(wrong, []byte("a wrong one\n"), 0o600))
	pin := strings.TrimSpace(r.run(0, "verdecmd", "fingerprint", "--settings", r.path("m")))
	var tried []time.Time // those that count for a minute
	for {
		began := time.Now()
		out := thief.register(1, append(asked, "--password-file", wrong, "--ca-sha256", pin)...)
		if strings.Contains(out, "too many wrong passwords") {
			break
		}
		tried = append(tried, began)
		n := len(tried)
		if !strings.Contains(out, "the manager's password is wrong") || n > 15 || n > 5 && time.Since(tried[n-6]) < time.Minute {
			t.Fatalf("wrong password %d, of which five count: %s", n, out)
		}
	}
	if len(tried) < 5 {
		t.Errorf("%d wrong passwords have locked", len(tried))
	}
	check(t, os.WriteFile(wrong, []byte("my good password\n"), 0o600))
	if out := thief.register(1, append(asked, "--password-file", wrong, "--ca-sha256", pin)...); !strings.Contains(out, "too many wrong passwords") {
		t.Errorf("the right one while it is locked: %s", out)
	}
	if names, err := os.ReadDir(r.path("ksat3")); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// RELIABILITY 4.1 step 4, S17: the master has registered the host and nobody
// hears of it, since the host is killed or the connection cut in this moment. The
// same call again makes it the same host, once.
func TestRealRegisterLostAnswer(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	h := r.newcomer(2)
	file, _ := r.token("createtoken", "server=sat2")
	used := func() bool {
		out, _ := r.try("verdecmon", "-s", r.path("sock"), "servers")
		return strings.Contains(out, "\tsat2\t")
	}
	way := newProxy(t, r.address)
	way.mu.Lock()
	way.lose = used
	way.mu.Unlock()
	c := exec.Command("verdecmd", "register", "--settings", h.settings, "--name", "sat2", "--manager", way.Addr().String(), "--token-file", file)
	check(t, c.Start())
	r.until("the master to register it", used)
	check(t, c.Process.Signal(syscall.SIGKILL))
	c.Wait()
	id := r.value("uuid", "server", "1")
	if names, err := os.ReadDir(r.path("ksat2")); err != nil || len(names) != 1 || names[0].Name() != "pending.pem" {
		t.Fatalf("it has %v, %v", names, err)
	}
	out := h.register(0, "--manager", r.address, "--token-file", file)
	if !strings.Contains(out, "it is repeated with the same key") || !strings.Contains(out, "sat2 is registered: server 1 ") {
		t.Errorf("again: %s", out)
	}
	creds, err := wire.Load(r.path("ksat2"), wire.Satellite)
	check(t, err)
	if creds.Identity.ID != id || strings.Count(r.admin("servers"), "\tsat2\t") != 1 {
		t.Errorf("it is %s, at first it was %s; servers:\n%s", creds.Identity.ID, id, r.admin("servers"))
	}
	h.start()
	r.until("the link", func() bool { return r.value("link", "server", "1") == "up" })
}

// RELIABILITY 4.2: a certificate whose time has come is renewed while the
// satellite runs, also one of a year that enrol has made; one that has ended
// while the host was off is replaced when it comes back, and the desktops go on;
// one that has ended too long ago is not, and the log says what to do.
func TestRealRenew(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	check(t, os.RemoveAll(r.path("master/pki"))) // the authority is older than its certificates
	_, err := host.Init(r.path("master/pki"), time.Now().Add(-3*365*24*time.Hour))
	check(t, err)
	r.master(nil, "")
	enrolled := func(n int, ago time.Duration) {
		_, err := host.Enrol(r.path("master/pki"), "sat"+strconv.Itoa(n), r.path("ksat"+strconv.Itoa(n)), time.Now().Add(-ago))
		check(t, err)
	}
	const day = 24 * time.Hour
	until := func(id string) time.Duration {
		at, err := time.Parse(time.RFC3339, r.value("certuntil", "server", id))
		check(t, err)
		return time.Until(at)
	}
	enrolled(1, 300*day) // four fifths of its year are over
	s := r.satellite(1, nil, "")
	r.until("the renewal", func() bool { return strings.Contains(s.log.String(), "the certificate of this host was renewed") })
	r.until("the master to know", func() bool { return until("1") < 31*day && until("1") > 29*day })

	r.win4(0, 1, "alice")
	r.until("the desktop", func() bool { return r.value("state", "user", "alice") == "running" })
	pid := r.value("pid", "user", "alice")
	s.kill()
	enrolled(1, 380*day) // ended half a month ago
	s.start()
	r.until("the host to come back", func() bool { return r.link(1) == "up" })
	r.until("the desktop to go on", func() bool { return r.value("state", "user", "alice") == "running" })
	if got := r.value("pid", "user", "alice"); got != pid {
		t.Errorf("the desktop: process %s, before it was %s", got, pid)
	}

	r.satellite(2, nil, "").kill()
	enrolled(2, 365*day+200*day)
	old := r.configure(2, nil, "")
	old.start()
	r.until("the refusal", func() bool { return strings.Contains(old.log.String(), "WIN4_VERDE_REJOIN_DAYS is 90") })
	time.Sleep(time.Second) // what is measured is that it is not told again
	if text := old.log.String(); strings.Count(text, "WIN4_VERDE_REJOIN_DAYS") != 1 || !strings.Contains(text, `"replaceserver 2\" on the master`) {
		t.Errorf("the log:\n%s", text)
	}
}

// RELIABILITY 4.3, F-12, S16: another machine has the place of one that failed.
// The old one, powered on again, starts nothing, ends what it has left, says so to
// its users, and may become a server of its own.
func TestRealSuperseded(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	old := r.newcomer(1)
	file, _ := r.token("createtoken", "server=sat1")
	old.register(0, "--manager", r.address, "--token-file", file)
	old.start()
	r.until("the link", func() bool { return r.link(1) == "up" })
	r.win4(0, 1, "alice")
	r.until("the desktop", func() bool { return r.value("state", "user", "alice") == "running" })
	old.kill()
	r.until("the loss", func() bool { return r.link(1) == "down" })

	file, _ = r.token("replaceserver", "1")
	next := r.newcomer(11)
	r.run(0, "verdecmd", "settings", "set", "--settings", next.settings, "WIN4_VERDE_PUBADDR", "127.0.0.1")
	if out := r.run(1, "verdecmd", "register", "--settings", next.settings, "--name", "sat1", "--manager", r.address, "--token-file", file); !strings.Contains(out, `"fenceserver 1" on the master releases them`) {
		t.Errorf("while its sessions are not known to be gone: %s", out)
	}
	r.admin("fenceserver", "1")
	out := r.run(0, "verdecmd", "register", "--settings", next.settings, "--name", "sat1", "--manager", r.address, "--token-file", file)
	if !strings.Contains(out, "sat1 is registered: server 1 ") || !strings.Contains(out, "It has taken the place of the machine that was server 1 before.") {
		t.Errorf("register: %s", out)
	}
	next.start()
	r.until("the new machine", func() bool { return r.link(1) == "up" })

	if len(r.desktops()) != 1 {
		t.Fatalf("%d desktops, want the one that was left", len(r.desktops()))
	}
	old.start()
	r.until("the end of what was left", func() bool { return len(r.desktops()) == 0 })
	for range 2 { // also after a restart of its program
		out := r.win4(1, 1, "bob")
		if !strings.Contains(out, "no desktops run on this computer any more, log in on another server. It is of its cluster no more: superseded: this machine was server 1 (sat1) until ") {
			t.Errorf("win4: %s", out)
		}
		old.kill()
		old.log = logBuffer{}
		old.start()
		r.until("the satellite", func() bool { return strings.Contains(old.log.String(), "the cluster has given up this computer") })
	}
	if text := old.log.String(); strings.Count(text, "superseded: ") != 1 || strings.Contains(text, `"part":"link"`) {
		t.Errorf("the log:\n%s", text)
	}
	r.win4(0, 11, "bob") // the new one is not disturbed
	old.kill()

	file, _ = r.token("createtoken")
	again := &daemon{r: r, name: "sat5", settings: old.settings}
	if out := again.register(0, "--manager", r.address, "--token-file", file); !strings.Contains(out, "sat5 is registered: server 2 ") {
		t.Errorf("anew: %s", out)
	}
	again.start()
	r.until("the link", func() bool { return r.link(2) == "up" })
	if _, err := os.Stat(r.path("ssat1/satellite/superseded")); !os.IsNotExist(err) {
		t.Errorf("the note is still there: %v", err)
	}
	r.admin("offlineserver", "1")
	r.win4(0, 1, "carol")
}

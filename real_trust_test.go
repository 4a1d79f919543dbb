package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// trusting is a satellite that other satellites reach, with SSH keys.
type trusting struct {
	*daemon
	n    int
	peer string
	ssh  string
	own  string // lines of root's own in authorized_keys
}

// trusting starts the nth satellite so.
func (r *real) trusting(n int) *trusting {
	r.t.Helper()
	s := &trusting{n: n, peer: "127.0.0.1:" + freePort(r.t), ssh: r.path("ssh" + strconv.Itoa(n)), own: fmt.Sprintf("ssh-rsa AAAA%d me@home\n# no end", n)}
	etc := r.path("etc" + strconv.Itoa(n))
	check(r.t, os.Mkdir(s.ssh, 0o700), os.WriteFile(filepath.Join(s.ssh, "authorized_keys"), []byte(s.own), 0o640), os.Mkdir(etc, 0o755))
	before := ""
	if _, err := os.Stat("/etc/ssh"); err == nil { // sshd's keys, of this host alone
		r.run(0, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(etc, "ssh_host_ed25519_key"))
		before = "mount --bind " + etc + " /etc/ssh"
	}
	s.daemon = r.satellite(n, values{"WIN4_PEER_LISTEN": s.peer, "WIN4_SSH_KEYS": "yes", "WIN4_SSH_DIR": s.ssh}, before)
	return s
}

// file is what a file in root's SSH directory holds.
func (s *trusting) file(name string) string {
	b, _ := os.ReadFile(filepath.Join(s.ssh, name))
	return string(b)
}

// block is the managed part of both files, and whether the rest is root's own.
func (s *trusting) block() (text string, kept bool) {
	own, rest, managed := strings.Cut(s.file("authorized_keys"), "# BEGIN verdecmd")
	if managed {
		own = strings.TrimSuffix(own, "\n")
		_, rest, _ = strings.Cut(rest, "\n")
	}
	_, known, _ := strings.Cut(s.file("known_hosts"), "\n")
	st, err := os.Stat(filepath.Join(s.ssh, "authorized_keys"))
	return rest + known, own == s.own && err == nil && st.Mode() == 0o640
}

// caller is a connection to a satellite as another one.
type caller struct {
	r    *real
	peer pb.PeerClient
	cc   *grpc.ClientConn
}

func (r *real) callAs(dir, address string) *caller {
	r.t.Helper()
	c, err := wire.Load(dir, wire.Satellite)
	check(r.t, err)
	cc, err := grpc.NewClient("passthrough:///"+address, wire.PeerDialOptions(c, "")...)
	check(r.t, err)
	r.t.Cleanup(func() { cc.Close() })
	return &caller{r, pb.NewPeerClient(cc), cc}
}

func (c *caller) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.peer.Ping(ctx, &pb.PeerPing{})
	return wire.FromStatus(err)
}

// S16, F-10, issue 5 item 3: three satellites with connections to each other. One
// of them is revoked: it is out at the master within 2 s and at another
// satellite within 5 s, on the connection that is open and on each new one. A
// third one, which is stopped, is shown to lag, and catches up. The SSH keys of
// all are the same everywhere before and after, and nobody's own lines were
// touched.
func TestRealTrust(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	r.master(nil, "")
	var all []*trusting
	for n := 1; n <= 3; n++ {
		all = append(all, r.trusting(n))
	}
	same := func(who []*trusting, keys int) func() bool {
		return func() bool {
			for _, s := range who {
				text, kept := s.block()
				if first, _ := who[0].block(); !kept || text != first || strings.Count(text, "root@sat") != keys {
					return false
				}
			}
			return true
		}
	}
	r.until("the same keys on all servers", same(all, 3))
	if known := all[0].file("known_hosts"); strings.Contains(known, "ssh-ed25519") && (!strings.Contains(known, "\nsat1 ssh-ed25519 ") || strings.Count(known, "\nsat") != 3) {
		t.Errorf("known_hosts: %q", known)
	}
	for n := 1; n <= 3; n++ {
		r.until("the newest bundle", func() bool {
			return r.value("trust", "server", strconv.Itoa(n)) == r.value("trustcurrent", "server", strconv.Itoa(n))
		})
	}
	stolen := r.path("stolen")
	check(t, os.CopyFS(stolen, os.DirFS(r.path("ksat1"))), os.Chmod(filepath.Join(stolen, wire.IdentityFile), 0o600))
	two, three := r.callAs(stolen, all[1].peer), r.callAs(stolen, all[2].peer)
	check(t, two.ping(), three.ping())

	check(t, all[2].cmd.Process.Signal(syscall.SIGSTOP))
	r.admin("replaceserver", "1", "force")
	revoked := time.Now()
	r.soonDown(1, 2*time.Second)
	// Now, for the link of the one that is stopped is given up after some seconds.
	r.until("server 3 to lag", func() bool {
		return r.value("trustbehind", "server", "3") != "-" && strings.Contains(r.run(0, "verdecmon", "-s", r.path("sock"), "-f", "text", "server", "3"), ", behind for ")
	})
	for what, c := range map[string]*caller{"open": two, "new": r.callAs(stolen, all[1].peer)} {
		for {
			asked := time.Now()
			err := c.ping()
			if wire.KindOf(err) == wire.Revoked {
				break
			}
			if after := asked.Sub(revoked); after > 5*time.Second {
				t.Fatalf("the revoked satellite is not refused on the %s connection after %v: %v", what, after, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err := two.ping(); err == nil || !strings.Contains(err.Error(), "superseded") {
		t.Errorf("the refusal says %v", err)
	}
	r.until("server 2 to have told that it has the bundle", func() bool { return r.value("trustbehind", "server", "2") == "-" })
	check(t, all[2].cmd.Process.Signal(syscall.SIGCONT))
	r.until("server 3 to catch up", func() bool { return r.value("trust", "server", "3") == r.value("trustcurrent", "server", "3") })
	r.until("a refusal by the one that has caught up", func() bool { return wire.KindOf(three.ping()) == wire.Revoked })
	r.until("the key of the revoked satellite to go", same(all[1:], 2))
	r.until("the keys to leave the revoked satellite", func() bool { text, kept := all[0].block(); return text == "" && kept })

	all[1].kill()
	r.run(0, "verdecmd", "settings", "set", "--settings", all[1].settings, "WIN4_SSH_KEYS", "no")
	all[1].start()
	r.until("the keys of one that wants none to go", func() bool {
		text, kept := all[1].block()
		return text == "" && kept && same(all[2:], 1)()
	})
	if got := all[1].file("authorized_keys"); got != all[1].own {
		t.Errorf("authorized_keys is %q, was %q", got, all[1].own)
	}
}

// rootOf is the authority that has issued the certificate in a directory, and
// how many authorities are trusted there.
func (r *real) rootOf(dir string, role wire.Role) (root string, trusts int) {
	r.t.Helper()
	c, err := wire.Load(dir, role)
	check(r.t, err)
	return c.OwnRoot(), len(c.Roots())
}

// RELIABILITY 4.2 and 4.4, pitfalls 8 and 11: the authority of a cluster at work
// is changed. The master is killed in the middle of it, twice, and comes back
// under another host name; a satellite is stopped, holds it up and is named. In
// the end all have certificates of the new authority and trust it alone, a
// session has gone on, the old tokens and the old certificates are void.
func TestRealRotateCA(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	r.satellite(1, nil, "")
	r.win4(0, 1, "alice") // while there is no other place
	s2 := r.satellite(2, nil, "")
	before, _ := r.rootOf(r.path("master/pki"), wire.Master)
	token := shownToken(t, r.admin("createtoken", "server=sat9"))
	old := r.path("old")
	check(t, os.CopyFS(old, os.DirFS(r.path("ksat1"))), os.Chmod(filepath.Join(old, wire.IdentityFile), 0o600))
	r.until("bundles", func() bool { return r.value("trust", "server", "2") == r.value("trustcurrent", "server", "2") })

	check(t, s2.cmd.Process.Signal(syscall.SIGSTOP))
	r.admin("rotateca", "nowait")
	_, id, _ := strings.Cut(strings.TrimSpace(r.admin("jobs")), "\n")
	id, _, _ = strings.Cut(id, "\trotateca\t")
	says := func(what string) func() bool {
		return func() bool { return strings.Contains(r.value("msg", "job", id), what) }
	}
	again := func() {
		t.Helper()
		m.kill()
		m.enter = []string{"unshare", "--uts", "sh", "-c", `hostname other.example && exec "$@"`, "sh"}
		m.start()
		r.until("the master's socket", r.ready)
	}
	r.until("the first to trust both", says("1 of 2 servers trust the new authority; server 2 (sat2)"))
	again()
	r.until("the same after a restart", says("1 of 2 servers trust the new authority; server 2 (sat2)"))
	check(t, s2.cmd.Process.Signal(syscall.SIGCONT))
	r.until("the new one to issue", func() bool {
		root, _ := r.rootOf(r.path("master/pki"), wire.Master)
		return root != before
	})
	again()
	r.until("the end", func() bool { return r.value("state", "job", id) == "done" })
	after, trusts := r.rootOf(r.path("master/pki"), wire.Master)
	if after == before || trusts != 1 {
		t.Errorf("the master has a certificate of %.8s, was %.8s, and trusts %d", after, before, trusts)
	}
	for n := 1; n <= 2; n++ {
		r.until("the new one alone", func() bool {
			root, trusts := r.rootOf(r.path("ksat"+strconv.Itoa(n)), wire.Satellite)
			return root == after && trusts == 1 && r.link(n) == "up" && r.value("trust", "server", strconv.Itoa(n)) == r.value("trustcurrent", "server", strconv.Itoa(n))
		})
	}
	r.until("alice's session", func() bool { return r.value("state", "user", "alice") == "running" }) // links are made anew
	if keys, _ := filepath.Glob(r.path("master/pki/*.key")); len(keys) != 1 {
		t.Errorf("keys: %v", keys)
	}
	if _, err := r.machine("sat9").join(token); err == nil || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("a token from before: %v", err)
	}
	late, err := wire.Load(old, wire.Satellite)
	check(t, err)
	err = r.call(wire.DialOptions(late), func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := pb.NewEnrolmentClient(cc).Renew(ctx, &pb.RenewRequest{})
		return err
	})
	if wire.KindOf(err) != wire.Unreachable {
		t.Errorf("a certificate from before: %v", err)
	}
	// And again, without anything in between.
	r.admin("rotateca")
	if root, _ := r.rootOf(r.path("master/pki"), wire.Master); root == after {
		t.Error("once more: nothing has changed")
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// shownToken takes the token out of what a command has answered.
func shownToken(t *testing.T, answer string) wire.Token {
	t.Helper()
	_, rest, _ := strings.Cut(answer, "token=")
	text, _, _ := strings.Cut(rest, " ")
	token, err := wire.ParseToken(text)
	if err != nil {
		t.Fatalf("%s: %v", answer, err)
	}
	return token
}

// machine is a host that speaks to the master without any program of ours.
type machine struct {
	r    *real
	name string
	csr  []byte
}

func (r *real) machine(name string) *machine {
	r.t.Helper()
	_, csr, err := wire.NewRequest()
	check(r.t, err)
	return &machine{r, name, csr}
}

// call connects with these options for one call.
func (r *real) call(options []grpc.DialOption, f func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+r.address, options...)
	if err != nil {
		return err
	}
	defer cc.Close()
	return wire.FromStatus(f(ctx, cc))
}

// join asks with a token.
func (m *machine) join(token wire.Token) (reply *pb.JoinReply, err error) {
	q := &pb.JoinRequest{Csr: m.csr, Proof: &pb.JoinRequest_Token{Token: token.String()}, Name: m.name, Address: "127.0.0.1", NowUnixMs: time.Now().UnixMilli()}
	err = m.r.call(wire.JoinDialOptions(token.CA, time.Now), func(ctx context.Context, cc *grpc.ClientConn) error {
		reply, err = pb.NewEnrolmentClient(cc).Join(ctx, q)
		return err
	})
	return reply, err
}

// S17, S8, RELIABILITY 4.1.4 and 4.4, pitfall 4: machines that race for a token
// at a real master: one certificate. The master is killed at once after its
// answer: the next one gives the same answer to the same machine, has the server,
// and nobody else gets in by that token. Without the key of the authority nobody
// joins, and all else works.
func TestRealJoinsRacing(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	token := shownToken(t, r.admin("createtoken"))
	var mu sync.Mutex
	var winner *machine
	var won *pb.JoinReply
	var all sync.WaitGroup
	for i := range 8 {
		x := r.machine("sat" + strconv.Itoa(i+1))
		all.Go(func() {
			reply, err := x.join(token)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && winner == nil:
				winner, won = x, reply
				m.kill() // nothing is written any more
			case err == nil:
				t.Errorf("%s and %s have both joined", winner.name, x.name)
			case wire.KindOf(err) != wire.Denied && wire.KindOf(err) != wire.Unreachable:
				t.Errorf("%s is told %v", x.name, err)
			}
		})
	}
	all.Wait()
	if winner == nil {
		t.Fatal("nobody has joined")
	}
	m.start()
	r.until("the master", func() bool { return r.ready() })
	again, err := winner.join(token)
	if err != nil || !bytes.Equal(again.GetCertificate(), won.Certificate) || again.GetServerId() != 1 {
		t.Errorf("the lost answer: %v, %v", again, err)
	}
	if _, err := r.machine(winner.name).join(token); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "used already") {
		t.Errorf("somebody else: %v", err)
	}
	if rows := r.admin("servers"); strings.Count(rows, "\n") != 2 || r.value("name", "server", "1") != winner.name || r.value("uuid", "server", "1") != won.Id {
		t.Errorf("servers:\n%s", rows)
	}

	m.kill()
	check(t, os.Rename(r.path("master/pki/ca.key"), r.path("ca.key")))
	m.start()
	r.until("the master", func() bool { return r.ready() })
	if out := r.run(1, "verdecmon", "-s", r.path("sock"), "createtoken"); !strings.Contains(out, "ca.key") {
		t.Errorf("createtoken without the key: %s", out)
	}
	if _, err := winner.join(token); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("joining without the key: %v", err)
	}
	r.admin("offlineserver", "1")
	check(t, os.Rename(r.path("ca.key"), r.path("master/pki/ca.key")))
}

// S16, RELIABILITY 4.4, pitfalls 5, 6 and 10: what a thief has who has all of a
// satellite's files. As long as it is connected nobody else can be it; as soon as
// the administrator has replaced it, by force, its link is cut and every call of
// its identity is refused, within two seconds, also by a master that is started
// anew. A master whose database is an old copy says what it does not know. No
// secret is in any log or in the database.
func TestRealRevoked(t *testing.T) {
	t.Parallel()
	r := newReal(t)
	m := r.master(nil, "")
	const password = "a planted password"
	r.password(password)
	sat := r.satellite(1, nil, "")
	stolen, err := wire.Load(r.path("ksat1"), wire.Satellite)
	check(t, err)
	attach := func(creds *wire.Credentials) error {
		return r.call(wire.DialOptions(creds), func(ctx context.Context, cc *grpc.ClientConn) error {
			s, err := pb.NewLinkClient(cc).Attach(ctx)
			if err == nil {
				err = s.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: &pb.Hello{Protocol: wire.Protocol, Instance: "thief", Address: "127.0.0.1", Report: &pb.Report{Sessions: &pb.Sessions{}}}}})
			}
			if err == nil || errors.Is(err, io.EOF) { // then the reason can be read
				_, err = s.Recv()
			}
			return err
		})
	}
	renew := func() error {
		return r.call(wire.DialOptions(stolen), func(ctx context.Context, cc *grpc.ClientConn) error {
			_, err := pb.NewEnrolmentClient(cc).Renew(ctx, &pb.RenewRequest{Csr: r.machine("x").csr})
			return err
		})
	}
	if err := attach(stolen); wire.KindOf(err) != wire.InUse {
		t.Errorf("while it is connected: %v", err)
	}
	// Pitfall 6: the master's own certificate opens no link.
	master, err := wire.Load(r.path("master/pki"), wire.Master)
	check(t, err)
	if err := attach(master); err == nil || wire.KindOf(err) == wire.InUse {
		t.Errorf("with the master's certificate: %v", err)
	}
	copied := r.path("copy.db")
	r.admin("backup", copied)

	if out := r.run(1, "verdecmon", "-s", r.path("sock"), "replaceserver", "1"); !strings.Contains(out, "a live server is not replaced") {
		t.Errorf("replaceserver while it is connected: %s", out)
	}
	token := shownToken(t, r.admin("replaceserver", "1", "force"))
	r.soonDown(1, 2*time.Second)
	thief := func(when string) {
		t.Helper()
		for what, err := range map[string]error{"attach": attach(stolen), "renew": renew()} {
			if wire.KindOf(err) != wire.Revoked || !strings.Contains(err.Error(), "superseded: ") {
				t.Errorf("%s: %s: %v", when, what, err)
			}
		}
	}
	thief("at once")
	r.until("the satellite to hear it", func() bool { return strings.Contains(sat.log.String(), "superseded: ") })
	m.kill()
	m.start()
	r.until("the master", func() bool { return r.ready() })
	thief("by the next master")
	if got := r.admin("revocations"); !strings.Contains(got, "\tsat1\tsuperseded\t") || strings.Contains(got, "unknownsince") {
		t.Errorf("revocations: %s", got)
	}
	// What enrol makes now is the machine that is awaited, not the old one.
	check(t, os.RemoveAll(r.path("ksat1")))
	r.run(0, "verdecmd", "enrol", "sat1", "--settings", r.path("m"), "--out", r.path("ksat1"))
	next, err := wire.Load(r.path("ksat1"), wire.Satellite)
	check(t, err)
	if next.Identity.ID == stolen.Identity.ID || next.Identity.ID != r.value("uuid", "server", "1") {
		t.Errorf("enrolled again: %s, stolen was %s", next.Identity, stolen.Identity)
	}

	m.kill()
	r.secrets(password, token)
	// Pitfall 10: the copy is from before the replacement.
	if out := r.restoreCopy(copied); !strings.Contains(out, "Who was shut out in that time") {
		t.Errorf("restore: %s", out)
	}
}

// soonDown waits until the link of a satellite is down: who asks after this limit
// is told so. The time that the question itself takes is the machine's.
func (r *real) soonDown(n int, limit time.Duration) {
	r.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		asked := time.Now()
		if r.link(n) == "down" {
			return
		}
		if asked.Sub(began) > limit {
			r.t.Fatalf("the link of satellite %d is up after %v", n, asked.Sub(began))
		}
	}
}

// restoreCopy starts a master on a copy of the database, which does not know of
// all revocations, and returns the event that tells of it.
func (r *real) restoreCopy(copied string) (event string) {
	r.t.Helper()
	d := &daemon{r: r, name: "restored", settings: r.path("m")}
	d.cmd = exec.Command("verdecmd", "master", "--settings", d.settings, "--restore="+copied, "--replace")
	d.cmd.Stderr = &d.log
	check(r.t, d.cmd.Start())
	r.mu.Lock()
	r.all = append(r.all, d)
	r.mu.Unlock()
	r.until("the master on the copy", func() bool { return r.ready() })
	rows := r.run(0, "verdecmon", "-s", r.path("sock"), "--codes", "revocations")
	if !strings.Contains(rows, "210 ok count=0 unknownsince=") {
		r.t.Errorf("revocations after a restore: %s", rows)
	}
	r.until("the event", func() bool { // it ends by its time limit
		event = r.run(-1, "verdecmon", "-s", r.path("sock"), "-f", "text", "-t", "2", "events", "on", "since=1", "types=master.restored")
		return strings.Contains(event, "restored from the copy")
	})
	return event
}

// secrets looks for planted secrets in all that the programs have written: logs
// and everything below the master's and the satellites' directories.
func (r *real) secrets(password string, token wire.Token) {
	r.t.Helper()
	hidden := map[string][]byte{"password": []byte(password), "token": []byte(fmt.Sprintf("%x", token.Secret[:])), "token's bytes": token.Secret[:]}
	look := func(where string, text []byte) {
		for what, secret := range hidden {
			if bytes.Contains(text, secret) {
				r.t.Errorf("the %s is in %s", what, where)
			}
		}
	}
	for _, d := range r.all {
		look("the log of "+d.name, []byte(d.log.String()))
	}
	files := 0
	err := filepath.WalkDir(r.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "fakeqemu" {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		files++
		look(path, text)
		return err
	})
	if err != nil || files < 10 {
		r.t.Errorf("looked into %d files: %v", files, err)
	}
}

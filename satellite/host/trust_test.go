package host

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// trusted is a satellite's PKI directory, and the master's end of its bundles.
type trusted struct {
	t     *testing.T
	a     *wire.Authority
	id    wire.Identity
	dir   string
	links uint64
	soon  atomic.Int32
	again atomic.Int32 // links made anew
}

func newTrusted(t *testing.T) *trusted {
	t.Helper()
	a, err := wire.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	x := &trusted{t: t, a: a, id: wire.Identity{Role: wire.Satellite, ID: wire.NewUUID(), Name: "sat1"}, dir: t.TempDir()}
	writeTest(t, filepath.Join(x.dir, wire.CAFile), string(a.CertPEM), 0o644)
	writeTest(t, filepath.Join(x.dir, wire.IdentityFile), string(x.certificate(a)), 0o600)
	return x
}

// certificate makes the host a certificate of an authority.
func (x *trusted) certificate(a *wire.Authority) []byte {
	x.t.Helper()
	own, err := a.Issue(x.id, time.Now(), time.Hour)
	if err != nil {
		x.t.Fatal(err)
	}
	return own
}

func (x *trusted) next() *wire.Authority {
	x.t.Helper()
	a, err := wire.NewAuthorityOf(x.a.Cluster, time.Now())
	if err != nil {
		x.t.Fatal(err)
	}
	return a
}

// start is a start of the satellite.
func (x *trusted) start() *Trust {
	x.t.Helper()
	c, err := wire.Load(x.dir, wire.Satellite)
	if err != nil {
		x.t.Fatal(err)
	}
	tr := NewTrust(TrustConfig{Dir: x.dir, Credentials: c, Random: func() float64 { return 0.5 }, Log: zerolog.Nop()})
	tr.Connect(func() { x.soon.Add(1) }, func() { x.again.Add(1) })
	return tr
}

// send sends a bundle over a new link and returns the answer.
func (x *trusted) send(t *Trust, b *pb.Trust, by ...*wire.Authority) *pb.TrustAck {
	x.t.Helper()
	s, err := wire.SignTrust(b, by...)
	if err != nil {
		x.t.Fatal(err)
	}
	return x.pieces(t, s, b.Version)
}

func (x *trusted) pieces(t *Trust, s *pb.SignedTrust, version uint64) *pb.TrustAck {
	x.t.Helper()
	parts, err := wire.SplitTrust(s, version)
	if err != nil {
		x.t.Fatal(err)
	}
	x.links++
	for i, p := range parts {
		ack := t.Part(x.links, p)
		if (ack != nil) != (i == len(parts)-1) {
			x.t.Fatalf("piece %d of %d: answer %v", i, len(parts), ack)
		}
		if ack != nil {
			return ack
		}
	}
	return nil
}

func (x *trusted) bundle(version uint64, roots ...*wire.Authority) *pb.Trust {
	b := &pb.Trust{Version: version, Cluster: x.a.Cluster, Members: []*pb.Member{{ServerId: 1, Id: x.id.ID, Name: "sat1"}}}
	for _, a := range roots {
		b.Roots = append(b.Roots, a.DER())
	}
	return b
}

// A bundle counts from its acknowledgement, and after a new start; who signs it,
// its version and its cluster are looked at.
func TestTrust(t *testing.T) {
	x := newTrusted(t)
	tr := x.start()
	other, stranger := wire.NewUUID(), newTrusted(t)
	first := x.bundle(7, x.a)
	first.Revoked = []*pb.Revoked{{Id: other, Why: "superseded"}, {Id: "u", Serial: "ab", Why: "lost"}, {Id: "v"}}
	if ack := x.send(tr, first, x.a); ack.Version != 7 || ack.Error != "" {
		t.Fatalf("got %v", ack)
	}
	old := x.bundle(6, x.a)
	foreign := stranger.bundle(9, stranger.a)
	mixed := x.bundle(9, x.a, stranger.a)
	without := x.bundle(9, x.next())
	forged := x.bundle(9, x.a)
	for name, test := range map[string]struct {
		b    *pb.Trust
		by   *wire.Authority
		want string
	}{
		"an old version":                {old, x.a, "version 6, and version 7 is in force"},
		"another cluster":               {foreign, stranger.a, "not signed by an authority that is trusted here"},
		"signed by somebody else":       {forged, stranger.a, "not signed by an authority that is trusted here"},
		"an authority of another one":   {mixed, x.a, "of cluster"},
		"without the own authority":     {without, x.a, "register it again"},
		"the same version once more":    {first, x.a, ""},
		"without any authority at all":  {x.bundle(9), x.a, "0 authorities"},
		"another cluster, right signer": {&pb.Trust{Version: 9, Cluster: stranger.a.Cluster, Roots: [][]byte{x.a.DER()}}, x.a, "is that of cluster"},
	} {
		ack := x.send(tr, test.b, test.by)
		if ack.Version != 7 || (ack.Error == "") != (test.want == "") || !strings.Contains(ack.Error, test.want) {
			t.Errorf("%s: got %v, want %q and version 7", name, ack, test.want)
		}
	}
	for range 2 {
		if tr.Version() != 7 || len(tr.Members()) != 1 {
			t.Errorf("version %d, members %v", tr.Version(), tr.Members())
		}
		for _, r := range []struct {
			id, serial, why string
			revoked         bool
		}{{other, "1", "superseded", true}, {"u", "ab", "lost", true}, {"u", "cd", "", false}, {"v", "", "revoked", true}, {"w", "ab", "", false}} {
			if why, revoked := tr.outlaws.Load().revoked(r.id, r.serial); why != r.why || revoked != r.revoked {
				t.Errorf("%s %s: got %q, %v; want %q, %v", r.id, r.serial, why, revoked, r.why, r.revoked)
			}
		}
		tr = x.start()
	}
}

// Pieces that are lost, and links that break in the middle, leave what was in
// force, and the next bundle is taken.
func TestTrustPieces(t *testing.T) {
	x := newTrusted(t)
	tr := x.start()
	large := x.bundle(3, x.a)
	for i := range 10000 { // RELIABILITY 4.4, pitfall 12
		large.Members = append(large.Members, &pb.Member{ServerId: uint64(i + 2), Id: wire.NewUUID(), Name: "a-rather-long-name-of-a-host.example.com", Address: "192.0.2.1"})
	}
	s, err := wire.SignTrust(large, x.a)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := wire.SplitTrust(s, 3)
	if err != nil || len(parts) < 3 {
		t.Fatalf("%d pieces, %v", len(parts), err)
	}
	if ack := tr.Part(1, parts[0]); ack != nil {
		t.Errorf("answer to the first piece: %v", ack)
	}
	if ack := tr.Part(1, parts[2]); ack == nil || ack.Version != 0 || !strings.Contains(ack.Error, "does not fit") {
		t.Errorf("a piece is missing: %v", ack)
	}
	tr.Part(1, parts[0])
	if ack := tr.Part(2, parts[1]); ack == nil || ack.Error == "" {
		t.Errorf("the second piece on another link: %v", ack)
	}
	if ack := x.pieces(tr, s, 3); ack.Version != 3 || ack.Error != "" || len(tr.Members()) != 10001 {
		t.Errorf("all pieces: %v, %d members", ack, len(tr.Members()))
	}
	if tr = x.start(); tr.Version() != 3 || len(tr.Members()) != 10001 {
		t.Errorf("after a start: version %d, %d members", tr.Version(), len(tr.Members()))
	}
}

// What is on the disk may be anything: the satellite starts, and takes the next
// bundle.
func TestTrustFileIsBroken(t *testing.T) {
	x := newTrusted(t)
	path := filepath.Join(x.dir, trustFile)
	for name, text := range map[string]string{"nothing": "", "rubbish": "\x00\xffrubbish", "half": "\x0a\x05ab"} {
		writeTest(t, path, text, 0o644)
		tr := x.start()
		if tr.Version() != 0 {
			t.Errorf("%s: version %d", name, tr.Version())
		}
		if ack := x.send(tr, x.bundle(2, x.a), x.a); ack.Version != 2 || ack.Error != "" {
			t.Errorf("%s: then %v", name, ack)
		}
	}
	// That of a cluster before.
	y := newTrusted(t)
	b, _ := os.ReadFile(path)
	writeTest(t, filepath.Join(y.dir, trustFile), string(b), 0o644)
	if tr := y.start(); tr.Version() != 0 {
		t.Errorf("of another cluster: version %d", tr.Version())
	}
}

// RELIABILITY 4.2, pitfall 8: the way from one authority to the next on a
// satellite that is started anew after every step. At each of them its files fit
// together, and a certificate of the wrong authority that comes late is refused.
func TestTrustFromOneAuthorityToTheNext(t *testing.T) {
	x := newTrusted(t)
	a, b := x.a, x.next()
	late := x.certificate(a) // asked for before all that, and on its way
	tr := x.start()
	step := func(what string, want ...*wire.Authority) {
		t.Helper()
		for range 2 {
			var roots [][]byte
			for _, r := range want {
				roots = append(roots, r.DER())
			}
			if got := tr.cfg.Credentials.Roots(); !slices.EqualFunc(got, roots, bytes.Equal) {
				t.Fatalf("%s: %d authorities, or in another order", what, len(got))
			}
			tr = x.start()
		}
	}
	if ack := x.send(tr, x.bundle(1, a, b), a, b); ack.Version != 1 || ack.Error != "" {
		t.Fatalf("both: %v", ack)
	}
	step("both are trusted", a, b)
	early := x.certificate(b)
	if err := tr.Install(early, nil); err == nil || !strings.Contains(err.Error(), "not from the authority that issues") {
		t.Errorf("a certificate of the new one, of which no bundle tells yet: %v", err)
	}
	if ack := x.send(tr, x.bundle(2, b, a), a, b); ack.Version != 2 || ack.Error != "" {
		t.Fatalf("the new one first: %v", ack)
	}
	step("the new one issues", b, a)
	if err := tr.Install(late, nil); err == nil || !strings.Contains(err.Error(), "not from the authority that issues") {
		t.Errorf("an answer that comes late: %v", err)
	}
	if ack := x.send(tr, x.bundle(3, b), b); ack.Version != 2 || !strings.Contains(ack.Error, "has missed a change of the authority") {
		t.Errorf("the old one is removed too early: %v", ack)
	}
	own := x.certificate(b)
	if err := tr.Install(own, nil); err != nil {
		t.Fatal(err)
	}
	if x.again.Load() != 1 {
		t.Errorf("%d new links after the certificate of another authority, want 1", x.again.Load())
	}
	if err := tr.Install(x.certificate(b), nil); err != nil || x.again.Load() != 1 {
		t.Errorf("renewed by the same authority: %v, %d new links", err, x.again.Load())
	}
	step("renewed", b, a)
	if ack := x.send(tr, x.bundle(3, b), b); ack.Version != 3 || ack.Error != "" {
		t.Fatalf("the old one is removed: %v", ack)
	}
	step("the new one alone", b)
	if ack := x.send(tr, x.bundle(4, a, b), a); ack.Version != 3 || ack.Error == "" {
		t.Errorf("signed by the one that was removed: %v", ack)
	}
	if err := tr.Install([]byte("no certificate"), nil); err == nil {
		t.Error("a certificate that is none was taken")
	}
}

// The program may end between the two files: authorities first, then the
// bundle.
func TestTrustWrittenByHalf(t *testing.T) {
	x := newTrusted(t)
	b := x.next()
	tr := x.start()
	if ack := x.send(tr, x.bundle(1, x.a), x.a); ack.Error != "" {
		t.Fatal(ack)
	}
	both := slices.Concat(x.a.CertPEM, b.CertPEM)
	writeTest(t, filepath.Join(x.dir, wire.CAFile), string(both), 0o644)
	tr = x.start()
	if tr.Version() != 0 { // so that the master sends the bundle again
		t.Errorf("version %d is told, want 0", tr.Version())
	}
	if ack := x.send(tr, x.bundle(2, x.a, b), x.a, b); ack.Version != 2 || ack.Error != "" {
		t.Errorf("got %v", ack)
	}
	text := readTest(t, filepath.Join(x.dir, wire.CAFile))
	if block, rest := pem.Decode([]byte(text)); block == nil || len(rest) == 0 {
		t.Errorf("%s holds %q", wire.CAFile, text)
	}
}

// A full disk: who is revoked counts at once, the rest when it can be written,
// and then the master is told.
func TestTrustCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTrusted(t)
		tr := x.start()
		path := filepath.Join(x.dir, trustFile)
		if err := os.Mkdir(path, 0o700); err != nil { // nothing takes the place of a directory
			t.Fatal(err)
		}
		b := x.bundle(5, x.a)
		b.Revoked = []*pb.Revoked{{Id: "u", Why: "superseded"}}
		if ack := x.send(tr, b, x.a); ack.Version != 0 || !strings.Contains(ack.Error, "cannot be written") {
			t.Errorf("got %v", ack)
		}
		if _, revoked := tr.outlaws.Load().revoked("u", ""); !revoked {
			t.Error("who is revoked does not count")
		}
		done := running(t, tr)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if tr.Version() != 0 || x.again.Load() != 0 {
			t.Errorf("version %d, %d new links", tr.Version(), x.again.Load())
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if tr.Version() != 5 || x.again.Load() != 1 {
			t.Errorf("with space again: version %d, %d new links", tr.Version(), x.again.Load())
		}
		done()
	})
}

// running runs a Trust in a bubble until the function that is returned is
// called.
func running(t *testing.T, tr *Trust) func() {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tr.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// RELIABILITY 4.2: when another authority issues, hosts ask for a certificate
// spread over a time, 30 a second, and go on asking until they have one.
func TestRenewSoon(t *testing.T) {
	for servers, want := range map[int]time.Duration{0: 500 * time.Millisecond, 3: 500 * time.Millisecond, 30: 500 * time.Millisecond, 300: 5 * time.Second, 10000: 10000 * time.Second / 60} {
		if got := RenewDelay(servers, 0.5); got != want {
			t.Errorf("%d servers: %v, want %v", servers, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		x := newTrusted(t)
		b := x.next()
		tr := x.start()
		if ack := x.send(tr, x.bundle(1, b, x.a), x.a); ack.Error != "" {
			t.Fatal(ack)
		}
		done := running(t, tr)
		for at, want := range []int32{0, 1, 1} {
			synctest.Wait()
			if x.soon.Load() != want {
				t.Errorf("after %d s: asked %d times, want %d", at, x.soon.Load(), want)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if x.soon.Load() < 2 {
			t.Errorf("asked %d times in a minute, want again and again", x.soon.Load())
		}
		done()
	})
}

// The keys of the cluster appear with a bundle, not before there is one, and go
// when the host is of the cluster no more.
func TestTrustSpreadsKeys(t *testing.T) {
	x := newTrusted(t)
	ssh := sshHost(t, "sat1")
	tr := x.start()
	tr.cfg.SSH = ssh
	keys := tr.Keys()
	if keys == nil || len(keys.HostKeys) != 1 || keys.UserKey == "" {
		t.Fatalf("keys %v", keys)
	}
	path := filepath.Join(ssh.Dir, authorizedKeys)
	if err := tr.spread(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before the first bundle: %v", err)
	}
	b := x.bundle(1, x.a)
	b.Members[0].SshUserKey, b.Members[0].SshHostKeys = keys.UserKey, keys.HostKeys
	if ack := x.send(tr, b, x.a); ack.Error != "" {
		t.Fatal(ack)
	}
	if err := tr.spread(); err != nil || !strings.Contains(readTest(t, path), keys.UserKey) {
		t.Errorf("with a bundle: %v, %q", err, readTest(t, path))
	}
	tr.Withdraw()
	if got := readTest(t, path) + readTest(t, filepath.Join(ssh.Dir, knownHosts)); got != "" {
		t.Errorf("withdrawn: %q is left", got)
	}
}

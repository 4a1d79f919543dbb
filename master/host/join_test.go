package host

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

// office is a register with an authority, as of a master that has just started.
type office struct {
	*register
	s   *store.Mem
	a   *wire.Authority
	now time.Time
	cut []string
}

func newOffice(t *testing.T) *office {
	t.Helper()
	now := time.Now().Truncate(time.Second).Add(time.Minute) // nobody is awaited any more
	a, err := wire.NewAuthority(now)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{s: store.NewMem(), a: a, now: now}
	o.open(t)
	return o
}

// open starts the register anew, on the same store.
func (o *office) open(t *testing.T) {
	t.Helper()
	o.s.Restart()
	o.register = start(t, o.s)
	o.cfg.Now = func() time.Time { return o.now }
	o.cfg.Authority = func() *wire.Authority { return o.a }
	o.cfg.Rejoin = 90 * 24 * time.Hour
	o.cfg.Cut = func(id string) { o.cut = append(o.cut, id) }
	o.events = nil
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, _, err := wire.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// token makes a token and returns its text.
func (o *office) token(t *testing.T, w monitor.TokenWish) string {
	t.Helper()
	k, err := o.CreateToken(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return k.Secret
}

// asks is a machine that wants to join.
func asks(t testing.TB, name, secret string) Request {
	return Request{Key: &newKey(t).PublicKey, Token: secret, Name: name, Address: "192.0.2.1", From: "192.0.2.77"}
}

func (o *office) joined(t *testing.T, r Request) Joined {
	t.Helper()
	j, err := o.Join(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// attached is a satellite with that identity that connects.
func (o *office) attached(t *testing.T, j Joined, journal string) (attachment uint64) {
	t.Helper()
	h := helloOf(j.UUID, journal)
	if err := o.Ensure(t.Context(), h, j.Name); err != nil {
		t.Fatal(err)
	}
	var err error
	o.cfg.State(func(c *cluster.Cluster) { attachment, _, err = c.Attach(o.now, h) })
	if err != nil {
		t.Fatal(err)
	}
	return attachment
}

func leafOf(t *testing.T, pemText []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(pemText)
	if block == nil || len(rest) > 0 {
		t.Fatalf("no certificate: %q", pemText)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// F-01, F-11, RELIABILITY 4.1: a machine joins by a token: it is a server at
// once, also for the next master, and its certificate says what the master's
// record says, for 30 days, an hour early.
func TestJoinByToken(t *testing.T) {
	o := newOffice(t)
	changed := 0
	o.cfg.Changed = func() { changed++ }
	r := asks(t, "sat1", o.token(t, monitor.TokenWish{}))
	j := o.joined(t, r)
	leaf := leafOf(t, j.Certificate)
	id, err := wire.IdentityOf(leaf)
	if err != nil || id.ID != j.UUID || id.Role != wire.Satellite || id.Cluster != o.a.Cluster || j.Server != 1 || j.Name != "sat1" || j.Replaced {
		t.Errorf("got %+v, %v, %v", j, id, err)
	}
	if !slices.Equal(leaf.DNSNames, []string{"sat1"}) || len(leaf.IPAddresses) != 1 || !leaf.IPAddresses[0].Equal(net.IPv4(192, 0, 2, 1)) || leaf.IsCA {
		t.Errorf("names %v, addresses %v, CA %v", leaf.DNSNames, leaf.IPAddresses, leaf.IsCA)
	}
	if !leaf.NotBefore.Equal(o.now.Add(-time.Hour).UTC()) || !leaf.NotAfter.Equal(o.now.Add(joinedLife).UTC()) || !r.Key.Equal(leaf.PublicKey) {
		t.Errorf("valid from %v to %v, asked at %v", leaf.NotBefore, leaf.NotAfter, o.now)
	}
	if got := strings.Join(o.events, " "); got != "server.registered" || changed != 1 {
		t.Errorf("events %s, changed %d times", got, changed)
	}
	for range 2 {
		s, ok := o.Server(1)
		if !ok || s.UUID != j.UUID || s.Name != "sat1" || s.Address != "192.0.2.1" || s.Serial != leaf.SerialNumber.Text(16) || !s.CertUntil.Equal(leaf.NotAfter) || s.Link != monitor.LinkDown {
			t.Errorf("server: %v %+v", ok, s)
		}
		if m := o.Members(); len(m) != 1 || m[0].UUID != j.UUID || m[0].Address != "192.0.2.1" {
			t.Errorf("members: %+v", m)
		}
		o.open(t)
	}
	o.attached(t, j, "journal1")
	if s, _ := o.Server(1); s.Link != monitor.LinkUp {
		t.Errorf("connected: %+v", s)
	}
}

// RELIABILITY 4.1.4: a lost answer is given again to the same machine, until the
// token's life is over, also by the next master; the token works for nobody else.
func TestLostAnswer(t *testing.T) {
	o := newOffice(t)
	r := asks(t, "sat1", o.token(t, monitor.TokenWish{}))
	first := o.joined(t, r)
	o.open(t)
	again := o.joined(t, r)
	if string(again.Certificate) != string(first.Certificate) || again.Server != first.Server || len(o.ids()) != 1 || len(o.events) != 0 {
		t.Errorf("again: %+v, servers %v, events %v", again, o.ids(), o.events)
	}
	other := asks(t, "sat1", r.Token)
	if _, err := o.Join(t.Context(), other); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "used already") {
		t.Errorf("another machine: %v", err)
	}
	o.now = o.now.Add(tokenLife)
	if _, err := o.Join(t.Context(), r); wire.KindOf(err) != wire.Denied {
		t.Errorf("after the token's life: %v", err)
	}
	o.now = o.now.Add(tokenRecall)
	if err := o.tidy(t.Context()); err != nil || len(o.Tokens()) != 0 {
		t.Errorf("tidied up: %v, %v", err, o.Tokens())
	}
	o.open(t)
	if len(o.tokens) != 0 {
		t.Errorf("still stored: %v", o.tokens)
	}
}

// F-09: who shows a token of yesterday is told that it has expired, also where
// others were made since; such tokens give way where there are too many.
func TestExpiredIsTold(t *testing.T) {
	o := newOffice(t)
	r := asks(t, "sat1", o.token(t, monitor.TokenWish{}))
	o.now = o.now.Add(tokenLife)
	told := func(when, want string) {
		t.Helper()
		if _, err := o.Join(t.Context(), r); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", when, err, want)
		}
		if n := len(o.Tokens()); n != 0 {
			t.Errorf("%s: %d are shown", when, n)
		}
	}
	told("at once", "expired")
	o.token(t, monitor.TokenWish{TTL: minTokenLife})
	o.now = o.now.Add(tokenRecall - minTokenLife)
	if err := o.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.open(t)
	told("almost a day later", "expired")
	for id := range uint64(maxTokens) {
		if id++; o.tokens[id] == nil {
			o.tokens[id] = o.tokens[1]
		}
	}
	if o.token(t, monitor.TokenWish{}); len(o.tokens) >= maxTokens { // it made room
		t.Errorf("%d tokens", len(o.tokens))
	}
}

// F-09: by the manager's password, with the same promises.
func TestJoinByPassword(t *testing.T) {
	o := newOffice(t)
	if err := o.SetPassword(t.Context(), "correct horse"); err != nil {
		t.Fatal(err)
	}
	r := asks(t, "sat1", "")
	r.Password = "battery staple"
	if _, err := o.Join(t.Context(), r); wire.KindOf(err) != wire.Denied {
		t.Errorf("a wrong password: %v", err)
	}
	r.Password = "correct horse"
	j := o.joined(t, r)
	o.open(t)
	if again := o.joined(t, r); string(again.Certificate) != string(j.Certificate) {
		t.Errorf("a lost answer: %+v", again)
	}
	list := o.Tokens()
	if len(list) != 1 || list[0].Uses != 1 || list[0].UsedBy != "sat1" || list[0].By != "the manager's password" || list[0].From != "192.0.2.77" {
		t.Errorf("tokens: %+v", list)
	}
	// Nobody can use the token that this has made, and nobody else the name.
	forged := asks(t, "sat2", wire.NewToken(o.a.Cluster, o.a.Fingerprint(), list[0].ID).String())
	if _, err := o.Join(t.Context(), forged); wire.KindOf(err) != wire.Denied {
		t.Errorf("a token made by password: %v", err)
	}
	other := asks(t, "sat1", "")
	other.Password = r.Password
	if _, err := o.Join(t.Context(), other); wire.KindOf(err) != wire.InUse || !strings.Contains(err.Error(), `"replaceserver 1"`) {
		t.Errorf("another machine with that name: %v", err)
	}
}

// What a machine shows that may not join, and what an administrator hears of it.
func TestJoinRefusals(t *testing.T) {
	o := newOffice(t)
	good := o.token(t, monitor.TokenWish{Server: "sat1", Address: "192.0.2.1"})
	foreign, err := wire.NewAuthority(o.now)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := wire.ParseToken(good)
	if err != nil {
		t.Fatal(err)
	}
	otherCluster, otherCA := parsed, parsed
	otherCluster.Cluster, otherCA.CA = foreign.Cluster, foreign.Fingerprint()
	forged := wire.NewToken(o.a.Cluster, o.a.Fingerprint(), parsed.ID)
	tests := map[string]struct {
		change func(*Request)
		kind   wire.Kind
		want   string
		event  string
	}{
		"cut off":              {func(r *Request) { r.Token = r.Token[:len(r.Token)-3] }, wire.Denied, "check sum", "token.refused"},
		"of another cluster":   {func(r *Request) { r.Token = otherCluster.String() }, wire.Denied, "is one of cluster " + foreign.Cluster, "token.refused"},
		"of another authority": {func(r *Request) { r.Token = otherCA.String() }, wire.Denied, "authority was changed", "token.refused"},
		"guessed":              {func(r *Request) { r.Token = forged.String() }, wire.Denied, "not known here", "token.refused"},
		"for another name":     {func(r *Request) { r.Name = "sat2" }, wire.Denied, "is for the host sat1", "token.refused"},
		"for another address":  {func(r *Request) { r.Address = "192.0.2.2" }, wire.Denied, "is for the address 192.0.2.1", "token.refused"},
		"no proof":             {func(r *Request) { r.Token = "" }, wire.BadRequest, "with a token or with the manager's password", ""},
		"both proofs":          {func(r *Request) { r.Password = "x" }, wire.BadRequest, "with a token or", ""},
		"a path as a name":     {func(r *Request) { r.Name = "../sat1" }, wire.BadRequest, "small letters", ""},
		"a name with controls": {func(r *Request) { r.Name = "sat\x1b[2J" }, wire.BadRequest, "small letters", ""},
		"no name":              {func(r *Request) { r.Name = "" }, wire.BadRequest, "small letters", ""},
		"no address at all":    {func(r *Request) { r.Address = "http://x/" }, wire.BadRequest, "the address of sat1", ""},
		"a long address":       {func(r *Request) { r.Address = strings.Repeat("a", 300) }, wire.BadRequest, "too long", ""},
		"the password, none":   {func(r *Request) { r.Token, r.Password = "", "guess" }, wire.Denied, "managerpassword", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o.now = o.now.Add(2 * time.Minute) // complaints are not too many
			o.cfg.Event = func(typ, text string, pairs ...monitor.Pair) {
				o.events = append(o.events, typ)
				if strings.Contains(fmt.Sprint(text, pairs), good) {
					t.Errorf("the event %s tells the token", typ)
				}
			}
			o.events = nil
			r := asks(t, "sat1", good)
			test.change(&r)
			_, err := o.Join(t.Context(), r)
			if wire.KindOf(err) != test.kind || !strings.Contains(fmt.Sprint(err), test.want) || strings.Contains(fmt.Sprint(err), good) {
				t.Errorf("got %v (%s), want %s %q", err, wire.KindOf(err), test.kind, test.want)
			}
			if got := strings.Join(o.events, " "); got != test.event {
				t.Errorf("events: %q, want %q", got, test.event)
			}
		})
	}
	// None of them has used the token up, nor a number.
	if j := o.joined(t, asks(t, "sat1", good)); j.Server != 1 {
		t.Errorf("got server %d", j.Server)
	}
	o.now = o.now.Add(11 * 365 * 24 * time.Hour)
	if _, err := o.Join(t.Context(), asks(t, "sat2", good)); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "authority ended at") {
		t.Errorf("with a clock of years ahead: %v", err)
	}
	o.a = nil
	if _, err := o.Join(t.Context(), asks(t, "sat2", good)); wire.KindOf(err) != wire.Denied || !strings.Contains(err.Error(), "ca.key") {
		t.Errorf("without the key of the authority: %v", err)
	}
	var e *monitor.Error
	if _, err := o.CreateToken(t.Context(), monitor.TokenWish{}); !errors.As(err, &e) || e.Code != 554 || !strings.Contains(e.Text, "ca.key") {
		t.Errorf("a token without the key: %v", err)
	}
}

// S17, RELIABILITY 4.4, pitfall 4: machines that race for one token: exactly one
// certificate, and one server; all that lose are told so. The winner's own tries
// all get the same one.
func TestJoinsRacing(t *testing.T) {
	for range 20 {
		o := newOffice(t)
		secret := o.token(t, monitor.TokenWish{})
		var mu sync.Mutex
		certs := map[string]int{}
		denied := 0
		var all sync.WaitGroup
		gate := make(chan struct{})
		for i := range 4 {
			r := asks(t, fmt.Sprintf("sat%d", i), secret)
			for range 3 {
				all.Go(func() {
					<-gate
					j, err := o.Join(t.Context(), r)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						certs[string(j.Certificate)]++
					case wire.KindOf(err) == wire.Denied:
						denied++
					default:
						t.Errorf("a loser is told %v", err)
					}
				})
			}
		}
		close(gate)
		all.Wait()
		if len(certs) != 1 || denied != 9 || len(o.ids()) != 1 {
			t.Fatalf("%d certificates, %d refused, servers %v", len(certs), denied, o.ids())
		}
	}
}

// S17: an administrator deletes the token, or its life ends, while a machine
// shows it: it has joined, or the token is gone, never both by halves.
func TestJoinRacingWithTheEnd(t *testing.T) {
	for i := range 40 {
		o := newOffice(t)
		secret := o.token(t, monitor.TokenWish{Server: "sat1"})
		var clock sync.Mutex
		o.cfg.Now = func() time.Time { clock.Lock(); defer clock.Unlock(); return o.now }
		r := asks(t, "sat1", secret)
		var joined, deleted error
		var all sync.WaitGroup
		all.Go(func() { _, joined = o.Join(t.Context(), r) })
		all.Go(func() {
			if i%2 == 0 {
				deleted = o.DeleteToken(t.Context(), 1)
				return
			}
			clock.Lock()
			defer clock.Unlock()
			o.now = o.now.Add(tokenLife)
		})
		all.Wait()
		if servers := len(o.ids()); (joined == nil) != (servers == 1) || joined != nil && wire.KindOf(joined) != wire.Denied || deleted != nil {
			t.Errorf("joined: %v, deleted: %v, %d servers", joined, deleted, servers)
		}
	}
}

// S20: a join that cannot be stored is none: no number is taken, the token is
// good, nobody hears of a server.
func TestJoinOnFullDisk(t *testing.T) {
	o := newOffice(t)
	r := asks(t, "sat1", o.token(t, monitor.TokenWish{}))
	for range 3 {
		o.s.Fail(store.ErrNoSpace)
		if _, err := o.Join(t.Context(), r); !errors.Is(err, store.ErrNoSpace) {
			t.Errorf("got %v", err)
		}
	}
	if len(o.ids()) != 0 || len(o.events) != 0 {
		t.Errorf("servers %v, events %v", o.ids(), o.events)
	}
	o.s.Fail(nil)
	if j := o.joined(t, r); j.Server != 1 {
		t.Errorf("with space again: server %d", j.Server)
	}
}

// A stranger who shows bad tokens all day fills neither the log nor the events.
func TestComplaintsAreFew(t *testing.T) {
	o := newOffice(t)
	bad := wire.NewToken(o.a.Cluster, o.a.Fingerprint(), 9).String()
	for i := range 500 {
		r := asks(t, "sat1", bad)
		r.From = fmt.Sprintf("192.0.2.%d", i%100)
		if _, err := o.Join(t.Context(), r); wire.KindOf(err) != wire.Denied {
			t.Fatal(err)
		}
	}
	if len(o.events) != 20 {
		t.Errorf("%d events within a minute, want 20", len(o.events))
	}
}

// F-06, RELIABILITY 4.2: a clock that differs by more than five seconds is told.
func TestJoinTellsSkew(t *testing.T) {
	o := newOffice(t)
	for i, test := range []struct {
		ahead time.Duration
		want  string
	}{{0, "server.registered"}, {-4 * time.Second, "server.registered"}, {time.Hour, "server.registered server.skew"}} {
		o.events = nil
		r := asks(t, fmt.Sprintf("sat%d", i), o.token(t, monitor.TokenWish{}))
		r.Clock = o.now.Add(test.ahead)
		j := o.joined(t, r)
		if got := strings.Join(o.events, " "); got != test.want {
			t.Errorf("%v ahead: events %s, want %s", test.ahead, got, test.want)
		}
		o.events = nil
		for range 2 { // the links tell it from now on
			o.attached(t, j, "j")
		}
		if got := strings.Join(o.events, " "); got != "" && got != "server.clock" || (got == "") == (test.ahead > wire.MaxSkew) {
			t.Errorf("%v ahead: with its first link: events %s", test.ahead, got)
		}
	}
}

// What stands in a certificate beside the name: the address, where others can
// use it.
func TestSignedNames(t *testing.T) {
	o := newOffice(t)
	for address, want := range map[string]string{
		"192.0.2.1": "[sat1] [192.0.2.1]", "192.0.2.1:8443": "[sat1] [192.0.2.1]", "[2001:db8::1]:8443": "[sat1] [2001:db8::1]", "sat1": "[sat1] []",
		"desktops.example.com:8443": "[sat1 desktops.example.com] []", "fe80::1%eth0": "[sat1] []",
	} {
		cert, err := sign(o.a, recordOf(wire.NewUUID()), address, &newKey(t).PublicKey, o.now)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		leaf := leafOf(t, cert.PEM)
		if got := fmt.Sprint(leaf.DNSNames, leaf.IPAddresses); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

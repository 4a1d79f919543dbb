package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	pb "verdecmd/proto"
)

const day = 24 * time.Hour

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func machine(t testing.TB, a *Authority, role Role, now time.Time) *Credentials {
	t.Helper()
	c, err := a.Credentials(role, string(role)+".example", now, 365*day)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fakeLink answers Refer in the way that the user's name says.
type fakeLink struct {
	pb.UnimplementedLinkServer
}

func (fakeLink) Refer(ctx context.Context, r *pb.ReferRequest) (*pb.ReferReply, error) {
	switch r.User {
	case "panic":
		panic("no")
	case "full":
		return nil, fmt.Errorf("reserve: %w", Errorf(NoCapacity, "none of 3 servers"))
	}
	id, err := PeerIdentity(ctx)
	return &pb.ReferReply{Name: id.String()}, err
}

func (fakeLink) Attach(s grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	panic("in a stream")
}

// reports are what a server would log.
type reports chan Report

func (r reports) add(x Report) { r <- x }

// wait returns when a report contains text.
func (r reports) wait(t *testing.T, text string) {
	t.Helper()
	late := time.After(time.Minute)
	var seen []string
	for {
		select {
		case x := <-r:
			seen = append(seen, fmt.Sprintf("%s: %v", x.What, x.Err))
			if strings.Contains(seen[len(seen)-1], text) {
				return
			}
		case <-late:
			t.Errorf("server: got %q, want %q", seen, text)
			return
		}
	}
}

// serve runs a master's port on loopback until the test ends.
func serve(t *testing.T, c *Credentials, total, perAddress int) (addr string, log reports) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log = make(reports, 1000)
	s := grpc.NewServer(ServerOptions(c, log.add)...)
	pb.RegisterLinkServer(s, fakeLink{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(Limit(l, Bounds{Total: total, PerAddress: perAddress, Report: log.add})) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), log
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) pb.LinkClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewLinkClient(cc)
}

func TestHandshake(t *testing.T) {
	now := time.Now()
	a, other := authority(t), authority(t)
	imposter := machine(t, other, Satellite, now)
	imposter.live.own = forged(t, other, a.Cluster, now)

	tests := map[string]struct {
		server, client *Credentials
		blind          bool   // the client does not look at the server's certificate
		wantClient     string // in the client's error, empty: the call succeeds
		wantServer     string // in the server's log
	}{
		"a satellite": {server: machine(t, a, Master, now), client: machine(t, a, Satellite, now)},
		"satellite of another cluster": {server: machine(t, a, Master, now), client: machine(t, other, Satellite, now),
			wantClient: "belongs to cluster " + a.Cluster + ", this machine to " + other.Cluster},
		"satellite of another cluster that does not look": {server: machine(t, a, Master, now), client: machine(t, other, Satellite, now), blind: true,
			wantClient: "its log says why", wantServer: "belongs to cluster " + other.Cluster},
		"forged by another authority": {server: machine(t, a, Master, now), client: imposter, blind: true,
			wantClient: "its log says why", wantServer: "is not from this cluster's authority"},
		"a master as a satellite": {server: machine(t, a, Master, now), client: machine(t, a, Master, now),
			wantClient: "its log says why", wantServer: "shows the certificate of a master where a satellite is wanted"},
		"a satellite as the master": {server: machine(t, a, Satellite, now), client: machine(t, a, Satellite, now),
			wantClient: "shows the certificate of a satellite where a master is wanted"},
		"expired": {server: machine(t, a, Master, now), client: machine(t, a, Satellite, now.Add(-400*day)),
			wantClient: "its log says why", wantServer: "840h0m0s too late"},
		"not yet valid": {server: machine(t, a, Master, now), client: machine(t, a, Satellite, now.Add(3*time.Hour)),
			wantClient: "its log says why", wantServer: "2h0m0s too early: set the clock"},
		"expired master": {server: machine(t, a, Master, now.Add(-366*day)), client: machine(t, a, Satellite, now),
			wantClient: "24h0m0s too late"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, log := serve(t, test.server, 100, 100)
			opts := DialOptions(test.client)
			if test.blind {
				opts = append(opts, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
					Certificates: []tls.Certificate{test.client.live.own}, InsecureSkipVerify: true,
				})))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := dial(t, addr, opts...).Refer(ctx, &pb.ReferRequest{User: "alice"})
			err = FromStatus(err)
			if test.wantClient == "" {
				if err != nil || r.GetName() != test.client.Identity.String() {
					t.Errorf("got %v, %v, want the call to come from %s", r, err, test.client.Identity)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.wantClient) || KindOf(err) != Unreachable {
				t.Errorf("client: got %v (%s), want %q", err, KindOf(err), test.wantClient)
			}
			if test.wantServer != "" {
				log.wait(t, test.wantServer)
			}
		})
	}
}

// forged makes a certificate that names cluster and is signed by a.
func forged(t *testing.T, a *Authority, cluster string, now time.Time) tls.Certificate {
	t.Helper()
	honest := a.Cluster
	a.Cluster = cluster
	defer func() { a.Cluster = honest }()
	b, err := a.Issue(Identity{Role: Satellite, ID: NewUUID(), Name: "x"}, now, day)
	if err != nil {
		t.Fatal(err)
	}
	own, err := tls.X509KeyPair(b, b)
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// A handler's error, or its panic, reaches the caller with its kind, and the
// connection goes on.
func TestHandlers(t *testing.T) {
	a := authority(t)
	addr, log := serve(t, machine(t, a, Master, time.Now()), 10, 10)
	c := dial(t, addr, DialOptions(machine(t, a, Satellite, time.Now()))...)
	_, err := c.Refer(t.Context(), &pb.ReferRequest{User: "full"})
	if err = FromStatus(err); KindOf(err) != NoCapacity || err.Error() != "reserve: none of 3 servers" {
		t.Errorf("error: got %s %v", KindOf(err), err)
	}
	_, err = c.Refer(t.Context(), &pb.ReferRequest{User: "panic"})
	if err = FromStatus(err); KindOf(err) != Internal || !strings.Contains(err.Error(), "ref ") {
		t.Errorf("panic: got %s %v", KindOf(err), err)
	}
	s, err := c.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&pb.Up{}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	if err = FromStatus(err); KindOf(err) != Internal || !strings.Contains(err.Error(), "ref ") {
		t.Errorf("panic in a stream: got %s %v", KindOf(err), err)
	}
	log.wait(t, "panic: no")
	log.wait(t, "panic: in a stream")
	if _, err := c.Refer(t.Context(), &pb.ReferRequest{User: "alice"}); err != nil {
		t.Errorf("after the panics: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.Refer(ctx, &pb.ReferRequest{}); !errors.Is(FromStatus(err), context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

// S21: whatever strangers send, a satellite's calls go on, and all that the
// strangers opened is closed.
func TestGarbageOnThePort(t *testing.T) {
	a := authority(t)
	addr, _ := serve(t, machine(t, a, Master, time.Now()), 200, 100)
	c := dial(t, addr, DialOptions(machine(t, a, Satellite, time.Now()))...)
	if _, err := c.Refer(t.Context(), &pb.ReferRequest{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	garbage := map[string]string{
		"text":                "hello\r\n",
		"HTTP":                "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"HTTP/2 without TLS":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"zeros":               strings.Repeat("\x00", 1<<16),
		"half a client hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"long TLS record":     "\x16\x03\x01\xff\xff" + strings.Repeat("\x01", 1<<17),
		"alert":               "\x15\x03\x03\x00\x02\x02\x28",
		"nothing":             "",
	}
	for name, bytes := range garbage {
		for range 5 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte(bytes)) // may be refused half way
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(soon))
			buf := make([]byte, 1<<10)
			for err == nil {
				_, err = conn.Read(buf)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection is still open", name)
			}
			conn.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		if _, err := c.Refer(ctx, &pb.ReferRequest{User: "alice"}); err != nil {
			t.Errorf("%s: a satellite's call: %v", name, err)
		}
		cancel()
	}
	// Garbage behind a good handshake harms its own connection only.
	sat := machine(t, a, Satellite, time.Now())
	tc := sat.ClientTLS()
	tc.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, tc)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1<<16)))
	conn.SetReadDeadline(time.Now().Add(soon))
	for err == nil {
		_, err = conn.Read(make([]byte, 1<<10))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("garbage behind the handshake: the connection is still open")
	}
	if _, err := c.Refer(t.Context(), &pb.ReferRequest{User: "alice"}); err != nil {
		t.Errorf("after all: %v", err)
	}
	plain := dial(t, addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := plain.Refer(ctx, &pb.ReferRequest{}); err == nil {
		t.Error("a call without TLS was answered")
	}
}

// soon is time enough for what is done at once, and less than after which silent
// connections are closed anyway.
const soon = HandshakeTimeout - time.Second

// Only connections that have not proved an identity count per address.
func TestPerAddress(t *testing.T) {
	a := authority(t)
	addr, _ := serve(t, machine(t, a, Master, time.Now()), 6, 2)
	closed := func(c net.Conn, within time.Duration) bool {
		c.SetReadDeadline(time.Now().Add(within))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	call := func(c pb.LinkClient) error {
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		_, err := c.Refer(ctx, &pb.ReferRequest{User: "alice"})
		return err
	}
	var proved []pb.LinkClient
	for range 4 { // more than 2 from one address, one after the other
		c := dial(t, addr, DialOptions(machine(t, a, Satellite, time.Now()))...)
		if err := call(c); err != nil {
			t.Fatal(err)
		}
		proved = append(proved, c)
	}
	var silent []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	const moment = 200 * time.Millisecond // those before the third were looked at before it
	if !closed(silent[2], soon) || closed(silent[0], moment) || closed(silent[1], moment) {
		t.Error("the third silent connection of an address must be closed, and no other")
	}
	for _, c := range proved {
		if err := call(c); err != nil {
			t.Errorf("a satellite beside them: %v", err)
		}
	}
	silent[0].Close() // its place is free again, but 1 + 4 + 1 = 6 is all
	deadline := time.Now().Add(30 * time.Second)
	for {
		if err := call(dial(t, addr, DialOptions(machine(t, a, Satellite, time.Now()))...)); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after a silent one has gone: %v", err)
		}
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !closed(c, soon) {
		t.Error("the seventh connection of all is open")
	}
}

func TestLoad(t *testing.T) {
	now := time.Now()
	a, other := authority(t), authority(t)
	write := func(t *testing.T, dir, name string, data []byte, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	issue := func(a *Authority, r Role) []byte {
		b, err := a.Issue(Identity{Role: r, ID: NewUUID(), Name: "sat1"}, now, day)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"good":           {func(*testing.T, string) {}, ""},
		"no identity":    {func(t *testing.T, dir string) { os.Remove(dir + "/identity.pem") }, "identity.pem is missing: register this host with"},
		"no authority":   {func(t *testing.T, dir string) { os.Remove(dir + "/ca.pem") }, "ca.pem is missing"},
		"readable key":   {func(t *testing.T, dir string) { os.Chmod(dir+"/identity.pem", 0o644) }, "has mode 0644 and is open to others: chmod 0600 "},
		"group readable": {func(t *testing.T, dir string) { os.Chmod(dir+"/identity.pem", 0o640) }, "chmod 0600 "},
		"writable CA":    {func(t *testing.T, dir string) { os.Chmod(dir+"/ca.pem", 0o666) }, "chmod 0644 "},
		"somebody's key": {func(t *testing.T, dir string) {
			if os.Chown(dir+"/identity.pem", 4711, 4711) != nil {
				t.Skip("needs root: it gives a file away") // CI is root
			}
		}, "belongs to uid 4711, who can read and replace it: chown root:root "},
		"master's identity": {func(t *testing.T, dir string) { write(t, dir, "identity.pem", issue(a, Master), 0o600) }, "is the certificate of a master, a satellite needs its own"},
		"other CA":          {func(t *testing.T, dir string) { write(t, dir, "ca.pem", other.CertPEM, 0o644) }, "are of two clusters"},
		"garbage":           {func(t *testing.T, dir string) { write(t, dir, "identity.pem", []byte("x"), 0o600) }, "identity.pem holds no certificate with its key"},
		"garbage CA":        {func(t *testing.T, dir string) { write(t, dir, "ca.pem", []byte("x"), 0o600) }, "ca.pem holds no certificate"},
		"no key":            {func(t *testing.T, dir string) { write(t, dir, "identity.pem", a.CertPEM, 0o600) }, "holds no certificate with its key"},
		"another's key": {func(t *testing.T, dir string) {
			write(t, dir, "identity.pem", append(a.CertPEM[:len(a.CertPEM):len(a.CertPEM)], issue(other, Satellite)...), 0o600)
		}, "key"},
		"the authority": {func(t *testing.T, dir string) {
			write(t, dir, "identity.pem", append(a.CertPEM[:len(a.CertPEM):len(a.CertPEM)], key...), 0o600)
		}, "is not verde://CLUSTER/ROLE/ID"},
		"a machine as CA": {func(t *testing.T, dir string) { write(t, dir, "ca.pem", issue(a, Satellite), 0o600) }, "not the certificate of an authority"},
		"a pipe":          {func(t *testing.T, dir string) { os.Remove(dir + "/ca.pem"); os.Mkdir(dir+"/ca.pem", 0o700) }, "is no regular file"},
		"huge":            {func(t *testing.T, dir string) { write(t, dir, "ca.pem", make([]byte, 2<<20), 0o600) }, "that is no certificate"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, CAFile, a.CertPEM, 0o644)
			write(t, dir, IdentityFile, issue(a, Satellite), 0o600)
			test.change(t, dir)
			_, err := Load(dir, Satellite)
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), dir)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE") {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
}

func TestOwnTime(t *testing.T) {
	made := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	a, err := NewAuthority(made)
	if err != nil {
		t.Fatal(err)
	}
	c := machine(t, a, Satellite, made)
	tests := map[string]struct {
		after   time.Duration
		check   string // in the error of Check
		warning string
	}{
		"new":                 {after: 0},
		"clock an hour early": {after: -time.Hour},
		"clock a day early":   {after: -day, check: "not valid before 2026-11-21T19:00:00Z and it is 2026-11-20T20:00:00Z here, 23h0m0s too early: set the clock", warning: "too early"},
		"31 days left":        {after: 334 * day},
		"30 days left":        {after: 335 * day, warning: "ends at 2027-11-21T20:00:00Z, in 720h0m0s, and has not been renewed"},
		"an hour over":        {after: 365*day + time.Hour, check: "expired at 2027-11-21T20:00:00Z and it is 2027-11-21T21:00:00Z here, 1h0m0s too late", warning: "expired"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.Now = func() time.Time { return made.Add(test.after) }
			err := c.Check()
			if (err == nil) != (test.check == "") || err != nil && !strings.Contains(err.Error(), test.check) {
				t.Errorf("check: got %v, want %q", err, test.check)
			}
			if got := c.Warning(); (got == "") != (test.warning == "") || !strings.Contains(got, test.warning) {
				t.Errorf("warning: got %q, want %q", got, test.warning)
			}
		})
	}
}

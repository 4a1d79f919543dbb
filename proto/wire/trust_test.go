package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

// bundle is a small trust bundle of a's cluster.
func bundle(a *Authority, version uint64, roots ...*Authority) *pb.Trust {
	t := &pb.Trust{Version: version, Cluster: a.Cluster, Revoked: []*pb.Revoked{{Id: NewUUID(), Why: "superseded"}}}
	for _, r := range roots {
		t.Roots = append(t.Roots, r.DER())
	}
	return t
}

func TestTrust(t *testing.T) {
	t.Parallel()
	a, other := authority(t), authority(t)
	next, err := NewAuthorityOf(a.Cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sign := func(b *pb.Trust, by ...*Authority) *pb.SignedTrust {
		s, err := SignTrust(b, by...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	changed := sign(bundle(a, 1, a), a)
	changed.Body[len(changed.Body)-1] ^= 1
	borrowed := sign(bundle(a, 2, a), other)
	borrowed.Signatures[0].Root = sign(bundle(a, 2, a), a).Signatures[0].Root
	foreign := bundle(other, 1, a)
	tests := map[string]struct {
		s     *pb.SignedTrust
		roots [][]byte
		want  string
	}{
		"by the authority":              {sign(bundle(a, 1, a), a), [][]byte{a.DER()}, ""},
		"by both":                       {sign(bundle(a, 1, next, a), a, next), [][]byte{a.DER()}, ""},
		"by both, to who knows the new": {sign(bundle(a, 1, next, a), a, next), [][]byte{next.DER()}, ""},
		"by the new alone":              {sign(bundle(a, 1, next), next), [][]byte{a.DER()}, "is not signed by an authority that is trusted here"},
		"by another cluster":            {sign(bundle(other, 1, other), other), [][]byte{a.DER()}, "is not signed"},
		"changed":                       {changed, [][]byte{a.DER()}, "is not signed"},
		"a borrowed name":               {borrowed, [][]byte{a.DER()}, "is not signed"},
		"another cluster's text":        {sign(foreign, a), [][]byte{a.DER()}, "is that of cluster"},
		"another cluster's root":        {sign(bundle(a, 1, a, other), a), [][]byte{a.DER()}, "is named for cluster"},
		"no root":                       {sign(bundle(a, 1), a), [][]byte{a.DER()}, "0 authorities"},
		"no signature":                  {&pb.SignedTrust{Body: changed.Body}, [][]byte{a.DER()}, "is not signed"},
		"nothing":                       {nil, [][]byte{a.DER()}, "is not signed"},
	}
	for name, test := range tests {
		got, err := OpenTrust(test.s, test.roots)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
		if err == nil && got.Version != 1 {
			t.Errorf("%s: version %d", name, got.Version)
		}
	}
}

// RELIABILITY 4.4, pitfall 12: the node list of a large cluster comes through
// messages of limited size, whole or not at all.
func TestTrustParts(t *testing.T) {
	t.Parallel()
	a := authority(t)
	b := bundle(a, 9, a)
	for i := range 10_000 {
		b.Members = append(b.Members, &pb.Member{ServerId: uint64(i + 1), Id: NewUUID(), Name: fmt.Sprintf("sat%d.a-long-name.example.com", i), Address: "192.0.2.1", Peer: "192.0.2.1:8444"})
	}
	s, err := SignTrust(b, a)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := SplitTrust(s, 9)
	if err != nil || len(parts) < 4 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	var j TrustJoiner
	join := func(parts ...*pb.TrustPart) (s *pb.SignedTrust, err error) {
		for _, p := range parts {
			if proto.Size(&pb.Down{Kind: &pb.Down_Trust{Trust: p}}) > MaxReceive {
				t.Errorf("a piece of %d bytes", proto.Size(p))
			}
			if s, err = j.Add(p); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
	if got, err := join(parts...); err != nil || !proto.Equal(got, s) {
		t.Errorf("in order: %v", err)
	}
	if _, err := join(parts[0], parts[2]); err == nil {
		t.Error("a piece is missing and nobody says so")
	}
	if got, err := join(append([]*pb.TrustPart{parts[0], parts[1]}, parts...)...); err != nil || !proto.Equal(got, s) {
		t.Errorf("begun anew: %v", err)
	}
	if _, err := join(parts[1]); err == nil {
		t.Error("begins in the middle")
	}
	got, err := OpenTrust(s, [][]byte{a.DER()})
	if err != nil || len(got.Members) != 10_000 {
		t.Errorf("%d members, %v", len(got.GetMembers()), err)
	}
}

// FuzzTrust: pieces and bundles of anybody are refused in words, and what is
// accepted was signed.
func FuzzTrust(f *testing.F) {
	a, _ := certificates(f, time.Now())
	s, err := SignTrust(bundle(a, 1, a), a)
	if err != nil {
		f.Fatal(err)
	}
	parts, err := SplitTrust(s, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(1), uint32(0), uint32(1), parts[0].Data)
	f.Add(uint64(1), uint32(1), uint32(0), []byte("x"))
	f.Fuzz(func(t *testing.T, version uint64, index, count uint32, data []byte) {
		var j TrustJoiner
		got, err := j.Add(&pb.TrustPart{Version: version, Index: index, Count: count, Data: data})
		if err != nil || got == nil {
			return
		}
		if _, err := OpenTrust(got, [][]byte{a.DER()}); err == nil && !bytes.Equal(got.Body, s.Body) {
			t.Error("a bundle that nobody has signed is accepted")
		}
	})
}

// Credentials change while they are in use: a new certificate, and new roots
// while one authority takes the place of another (RELIABILITY 4.2).
func TestRenewAndRoots(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := authority(t)
	next, err := NewAuthorityOf(a.Cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	master, sat := machine(t, a, Master, now), machine(t, a, Satellite, now)
	addr, _ := serve(t, master, 100, 100)
	call := func() error {
		_, err := dial(t, addr, DialOptions(sat)...).Refer(t.Context(), &pb.ReferRequest{User: "alice"})
		return FromStatus(err)
	}
	renew := func(c *Credentials, by *Authority) error {
		own, err := by.Issue(c.Identity, now, 30*day)
		if err != nil {
			t.Fatal(err)
		}
		return c.Renew(own)
	}
	before := sat.Serial()
	if err := errorsJoin(call(), renew(sat, a), call()); err != nil || sat.Serial() == before {
		t.Fatalf("renewed: %v, serial %s, before %s", err, sat.Serial(), before)
	}
	if err := renew(sat, next); err == nil || !strings.Contains(err.Error(), "is not from an authority that is trusted here") {
		t.Errorf("a certificate of an authority that is not trusted: %v", err)
	}
	both, onlyNew := [][]byte{next.DER(), a.DER()}, [][]byte{next.DER()}
	if err := sat.SetRoots(onlyNew); err == nil {
		t.Error("roots that the own certificate is not from")
	}
	if err := errorsJoin(master.SetRoots(both), sat.SetRoots(both), call()); err != nil || sat.NewestRoot() {
		t.Fatalf("both roots: %v, newest %v", err, sat.NewestRoot())
	}
	if err := errorsJoin(renew(sat, next), call(), renew(master, next), call(), master.SetRoots(onlyNew), sat.SetRoots(onlyNew), call()); err != nil || !sat.NewestRoot() {
		t.Fatalf("the new root: %v", err)
	}
	if err := call(); err != nil {
		t.Error(err)
	}
	// Another identity's certificate, and one of the old authority.
	if err := sat.Renew(must(next.Issue(Identity{Role: Satellite, ID: NewUUID(), Name: "x"}, now, day))); err == nil {
		t.Error("another identity's certificate is taken")
	}
	if err := renew(sat, a); err == nil {
		t.Error("a certificate of the old authority is taken")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

package host

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// FuzzTrust: whatever pieces come, in any order, and whatever the file holds, a
// bundle is in force only if an authority of the cluster has signed it, its
// version never goes back, and the own certificate stays good.
func FuzzTrust(f *testing.F) {
	a, err := wire.NewAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	own, err := a.Issue(wire.Identity{Role: wire.Satellite, ID: wire.NewUUID(), Name: "sat1"}, time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, wire.IdentityFile), own, 0o600); err != nil {
		f.Fatal(err)
	}
	signed := map[uint64][]byte{}
	var parts []byte
	for _, v := range []uint64{3, 5} {
		s, err := wire.SignTrust(&pb.Trust{Version: v, Cluster: a.Cluster, Roots: [][]byte{a.DER()}, Revoked: []*pb.Revoked{{Id: "u", Why: "w"}}}, a)
		if err != nil {
			f.Fatal(err)
		}
		signed[v], _ = proto.Marshal(s)
		half := len(signed[v]) / 2
		for i, data := range [][]byte{signed[v][:half], signed[v][half:]} {
			b, _ := proto.Marshal(&pb.TrustPart{Version: v, Index: uint32(i), Count: 2, Data: data})
			parts = append(binary.BigEndian.AppendUint16(parts, uint16(len(b))), b...)
		}
	}
	f.Add(parts, []byte{})
	f.Add(parts[:len(parts)/2], signed[5])
	f.Add([]byte{0, 2, 24, 1}, signed[3][:10])
	f.Fuzz(func(t *testing.T, pieces, file []byte) {
		if err := os.WriteFile(filepath.Join(dir, wire.CAFile), a.CertPEM, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, trustFile), file, 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := wire.Load(dir, wire.Satellite)
		if err != nil {
			t.Fatal(err)
		}
		tr := NewTrust(TrustConfig{Dir: dir, Credentials: c, Log: zerolog.Nop()})
		last := tr.Version()
		for link := uint64(1); len(pieces) >= 2; pieces = pieces[2:] {
			n := min(int(binary.BigEndian.Uint16(pieces)), len(pieces)-2)
			p := &pb.TrustPart{}
			if proto.Unmarshal(pieces[2:2+n], p) == nil {
				if p.Count%7 == 6 {
					link++
				}
				ack := tr.Part(link, p)
				if ack != nil && ack.Version != tr.Version() {
					t.Errorf("acknowledged %d, in force is %d", ack.Version, tr.Version())
				}
			}
			pieces = pieces[n:]
			if tr.Version() < last || !slices.Contains([]uint64{0, 3, 5}, tr.Version()) {
				t.Fatalf("version %d after %d", tr.Version(), last)
			}
			last = tr.Version()
		}
		if got := c.Roots(); len(got) != 1 || !slices.Equal(got[0], a.DER()) || c.OwnRoot() == "" {
			t.Errorf("%d authorities are trusted", len(got))
		}
	})
}

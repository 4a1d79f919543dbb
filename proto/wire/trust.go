package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	pb "verdecmd/proto"
)

// Sizes of trust bundles, in bytes.
const (
	maxBundle  = 32 << 20
	bundlePart = 256 << 10
)

// trustDigest is what the authorities sign: nothing else that they sign can be
// taken for it.
func trustDigest(body []byte) []byte {
	h := sha256.New()
	h.Write([]byte("verdecmd trust bundle 1\x00"))
	h.Write(body)
	return h.Sum(nil)
}

// SignTrust signs a bundle by one or several authorities: while one takes the
// place of another, by both, so that who knows either one believes it.
func SignTrust(t *pb.Trust, by ...*Authority) (*pb.SignedTrust, error) {
	if len(by) == 0 {
		return nil, errors.New("a trust bundle needs an authority that signs it")
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(t)
	if err != nil {
		return nil, err
	}
	out := &pb.SignedTrust{Body: body}
	for _, a := range by {
		sig, err := ecdsa.SignASN1(rand.Reader, a.key, trustDigest(body))
		if err != nil {
			return nil, err
		}
		root := a.Fingerprint()
		out.Signatures = append(out.Signatures, &pb.TrustSignature{Root: root[:], Signature: sig})
	}
	return out, nil
}

// OpenTrust verifies a bundle against the authorities that are trusted already
// (DER) and takes it apart. One signature of them is enough. All authorities
// that it names are of the same cluster.
func OpenTrust(s *pb.SignedTrust, roots [][]byte) (*pb.Trust, error) {
	if len(s.GetBody()) > maxBundle {
		return nil, fmt.Errorf("the trust bundle has %d bytes, at most %d are taken", len(s.GetBody()), maxBundle)
	}
	signer := signedBy(s, roots)
	if signer == nil {
		return nil, errors.New("the trust bundle is not signed by an authority that is trusted here")
	}
	cluster, err := clusterOf(signer)
	if err != nil {
		return nil, err
	}
	t := &pb.Trust{}
	if err := proto.Unmarshal(s.Body, t); err != nil {
		return nil, fmt.Errorf("the trust bundle cannot be read: %w", err)
	}
	if t.Cluster != cluster {
		return nil, fmt.Errorf("the trust bundle is that of cluster %.64q, not of %s", t.Cluster, cluster)
	}
	if _, err := parseDER(t.Roots, cluster); err != nil {
		return nil, fmt.Errorf("the trust bundle: %w", err)
	}
	return t, nil
}

// signedBy is the first trusted authority whose signature of s is right.
func signedBy(s *pb.SignedTrust, roots [][]byte) *x509.Certificate {
	digest := trustDigest(s.GetBody())
	for _, der := range roots {
		sum := sha256.Sum256(der)
		for _, sig := range s.GetSignatures() {
			if !bytes.Equal(sig.GetRoot(), sum[:]) {
				continue
			}
			cert, err := parseRoot(der)
			if err != nil {
				continue
			}
			if key, ok := cert.PublicKey.(*ecdsa.PublicKey); ok && ecdsa.VerifyASN1(key, digest, sig.GetSignature()) {
				return cert
			}
		}
	}
	return nil
}

// SplitTrust takes a bundle into pieces that fit into messages: the node list
// of a large cluster does not.
func SplitTrust(s *pb.SignedTrust, version uint64) ([]*pb.TrustPart, error) {
	all, err := proto.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(all) > maxBundle {
		return nil, fmt.Errorf("the trust bundle has %d bytes, at most %d are sent", len(all), maxBundle)
	}
	count := max(1, (len(all)+bundlePart-1)/bundlePart)
	parts := make([]*pb.TrustPart, count)
	for i := range parts {
		parts[i] = &pb.TrustPart{Version: version, Index: uint32(i), Count: uint32(count), Data: all[i*bundlePart : min(len(all), (i+1)*bundlePart)]}
	}
	return parts, nil
}

// TrustJoiner puts the pieces of bundles together. The zero value is ready. It
// is not safe for several goroutines.
type TrustJoiner struct {
	version uint64
	count   uint32
	next    uint32
	all     []byte
}

// Add takes the next piece. s is not nil when it was the last one. Pieces come
// in order; the first one of another bundle drops what is there.
func (j *TrustJoiner) Add(p *pb.TrustPart) (s *pb.SignedTrust, err error) {
	if p.GetIndex() == 0 {
		*j = TrustJoiner{version: p.GetVersion(), count: p.GetCount()}
	}
	if p.GetVersion() != j.version || p.GetCount() != j.count || p.GetIndex() != j.next || p.GetIndex() >= j.count || len(j.all)+len(p.GetData()) > maxBundle {
		*j = TrustJoiner{}
		return nil, fmt.Errorf("piece %d of %d of trust bundle %d does not fit", p.GetIndex(), p.GetCount(), p.GetVersion())
	}
	j.all = append(j.all, p.GetData()...)
	if j.next++; j.next < j.count {
		return nil, nil
	}
	all := j.all
	*j = TrustJoiner{}
	s = &pb.SignedTrust{}
	if err := proto.Unmarshal(all, s); err != nil {
		return nil, fmt.Errorf("the trust bundle cannot be read: %w", err)
	}
	return s, nil
}

package host

import (
	"fmt"
	"slices"
	"time"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// Believe tells why a bundle whose signature is right is not taken all the same;
// nil: it is. have is the version in force, own the authority that has issued the
// own certificate.
func Believe(next *pb.Trust, have uint64, own string) error {
	switch {
	case next.Version < have:
		return fmt.Errorf("it has version %d, and version %d is in force here: it is an old one, or the master's database is an old copy", next.Version, have)
	case !slices.ContainsFunc(next.Roots, func(der []byte) bool { return wire.RootName(der) == own }):
		return fmt.Errorf("the authority that has issued the certificate of this host (%.16s) is not in it: this host has missed a change of the authority, register it again", own)
	}
	return nil
}

// renewRate is how many hosts a second ask for a certificate of a new authority,
// so that no more than 30 are at it at once.
const renewRate = 30

// RenewDelay is how long a host waits until it asks for a certificate of a new
// authority, in a cluster of so many servers. random is from 0 to 1.
func RenewDelay(servers int, random float64) time.Duration {
	window := max(time.Second, time.Duration(servers)*time.Second/renewRate)
	return time.Duration(min(max(random, 0), 1) * float64(window))
}

// outlaws is who is of the cluster no more, by identity, and by identity and
// serial where it is one certificate alone.
type outlaws map[string]string

func outlawsOf(all []*pb.Revoked) outlaws {
	out := outlaws{}
	for _, r := range all {
		out[r.Id+r.Serial] = r.Why
	}
	return out
}

// revoked tells whether a machine with this certificate is of the cluster no
// more, and why.
func (o outlaws) revoked(id, serial string) (why string, revoked bool) {
	if why, revoked = o[id]; !revoked {
		why, revoked = o[id+serial]
	}
	if revoked && why == "" {
		why = "revoked"
	}
	return why, revoked
}

package link

import (
	"time"

	pb "verdecmd/proto"
)

// Trust keeps the trust bundle of the cluster.
type Trust interface {
	// Version is that of the bundle in force; 0: there is none yet.
	Version() uint64
	// Keys are the SSH keys that the cluster is told; nil: none are managed here.
	Keys() *pb.HostKeys
	// Part takes in a piece of a bundle that came on a link, by its number. The
	// answer, if there is one, goes to the master.
	Part(link uint64, p *pb.TrustPart) *pb.TrustAck
}

// complete adds to a hello the time, and what concerns trust and other
// satellites.
func (l *Link) complete(h *pb.Hello) {
	h.NowUnixMs = time.Now().UnixMilli()
	if l.cfg.Peer != nil {
		h.PeerAddress = l.cfg.Peer()
	}
	if l.cfg.Trust == nil {
		return
	}
	version := l.cfg.Trust.Version()
	h.TrustVersion, h.Keys = &version, l.cfg.Trust.Keys()
}

// believe takes in a piece of a trust bundle.
func (r *reporter) believe(c *conn, p *pb.TrustPart) {
	if r.link.cfg.Trust == nil {
		return
	}
	ack := r.link.cfg.Trust.Part(c.serial, p)
	if ack == nil {
		return
	}
	select {
	case r.acks <- ack:
	case <-c.ctx.Done():
	}
}

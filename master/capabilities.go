package master

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/link"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// hub joins the links to the capabilities.
type hub struct{ m *Master }

// Attach registers a satellite where it is new, opens its link in the cluster
// and settles what its inventory leads to.
func (h hub) Attach(ctx context.Context, hello cluster.Hello, name string) (link.Attached, error) {
	if err := h.m.host.Ensure(ctx, hello.UUID, name, hello.Journal); err != nil {
		h.refused(hello.UUID, name, err)
		return link.Attached{}, err
	}
	var at link.Attached
	var e cluster.Effects
	var err error
	h.m.with(func(c *cluster.Cluster) {
		if at.Attachment, e, err = c.Attach(time.Now(), hello); err == nil {
			s := c.ServerByUUID(hello.UUID)
			at.Server, at.Name = s.ID, s.Name
		}
	})
	if err != nil {
		kind := wire.Internal
		if errors.Is(err, cluster.ErrDuplicate) {
			kind = wire.InUse
		}
		h.refused(hello.UUID, name, err)
		return at, wire.Errorf(kind, "%v", err)
	}
	h.m.refused.set(hello.UUID, "")
	h.m.event("server.up", fmt.Sprintf("Server %d (%s) is connected.", at.Server, at.Name), serverPairs(at.Server, at.Name)...)
	h.m.session.Settle(at.Server, e)
	return at, nil
}

// refused tells once that a machine may not join, however often it tries.
func (h hub) refused(uuid, name string, err error) {
	if !h.m.refused.set(uuid, err.Error()) {
		return
	}
	h.m.cfg.Log.Error().Err(err).Str("satellite", name).Msg("a satellite is refused")
	h.m.event("server.refused", fmt.Sprintf("A machine with the certificate of %s is refused: %v.", name, err), monitor.Pair{Key: "name", Value: name}, monitor.Pair{Key: "msg", Value: err.Error()})
}

// lastWords remembers the last text about each satellite, so that only news
// are told. Its keys are certificates that this cluster has issued.
type lastWords struct {
	mu   sync.Mutex
	text map[string]string // guarded by mu
}

// set notes the text and tells whether it is new; an empty one forgets.
func (l *lastWords) set(uuid, text string) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case text == "":
		delete(l.text, uuid)
		return false
	case l.text[uuid] == text:
		return false
	case l.text == nil:
		l.text = map[string]string{}
	}
	l.text[uuid] = text
	return true
}

// Report takes in what a satellite reports.
func (h hub) Report(_ context.Context, server, attachment uint64, r link.Report) error {
	var e cluster.Effects
	var err error
	var name string
	var free, reserve uint64
	now := time.Now()
	h.m.with(func(c *cluster.Cluster) {
		if e, err = c.Report(now, server, attachment, r.Load, r.Sessions, r.Ended); err != nil {
			return
		}
		c.LeaseRenewed(now, server)
		s := c.Server(server)
		name, free, reserve = s.Name, s.Load.SnapFree, s.Facts.SnapReserve
	})
	if err != nil {
		return wire.Errorf(wire.StaleLink, "%v", err)
	}
	h.m.session.Settle(server, e)
	for _, r := range r.Refused {
		h.m.session.Refused(server, r.User, r.Text)
	}
	if low, changed := h.m.scarce.set(server, free <= reserve); changed {
		pairs := append(serverPairs(server, name), monitor.Pair{Key: "snapfree", Value: free}, monitor.Pair{Key: "reserve", Value: reserve})
		if low {
			h.m.event("server.nospace", fmt.Sprintf("Server %d (%s) has %d MiB free for snapshots, not more than its reserve of %d MiB: no new sessions go there.", server, name, free>>20, reserve>>20), pairs...)
		} else {
			h.m.event("server.space", fmt.Sprintf("Server %d (%s) has space for snapshots again, %d MiB.", server, name, free>>20), pairs...)
		}
	}
	return nil
}

// Detach notes that a link has ended.
func (h hub) Detach(_ context.Context, server, attachment uint64) {
	var lost []cluster.Session
	var cancelled []cluster.Reservation
	var closed bool
	var name string
	h.m.with(func(c *cluster.Cluster) {
		if lost, cancelled, closed = c.Detach(time.Now(), server, attachment); closed {
			name = c.Server(server).Name
		}
	})
	h.m.session.Cancelled(cancelled)
	if closed {
		h.m.event("server.down", fmt.Sprintf("The link of server %d (%s) is down%s.", server, name, unknown(len(lost))),
			append(serverPairs(server, name), monitor.Pair{Key: "sessions", Value: len(lost)})...)
	}
}

// unknown tells how many sessions are unknown from now on.
func unknown(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "; the session there is unknown"
	}
	return fmt.Sprintf("; the %d sessions there are unknown", n)
}

func (h hub) Refer(ctx context.Context, server, _ uint64, l cluster.Login) (*pb.ReferReply, error) {
	return h.m.session.Refer(ctx, server, l)
}

func (h hub) Claim(ctx context.Context, server, attachment uint64, user string, uid uint32) (*pb.ClaimReply, error) {
	return h.m.session.Claim(ctx, server, attachment, user, uid)
}

// scarcity remembers which servers are short of space, so that only changes
// are announced.
type scarcity struct {
	mu  sync.Mutex
	low map[uint64]bool // guarded by mu
}

func (s *scarcity) set(server uint64, low bool) (now, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = s.low[server] != low
	s.low[server] = low
	return low, changed
}

func (s *scarcity) forget(server uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.low, server)
}

func serverPairs(id uint64, name string) []monitor.Pair {
	return []monitor.Pair{{Key: "server", Value: id}, {Key: "name", Value: name}}
}

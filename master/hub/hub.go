// Package hub joins the links to the capabilities: what a satellite says goes
// to the register of servers, to the rules and to the sessions, in this order.
//
// Hub decides nothing. It is apart from master so that a simulation can run it
// without sockets and with a clock of its own.
package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"verdecmd/master/cluster"
	"verdecmd/master/host"
	"verdecmd/master/link"
	"verdecmd/master/session"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// Config is everything a Hub needs.
type Config struct {
	// State runs f with the cluster under its lock. f must not block.
	State   func(f func(*cluster.Cluster))
	Host    *host.Manager
	Session *session.Manager
	// Event announces what has happened; it must not block, and may be called
	// within State.
	Event func(typ, text string, pairs ...monitor.Pair)
	// Again is told what has been announced already and happens still; the
	// default is nobody.
	Again func(typ, text string, pairs ...monitor.Pair)
	Now   func() time.Time // default: time.Now
	Log   zerolog.Logger
}

// Hub implements link.Hub.
type Hub struct {
	cfg      Config
	watched  watched
	refusals lastWords
}

// New returns a Hub.
func New(cfg Config) *Hub {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Again == nil {
		cfg.Again = func(string, string, ...monitor.Pair) {}
	}
	return &Hub{cfg: cfg, watched: watched{seen: map[uint64]*seen{}, away: map[uint64]absence{}}}
}

// Forget drops what is remembered of a server that is gone.
func (h *Hub) Forget(server uint64) { h.watched.forget(server) }

// Attach registers a satellite where it is new, opens its link in the cluster
// and settles what its inventory leads to.
func (h *Hub) Attach(ctx context.Context, hello cluster.Hello, name string) (link.Attached, error) {
	if err := h.cfg.Host.Ensure(ctx, hello, name); err != nil {
		h.refused(hello.UUID, name, 0, err)
		return link.Attached{}, err
	}
	var at link.Attached
	var e cluster.Effects
	var twin uint64 // the server that is connected with this identity already
	var err error
	h.cfg.State(func(c *cluster.Cluster) {
		if at.Attachment, e, err = c.Attach(h.cfg.Now(), hello); err == nil {
			s := c.ServerByUUID(hello.UUID)
			at.Server, at.Name = s.ID, s.Name
		} else if errors.Is(err, cluster.ErrDuplicate) {
			twin = c.ServerByUUID(hello.UUID).ID
		}
	})
	if err != nil {
		kind := wire.Internal
		if twin != 0 {
			kind = wire.InUse
		}
		h.refused(hello.UUID, name, twin, err)
		return at, wire.Errorf(kind, "%v", err)
	}
	h.refusals.set(hello.UUID, "")
	h.cfg.Event("server.up", fmt.Sprintf("Server %d (%s) is connected.", at.Server, at.Name), serverPairs(at.Server, at.Name)...)
	h.cfg.Session.Settle(at.Server, e)
	return at, nil
}

// refused tells once that a machine may not connect, however often it tries. twin
// is the server that is connected with the same identity; 0: that is not why.
func (h *Hub) refused(uuid, name string, twin uint64, err error) {
	tell := h.cfg.Again
	if h.refusals.set(uuid, err.Error()) {
		tell = h.cfg.Event
		h.cfg.Log.Error().Err(err).Str("satellite", name).Msg("a satellite is refused")
	}
	if twin != 0 {
		tell("server.duplicate", fmt.Sprintf("Two machines show the identity of server %d (%s): the newer one is refused, and no new session goes to the other one until this is settled: %v.", twin, name, err), append(serverPairs(twin, name), monitor.Pair{Key: "msg", Value: err.Error()})...)
		return
	}
	tell("server.refused", fmt.Sprintf("A machine with the certificate of %s is refused: %v.", name, err), monitor.Pair{Key: "name", Value: name}, monitor.Pair{Key: "msg", Value: err.Error()})
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
func (h *Hub) Report(_ context.Context, server, attachment uint64, r link.Report) error {
	var e cluster.Effects
	var err error
	now := h.cfg.Now()
	h.cfg.State(func(c *cluster.Cluster) {
		if e, err = c.Report(now, server, attachment, r.Load, r.Sessions, r.Ended); err != nil {
			return
		}
		c.LeaseRenewed(now, server)
		h.reported(c.Server(server), now, r.Clock)
	})
	if err != nil {
		return wire.Errorf(wire.StaleLink, "%v", err)
	}
	h.cfg.Session.Settle(server, e)
	for _, r := range r.Refused {
		h.cfg.Session.Refused(server, r.User, r.Text)
	}
	return nil
}

// Detach notes that a link has ended.
func (h *Hub) Detach(_ context.Context, server, attachment uint64) {
	var lost []cluster.Session
	var cancelled []cluster.Reservation
	var closed bool
	var name string
	h.cfg.State(func(c *cluster.Cluster) {
		if lost, cancelled, closed = c.Detach(h.cfg.Now(), server, attachment); closed {
			name = c.Server(server).Name
		}
	})
	h.cfg.Session.Cancelled(cancelled)
	if closed {
		h.watched.down(server)
		h.cfg.Event("server.down", fmt.Sprintf("The link of server %d (%s) is down%s.", server, name, unknown(len(lost))),
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

// Refer answers where a login is to go.
func (h *Hub) Refer(ctx context.Context, server, _ uint64, l cluster.Login) (*pb.ReferReply, error) {
	return h.cfg.Session.Refer(ctx, server, l)
}

// Claim consumes a reservation.
func (h *Hub) Claim(ctx context.Context, server, attachment uint64, user string, uid uint32) (*pb.ClaimReply, error) {
	return h.cfg.Session.Claim(ctx, server, attachment, user, uid)
}

func serverPairs(id uint64, name string) []monitor.Pair {
	return []monitor.Pair{{Key: "server", Value: id}, {Key: "name", Value: name}}
}

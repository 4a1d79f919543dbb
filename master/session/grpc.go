package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"verdecmd/master/cluster"
	"verdecmd/master/store"
	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/proto/planted"
	"verdecmd/proto/wire"
)

// claimPatience is how long a claim waits for the store. It is less than a
// satellite waits for the answer: one that does not come would cost it the link.
const claimPatience = 7 * time.Second

// Refer answers where a login is to go. Nothing of it touches a disk.
func (m *Manager) Refer(_ context.Context, from uint64, l cluster.Login) (*pb.ReferReply, error) {
	now := m.cfg.Now()
	l.From = from
	m.needed(l.User, l.Need)
	var out pb.ReferReply
	var made, cancelled *cluster.Reservation
	var err error
	m.cfg.State(func(c *cluster.Cluster) {
		var ref cluster.Referral
		ref, err = c.Refer(now, l)
		if ref.Cancelled != nil {
			x := *ref.Cancelled
			cancelled = &x
		}
		if err != nil {
			return
		}
		out = pb.ReferReply{ServerId: ref.Server.ID, Name: ref.Server.Name, Address: ref.Server.Address}
		if ref.Session != nil {
			out.Session, out.State = ref.Session.ID, ref.Session.State()
			return
		}
		out.Reservation = ref.Reservation.ID
		out.RemainingS = uint32(max(0, ref.Reservation.Expires.Sub(now)) / time.Second)
		if ref.Made {
			x := *ref.Reservation
			made = &x
		}
	})
	if cancelled != nil {
		m.Cancelled([]cluster.Reservation{*cancelled})
	}
	if err != nil {
		m.cfg.Log.Info().Str("user", l.User).Uint64("from", from).Err(err).Msg("login refused")
		m.remember(l.User, fmt.Sprintf("login at server %d refused at %s: %v", from, clock(now), err))
		return nil, edge(err)
	}
	if made != nil {
		m.cfg.Log.Info().Str("user", l.User).Uint64("from", from).Uint64("server", made.Server).Str("reservation", made.ID).Msg("login referred")
		m.cfg.Event("reservation.made", fmt.Sprintf("A place on server %d is reserved for %s.", made.Server, made.User), reservationPairs(*made)...)
	}
	return &out, nil
}

// Claim consumes a reservation: ownership is on the disk before the satellite
// may start anything.
func (m *Manager) Claim(ctx context.Context, server, attachment uint64, user string, uid uint32) (*pb.ClaimReply, error) {
	ctx = context.WithoutCancel(ctx)
	var claim *cluster.Claim
	var reservation string
	var err error
	m.cfg.State(func(c *cluster.Cluster) {
		if claim, err = c.BeginClaim(m.cfg.Now(), server, attachment, user, uid); err == nil {
			reservation = c.Reservation(user).ID
		}
	})
	if err != nil {
		return nil, edge(err)
	}
	var more []store.Change
	if claim.HighWater != 0 {
		more = append(more, store.Change{Key: store.Key{Bucket: meta, ID: highWater}, Value: fmt.Appendf(nil, "%d", claim.HighWater)})
	}
	x := claim.Session
	var late, over bool // guarded by m.mu
	stored := make(chan struct{})
	m.mu.Lock()
	begun := m.goes(func() {
		stop := m.own(ctx, x, more...)
		m.mu.Lock()
		err, over = stop, true
		alone := late
		m.mu.Unlock()
		close(stored)
		if alone {
			_ = m.claimed(ctx, claim, stop, true)
		}
	})
	m.mu.Unlock()
	if !begun {
		m.cfg.State(func(c *cluster.Cluster) { c.Unclaimed(claim) })
		return nil, wire.Errorf(wire.Unreachable, "the master is ending, so nothing is started")
	}
	if !planted.Bug("answer-before-commit") {
		m.cfg.Wait(stored, claimPatience)
		m.mu.Lock()
		late = !over
		m.mu.Unlock()
	}
	if late {
		m.cfg.Log.Warn().Str("user", user).Str("session", x.ID).Msg("the disk of the database is too slow for a claim")
		return nil, wire.Errorf(wire.NotReady, "the master's disk has not answered within %v, so nothing is started; log in again in a moment", claimPatience)
	}
	if err := m.claimed(ctx, claim, err, false); err != nil {
		return nil, err
	}
	m.cfg.Log.Info().Str("user", user).Str("session", x.ID).Uint64("server", server).Msg("reservation claimed")
	pairs := sessionPairs(x)
	m.cfg.Event("reservation.used", fmt.Sprintf("%s has taken the reserved place on server %d.", user, server), append(pairs[:3:3], monitor.Pair{Key: "reservation", Value: reservation})...)
	m.cfg.Event("session.starting", fmt.Sprintf("The desktop of %s is starting on server %d.", user, server), pairs...)
	return &pb.ClaimReply{Session: x.ID, Epoch: uint64(m.cfg.Epoch), MemoryBytes: x.Memory}, nil
}

// claimed ends a claim whose commit has come back with err. late: nobody waits
// for it any more, so there must be no session.
func (m *Manager) claimed(ctx context.Context, claim *cluster.Claim, err error, late bool) error {
	x := claim.Session
	if err != nil {
		m.cfg.State(func(c *cluster.Cluster) { c.Unclaimed(claim) })
		if errors.Is(err, store.ErrUnknown) {
			m.again(cluster.Effects{Release: []cluster.Release{{Session: x}}}, err)
		}
		m.cfg.Log.Error().Err(err).Str("user", x.User).Msg("ownership could not be stored")
		return edge(fmt.Errorf("the master cannot record the session: %w", err))
	}
	taken := false
	m.cfg.State(func(c *cluster.Cluster) {
		if late {
			c.Void(claim)
		}
		taken = c.Claimed(m.cfg.Now(), claim)
	})
	if taken {
		return nil
	}
	m.release(ctx, []cluster.Release{{Session: x, How: "failed", Why: "its server left before it could start"}})
	return wire.Errorf(wire.StaleLink, "the server's link was replaced or it was taken offline during the claim; log in again")
}

// edge gives an error its kind for the wire.
func edge(err error) error {
	var lost *cluster.LostError
	var refused *cluster.RefusedError
	kind := wire.Internal
	switch {
	case errors.As(err, &lost) && lost.Waiting > 0, errors.Is(err, cluster.ErrSettling):
		kind = wire.NotReady
	case errors.As(err, &lost):
		kind = wire.LostSession
	case errors.As(err, &refused):
		kind = wire.NoCapacity
	case errors.Is(err, cluster.ErrNoReservation):
		kind = wire.NoReservation
	case errors.Is(err, cluster.ErrClaimed):
		kind = wire.InUse
	case errors.Is(err, cluster.ErrStaleLink), errors.Is(err, cluster.ErrUnknownServer):
		kind = wire.StaleLink
	case errors.Is(err, cluster.ErrUIDDiffers):
		kind = wire.BadRequest
	case errors.Is(err, cluster.ErrDuplicate):
		kind = wire.InUse
	case errors.Is(err, cluster.ErrSettling):
		kind = wire.NotReady
	case errors.Is(err, store.ErrNoSpace), errors.Is(err, store.ErrConflict): // nothing was recorded
		kind = wire.NoCapacity
	}
	return wire.Errorf(kind, "%v", err)
}

// Link carries orders over the links.
type Link struct {
	Server interface {
		Order(ctx context.Context, server uint64, o *pb.SessionOrder) error
	}
}

// Order implements Orders.
func (l Link) Order(ctx context.Context, server uint64, o Order) error {
	action := map[monitor.How]pb.SessionOrder_Action{
		monitor.Shutdown: pb.SessionOrder_SHUTDOWN, monitor.Logoff: pb.SessionOrder_LOGOFF, monitor.Abort: pb.SessionOrder_ABORT,
	}[o.How]
	return l.Server.Order(ctx, server, &pb.SessionOrder{Action: action, Session: o.Session, LimitS: uint32((o.Limit + time.Second - 1) / time.Second)})
}

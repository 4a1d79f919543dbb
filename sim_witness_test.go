package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "verdecmd/proto"
	"verdecmd/satellite/desktop"
)

// The witness sees processes begin and end, and what satellites were told. From
// that alone it judges S1, S4, S6, S7 and S9; it never asks a master.

// proc is what the witness has seen of a session's process.
type proc struct {
	sat string
	pid int
}

// sightings are guarded by simWorld.mu.
type sightings struct {
	places  map[string]time.Time // by user: until when the last reservation is fresh
	claims  map[string]claimed   // by session
	orders  map[string]uint64    // by session: the highest epoch of an order about it
	epochs  map[string]uint64    // by satellite: the highest epoch that it was welcomed with
	leases  map[string]time.Time // by satellite: when the last lease began
	offline map[string]time.Time // by satellite: since when an administrator knows that it is offline

	started, ended, repeated int // processes begun, ended by order, links opened
}

// claimed is the answer to a claim.
type claimed struct {
	sat   *simSat
	start int // of the satellite's program
}

func newSightings() sightings {
	return sightings{places: map[string]time.Time{}, claims: map[string]claimed{}, orders: map[string]uint64{}, epochs: map[string]uint64{},
		leases: map[string]time.Time{}, offline: map[string]time.Time{}}
}

// sawReferral notes a reservation.
func (w *simWorld) sawReferral(user string, r *pb.ReferReply, _ time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Reservation != "" {
		w.seen.places[user] = time.Now().Add(time.Duration(r.RemainingS+1) * time.Second)
	}
}

// sawClaim notes that a satellite was told that it may start a session. S4: only
// with a reservation that was fresh when it asked. S6: it did not ask after an
// administrator had been told that the server is offline.
func (w *simWorld) sawClaim(s *simSat, user string, r *pb.ClaimReply, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if until, ok := w.seen.places[user]; !ok || sent.After(until) {
		w.t.Errorf("S4: session %s of %s was granted without a fresh reservation", r.Session, user)
	}
	if since, ok := w.seen.offline[s.name]; ok && sent.After(since) {
		w.t.Errorf("S6: session %s of %s was granted on %s, which is offline since %v", r.Session, user, s.name, sent.Sub(since))
	}
	if _, twice := w.seen.claims[r.Session]; twice {
		w.t.Errorf("S4: session %s was granted twice", r.Session)
	}
	w.seen.claims[r.Session] = claimed{s, s.starts}
}

// sawDown notes what a satellite was told on its link.
func (w *simWorld) sawDown(c *simStream, d *pb.Down) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := c.sat.name
	switch k := d.Kind.(type) {
	case *pb.Down_Welcome:
		c.epoch = k.Welcome.Epoch
		if c.epoch >= w.seen.epochs[name] {
			w.seen.epochs[name], w.seen.leases[name] = c.epoch, c.sent[0]
		}
	case *pb.Down_Lease:
		if at, ok := c.sent[k.Lease.Report]; ok && at.After(w.seen.leases[name]) {
			w.seen.leases[name] = at
		}
	case *pb.Down_Order:
		if o := k.Order.GetSession(); o != nil && k.Order.Epoch >= w.seen.epochs[name] {
			w.seen.orders[o.Session] = k.Order.Epoch
		}
	}
}

// told notes what an administrator was told: from the reply to offlineserver on,
// until onlineserver is sent, S6 holds.
func (w *simWorld) told(sat, reply string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.HasPrefix(reply, "200 ") || strings.HasPrefix(reply, "204 ") {
		w.seen.offline[sat] = time.Now()
	}
}

func (w *simWorld) toOnline(sat string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen.offline, sat)
}

// desktops lists the processes that exist, which nobody can lie about. Those of
// a computer that is suspended stand still.
func (w *simWorld) desktops() []string {
	var out []string
	w.mu.Lock()
	defer w.mu.Unlock()
	byUser := map[string]string{}
	for _, s := range slices.SortedFunc(maps.Values(w.sats), func(a, b *simSat) int { return cmp.Compare(a.name, b.name) }) {
		suspended := false
		select {
		case <-s.gate:
		default:
			suspended = true
		}
		for _, id := range s.host.Running() {
			user := w.users[id]
			row := fmt.Sprintf("%s: %s of %s, process %d", s.name, id, user, w.procs[id].pid)
			if suspended {
				out = append(out, row+", suspended")
				continue
			}
			out = append(out, row)
			if other := byUser[user]; other != "" && !w.lie {
				w.t.Errorf("S1: %s has a desktop on %s and on %s", user, other, s.name)
			}
			byUser[user] = s.name
		}
	}
	return out
}

// witness sees each process begin and holds S1, S4 and "never twice" against it.
type witness struct {
	desktop.Driver
	sat   *simSat
	start int // of the program
}

func (x witness) Start(ctx context.Context, spec desktop.Spec) (desktop.Desktop, error) {
	x.sat.awake()
	x.sat.w.mu.Lock()
	killed := x.sat.killed >= x.start
	x.sat.w.mu.Unlock()
	if killed {
		return nil, errors.New("the program was killed")
	}
	d, err := x.Driver.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	w := x.sat.w
	w.mu.Lock()
	before, twice := w.procs[spec.Session]
	w.procs[spec.Session] = proc{x.sat.name, d.Process().PID}
	claim, ok := w.seen.claims[spec.Session]
	w.seen.started++
	start := x.sat.starts
	w.mu.Unlock()
	if twice {
		w.t.Errorf("session %s was started on %s and again on %s", spec.Session, before.sat, x.sat.name)
	}
	if !ok || claim.sat != x.sat || claim.start != start {
		w.t.Errorf("S4: session %s of %s was started on %s, which was not told that it may", spec.Session, spec.User.Name, x.sat.name)
	}
	w.desktops()
	return watched{d, x.sat, spec}, nil
}

func (x witness) Adopt(ctx context.Context, spec desktop.Spec, p desktop.Process) (desktop.Desktop, error) {
	x.sat.awake()
	d, err := x.Driver.Adopt(ctx, spec, p)
	if err != nil {
		return nil, err
	}
	return watched{d, x.sat, spec}, nil
}

// watched is a desktop whose end must have a reason.
type watched struct {
	desktop.Desktop
	sat  *simSat
	spec desktop.Spec
}

func (x watched) PowerDown(ctx context.Context) error { x.ending(); return x.Desktop.PowerDown(ctx) }
func (x watched) Quit(ctx context.Context) error      { x.ending(); return x.Desktop.Quit(ctx) }
func (x watched) Kill() error                         { x.ending(); return x.Desktop.Kill() }
func (x watched) Ping(ctx context.Context) error      { x.sat.awake(); return x.Desktop.Ping(ctx) }

// ending holds S7 and S9 against a satellite that ends a desktop: it was ordered
// by a master than which it had seen no newer one, or its lease is over.
func (x watched) ending() {
	x.sat.awake()
	w := x.sat.w
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ordered := w.seen.orders[x.spec.Session]
	since := time.Since(w.seen.leases[x.sat.name])
	switch {
	case ordered:
		w.seen.ended++
	case w.leaseSelf > 0 && since >= w.leaseSelf:
	default:
		w.t.Errorf("S7, S9: %s ends session %s of %s without an order that counts, %v after its lease began", x.sat.name, x.spec.Session, x.spec.User.Name, since)
	}
}

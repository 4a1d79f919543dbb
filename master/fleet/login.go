package fleet

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	pb "verdecmd/proto"
)

// firstUID is the number of the first simulated user.
const firstUID = 100_000

// user is somebody who logs in.
type user struct {
	name string
	uid  uint32
}

// someone returns a user who has never been here.
func (f *fleet) someone() user {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	return user{fmt.Sprintf("user%06d", f.users), firstUID + uint32(f.users)}
}

// refer asks, at some satellite, where a user is to go.
func (f *fleet) refer(ctx context.Context, u user) (*satellite, time.Duration, error) {
	at := f.sats[int(u.uid)%len(f.sats)]
	link := at.current()
	if link == nil {
		return nil, 0, fmt.Errorf("%s is not connected", at.name)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	began := time.Now()
	r, err := link.client.Refer(ctx, &pb.ReferRequest{User: u.name, Uid: u.uid, Need: &pb.Need{MemoryBytes: memory, Cpus: 1, Image: "win4/7"}, Client: "192.0.2.17", Attachment: link.attachment})
	took := time.Since(began)
	if err != nil {
		return nil, took, fmt.Errorf("refer of %s: %w", u.name, err)
	}
	s := f.server(r.ServerId)
	if s == nil {
		return nil, took, fmt.Errorf("%s was referred to server %d, which does not exist: %w", u.name, r.ServerId, errLost)
	}
	return s, took, nil
}

// claim takes the place of a user on a satellite, where the session begins.
func (f *fleet) claim(ctx context.Context, s *satellite, u user) (id string, took time.Duration, err error) {
	link := s.current()
	if link == nil {
		return "", 0, fmt.Errorf("%s is not connected", s.name)
	}
	ctx, cancel := context.WithTimeout(ctx, callWithin)
	defer cancel()
	began := time.Now()
	r, err := link.client.Claim(ctx, &pb.ClaimRequest{User: u.name, Uid: u.uid, Attachment: link.attachment})
	took = time.Since(began)
	if err != nil {
		return "", took, fmt.Errorf("claim of %s: %w", u.name, err)
	}
	s.begin(r.Session, u.name, u.uid)
	return r.Session, took, nil
}

// logins fills the cluster: some by one caller, the rest by many. What the
// satellites tell about new sessions is held back meanwhile, so that placing is
// measured alone; desktops take longer than that to start.
func (f *fleet) logins(ctx context.Context, r *Figures) error {
	f.tells.Store(false)
	left := f.o.Sessions
	one := min(left/2, 300)
	left -= one
	var refers, claims, both []time.Duration
	began := time.Now()
	for range one {
		u := f.someone()
		s, a, err := f.refer(ctx, u)
		if err != nil {
			return err
		}
		_, b, err := f.claim(ctx, s, u)
		if err != nil {
			return err
		}
		refers, claims, both = append(refers, a), append(claims, b), append(both, a+b)
	}
	r.LoginsPS = float64(one) / time.Since(began).Seconds()
	r.Refer, r.Claim, r.Login = spread(refers), spread(claims), spread(both)

	type place struct {
		user
		on *satellite
	}
	places := make([]place, left)
	times := make([]time.Duration, left)
	cpu := f.child.cpu()
	var took time.Duration
	err := f.profiled(func() (err error) {
		took, err = many(ctx, left, func(i int) (err error) {
			u := f.someone()
			s, t, err := f.refer(ctx, u)
			places[i], times[i] = place{u, s}, t
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	r.ReferCPU = micro(f.child.cpu()-cpu) / float64(max(left, 1))
	r.RefersPS, r.ManyRefer = float64(left)/took.Seconds(), spread(times)
	cpu = f.child.cpu()
	err = f.profiled(func() (err error) {
		took, err = many(ctx, left, func(i int) (err error) {
			_, times[i], err = f.claim(ctx, places[i].on, places[i].user)
			return err
		})
		return err
	})
	if err != nil {
		return err
	}
	r.ClaimCPU = micro(f.child.cpu()-cpu) / float64(max(left, 1))
	r.ClaimsPS, r.ManyClaim = float64(left)/took.Seconds(), spread(times)
	f.say("%.0f logins a second by one caller; %.0f refers and %.0f claims a second by %d", r.LoginsPS, r.RefersPS, r.ClaimsPS, callers)

	if err := wait(ctx, boots); err != nil {
		return err
	}
	f.tells.Store(true)
	for _, s := range f.sats {
		s.booted()
	}
	if f.child.floor {
		return wait(ctx, f.o.Interval)
	}
	return f.agree(ctx)
}

// many calls do for 0 to n-1, by many callers at once.
func many(ctx context.Context, n int, do func(int) error) (time.Duration, error) {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	began := time.Now()
	for range min(callers, n) {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(i); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	return time.Since(began), err
}

// comeAndGo lets users log in at the wished rate and an older session end for
// each of them, until ctx ends. Each login waits for its own answer alone.
func (f *fleet) comeAndGo(ctx context.Context) (took []time.Duration, err error) {
	if f.o.Logins == 0 {
		<-ctx.Done()
		return nil, nil
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	defer all.Wait()
	each := time.NewTicker(time.Second / time.Duration(f.o.Logins))
	defer each.Stop()
	type stay struct {
		on *satellite
		id string
	}
	var stays []stay
	calls := context.WithoutCancel(ctx)
	for {
		select {
		case <-ctx.Done():
			all.Wait()
			for _, s := range f.sats { // what began last runs too
				s.booted()
			}
			return took, err
		case <-each.C:
		}
		u := f.someone()
		all.Go(func() {
			s, a, e := f.refer(calls, u)
			var id string
			var b time.Duration
			if e == nil {
				id, b, e = f.claim(calls, s, u)
			}
			mu.Lock()
			if e != nil {
				err = e
			} else {
				took = append(took, a+b)
				stays = append(stays, stay{s, id})
			}
			mu.Unlock()
			if e == nil && wait(ctx, boots) == nil {
				s.booted()
			}
		})
		mu.Lock()
		if len(stays) > f.o.Logins*3 {
			oldest := stays[0]
			stays = stays[1:]
			oldest.on.finish(oldest.id)
		}
		mu.Unlock()
	}
}

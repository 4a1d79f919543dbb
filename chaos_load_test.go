package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"verdecmd/monitor"
	pb "verdecmd/proto"
	"verdecmd/satellite/session"
)

// load is what goes on while things break: users log in at the satellites'
// local sockets, administrators end sessions and take servers on and off. All
// of it is asked of the real programs; what they answer is counted, and what
// they acknowledge is believed and looked at later.
type load struct {
	c     *chaosCluster
	users int

	logins, changes atomic.Int64 // answered
	busy            atomic.Bool  // what is answered now counts
	began           time.Time    // of the present time that counts
	counted         time.Duration

	stop    context.CancelFunc
	wg      sync.WaitGroup
	writers sync.WaitGroup
	oracles []*oracle // one for each writer

	mu       sync.Mutex // guards refusals
	refusals map[string]int
}

const (
	loginsWanted  = 30 // a second
	changesWanted = 90
	clients       = 12 // that log in
	endEvery      = 300 * time.Millisecond
	answerWithin  = 30 * time.Second // for an end that was asked for
)

// newLoad makes servers that only administrators care for, one for each writer,
// beside the satellites.
func (c *chaosCluster) newLoad(users, writers int) *load {
	c.t.Helper()
	l := &load{c: c, users: users, refusals: map[string]int{}}
	for i := range writers {
		n := len(c.sats) + 1 + i
		p := c.puppet(c.t, n, func(p *puppet) { p.memory = 1 << 20 })
		c.until("a link", func() bool { return p.ups.Load() > 0 })
		p.end()
	}
	c.number()
	for id, name := range c.names {
		if n, _ := strconv.Atoi(strings.TrimPrefix(name, "sat")); n > len(c.sats) {
			l.oracles = append(l.oracles, &oracle{server: id, acked: "online -"})
		}
	}
	return l
}

// start lets users log in, and some be logged off, until end. slow is how much
// less often than for a master under load.
func (l *load) start(slow int) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.c.t.Cleanup(l.end) // before the programs are ended
	pace := make(chan struct{})
	l.wg.Go(func() {
		for tick := time.NewTicker(time.Second * time.Duration(slow) / loginsWanted); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case pace <- struct{}{}:
			default: // all clients are waiting
			}
		}
	})
	for i := range clients {
		rnd := rand.New(rand.NewPCG(l.c.plan.seed, uint64(100+i)))
		l.wg.Go(func() { l.client(ctx, rnd, pace) })
	}
	rnd := rand.New(rand.NewPCG(l.c.plan.seed, 99))
	l.wg.Go(func() {
		for tick := time.NewTicker(endEvery * time.Duration(slow)); ; {
			select {
			case <-tick.C:
				l.endSession(rnd)
			case <-ctx.Done():
				return
			}
		}
	})
}

// end stops logins and all, and waits for what is under way.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
	l.writers.Wait()
}

// client logs in one user after another, each at some satellite, and goes where
// it is sent.
func (l *load) client(ctx context.Context, rnd *rand.Rand, pace <-chan struct{}) {
	var ends []pb.LoginClient
	for _, s := range l.c.sats {
		cc, err := grpc.NewClient("unix:"+l.c.path(s.name), grpc.WithTransportCredentials(session.ClientCredentials()), grpc.WithNoProxy(), grpc.WithIdleTimeout(0))
		if err != nil {
			l.c.note("client: %v", err)
			return
		}
		defer cc.Close()
		ends = append(ends, pb.NewLoginClient(cc))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace:
		}
		user := "u" + strconv.Itoa(1+rnd.IntN(l.users))
		n := rnd.IntN(len(ends))
		for range 2 {
			opened, to, err := login(ctx, ends[n], user)
			switch {
			case err != nil && ctx.Err() == nil:
				l.refused(err)
			case err == nil && l.busy.Load():
				l.logins.Add(1)
			}
			if opened != nil && !opened.Existing {
				l.c.note("%s has the new session %s on sat%d", user, opened.Session.Id, n+1)
			}
			if to == nil {
				break
			}
			n = -1
			for i, s := range l.c.sats {
				if s.name == to.Name {
					n = i
				}
			}
			if n < 0 {
				l.c.note("%s was sent to %s", user, to.Name)
				break
			}
		}
	}
}

// login asks for a user's desktop.
func login(ctx context.Context, at pb.LoginClient, user string) (*pb.Opened, *pb.Referred, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	stream, err := at.Open(ctx, &pb.OpenRequest{User: user})
	if err != nil {
		return nil, nil, err
	}
	for {
		reply, err := stream.Recv()
		if err == io.EOF {
			return nil, nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, nil, err
		}
		if o, r := reply.GetOpened(), reply.GetReferred(); o != nil || r != nil {
			return o, r, nil
		}
	}
}

func (l *load) refused(err error) {
	text := status.Convert(err).Message()
	text = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return 'N'
		}
		return r
	}, text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusals[text[:min(len(text), 100)]]++
}

// endSession lets an administrator end somebody's session.
func (l *load) endSession(rnd *rand.Rand) {
	user := "u" + strconv.Itoa(1+rnd.IntN(l.users))
	command := "abortuser"
	if rnd.IntN(3) == 0 {
		command = "shutdownuser"
	}
	m, err := monitor.Dial(l.c.path("sock"))
	if err != nil {
		return
	}
	defer m.Close()
	code, text, err := l.c.wish(m, command, user)
	if err == nil && code/100 == 2 && l.busy.Load() {
		l.changes.Add(1)
	}
	l.c.note("%s %s: %d %s %v", command, user, code, text, err)
}

// wish asks for the end of a user's session. Until the answer, and after a
// broken connection until now, it may be taken in.
func (c *chaosCluster) wish(m *monitor.Client, command, user string) (int, string, error) {
	w := &wish{user, sinceBoot(), windowEnd}
	c.mu.Lock()
	c.wishes = append(c.wishes, w)
	c.mu.Unlock()
	c.saw()
	late := time.AfterFunc(answerWithin, func() { m.Close() })
	code, text, err := tell(m, command+" "+user)
	c.mu.Lock()
	defer c.mu.Unlock()
	w.to = sinceBoot()
	if !late.Stop() { // a master that was frozen may still read it
		w.to += time.Minute
	}
	return code, text, err
}

// saw notes which desktops are there: on a busy machine their own last signs may
// be older.
func (c *chaosCluster) saw() {
	now, there := sinceBoot(), c.desktops()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range there {
		c.seen[sessionOf(line)] = max(c.seen[sessionOf(line)], now)
	}
}

// write lets all writers change their servers until the master is gone.
func (l *load) write() {
	for _, o := range l.oracles {
		l.writers.Go(func() {
			m, err := monitor.Dial(l.c.path("sock"))
			if err != nil {
				return
			}
			defer m.Close()
			tick := time.NewTicker(time.Second * time.Duration(len(l.oracles)) / changesWanted)
			defer tick.Stop()
			for ; o.change(m); <-tick.C {
				if l.busy.Load() {
					l.changes.Add(1)
				}
			}
		})
	}
}

// change makes one change and notes what was answered; false: nobody answers.
func (o *oracle) change(m *monitor.Client) bool {
	o.n++
	line := fmt.Sprintf("offlineserver %d reason=r%d", o.server, o.n)
	o.pending = fmt.Sprintf("offline r%d", o.n)
	if strings.HasPrefix(o.acked, "offline") && o.n%3 == 0 {
		line, o.pending = fmt.Sprintf("onlineserver %d", o.server), "online -"
	}
	code, _, err := tell(m, line)
	if err != nil {
		return false // maybe done, maybe not
	}
	if code/100 == 2 {
		o.acked = o.pending
	}
	o.pending = o.acked
	return true
}

// count begins, or ends, a time in which answers are counted.
func (l *load) count(on bool) {
	if on {
		l.began = time.Now()
	} else if l.busy.Load() {
		l.counted += time.Since(l.began)
	}
	l.busy.Store(on)
}

// compare holds what is there against what was acknowledged (S5).
func (l *load) compare() {
	l.c.t.Helper()
	maybe := 0
	for _, o := range l.oracles {
		id := strconv.Itoa(o.server)
		got := l.c.value("state", "server", id) + " " + l.c.value("reason", "server", id)
		if got != o.acked && got != o.pending {
			l.c.t.Errorf("S5: server %d is %q; acknowledged was %q, asked was %q\n%s", o.server, got, o.acked, o.pending, l.c.timeline(sinceBoot()-10*time.Second, windowEnd))
		}
		if o.acked != o.pending {
			maybe++
		}
		o.acked, o.pending = got, got
	}
	l.c.note("%d changes were under way at the kill", maybe)
}

// enough fails where there was so little load that nothing is proven: a tenth of
// what is wanted, since this computer may be slow, is still far from idle.
func (l *load) enough(t *testing.T, logins, changes float64) {
	t.Helper()
	s := l.counted.Seconds()
	gotLogins, gotChanges := float64(l.logins.Load())/s, float64(l.changes.Load())/s
	t.Logf("%.1f logins and %.1f changes a second for %.1f s; refused: %v", gotLogins, gotChanges, s, l.refusals)
	if gotLogins < logins/10 || gotChanges < changes/10 {
		t.Errorf("%.1f logins and %.1f changes a second, wanted are %.0f and %.0f: this proves little", gotLogins, gotChanges, logins, changes)
	}
}

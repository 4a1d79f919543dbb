// Package link is the satellite's end of the link to the master: it connects,
// tells what runs here, carries out orders, and starts again for ever.
//
// One connection is one value. When anything about it fails, all of it is
// closed and a new one is made after a delay with jitter; it is never repaired.
// Calls beside the stream (Refer, Claim) belong to the connection that was up
// when they began and fail with it.
package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// How a new connection is delayed after a failure: a random time up to a bound
// that grows, so that satellites do not come back all at once (V-40).
const (
	firstDelay = time.Second
	delayGrow  = 1.6
	maxDelay   = 5 * time.Second

	// welcomeWithin bounds the wait for the first answer of a master.
	welcomeWithin = 15 * time.Second
)

// Host is what the link needs from the rest of the satellite.
type Host interface {
	// Journal names the journal that the inventory comes from.
	Journal() string
	// Hello returns the inventory for a new link. From now on only answers
	// that were asked on this link count.
	Hello(link uint64) News
	// News returns what is here now and what has come since the version given.
	News(since uint64) News
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
	// Sample measures the load.
	Sample() *pb.Load
	// Order carries out an order, without waiting for what comes of it.
	Order(o *pb.SessionOrder) error
	// Epoch returns the highest epoch that was ever obeyed, and Obey notes a
	// higher one durably.
	Epoch() uint64
	Obey(epoch uint64) error
	// Uptime is the time since the computer started, suspended time included:
	// a lease must not outlive a suspend.
	Uptime() time.Duration
	// Lease tells that the desktops may run on for self after the Uptime
	// given; self 0: for ever.
	Lease(from, self time.Duration)
}

// Config is everything a Link needs.
type Config struct {
	// Masters are tried in turn, each as host:port.
	Masters []string
	Dial    []grpc.DialOption
	Host    Host
	Facts   *pb.HostFacts
	Address string        // where clients reach this satellite
	Peer    func() string // host:port where other satellites reach it, empty: they do not; nil: never
	Trust   Trust         // nil: no trust bundles are taken
	Version string
	// Instance is random and new at each start of the program.
	Instance string
	Log      zerolog.Logger
	// Jitter is the part of the longest delay, 0 to 1, after which a new
	// connection is made. The default is random.
	Jitter func() float64
	// Revoked is told why a master of the own cluster refuses this machine for
	// good; the link is not tried again then. Nil: it is.
	Revoked func(why string)
}

// Link keeps one connection to the master. Use New, then Run.
type Link struct {
	cfg Config

	mu      sync.Mutex  // guards what follows
	conn    *conn       // nil: down
	end     func(error) // ends the connection that is there or is being made; nil: there was none yet
	said    bool        // its hello is on the way, and says what was so by then
	down    time.Time   // since when there is no connection
	why     string      // the last failure, in words
	changed chan struct{}
	serial  uint64

	told uint64 // version of the news that were last sent; Run's goroutines alone, one after the other
}

// conn is one connection that has been welcomed.
type conn struct {
	serial     uint64
	server     uint64
	attachment uint64
	client     pb.LinkClient
	ctx        context.Context
	end        func() // for errUnknown
}

// New returns a Link that is down.
func New(cfg Config) *Link {
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	return &Link{cfg: cfg, down: time.Now(), why: "not connected yet", changed: make(chan struct{}), told: 1}
}

// Run connects, and connects again, until ctx ends or the master says that this
// machine is of the cluster no more.
func (l *Link) Run(ctx context.Context) error {
	delay := firstDelay
	for i := 0; ctx.Err() == nil; i++ {
		address := l.cfg.Masters[i%len(l.cfg.Masters)]
		welcomed, err := l.once(ctx, address)
		if ctx.Err() != nil {
			return nil
		}
		if welcomed {
			delay = firstDelay
		}
		text := "the connection ended"
		if err != nil {
			text = wire.FromStatus(err).Error()
		}
		news := l.fail(address + ": " + text)
		// Only a master that has proved to be of this cluster gets so far as to
		// send an error of this kind.
		if wire.KindOf(wire.FromStatus(err)) == wire.Revoked && l.cfg.Revoked != nil {
			l.cfg.Revoked(text)
			return nil
		}
		if errors.Is(err, errAnew) {
			l.cfg.Log.Info().Str("master", address).Msg("the link to the master is made anew: there is another certificate or address to show")
		} else if news {
			l.cfg.Log.Warn().Str("master", address).Str("error", text).Msg("no link to the master")
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(l.cfg.Jitter() * float64(delay))):
		}
		delay = min(maxDelay, time.Duration(float64(delay)*delayGrow))
	}
	return nil
}

// fail notes why there is no connection; news is whether that has changed.
func (l *Link) fail(why string) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.why != why
	l.why = why
	return news
}

// Why this end gives up a connection.
var (
	errAnew    = errors.New("this host has something else to show")
	errSilent  = fmt.Errorf("the master has not answered within %v", welcomeWithin)
	errUnknown = errors.New("the outcome of a login is not known, the next connection settles it")
)

// once is the whole life of one connection.
func (l *Link) once(ctx context.Context, address string) (welcomed bool, err error) {
	ctx, give := context.WithCancelCause(ctx)
	end := func() { give(nil) }
	defer func() {
		if cause := context.Cause(ctx); (status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled)) && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		end()
	}()
	l.begin(give)
	cc, err := grpc.NewClient("passthrough:///"+address, l.cfg.Dial...)
	if err != nil {
		return false, err
	}
	defer cc.Close()
	client := pb.NewLinkClient(cc)
	stream, err := client.Attach(ctx)
	if err != nil {
		return false, err
	}
	serial := l.speak()
	news := l.cfg.Host.Hello(serial)
	sent := l.cfg.Host.Uptime()
	hello := Hello(l.cfg.Version, l.cfg.Address, l.cfg.Instance, l.cfg.Host.Journal(), l.cfg.Host.Epoch(), l.cfg.Facts, l.cfg.Host.Sample(), news)
	l.complete(hello)
	err = stream.Send(&pb.Up{Kind: &pb.Up_Hello{Hello: hello}})
	timer := time.AfterFunc(welcomeWithin, func() { give(errSilent) })
	first, rerr := stream.Recv()
	timer.Stop()
	if rerr != nil { // says more than the error of Send
		return false, rerr
	}
	if err != nil {
		return false, err
	}
	w, err := Welcomed(first, l.cfg.Host.Epoch())
	if err != nil {
		return false, err
	}
	if err := l.cfg.Host.Obey(w.Epoch); err != nil {
		return false, err
	}
	l.cfg.Host.Lease(sent, Self(w))
	if text := Skew(w, time.Now()); text != "" {
		l.cfg.Log.Warn().Str("master", address).Msg(text)
	}
	c := &conn{serial: serial, server: w.ServerId, attachment: w.Attachment, client: client, ctx: ctx, end: func() { give(errUnknown) }}
	l.set(c)
	defer l.unset(c)
	l.cfg.Log.Info().Str("master", address).Uint64("server", w.ServerId).Uint64("epoch", w.Epoch).Msg("connected to the master")

	r := &reporter{link: l, stream: stream, results: make(chan *pb.Result, maxResults), pace: make(chan *pb.Pace, 4), acks: make(chan *pb.TrustAck), end: NewEnd(w, l.told)}
	reported := make(chan error, 1)
	go func() { reported <- r.run(ctx, w.Pace); end() }()
	err = r.receive(c)
	end()
	if rerr := <-reported; rerr != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = rerr
	}
	return true, err
}

// begin notes how to end a connection before anything of this host goes into it.
func (l *Link) begin(end func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.said = end, false
}

// speak begins a hello. It returns the number of its connection.
func (l *Link) speak() (serial uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = true
	l.serial++
	return l.serial
}

func (l *Link) set(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = c
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) unset(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == c {
		l.conn, l.down = nil, time.Now()
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Status tells whether the link is up, since when it is not, and why.
func (l *Link) Status() (up bool, down time.Time, why string, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil, l.down, l.why, l.changed
}

// ErrDown is returned by calls while there is no link.
var ErrDown = wire.Errorf(wire.Unreachable, "there is no link to the master")

// Referral is the master's answer to a login.
type Referral struct {
	*pb.ReferReply
	Here bool // the place is on this satellite
}

// Refer asks the master where a user is or should be.
func (l *Link) Refer(ctx context.Context, r *pb.ReferRequest) (Referral, error) {
	c := l.current()
	if c == nil {
		return Referral{}, ErrDown
	}
	ctx, cancel := c.call(ctx)
	defer cancel()
	r.Attachment = c.attachment
	reply, err := c.client.Refer(ctx, r)
	if err != nil {
		return Referral{}, wire.FromStatus(err)
	}
	return Referral{reply, reply.ServerId == c.server}, nil
}

// Claim consumes the reservation of a user here. link names the connection on
// which the answer counts. Where the outcome is not known the connection is
// ended: the inventory of the next one settles it.
func (l *Link) Claim(ctx context.Context, user string, uid uint32) (reply *pb.ClaimReply, link uint64, err error) {
	c := l.current()
	if c == nil {
		return nil, 0, ErrDown
	}
	// A user who leaves meanwhile does not end the call: it would end the link.
	ctx, cancel := c.call(context.WithoutCancel(ctx))
	defer cancel()
	reply, err = c.client.Claim(ctx, &pb.ClaimRequest{User: user, Uid: uid, Attachment: c.attachment})
	if err != nil {
		if err = wire.FromStatus(err); ClaimUnknown(err) {
			c.end()
		}
		return nil, 0, err
	}
	return reply, c.serial, nil
}

// Break ends the present connection, or the one being made: something about it
// cannot be trusted any more, or this host has another certificate.
func (l *Link) Break() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		l.end(errAnew)
	}
}

// Restate makes the master be told anew what this host is: like Break, but a
// connection whose hello is still to come may go on.
func (l *Link) Restate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil && l.said {
		l.end(errAnew)
	}
}

func (l *Link) current() *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// call is the context of a call beside the stream: it ends with the caller's,
// with the connection, or after CallWithin.
func (c *conn) call(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, CallWithin)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

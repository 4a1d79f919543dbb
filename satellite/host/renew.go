package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
)

// lookEvery is how often a certificate is looked at while nothing is due: the
// clock may be set, and a computer that was suspended does not notice the time.
const lookEvery = time.Minute

// renewWithin is how long a master may take.
const renewWithin = 30 * time.Second

// RenewerConfig is everything a Renewer needs.
type RenewerConfig struct {
	Credentials *wire.Credentials
	Masters     []string // host:port, tried in turn
	// Dial and Rejoin are the options of connections to a master, with the
	// present certificate and with one that has ended. The defaults are those of
	// wire.
	Dial, Rejoin []grpc.DialOption
	// Install makes a new certificate with its key the own one, and takes the
	// trust bundle that came with it, as Trust.Install does; required.
	Install func(identityPEM []byte, bundle *pb.SignedTrust) error
	Log     zerolog.Logger

	Now    func() time.Time // the default is time.Now
	Random func() float64   // from 0 to 1; the default is random
}

// Renewer keeps the certificate of a satellite from ending, and gets a new one
// where it has ended while the host was off. Use NewRenewer, then Run.
type Renewer struct {
	cfg  RenewerConfig
	soon chan struct{}
	told string // what was logged last
}

// NewRenewer returns a Renewer that does nothing yet.
func NewRenewer(cfg RenewerConfig) (*Renewer, error) {
	if cfg.Credentials == nil || len(cfg.Masters) == 0 || cfg.Install == nil {
		return nil, errors.New("renewer: RenewerConfig needs Credentials, Masters and Install")
	}
	if cfg.Dial == nil {
		cfg.Dial = wire.DialOptions(cfg.Credentials)
	}
	if cfg.Rejoin == nil {
		cfg.Rejoin = wire.RejoinDialOptions(cfg.Credentials)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	return &Renewer{cfg: cfg, soon: make(chan struct{}, 1)}, nil
}

// Soon makes the certificate be renewed now, whatever its age: another authority
// issues from now on. It does not wait.
func (r *Renewer) Soon() {
	select {
	case r.soon <- struct{}{}:
	default:
	}
}

// Run renews until ctx ends, or until a master of the own cluster says that this
// identity is of it no more: revoked is told why.
func (r *Renewer) Run(ctx context.Context, revoked func(why string)) error {
	from, until := r.cfg.Credentials.Valid()
	due := RenewAt(from, until, r.cfg.Random())
	select {
	case <-time.After(AtStart(Due(from, until, due, r.cfg.Now()), r.cfg.Random())):
	case <-ctx.Done():
	}
	tries := 0
	for ctx.Err() == nil {
		from, until = r.cfg.Credentials.Valid()
		need := Due(from, until, due, r.cfg.Now())
		wait := lookEvery
		switch need {
		case Early:
			r.failed(need, nil)
		case Renew, Rejoin:
			tries++
			err := r.renew(ctx, need, tries)
			if ctx.Err() != nil {
				return nil
			}
			if wire.KindOf(err) == wire.Revoked {
				revoked(err.Error())
				return nil
			}
			if err == nil {
				tries = 0
				from, until = r.cfg.Credentials.Valid()
				due = NextRenewal(from, until, r.cfg.Now(), r.cfg.Random())
				r.told = ""
				continue
			}
			r.failed(need, err)
			wait = Again(need, tries, err, r.cfg.Random())
		}
		select {
		case <-ctx.Done():
		case <-r.soon:
			due, tries = r.cfg.Now(), 0
		case <-time.After(wait):
		}
	}
	return nil
}

// failed logs why there is no new certificate, each reason once. While the old
// one is good for long that is no more than news; Credentials.Remind warns of its
// end.
func (r *Renewer) failed(need Need, err error) {
	level, text := zerolog.InfoLevel, "the certificate of this host could not be renewed yet"
	switch {
	case need == Early:
		level, text = zerolog.ErrorLevel, "the clock is wrong, or the certificate of this host"
	case need == Rejoin && Answered(err):
		level, text = zerolog.ErrorLevel, "the certificate of this host has expired, and the master makes no new one for it; running desktops go on"
	case need == Rejoin:
		level, text = zerolog.WarnLevel, "the certificate of this host has expired, and no new one could be asked for yet"
	case Answered(err):
		level, text = zerolog.WarnLevel, "the master does not renew the certificate of this host"
	}
	why := text
	if err != nil {
		why += err.Error()
	}
	if r.told == why {
		return
	}
	r.told = why
	e := r.cfg.Log.WithLevel(level)
	if err != nil {
		e = e.Err(err)
	}
	if invalid := r.cfg.Credentials.Check(); invalid != nil { // tells both times
		e = e.AnErr("certificate", invalid)
	}
	e.Msg(text)
}

// renew gets a certificate for a new key and makes it the host's own.
func (r *Renewer) renew(ctx context.Context, need Need, try int) error {
	key, csr, err := wire.NewRequest()
	if err != nil {
		return err
	}
	reply, err := r.ask(ctx, need, r.cfg.Masters[(try-1)%len(r.cfg.Masters)], &pb.RenewRequest{Csr: csr, NowUnixMs: r.cfg.Now().UnixMilli()})
	if err != nil {
		return err
	}
	own, err := identity(reply, key)
	if err == nil {
		err = r.cfg.Install(own, reply.GetTrust())
	}
	if err != nil {
		return fmt.Errorf("the certificate that the master has made: %w", err)
	}
	_, until := r.cfg.Credentials.Valid()
	r.cfg.Log.Info().Time("until", until).Str("serial", r.cfg.Credentials.Serial()).Msg("the certificate of this host was renewed")
	return nil
}

// ask asks one master over a connection of its own.
func (r *Renewer) ask(ctx context.Context, need Need, master string, q *pb.RenewRequest) (*pb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	dial, call := r.cfg.Dial, pb.EnrolmentClient.Renew
	if need == Rejoin {
		dial, call = r.cfg.Rejoin, pb.EnrolmentClient.Rejoin
	}
	cc, err := grpc.NewClient("passthrough:///"+master, dial...)
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	reply, err := call(pb.NewEnrolmentClient(cc), ctx, q)
	return reply, wire.FromStatus(err)
}

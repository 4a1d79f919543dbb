package host

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// joinWithin is how long the master may take to register a host.
const joinWithin = 30 * time.Second

// join sends the request and makes the answer this host's own. again is for a
// password that was mistyped.
func (r *registrar) join(ctx context.Context) (again bool, err error) {
	if err := makeDir(r.dir); err != nil {
		return false, err
	}
	p, repeated, err := begin(r.dir, r.pin, r.name, r.server)
	if err != nil {
		return false, fmt.Errorf("the key of this host: %w", err)
	}
	if repeated {
		r.say("A registration was begun here before and its answer has not come: it is repeated with the same key.")
	}
	r.say("Registering %s (%s) at %s.", r.name, r.reached, r.server)
	sent := time.Now()
	var seen contact
	reply, err := during(r.talk, "Waiting for the master to register this host", func() (*pb.JoinReply, error) { return r.send(ctx, p, &seen) })
	if err == nil {
		return false, r.finish(ctx, p, reply, sent)
	}
	if Settled(err) || !seen.Load() {
		if !repeated { // what was begun before may have come to something
			if err := forget(r.dir); err != nil {
				return false, err
			}
		}
		if wire.KindOf(err) == wire.Denied && r.asked {
			r.say("%s.", sentence(err))
			r.known.Secret = false
			return true, nil
		}
		return false, ended(ctx, err)
	}
	const repeat = "whether the master has registered this host is not known: run \"verdecmd register\" again in the same way, it goes on with the same key"
	if ctx.Err() != nil {
		return false, errors.New("interrupted; " + repeat)
	}
	return false, fmt.Errorf("%w; %s", err, repeat)
}

// send asks the master for a certificate, once it has proved to be of the
// authority with the fingerprint.
func (r *registrar) send(ctx context.Context, p pending, seen *contact) (*pb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+r.server, append(wire.JoinDialOptions(r.pin, time.Now), grpc.WithStatsHandler(seen))...)
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	q := &pb.JoinRequest{Csr: p.csr, Name: r.name, Address: r.reached, Version: r.version, Arch: machine(), NowUnixMs: time.Now().UnixMilli()}
	if r.token != "" {
		q.Proof = &pb.JoinRequest_Token{Token: r.token}
	} else {
		q.Proof = &pb.JoinRequest_Password{Password: r.secret}
	}
	reply, err := pb.NewEnrolmentClient(cc).Join(ctx, q)
	return reply, wire.FromStatus(err)
}

// contact tells whether a connection to the right master ever stood: before that
// nothing can have been sent. It implements stats.Handler.
type contact struct{ atomic.Bool }

// HandleConn is called when a connection stands, and when it has ended.
func (c *contact) HandleConn(context.Context, stats.ConnStats) { c.Store(true) }

// TagConn does nothing.
func (*contact) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC does nothing.
func (*contact) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC does nothing.
func (*contact) HandleRPC(context.Context, stats.RPCStats) {}

// machine is the computer's, as uname -m.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// finish makes a certificate that was given this host's own.
func (r *registrar) finish(ctx context.Context, p pending, reply *pb.JoinReply, sent time.Time) error {
	came := time.Now()
	if err := installReply(r.dir, p, reply); err != nil {
		return fmt.Errorf("the master's answer: %w; when that is put right, run \"verdecmd register\" again in the same way", err)
	}
	if err := Reinstate(settings.SatelliteDir(r.values)); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return fmt.Errorf("this host is registered, but the settings could not be written: %w; write there: verdecmd settings set %s %s", err, settings.CMAddr, r.manager)
	}
	if err := forget(r.dir); err != nil {
		return err
	}
	c, err := wire.Load(r.dir, wire.Satellite)
	if err != nil {
		return err
	}
	_, until := c.Valid()
	r.say("\n%s is registered: server %d of cluster %s. Its certificate is valid until %s and renews itself.", wire.Clean(reply.Name, 255), reply.ServerId, reply.Cluster, until.Local().Format(time.DateOnly))
	if reply.Replaced {
		r.say("It has taken the place of the machine that was server %d before.", reply.ServerId)
	}
	if ahead := Ahead(sent, came, time.UnixMilli(reply.NowUnixMs)); ahead != 0 {
		r.say("The master's clock is %s this host's: a time service (chrony, systemd-timesyncd) on both keeps them together.", wire.Apart(ahead))
	}
	r.say("Checking this host.")
	v, err := settings.Load(r.settings)
	if err == nil {
		err = MakeSnapDir(v)
	}
	if err == nil {
		err = r.check(ctx, r.talk, v)
	}
	if err != nil {
		r.say("The checks could not be made: %v. \"verdecmd doctor\" makes them later.", err)
	}
	r.start()
	return nil
}

// start says how to start the satellite.
func (r *registrar) start() {
	how := "verdecmd satellite"
	if r.settings != settings.DefaultPath {
		how += " --settings " + r.settings
	} else if _, err := os.Stat("/run/systemd/system"); err == nil {
		how = "systemctl enable --now verdecmd-satellite (restart it where it runs already)"
	}
	r.say("Start the satellite: %s", how)
}

// installReply puts the certificate that was given for a key into its place.
func installReply(dir string, p pending, reply *pb.JoinReply) error {
	own, err := identity(reply, p.key)
	if err != nil {
		return err
	}
	return install(dir, reply.GetRoots(), own, func(c *wire.Credentials) error {
		pinned := false
		for _, der := range c.Roots() {
			pinned = pinned || sha256.Sum256(der) == p.ca
		}
		switch {
		case !pinned:
			return errors.New("the authority whose fingerprint was confirmed is not among those that it names")
		case c.Identity.Cluster != reply.Cluster || c.Identity.ID != reply.Id:
			return fmt.Errorf("the certificate is that of %s in cluster %s, not what the answer says", c.Identity, c.Identity.Cluster)
		}
		return c.Check()
	})
}

// identity is the certificate of an answer with the key that it was asked for.
func identity(reply *pb.JoinReply, key *ecdsa.PrivateKey) ([]byte, error) {
	block, _ := pem.Decode(reply.GetCertificate())
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it holds no certificate")
	}
	return wire.IdentityPEM(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}), key)
}

// came tells whether the certificate for what was begun is in its place.
func came(dir string, p pending) bool {
	b, err := os.ReadFile(filepath.Join(dir, wire.IdentityFile))
	if err != nil {
		return false
	}
	want, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return false
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" && bytes.Equal(block.Bytes, want) {
			return true
		}
	}
	return false
}

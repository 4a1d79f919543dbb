package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"verdecmd/proto/wire"
	"verdecmd/settings"
	"verdecmd/settings/address"
)

// request is what somebody wants who registers this host. What is empty is
// asked, or found out.
type request struct {
	settings     string // the settings file
	manager      string // address of the master
	name         string // of this host
	address      string // where clients reach it
	tokenFile    string
	passwordFile string
	fingerprint  string // of the cluster's authority
	again        bool   // though it is registered
	offer        bool   // to do it again
	alone        bool   // nobody is asked anything
}

// registrar registers this host.
type registrar struct {
	request
	examiner
	*talk

	values  *settings.Values
	dir     string // of the credentials
	reached string // where clients reach this host
	known   Known
	server  string // the master, host:port
	pin     [32]byte
	token   string // or
	secret  string // the manager's password
	asked   bool   // for the password: it may be mistyped

	held *os.File // keeps this host's satellite from starting meanwhile; nil: nothing needs to
}

// register does what was asked for, with questions about what is missing. It
// leaves everything as it was, or a host that is registered; or, where the answer
// of the master was lost, what is needed to ask again.
func (r *registrar) register(ctx context.Context) error {
	defer r.release()
	if done, err := r.prepare(ctx); done || err != nil {
		return err
	}
	for {
		var err error
		switch Next(r.known) {
		case AskManager:
			err = r.askManager(ctx)
		case Look:
			err = r.look(ctx)
		case Confirm:
			err = r.confirmPin(ctx)
		case AskSecret:
			err = r.askSecret(ctx)
		case Join:
			var again bool
			if again, err = r.join(ctx); err == nil && !again {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// prepare looks at what was given and at what is here. done is for a host that
// is registered already.
func (r *registrar) prepare(ctx context.Context) (done bool, err error) {
	if r.tokenFile != "" && r.passwordFile != "" {
		return false, errors.New("a token and a password were given: one is enough, leave out --token-file or --password-file")
	}
	if r.values, err = settings.Load(r.settings); err != nil {
		return false, err
	}
	if r.name == "" {
		if r.name, err = os.Hostname(); err != nil {
			return false, fmt.Errorf("this host's name: %w; give one with --name", err)
		}
	}
	r.name = strings.ToLower(r.name)
	if r.reached, err = r.public(ctx); err != nil {
		return false, err
	}
	if err := r.secrets(); err != nil {
		return false, err
	}
	if r.manager != "" {
		if err := r.at(r.manager); err != nil {
			return false, err
		}
	} else if r.alone {
		if r.manager = r.usual(); r.manager == "" {
			return false, fmt.Errorf("the master's address is missing: --manager ADDRESS, or %s in %s", settings.CMAddr, r.values.Path())
		}
		if err := r.at(r.manager); err != nil {
			return false, err
		}
	}
	r.dir = PKI(r.values)
	return r.already(ctx)
}

// secrets reads token, password and fingerprint that were given.
func (r *registrar) secrets() (err error) {
	if r.fingerprint != "" {
		if r.pin, err = wire.ParseFingerprint(r.fingerprint); err != nil {
			return err
		}
		r.known.Pinned = true
	}
	if r.tokenFile != "" {
		if r.token, err = readSecret(r.tokenFile, "token", r.in); err != nil {
			return err
		}
		r.token = tokenIn(r.token)
		t, err := wire.ParseToken(r.token)
		if err != nil {
			return err
		}
		if r.known.Pinned && r.pin != t.CA {
			return fmt.Errorf("the token is of the authority %s, --ca-sha256 names another: nothing was sent", wire.FormatFingerprint(t.CA))
		}
		r.pin = t.CA
		r.known.Pinned, r.known.Secret = true, true
	}
	if r.passwordFile != "" {
		if r.secret, err = readSecret(r.passwordFile, "password", r.in); err != nil {
			return err
		}
		r.known.Secret = true
	}
	switch {
	case !r.alone:
	case !r.known.Secret:
		return errors.New("there is nobody to ask for the password here: hand over --token-file or --password-file")
	case !r.known.Pinned:
		return errors.New("there is nobody to ask whether the master is the right one: a password needs --ca-sha256 FINGERPRINT beside it (a token has it inside)")
	}
	return nil
}

// at takes the master's address.
func (r *registrar) at(address string) error {
	host, port, err := settings.SplitAddress(address, settings.MasterPort)
	if err != nil {
		return fmt.Errorf("the master's address: %w", err)
	}
	r.manager, r.server, r.known.Manager = address, net.JoinHostPort(host, strconv.Itoa(port)), true
	return nil
}

// usual is where the settings say that the master is, or nothing.
func (r *registrar) usual() string {
	if list := r.values.String(settings.CMAddr); list != "" {
		first, _, _ := strings.Cut(list, ",")
		return strings.TrimSpace(first)
	}
	if all, err := address.New(r.values).Masters(); err == nil { // on the master itself
		return all[0]
	}
	return ""
}

// already looks whether this host is registered, and is to stay so.
func (r *registrar) already(ctx context.Context) (done bool, err error) {
	p, err := readPending(r.dir)
	anew := r.again || !errors.Is(err, fs.ErrNotExist)
	if err == nil && came(r.dir, p) { // cut off near the end
		if err := r.at(p.manager); err != nil {
			return false, err
		}
		if err := r.settle(); err != nil {
			return false, err
		}
		if err := forget(r.dir); err != nil {
			return false, err
		}
		anew = r.again
	}
	state := settings.SatelliteDir(r.values)
	c, err := wire.Load(r.dir, wire.Satellite)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case anew:
		return false, r.hold(state)
	case err != nil:
		return false, fmt.Errorf("this host has credentials that cannot be used: %w; --again registers it anew", err)
	}
	if _, is, err := IsSuperseded(state, c.Identity); err != nil {
		return false, err
	} else if is {
		return false, r.hold(state)
	}
	if t, err := wire.ParseToken(r.token); err == nil && t.Cluster != c.Identity.Cluster {
		return false, fmt.Errorf("this host is registered in cluster %s, the token is of cluster %s: --again leaves the one for the other", c.Identity.Cluster, t.Cluster)
	}
	_, until := c.Valid()
	r.say("This host is registered already, as %s of cluster %s, with a certificate until %s that renews itself.",
		c.Identity.Name, c.Identity.Cluster, until.Local().Format(time.DateOnly))
	if !r.offer {
		r.say("Nothing to do; --again registers it anew.")
		return true, nil
	}
	if anew, err = r.confirm(ctx, "Register it anew?"); err == nil && anew {
		err = r.hold(state)
	}
	return !anew, err
}

// hold makes sure that this host's satellite does not run and is not started
// before the end: it would go on with the identity of before, and put that one's
// next certificate over the new one.
func (r *registrar) hold(stateDir string) (err error) {
	if r.held, err = HoldDir(stateDir); errors.Is(err, ErrHeld) {
		return fmt.Errorf("%w, with the certificate of before: stop it first (systemctl stop verdecmd-satellite)", err)
	}
	return err
}

// release ends hold.
func (r *registrar) release() {
	if r.held != nil {
		r.held.Close()
	}
}

func (r *registrar) askManager(ctx context.Context) error {
	for {
		address, err := r.ask(ctx, "Manager's address", r.usual())
		if err != nil {
			return err
		}
		if err := r.at(address); err == nil {
			return nil
		} else if r.terminal == nil {
			return err
		} else {
			r.say("%v", sentence(err))
		}
	}
}

// look reads who answers there.
func (r *registrar) look(ctx context.Context) error {
	shown, err := during(r.talk, "Waiting for the master at "+r.server, func() (wire.Shown, error) { return wire.Look(ctx, r.server) })
	if err != nil {
		return ended(ctx, err)
	}
	r.pin, r.known.Shown = shown.Fingerprint, true
	groups := strings.Fields(wire.FormatFingerprint(shown.Fingerprint))
	r.say("\nThe master at %s shows this:\n  Master       %s\n  Cluster      %s\n  Fingerprint  %s\n               %s\n", r.server,
		wire.Clean(shown.Name, 255), shown.Cluster, strings.Join(groups[:len(groups)/2], " "), strings.Join(groups[len(groups)/2:], " "))
	return nil
}

// confirmPin asks whether that is the cluster that is meant.
func (r *registrar) confirmPin(ctx context.Context) error {
	r.say("On the master, \"verdecmd fingerprint\" shows the same if nobody is in between.")
	yes, err := r.confirm(ctx, "Is this the fingerprint of your cluster?")
	if err != nil {
		return err
	}
	if !yes {
		return errors.New("not confirmed: nothing was sent, and nothing was changed here")
	}
	r.known.Pinned = true
	return nil
}

func (r *registrar) askSecret(ctx context.Context) (err error) {
	r.asked = true
	if r.secret, err = r.talk.secret(ctx, "Manager's password"); err != nil {
		return err
	}
	if r.secret == "" {
		return errors.New("no password: nothing was sent, and nothing was changed here")
	}
	r.known.Secret = true
	return nil
}

// settle writes into the settings file where the master is, and by which address
// clients reach this host where that was given.
func (r *registrar) settle() error {
	masters, _ := address.New(r.values).Masters() // the error is that there are none
	return settings.Edit(r.values.Path(), func(f *settings.File) error {
		if !slices.Contains(masters, r.server) {
			if err := f.Set(settings.CMAddr, r.manager); err != nil {
				return err
			}
		}
		if r.address == "" || r.values.String(settings.PubAddr) == r.address {
			return nil
		}
		return f.Set(settings.PubAddr, r.address)
	})
}

// public is by which address clients reach this host, as its satellite will say.
func (r *registrar) public(ctx context.Context) (string, error) {
	name, err := os.Hostname()
	if err != nil {
		name = r.name
	}
	v := r.values
	if r.address != "" { // as if it were written already
		f, err := settings.ParseFile("--address", nil)
		if err == nil {
			err = f.Set(settings.PubAddr, r.address)
		}
		if err == nil {
			v, err = settings.Parse("--address", f.Bytes())
		}
		if err != nil {
			return "", err
		}
	}
	public, remarks, err := address.New(v).Public(ctx, name)
	for _, text := range remarks {
		r.say("Note: %s.", text)
	}
	return public, err
}

// ended tells that somebody wanted the end, where that is why something failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// errInterrupted: Ctrl-C, or the program was told to end.
var errInterrupted = errors.New("interrupted; nothing was changed here")

// sentence is an error for somebody who reads it between others.
func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

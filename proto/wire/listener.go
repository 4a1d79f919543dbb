package wire

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds are what a port bears, RELIABILITY 1.2. A stranger is a connection
// that has not proved an identity yet; IPv6 addresses are counted by /64.
type Bounds struct {
	Total      int // connections at once; required
	PerAddress int // strangers at once from one address; required

	// Report gets the refusals, few of them in a flood; may be nil.
	Report Reporter
}

// The other bounds. What is proved gives back what it has taken, so that none of
// them is met by a cluster whose satellites all come back at once.
const (
	// Connections of one address that prove nothing.
	addressRate, addressBurst = 10, 64
	// Handshakes of all strangers, but for addresses that have proved an
	// identity lately: each costs about a millisecond of a processor.
	handshakeRate, handshakeBurst = 200, 2000
	lately                        = 10 * time.Minute
	// Connections of one identity: at once, and how often new ones may come.
	identityConns               = 16
	identityRate, identityBurst = 1, 32
	// What a stranger may send at all, and a satellite by all its connections in
	// the long run and at once: a list of 200 sessions has about 40 KiB, one of
	// 4096, the longest, 1 MiB. A call counts as so many bytes more: 2000 logins
	// at once, 200 a second.
	strangerBytes                 = 64 << 10
	satelliteRate, satelliteBurst = 512 << 10, 4 << 20
	callBytes                     = 2 << 10
)

// Limit keeps what comes in on l within the bounds. The proof that makes a
// satellite of a stranger comes from the credentials in ServerOptions.
//
// Where all places for strangers, half of the total, are taken, the oldest of
// those that have not even begun a handshake makes way: silence costs an
// attacker nothing, and keeps nobody out.
//
// When the program starts, all satellites come back at once and none has proved
// anything yet: so there are handshakes for all places, once.
func Limit(l net.Listener, b Bounds) net.Listener {
	strangers := max(1, b.Total/2)
	extra := max(0, float64(strangers)-handshakeBurst)
	return &limitListener{Listener: l, bounds: b, strangers: strangers, refused: &throttle{to: b.Report}, silent: list.New(),
		addresses: map[string]*origin{}, identities: map[string]*member{}, handshakes: Bucket{Rate: handshakeRate, Burst: handshakeBurst, Extra: extra}}
}

type limitListener struct {
	net.Listener
	bounds    Bounds
	strangers int // at most
	refused   *throttle

	mu         sync.Mutex // guards all below
	open       int
	unproved   int
	silent     *list.List // of *limitConn that have not begun a handshake, the oldest first
	lingering  int
	addresses  map[string]*origin
	sweep      int // when so many addresses are known, those without news are forgotten
	identities map[string]*member
	handshakes Bucket
}

// origin is an address from which connections come.
type origin struct {
	unproved, proved int // open
	failures         Bucket
	proof            time.Time // the last
}

// member is a machine of the cluster, by its certificate.
type member struct {
	open  int
	comes Bucket
	bytes *pace // of all its connections
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		lc := &limitConn{paced: &paced{Conn: c, closed: make(chan struct{})}, l: l, from: address(c.RemoteAddr())}
		victim, err := l.admit(lc, time.Now())
		if victim != nil {
			victim.evict()
		}
		if err == nil {
			return lc, nil
		}
		l.refused.report(Report{What: "connection refused", Address: c.RemoteAddr().String(), Err: err})
		c.Close()
	}
}

// admit counts a connection, or tells why not. victim has lost its place to it.
func (l *limitListener) admit(c *limitConn, now time.Time) (victim *limitConn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.origin(c.from, now)
	switch {
	case l.open >= l.bounds.Total:
		return nil, fmt.Errorf("%d connections are open, that is all", l.open)
	case from.unproved >= l.bounds.PerAddress+from.proved: // a second satellite may come for each that is there
		return nil, fmt.Errorf("%d connections from %s have not proved yet who they are", from.unproved, c.from)
	case l.unproved >= l.strangers && l.silent.Len() == 0:
		return nil, fmt.Errorf("%d connections have not proved yet who they are", l.unproved)
	case !from.failures.Take(now):
		return nil, fmt.Errorf("too many connections from %s have proved nothing", c.from)
	}
	if l.unproved >= l.strangers {
		victim = l.silent.Front().Value.(*limitConn)
		l.silent.Remove(victim.place)
		victim.place = nil
	}
	l.open++
	l.unproved++
	from.unproved++
	c.place = l.silent.PushBack(c)
	return victim, nil
}

// origin finds or makes what is known of an address; l.mu is held.
func (l *limitListener) origin(from string, now time.Time) *origin {
	if o := l.addresses[from]; o != nil {
		return o
	}
	if len(l.addresses) >= l.sweep {
		for a, o := range l.addresses {
			if o.unproved == 0 && o.proved == 0 && now.Sub(o.proof) > lately && o.failures.full(now) {
				delete(l.addresses, a)
			}
		}
		for id, m := range l.identities {
			if m.open == 0 && m.comes.full(now) {
				delete(l.identities, id)
			}
		}
		l.sweep = max(1024, 2*len(l.addresses))
	}
	o := &origin{failures: Bucket{Rate: addressRate, Burst: addressBurst}}
	l.addresses[from] = o
	return o
}

var (
	errBusy  = errors.New("too many strangers begin handshakes at once")
	errConns = fmt.Errorf("this machine has %d connections already", identityConns)
	errOften = errors.New("this machine comes back too often")
)

// greeted notes that c has begun a handshake and now costs computing time.
func (l *limitListener) greeted(c *limitConn, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place == nil {
		return errBusy // its place was given away meanwhile
	}
	l.silent.Remove(c.place)
	c.place = nil
	if from := l.origin(c.from, now); from.proved > 0 || now.Sub(from.proof) <= lately {
		return nil
	}
	if !l.handshakes.Take(now) {
		return errBusy
	}
	c.charged = true
	return nil
}

// excused gives back what c has taken as a stranger: it has waited in vain for
// its turn, which is not its fault, and has cost no computing.
func (l *limitListener) excused(c *limitConn, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.charged {
		c.charged = false
		l.handshakes.Give()
	}
	l.origin(c.from, now).failures.Give()
}

// proved makes the connection one of the machine id, and gives back what it has
// taken as a stranger.
func (l *limitListener) proved(c *limitConn, id string, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.identities[id]
	if m == nil {
		m = &member{comes: Bucket{Rate: identityRate, Burst: identityBurst}, bytes: newPace(satelliteRate, satelliteBurst)}
		l.identities[id] = m
	}
	if m.open >= identityConns {
		return errConns
	}
	if !m.comes.Take(now) {
		return errOften
	}
	if c.gone || c.machine != nil {
		return net.ErrClosed
	}
	if c.charged {
		l.handshakes.Give()
	}
	from := l.origin(c.from, now)
	from.failures.Give()
	from.proof = now
	from.unproved--
	from.proved++
	l.unproved--
	m.open++
	c.machine, c.pace = m, m.bytes
	return nil
}

// left gives the places of a connection back. stranger tells whether it was one.
func (l *limitListener) left(c *limitConn, now time.Time) (stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.gone {
		return false
	}
	c.gone = true
	l.open--
	from := l.origin(c.from, now)
	if c.machine != nil {
		c.machine.open--
		from.proved--
		return false
	}
	if c.place != nil {
		l.silent.Remove(c.place)
		c.place = nil
	}
	l.unproved--
	from.unproved--
	return true
}

func address(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.String()
	}
	return ip.String()
}

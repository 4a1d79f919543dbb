// Package guard ends desktops whose lease is over when the satellite's program
// cannot: because it was killed, or stopped, and nothing starts it again.
//
// The guardian is a process of its own that outlives the program (Guard is all
// it does), and the Keeper is the part of the program that sees to it that
// there is always one. They share a piece of memory: the satellite writes there
// when the lease is over, the guardian that it is awake. Which desktops there
// are the guardian reads from the journal, in which every one is before it
// starts, and it kills none but the very process that is noted there. Guardians
// of earlier programs with the same journal are dismissed only when a new one is
// at work, so there is no moment without one; two at once do no harm, since each acts on leases alone
// that nobody has renewed.
package guard

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"verdecmd/satellite/desktop"
)

// Config is what a guardian needs.
type Config struct {
	Memory *os.File // shared with the satellite
	// Journal reads the desktops that were started here. With an error the
	// desktops are those that could be read; fs.ErrNotExist: somebody has removed
	// the journal, or put another in its place.
	Journal func() ([]Desktop, error)
	// Kill ends the process of a desktop, and no other: desktop.ErrGone where it
	// is proven that there is none.
	Kill func(Desktop) error
	// Exists is nil if the process is there, and else an error like Kill's.
	Exists func(Desktop) error
	// Alone tells whether the program that started the guardian is gone.
	Alone func() bool
	// Dismissed tells it to leave as soon as no desktop is left.
	Dismissed <-chan os.Signal
	Log       zerolog.Logger
}

// Guard looks after the lease until nothing is left to be guarded, or ctx ends.
func Guard(ctx context.Context, cfg Config) error {
	mem, err := openMemory(cfg.Memory)
	if err != nil {
		return err
	}
	defer mem.close()
	g := &guardian{cfg: cfg, mem: mem, told: map[string]bool{}, first: make(chan struct{})}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	// The journal may be on a disk that is dead: then what was read last counts.
	go g.read(stop, g.first)
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for !g.look(bootTime()) {
		select {
		case <-ctx.Done():
			return nil
		case <-cfg.Dismissed:
			g.dismissed = true
		case <-tick.C:
		case <-g.first: // the journal has been read
			g.first = nil
		}
	}
	return nil
}

type guardian struct {
	cfg       Config
	mem       *memory
	post      Post
	told      map[string]bool // sessions whose end was logged
	dismissed bool
	first     chan struct{} // closed when the journal has been read once; nil after that

	mu       sync.Mutex // guards what follows
	known    bool       // the journal was read once
	removed  bool
	desktops []Desktop
}

// read reads the journal again and again. It ends with the program.
func (g *guardian) read(ctx context.Context, first chan<- struct{}) {
	tick := time.NewTicker(Every)
	defer tick.Stop()
	said := ""
	for ctx.Err() == nil {
		found, err := g.cfg.Journal()
		if err == nil {
			said = ""
		} else if said != err.Error() {
			said = err.Error()
			g.cfg.Log.Error().Err(err).Msg("the journal of the desktops cannot be read; what was read before counts, and without that no new desktop is started here")
		}
		g.mu.Lock()
		before := g.desktops
		g.mu.Unlock()
		all := Merge(before, found, g.gone)
		g.mu.Lock()
		g.desktops, g.removed = all, errors.Is(err, fs.ErrNotExist)
		if err == nil && !g.known {
			g.known = true
			close(first)
		}
		g.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// look does what is due now and tells whether the guardian is done.
func (g *guardian) look(now time.Duration) (done bool) {
	g.mu.Lock()
	desktops, known, removed := g.desktops, g.known, g.removed
	g.mu.Unlock()
	if !known {
		return removed && g.cfg.Alone()
	}
	alone := g.cfg.Alone()
	left, leave := g.post.Look(g.mem.end(), now, alone, desktops, g.kill)
	g.mem.setBeat(now)
	if left > 0 && g.dismissed { // who wants to leave asks
		left = count(desktops, func(d Desktop) bool { return !g.gone(d) })
	}
	return leave || left == 0 && (g.dismissed || removed && alone)
}

// gone tells whether a desktop is proven to be gone.
func (g *guardian) gone(d Desktop) bool { return errors.Is(g.cfg.Exists(d), desktop.ErrGone) }

func count(desktops []Desktop, f func(Desktop) bool) (n int) {
	for _, d := range desktops {
		if f(d) {
			n++
		}
	}
	return n
}

// kill ends a desktop and tells whether it is proven to be gone.
func (g *guardian) kill(d Desktop) bool {
	err := g.cfg.Kill(d)
	if errors.Is(err, desktop.ErrGone) {
		return true
	}
	if !g.told[d.Session] {
		g.told[d.Session] = true
		log := g.cfg.Log.Error().Str("user", d.User.Name).Str("session", d.Session).Int("pid", d.Process.PID)
		if err != nil {
			log.Err(err).Msg("the lease is over and the desktop's process cannot be killed")
		} else {
			log.Msg("no lease from the master for too long and no satellite that ends the desktop, it is killed")
		}
	}
	return false
}

// bootTime is the time since the computer started, suspended time included.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // every Linux has this clock
	}
	return time.Duration(t.Nano())
}

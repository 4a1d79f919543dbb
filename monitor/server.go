package monitor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Config is what Serve needs.
type Config struct {
	Table *Table // required
	Log   zerolog.Logger

	Tuning
	Tuner   *Tuner // changes Tuning afterwards; may be nil
	Version string // for the command version; empty: what the master's Overview says

	// The limits that PROTOCOL fixes; 0 is its value. Tests set them.
	FirstByte    time.Duration // 30 s: silence after connecting
	Typing       time.Duration // 1 s: a first byte later than this makes a session
	MaxLinger    time.Duration // 60 s
	WriteTimeout time.Duration // 30 s: a client that does not read
	Progress     time.Duration // 5 s between the lines 110 of a waiting command
	StopGrace    time.Duration // 5 s for a command that is being executed when the master stops

	Human Human
	// Audit keeps a command above viewer level, or one that was denied, before
	// its reply goes out; its text has no secrets. Many connections call it at
	// once. Nil: they are logged only.
	Audit func(Audited)
	// Peer tells who is at the other end; the default asks the kernel.
	Peer func(net.Conn) (Caller, error)
	// Directory knows the names in Levels and those of callers; the default is
	// LocalFiles. Connections wait for it, those of UID 0 for the login name
	// alone.
	Directory Directory
}

func (cfg *Config) defaults() error {
	if cfg.Table == nil || cfg.Table.backend == nil {
		return errors.New("monitor: Serve needs a table with a backend")
	}
	cfg.Tuning.defaults()
	if cfg.Peer == nil {
		cfg.Peer = peer
	}
	if cfg.Directory == nil {
		cfg.Directory = LocalFiles{}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&cfg.FirstByte, 30 * time.Second},
		{&cfg.Typing, time.Second},
		{&cfg.MaxLinger, time.Minute},
		{&cfg.WriteTimeout, 30 * time.Second},
		{&cfg.Progress, 5 * time.Second},
		{&cfg.StopGrace, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return nil
}

// server is one run of Serve.
type server struct {
	cfg     Config
	log     zerolog.Logger
	looking sync.Mutex               // by who looks the names of the levels up
	looked  atomic.Pointer[lookedUp] // use levels
	stats   socketStats
	// stopping ends when the master stops: it wakes connections and waiting
	// commands. work is what commands run under; it ends StopGrace later, so
	// that a change that has begun is finished.
	stopping, work context.Context

	mu      sync.Mutex
	conns   int // guarded by mu: connections being served
	wg      sync.WaitGroup
	refused atomic.Int64 // the second of the last refusal
	// farewell bounds the connections that are refused and not yet closed.
	farewell chan struct{}
}

// Serve answers administrators on l until ctx is cancelled, and returns when
// every connection has had its last line and is closed. It closes l. The
// error is nil after a cancellation.
func Serve(ctx context.Context, l net.Listener, cfg Config) error {
	defer l.Close()
	if err := cfg.defaults(); err != nil {
		return err
	}
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	s := &server{
		cfg: cfg, stopping: stopping, work: work, farewell: make(chan struct{}, 64),
		log: cfg.Log.With().Str("part", "monitor").Logger(),
	}
	s.wg.Go(func() { s.levels() }) // what is wrong with them is in the log before somebody comes
	// Of stopping, not of ctx: accept must know why it fails.
	unlisten := context.AfterFunc(stopping, func() { l.Close() })
	defer unlisten()
	err := s.accept(l)
	stop() // also where the listener has failed
	grace := time.AfterFunc(cfg.StopGrace, abandon)
	defer grace.Stop()
	s.wg.Wait()
	return err
}

// accept takes connections until the listener is closed.
func (s *server) accept(l net.Listener) error {
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err != nil {
			if s.stopping.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("admin socket: %w", err)
			}
			// Out of descriptors or memory: those who are connected go on.
			pause = min(max(2*pause, 50*time.Millisecond), time.Second)
			s.log.Warn().Err(err).Msg("admin socket takes no connection now")
			select {
			case <-time.After(pause):
			case <-s.stopping.Done():
			}
			continue
		}
		pause = 0
		s.admit(nc)
	}
}

// kept is how many connections only UID 0 may take, PROTOCOL 7.6.
const kept = 8

// admit begins to serve a connection, or tells it why not. It never waits.
func (s *server) admit(nc net.Conn) {
	caller, err := s.cfg.Peer(nc)
	if err != nil {
		s.log.Warn().Err(err).Msg("peer of a connection is not known")
		s.refuse(nc, "credentials")
		return
	}
	limit := s.set().MaxConns
	if caller.UID != 0 {
		limit -= min(kept, limit-1)
	}
	s.mu.Lock()
	full := s.conns >= limit
	if !full {
		s.conns++
	}
	s.mu.Unlock()
	if full {
		s.stats.count(&s.stats.refused)
		if again := s.refused.Swap(time.Now().Unix()); again != time.Now().Unix() { // one line a second in a flood
			s.log.Warn().Int("uid", caller.UID).Int("pid", caller.PID).Int("limit", limit).Msg("connection refused: too many")
		}
		s.refuse(nc, "too-many")
		return
	}
	s.stats.count(&s.stats.connections)
	s.wg.Go(func() {
		defer func() {
			s.mu.Lock()
			s.conns--
			s.mu.Unlock()
		}()
		caller.name(s.cfg.Directory)
		newConn(s, nc, caller).serve()
	})
}

// refuse says 421 and closes. The peer is read out for a moment first, else
// it would be told "connection reset" in place of the reason; in a flood of
// refused connections that courtesy ends.
func (s *server) refuse(nc net.Conn, reason string) {
	r := Row{limit: stringLimit}
	r.end(421, []Pair{{"reason", reason}}, "")
	nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	nc.Write(r.buf)
	select {
	case s.farewell <- struct{}{}:
		s.wg.Go(func() {
			defer func() { <-s.farewell }()
			part(nc, time.Second)
		})
	default:
		nc.Close()
	}
}

// part closes a connection so that the peer gets the last line: it reads away
// what is waiting until the peer has closed too, for at most the given time.
func part(nc net.Conn, limit time.Duration) {
	defer nc.Close()
	if half, ok := nc.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	nc.SetReadDeadline(time.Now().Add(limit))
	var rest [4096]byte
	for {
		if _, err := nc.Read(rest[:]); err != nil {
			return
		}
	}
}

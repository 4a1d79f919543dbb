package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc/test/bufconn"

	"verdecmd/master"
	"verdecmd/master/store"
	"verdecmd/monitor"
	"verdecmd/proto/wire"
)

type simMaster struct {
	name   string
	store  *simStore
	admin  *bufconn.Listener
	cancel context.CancelFunc // nil: does not run
	done   chan error
	self   *master.Master
	life   int // guarded by simWorld.mu: grows when it dies
}

// simStore is a store in the middle of whose commits its master can be killed.
type simStore struct {
	*store.Mem
	mu  sync.Mutex
	die func() // at the next commit; guarded by mu
	did bool   // the commit is on the disk all the same; guarded by mu
}

// Commit implements store.Store.
func (s *simStore) Commit(ctx context.Context, e store.Epoch, guards []store.Guard, changes []store.Change) error {
	s.mu.Lock()
	die, did := s.die, s.did
	s.die = nil
	s.mu.Unlock()
	if die == nil {
		return s.Mem.Commit(ctx, e, guards, changes)
	}
	if did {
		if err := s.Mem.Commit(ctx, e, guards, changes); err != nil {
			return err
		}
	}
	die()
	return store.ErrUnknown // nobody hears it
}

// dieInCommit lets the master die in the middle of its next commit, before it is
// on the disk or just after. The channel is closed then; kill must follow. heard
// is called first: it may wait until what the master said before has been heard.
func (m *simMaster) dieInCommit(w *simWorld, did bool, heard func()) <-chan struct{} {
	dead := make(chan struct{})
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.did = did
	m.store.die = func() {
		heard()
		w.mu.Lock()
		m.life++
		w.mu.Unlock()
		w.net.kill(m.name)
		m.store.Restart() // whatever it still does is refused
		w.note(false, "the master dies in the middle of a commit")
		close(dead)
	}
	return dead
}

// startMaster starts a master called name, on the store of the one before.
func (w *simWorld) startMaster(name string) *simMaster {
	m := w.masters[name]
	if m == nil {
		m = &simMaster{name: name, store: &simStore{Mem: store.NewMem()}}
		w.masters[name] = m
	}
	creds, err := w.authority.Credentials(wire.Master, name, time.Now(), 24*time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	w.net.alive(name)
	m.admin = bufconn.Listen(1 << 16)
	log := zerolog.Nop()
	ctx, cancel := context.WithCancel(context.Background())
	m.self, err = master.New(ctx, master.Config{
		Monitor: m.admin, Link: w.net.listen(name), GRPC: wire.ServerOptions(creds, func(r wire.Report) { w.note(true, "%s: %v", r.What, r.Err) }),
		Store: m.store, Epoch: m.store.Epoch(), Accounts: simAccounts{}, Limits: w.limits, LeaseSelf: w.leaseSelf,
		Admin: monitor.Config{Peer: func(net.Conn) (monitor.Caller, error) { return monitor.Caller{Name: "root"}, nil },
			Human: monitor.Human{Location: time.UTC}, Log: log},
		ShutdownWait: 2 * time.Minute, LogoffWait: 2 * time.Minute, Version: "1.0", Host: name, Log: log,
	})
	if err != nil {
		cancel()
		w.t.Fatalf("master: %v", err)
	}
	m.cancel, m.done = cancel, make(chan error, 1)
	go func() { m.done <- m.self.Run(ctx) }()
	w.watch(m)
	synctest.Wait()
	return m
}

// kill ends a master at once: nothing that it does from now on is seen.
func (m *simMaster) kill(w *simWorld) {
	w.mu.Lock()
	m.life++ // nobody hears its last words
	w.mu.Unlock()
	m.store.mu.Lock()
	m.store.die = nil
	m.store.mu.Unlock()
	m.store.Restart()
	w.net.kill(m.name)
	m.cancel()
	if err := <-m.done; err != nil {
		w.t.Errorf("master %s: %v", m.name, err)
	}
	m.cancel = nil
	synctest.Wait()
}

// watch notes the events of a master while it runs.
func (w *simWorld) watch(m *simMaster) {
	if w.quiet {
		return
	}
	nc, err := m.admin.DialContext(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprint(nc, "format text\nevents on since=0\n")
	life := m.life
	go func() {
		defer nc.Close()
		in := bufio.NewScanner(nc)
		for in.Scan() {
			if text, ok := strings.CutPrefix(in.Text(), "650 "); ok {
				w.mu.Lock()
				dead := m.life != life
				w.mu.Unlock()
				if !dead {
					w.note(true, "%s", text[len("00:00:00 "):])
				}
			}
		}
	}()
}

// ask sends one command to a master and returns the reply.
func (m *simMaster) ask(line string) []string { return ask(m.admin, line) }

func ask(on *bufconn.Listener, line string) []string {
	nc, err := on.DialContext(context.Background())
	if err != nil {
		return []string{err.Error()}
	}
	defer nc.Close()
	fmt.Fprintf(nc, "format text\n%s\nquit\n", line)
	var out []string
	in := bufio.NewScanner(nc)
	for in.Scan() {
		out = append(out, strings.TrimRight(in.Text(), " "))
	}
	if len(out) < 2 {
		return append(out, "the master has closed the connection")
	}
	return out[1 : len(out)-1]
}

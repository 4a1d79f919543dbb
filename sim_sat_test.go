package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	pb "verdecmd/proto"
	"verdecmd/proto/wire"
	"verdecmd/satellite"
	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/fake"
	"verdecmd/satellite/session"
)

type simSat struct {
	w      *simWorld
	name   string
	number int
	facts  *pb.HostFacts
	creds  *wire.Credentials
	host   *fake.Host
	state  string    // directory
	starts int       // of the program; written by the test alone, with simWorld.mu held
	killed int       // the start that was killed last; guarded by simWorld.mu
	up     time.Time // of the computer
	cancel context.CancelFunc
	done   chan error
	self   *satellite.Satellite // likewise
	gate   chan struct{}        // closed unless the computer is suspended; guarded by simWorld.mu
}

// addSatellite makes a computer for a satellite and starts it.
func (w *simWorld) addSatellite(name string, memory uint64) *simSat {
	s := &simSat{w: w, name: name, number: len(w.sats) + 1, up: time.Now(), gate: closedChan(),
		facts: &pb.HostFacts{Hostname: name, Arch: "x86_64", CpuVendor: "GenuineIntel", Cpus: 16, MemoryBytes: memory, Accelerator: "kvm", Qemu: "10.0", SnapDir: "/snap", SnapKind: "local", AsRoot: true}}
	s.host = fake.NewHost(func(spec desktop.Spec) fake.Behaviour {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.users[spec.Session] = spec.User.Name
		if b, ok := w.guests[spec.User.Name]; ok {
			return b
		}
		return fake.Behaviour{Boot: 2 * time.Second, Shutdown: time.Second}
	})
	var err error
	if s.creds, err = w.authority.Credentials(wire.Satellite, name, time.Now(), 24*time.Hour); err != nil {
		w.t.Fatal(err)
	}
	w.sats[name] = s
	s.state = filepath.Join(w.dir, name)
	s.begin()
	return s
}

// begin starts the satellite's program.
func (s *simSat) begin() {
	w := s.w
	w.mu.Lock()
	s.starts++
	w.mu.Unlock()
	w.net.alive(s.name)
	masters := []string{"master"}
	for name := range w.masters {
		if name != "master" {
			masters = append(masters, name)
		}
	}
	dial := append(wire.DialOptions(s.creds), grpc.WithChainUnaryInterceptor(s.unary), grpc.WithChainStreamInterceptor(s.stream), grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return w.net.dial(ctx, s.name, to) }))
	self, err := satellite.New(satellite.Config{
		Local: bufconn.Listen(1), Accounts: simAccounts{home: filepath.Join(w.dir, "home")}, Masters: masters, Dial: dial,
		Facts: s.facts, Address: s.name, Version: "1.0", Instance: fmt.Sprintf("%s-%d", s.name, s.starts), Jitter: w.jitter(s.number),
		Session: session.Config{
			Driver: witness{s.host.Driver(), s, s.starts}, StateDir: s.state, SnapDir: filepath.Join(s.state, "snap"), DesktopName: "win4",
			Cluster: s.creds.Identity.Cluster, Masters: strings.Join(masters, ", "), MasterLost: 15 * time.Second, PingEvery: 5 * time.Second,
			Sample:   func() *pb.Load { return s.load() },
			BootTime: func() time.Duration { return time.Since(s.up) },
		},
		Log: zerolog.Nop(),
	})
	if err != nil {
		w.t.Fatalf("satellite %s: %v", s.name, err)
	}
	w.mu.Lock()
	s.self = self
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.cancel, s.done = cancel, done
	go func() { done <- self.Run(ctx) }()
	synctest.Wait()
}

// load is what a computer with so many desktops has free.
func (s *simSat) load() *pb.Load {
	used := uint64(len(s.host.Running())) << 30
	return &pb.Load{MemoryTotal: s.facts.MemoryBytes, MemoryFree: s.facts.MemoryBytes - used, SnapFree: 1 << 40, HomeFree: 1 << 40}
}

// kill ends the satellite's program as SIGKILL does: its disk stays as it is
// at this instant, and so do the desktops.
func (s *simSat) kill() {
	s.w.net.kill(s.name)
	s.dies()
	next := s.copied()
	s.stop()
	s.state = next
}

// copied is a directory with what is on the disk at this instant. A file that
// the program replaces meanwhile is read again.
func (s *simSat) copied() string {
	next := fmt.Sprintf("%s.%d", filepath.Join(s.w.dir, s.name), s.starts)
	err := os.CopyFS(next, os.DirFS(s.state))
	for range 100 {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err = os.RemoveAll(next); err == nil {
			err = os.CopyFS(next, os.DirFS(s.state))
		}
	}
	if err != nil {
		s.w.t.Fatal(err)
	}
	return next
}

// dies keeps the program from starting desktops: from now on it writes to
// another directory than the next one reads.
func (s *simSat) dies() {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.killed = s.starts
}

// stop ends the program and waits for it.
func (s *simSat) stop() {
	s.cancel()
	if err := <-s.done; err != nil {
		s.w.t.Errorf("satellite %s: %v", s.name, err)
	}
	s.cancel = nil
	synctest.Wait()
}

// powerOff ends the whole computer; nobody is told.
func (s *simSat) powerOff() {
	s.w.net.vanish(s.name)
	s.dies()
	for name := range s.w.masters {
		s.w.net.change(s.name, name, func(p *simPath) { p.hole(true) })
	}
	next := s.copied()
	s.stop()
	s.host.Reboot()
	s.state, s.up = next, time.Now()
}

// suspend stops the whole computer for a while: programs and desktops stand
// still, nothing comes or goes, its clock goes on. resume is the opposite.
func (s *simSat) suspend() {
	for name := range s.w.masters {
		s.w.net.change(s.name, name, func(p *simPath) { p.hole(true) })
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *simSat) resume() {
	s.w.mu.Lock()
	close(s.gate)
	s.w.mu.Unlock()
	synctest.Wait() // what was due meanwhile is done first
	for name := range s.w.masters {
		s.w.net.change(s.name, name, func(p *simPath) { p.hole(false) })
	}
}

// awake waits until the computer is not suspended.
func (s *simSat) awake() {
	s.w.mu.Lock()
	gate := s.gate
	s.w.mu.Unlock()
	<-gate
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// login logs a user in and describes what came of it.
func (s *simSat) login(ctx context.Context, self *satellite.Satellite, user string) string {
	o, err := self.Open(ctx, simUser(user, filepath.Join(s.w.dir, "home")), "local", func(string) {})
	switch {
	case err != nil:
		var e *wire.Error
		if errors.As(err, &e) {
			return fmt.Sprintf("%s at %s: refused, %s: %s", user, s.name, e.Kind, e.Text)
		}
		return fmt.Sprintf("%s at %s: %v", user, s.name, err)
	case o.Referred != nil && o.Referred.Existing:
		return fmt.Sprintf("%s at %s: the desktop is on %s", user, s.name, o.Referred.Name)
	case o.Referred != nil:
		return fmt.Sprintf("%s at %s: go to %s within %d s", user, s.name, o.Referred.Name, o.Referred.RemainingS)
	case o.Existing:
		return fmt.Sprintf("%s at %s: desktop %s, process %d, was there already, %s", user, s.name, o.Session.Id, o.Session.Pid, o.Session.State)
	}
	return fmt.Sprintf("%s at %s: new desktop %s, process %d", user, s.name, o.Session.Id, o.Session.Pid)
}

// Package fleet drives a real master with thousands of simulated satellites
// and measures what that costs: processor, memory, how late reports come, how
// long logins and lists take, and how a restart is survived.
//
// The master is a process of its own on a state directory of its own, reached
// as satellites and administrators reach it: mutual TLS, gRPC, the admin socket.
// Only the satellites are simulated, all in this process. The floor is measured
// by the same fleet against a server that does the same talking and nothing
// else. After each phase what the master knows is compared with what the fleet
// did: a figure of a master that is wrong is worth nothing.
package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/grpclog"

	"verdecmd/proto/wire"
)

// Options say what is to be driven, and for how long.
type Options struct {
	Satellites int
	Sessions   int
	Seconds    int           // of each measured window
	Interval   time.Duration // that is wished between two reports of a satellite
	TLS        bool          // false measures the floor without TLS too
	Logins     int           // a second, while lists are asked for
	Floor      bool          // measure the floor first
	JSON       bool
	Dir        string // where the state directory is made; empty: the system's for temporary files
	Profile    string // a directory for profiles of the master; empty: none

	// Serve is not for users: the directory of a floor that this process is to
	// be.
	Serve string

	// Program is how this program is started; the default is the present one.
	Program []string
}

// Flags declares the flags of a fleet and returns what they set.
func Flags(f *pflag.FlagSet) *Options {
	o := &Options{}
	f.IntVar(&o.Satellites, "satellites", 0, "drive a real master with so many simulated satellites, and measure it")
	f.IntVar(&o.Sessions, "sessions", 0, "with --satellites: sessions that run on them (default: 2 for each)")
	f.IntVar(&o.Seconds, "seconds", 20, "with --satellites: how long each window is that is measured")
	f.DurationVar(&o.Interval, "interval", 3*time.Second, "with --satellites: time between two load reports, in whole seconds")
	f.BoolVar(&o.TLS, "tls", true, "with --floor: the floor too is measured with TLS; the master never goes without")
	f.IntVar(&o.Logins, "logins", 20, "with --satellites: logins a second while lists are asked for")
	f.BoolVar(&o.Floor, "floor", false, "with --satellites: measure before what a server costs that does the same talking and nothing else")
	f.BoolVar(&o.JSON, "json", false, "with --satellites: print the figures as JSON, and the progress to standard error")
	f.StringVar(&o.Dir, "dir", "", "with --satellites: make the temporary state `directory` here, on the disk to be measured")
	f.StringVar(&o.Profile, "profile", "", "a `directory` for profiles of the master, to read with go tool pprof")
	f.StringVar(&o.Serve, "serve-floor", "", "be the floor")
	for _, hidden := range []string{"profile", "serve-floor"} {
		f.Lookup(hidden).Hidden = true
	}
	return o
}

// check fills in defaults and refuses what cannot be.
func (o *Options) check() error {
	if o.Sessions == 0 {
		o.Sessions = 2 * o.Satellites
	}
	switch {
	case o.Satellites < 1 || o.Satellites > mostSatellites:
		return fmt.Errorf("--satellites %d: wants 1 to %d", o.Satellites, mostSatellites)
	case o.Sessions < 0 || o.Sessions > mostSessions*o.Satellites:
		return fmt.Errorf("--sessions %d: wants 0 to %d for each satellite", o.Sessions, mostSessions)
	case o.Seconds < 1 || o.Seconds > 3600:
		return fmt.Errorf("--seconds %d: wants 1 to 3600", o.Seconds)
	case o.Interval < time.Second || o.Interval > time.Minute || o.Interval%time.Second != 0:
		return fmt.Errorf("--interval %v: wants whole seconds, 1s to 60s", o.Interval)
	case o.Logins < 0 || o.Logins > 10000:
		return fmt.Errorf("--logins %d: wants 0 to 10000", o.Logins)
	}
	if len(o.Program) == 0 {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
		o.Program = []string{self}
	}
	return files(o.Satellites + 256)
}

const (
	mostSatellites = 16000 // the master takes 16,384 connections
	mostSessions   = 100   // on one satellite
)

// files sees to it that this process, and the master that it starts, may have
// so many files open: each connection is one on both sides.
func files(want int) error {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	need := uint64(want)
	if have.Max < need { // root may raise it
		more := unix.Rlimit{Cur: need, Max: need}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err != nil {
			return fmt.Errorf("%d open files are needed and %d allowed: raise the limit before (as root: prlimit --pid $$ --nofile=%d), or take fewer satellites: %w", need, have.Max, need, err)
		}
		return nil
	}
	// Go raises the soft limit for itself and not for programs that it starts;
	// the master does it for itself too.
	return nil
}

// Run drives the floor, where it is wanted, and the master, and prints what was
// measured to out. Nothing of it is left behind, but for a
// temporary directory after a SIGKILL.
func Run(ctx context.Context, o Options, out io.Writer) error {
	if o.Serve != "" {
		return serveFloor(ctx, o.Serve)
	}
	if err := o.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	grpclog.SetLoggerV2(wire.GRPCLogger(zerolog.Nop())) // that links break is what is tried
	progress := out
	if o.JSON {
		progress = os.Stderr
	}
	r := Result{Satellites: o.Satellites, Sessions: o.Sessions, IntervalS: o.Interval.Seconds(), WindowS: o.Seconds, TLS: o.TLS,
		Machine: Machine{Processor: processor(), Processors: runtime.NumCPU(), Kernel: kernel(), Load1: load1(), At: time.Now().UTC().Truncate(time.Second)}}
	if o.Floor {
		f, err := drive(ctx, o, true, progress)
		if err != nil {
			return interrupted(ctx, fmt.Errorf("floor: %w", err))
		}
		r.Floor = f
	}
	ours, err := drive(ctx, o, false, progress)
	if err != nil {
		return interrupted(ctx, err)
	}
	r.Ours = ours
	r.Table = r.lines()
	if o.JSON {
		return json.NewEncoder(out).Encode(&r)
	}
	return r.table(out)
}

// interrupted makes one word of what an interrupt breaks.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted; all is removed")
	}
	return err
}

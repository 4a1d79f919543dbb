package master

import (
	"errors"
	"fmt"
	"io"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"verdecmd/master/fleet"
	"verdecmd/master/sim"
	"verdecmd/proto/simulated"
)

// simulateCommand returns "simulate", which checks the promises in fake time or
// drives a real master with simulated satellites. satellite makes the program of
// a satellite for the former.
func simulateCommand(satellite func(simulated.Config) simulated.Satellite) *cobra.Command {
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Check the promises, or the load, with simulated satellites",
		Long: `Check the promises, or the load, with simulated satellites.

With --check: let histories of whole clusters happen in fake time. A seed draws
users, administrators, guests and faults of every kind around the rules of this
very program; what the desktops did is compared with what is promised: at most
one desktop for each user, no session without a place, nothing acknowledged is
ever lost, and so on. A seed is a history: the same seed gives the same trace.
The first violation ends it, with the seed, the steps that are needed for it and
the command that shows it again; the exit code is then 1. Nothing outside the
program is touched.

With --satellites: start a real master on a temporary directory, connect so many
simulated satellites to it over real links, let users log in, kill the master
and start it again, and print what all that costs: processor and memory of the
master, how late reports come, how long logins and lists take. With --floor the
same is measured before with a server that only talks, so that each figure has
something to stand beside. Nothing of it is left behind, but for a temporary
directory after kill -9, and no other master is touched. Thousands of satellites
want as many open files: see ulimit -Hn.`,
		Example: "  verdecmd simulate --check --histories 2000\n  verdecmd simulate --check --seed 4711 --histories 1 --trace\n" +
			"  verdecmd simulate --satellites 1000 --sessions 20000\n  verdecmd simulate --satellites 10000 --sessions 20000 --floor",
		Args: cobra.NoArgs,
	}
	f := fleet.Flags(c.Flags())
	var check checkOptions
	checking := c.Flags().Bool("check", false, "let histories happen in fake time and check the promises")
	c.Flags().IntVar(&check.histories, "histories", 2000, "with --check: `how many` histories")
	c.Flags().Uint64Var(&check.seed, "seed", 1, "with --check: `seed` of the first history; each next one has a seed that is one higher")
	c.Flags().IntVar(&check.workers, "workers", 0, "with --check: `how many` histories happen at the same time; 0: one for each processor")
	c.Flags().BoolVar(&check.trace, "trace", false, "with --check: print all that happens, a line for each event")
	c.Flags().BoolVar(&check.first, "first", true, "with --check: stop at the first violation; --first=false counts them all")
	c.Flags().BoolVar(&check.shrink, "shrink", true, "with --check: look for the few steps that the first violation needs")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *checking && f.Satellites != 0:
			return errors.New("--check and --satellites are two different things: choose one")
		case f.Satellites == 0 && !*checking && f.Serve == "":
			return errors.New("say what to try: --check checks the promises, --satellites N drives a master with so many")
		case f.Serve == "":
			if err := misplaced(cmd, *checking); err != nil {
				return err
			}
		}
		if *checking {
			return check.run(cmd, satellite)
		}
		return fleet.Run(cmd.Context(), *f, cmd.OutOrStdout())
	}
	return c
}

// ofCheck are the flags that belong to --check; all others but help belong to
// --satellites.
var ofCheck = []string{"histories", "seed", "workers", "trace", "first", "shrink"}

// misplaced refuses flags that would do nothing.
func misplaced(cmd *cobra.Command, checking bool) (err error) {
	mode, other := "--satellites N", "--check"
	if checking {
		mode, other = other, mode
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Name != "check" && slices.Contains(ofCheck, f.Name) != checking {
			err = fmt.Errorf("--%s belongs to %s and does nothing with %s: leave it out", f.Name, other, mode)
		}
	})
	return err
}

// checkOptions are the flags of "simulate --check".
type checkOptions struct {
	histories, workers int
	seed               uint64
	trace, first       bool
	shrink             bool
}

func (o checkOptions) run(cmd *cobra.Command, satellite func(simulated.Config) simulated.Satellite) error {
	if o.histories < 1 || o.workers < 0 {
		return errors.New("--histories wants at least 1, --workers at least 0")
	}
	if o.workers == 0 {
		o.workers = runtime.GOMAXPROCS(0)
	}
	cmd.SilenceUsage = true
	debug.SetGCPercent(800) // histories are small and short-lived: a few MiB more save a third of the time
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out, progress := cmd.OutOrStdout(), cmd.ErrOrStderr()
	cfg := sim.Config{Satellite: satellite}
	if o.trace {
		cfg.Trace = true
		for i := range o.histories {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			h := sim.Play(cfg, o.seed+uint64(i))
			for _, line := range h.Lines {
				fmt.Fprintln(out, line)
			}
			fmt.Fprintln(out, h)
			if h.Violation != nil {
				return fmt.Errorf("seed %d: %v", h.Seed, h.Violation)
			}
		}
		return nil
	}
	told := time.Now()
	sum := sim.Run(ctx, sim.Options{Config: cfg, Seed: o.seed, Histories: o.histories, Workers: o.workers, All: !o.first,
		Progress: func(done, bad int) {
			if now := time.Now(); now.Sub(told) >= 2*time.Second {
				told = now
				fmt.Fprintf(progress, "%d of %d histories, %d violations\n", done, o.histories, bad)
			}
		}})
	sum.Print(out)
	interrupted := ctx.Err() != nil
	stop() // what is left to do Ctrl-C may end at once
	return o.verdict(interrupted, sum, cfg, out, progress)
}

func (o checkOptions) verdict(interrupted bool, sum *sim.Summary, cfg sim.Config, out, progress io.Writer) error {
	if len(sum.Bad) > 0 {
		for _, h := range sum.Bad {
			fmt.Fprintf(out, "seed %d: %v\n", h.Seed, h.Violation)
		}
		first := sum.Bad[0]
		fmt.Fprintf(out, "\nTo see all of it: verdecmd simulate --check --seed %d --histories 1 --trace\n", first.Seed)
		if o.shrink && !interrupted {
			fmt.Fprintf(progress, "looking for the few steps that seed %d needs; it may take a minute, --shrink=false does without\n", first.Seed)
			fmt.Fprintln(out)
			sim.Shrink(cfg, first).Print(out)
		}
		return fmt.Errorf("a promise was broken: seed %d, %s", first.Seed, first.Violation.Check)
	}
	if interrupted {
		return errors.New("interrupted")
	}
	if p := sum.Problems(); len(p) > 0 {
		for _, x := range p {
			fmt.Fprintln(out, x)
		}
		return errors.New("no promise was broken, but these histories do not prove enough")
	}
	return nil
}

package master

import (
	"errors"

	"github.com/spf13/cobra"

	"verdecmd/master/fleet"
)

// simulateCommand drives a real master with simulated satellites.
func simulateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Try the cluster with simulated satellites",
		Long: `Try the cluster with simulated satellites.

With --satellites: start a real master on a temporary directory, connect so many
simulated satellites to it over real links, let users log in, kill the master
and start it again, and print what all that costs: processor and memory of the
master, how late reports come, how long logins and lists take. With --floor the
same is measured before with a server that only talks, so that each figure has
something to stand beside. Nothing of it is left behind, and no other master is
touched. Thousands of satellites want as many open files: see ulimit -Hn.`,
		Example: "  verdecmd simulate --satellites 1000 --sessions 20000\n  verdecmd simulate --satellites 10000 --sessions 20000 --floor",
		Args:    cobra.NoArgs,
	}
	o := fleet.Flags(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Satellites == 0 && o.Serve == "" {
			return errors.New("say what to try: --satellites N drives a master with so many")
		}
		return fleet.Run(cmd.Context(), *o, cmd.OutOrStdout())
	}
	return c
}

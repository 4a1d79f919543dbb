package satellite

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"verdecmd/satellite/desktop"
	"verdecmd/satellite/desktop/qemu"
	"verdecmd/satellite/guard"
	"verdecmd/satellite/session"
)

// guardianCommand is the role in which the satellite starts its own program
// again, under leases only. Nobody else has a use for it.
func guardianCommand(log func(level string) zerolog.Logger) *cobra.Command {
	var dir, journal string
	c := &cobra.Command{
		Use:    guard.Role,
		Hidden: true,
		Short:  "End the desktops of a satellite with their lease (started by the satellite itself)",
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// It outlives who started it, and whatever reads what it says.
			signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
			dismissed := make(chan os.Signal, 1)
			signal.Notify(dismissed, syscall.SIGTERM)
			parent, err := strconv.Atoi(os.Getenv(guard.ParentEnv))
			if err != nil {
				parent = os.Getppid()
			}
			return guard.Guard(cmd.Context(), guard.Config{
				Memory:    os.NewFile(guard.MemoryFD, "memory"),
				Journal:   func() ([]guard.Desktop, error) { return guarded(dir, journal) },
				Kill:      func(d guard.Desktop) error { return qemu.Kill(d.Process, d.User) },
				Exists:    func(d guard.Desktop) error { return qemu.Exists(d.Process, d.User) },
				Alone:     func() bool { return os.Getppid() != parent },
				Dismissed: dismissed, Log: log("info"),
			})
		},
	}
	c.Flags().StringVar(&dir, guard.DirFlag[2:], "", "the `directory` of the satellite")
	c.Flags().StringVar(&journal, guard.JournalFlag[2:], "", "the `name` of the journal in it")
	return c
}

// guarded is the desktops in a satellite's journal of this name.
func guarded(dir, journal string) ([]guard.Desktop, error) {
	entries, err := session.Entries(dir, journal)
	var out []guard.Desktop
	for _, e := range entries {
		d := guard.Desktop{Session: e.Spec.Session, User: e.Spec.User, Process: e.Process}
		if d.Process.PID == 0 { // its start was under way
			d.Process = desktop.Process{UUID: e.Spec.UUID}
		}
		out = append(out, d)
	}
	return out, err
}

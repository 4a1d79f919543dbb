package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"verdecmd/proto/wire"
	"verdecmd/settings"
	"verdecmd/settings/address"
)

// configCommand is what somebody types who sits before a new server.
func configCommand(e examiner) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "config",
		Short: "Set this computer up, from a menu",
		Long: `Set this computer up from a menu in plain text, which works on every terminal
and over a serial line:

  Manager   register at the master as "verdecmd register" does; show the state
  Settings  list what a satellite reads and change it; a value is checked first
  Checks    the checks of "verdecmd doctor"

An entry is chosen by its number, or by the beginning of its name; Enter alone
goes back. Ctrl-C ends what is under way, and in the first menu the program.`,
		Example: "  verdecmd config\n  verdecmd config --settings ./settings.global",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stop := make(chan os.Signal, 1)
			signal.Notify(stop, syscall.SIGINT)
			defer signal.Stop(stop)
			ctx, end := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGHUP)
			defer end()
			syscall.Umask(0o022) // as register
			m := &menu{examiner: e, talk: newTalk(cmd.InOrStdin(), cmd.OutOrStdout()), path: path, stop: stop}
			err := m.run(ctx)
			if errors.Is(err, context.Canceled) || errors.Is(err, errNoAnswer) && m.terminal != nil {
				return nil // that is how one leaves a menu, too
			}
			return err
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	return c
}

// menu is the text menu.
type menu struct {
	examiner
	*talk
	path string           // the settings file
	stop <-chan os.Signal // somebody has pressed Ctrl-C
}

// item is one entry of a menu.
type item struct {
	name string
	what string // beside it, in a few words
	do   func(ctx context.Context) error
	menu bool // do shows a menu, which Ctrl-C does not leave but for its questions
}

// run shows the main menu until somebody leaves it.
func (m *menu) run(ctx context.Context) error {
	return m.show(ctx, "verdecmd on "+hostname(), "Quit", func() []item {
		return []item{
			{"Manager", m.state(), m.manager, true},
			{"Settings", m.path, m.settings, false},
			{"Checks", "is this computer fit for the cluster?", m.checks, false},
		}
	})
}

func (m *menu) manager(ctx context.Context) error {
	return m.show(ctx, "Manager", "Back", func() []item {
		return []item{
			{"Register", "make this computer a server of the cluster", m.register, false},
			{"Show", "which cluster it belongs to", m.registered, false},
		}
	})
}

// show shows a menu until somebody leaves it. The end of the input is the end of
// all menus.
func (m *menu) show(ctx context.Context, title, leave string, items func() []item) error {
	for {
		list := items()
		m.say("\n  %s\n  %s", title, strings.Repeat("-", len([]rune(title))))
		names := make([]string, 0, len(list)+1)
		for i, x := range list {
			names = append(names, fmt.Sprintf("%d %s", i+1, x.name))
			m.say("  %d  %-10s %s", i+1, x.name, x.what)
		}
		names = append(names, leave[:1]+" "+leave)
		m.say("  %s  %s\n", strings.ToLower(leave[:1]), leave)
		var text string
		err := m.stoppable(ctx, func(ctx context.Context) (err error) {
			text, err = m.ask(ctx, "Choose", "")
			return err
		})
		if err != nil {
			return err
		}
		switch i, ok := Word(text, names); {
		case text == "" && leave == "Back", ok && i == len(list):
			return nil
		case ok:
			do := m.stoppable
			if list[i].menu {
				do = func(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
			}
			err := do(ctx, list[i].do)
			switch {
			case errors.Is(err, errNoAnswer), ctx.Err() != nil:
				return err
			case errors.Is(err, context.Canceled): // Ctrl-C in a question
				m.say("\nInterrupted.")
			case err != nil:
				m.say("\n%s.", strings.TrimSuffix(sentence(err), "."))
			}
		case text != "":
			m.say("There is no %q here: type a number, or the beginning of a name.", text)
		}
	}
}

// stoppable runs f until it ends or somebody presses Ctrl-C.
func (m *menu) stoppable(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return err
	case <-m.stop:
		cancel()
		return <-done
	}
}

func (m *menu) register(ctx context.Context) error {
	r := &registrar{request: request{settings: m.path, offer: true}, examiner: m.examiner, talk: m.talk}
	return r.register(ctx)
}

func (m *menu) checks(ctx context.Context) error {
	v, err := settings.Load(m.path)
	if err != nil {
		return err
	}
	return m.check(ctx, m.talk, v)
}

// state says in a few words whether this host is registered.
func (m *menu) state() string {
	v, err := settings.Load(m.path)
	if err != nil {
		return "the settings have a mistake"
	}
	c, err := wire.Load(PKI(v), wire.Satellite)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "this computer is not registered yet"
	case err != nil:
		return "the credentials of this computer cannot be used"
	}
	_, is, err := IsSuperseded(settings.SatelliteDir(v), c.Identity)
	switch {
	case err != nil:
		return "whether this computer is still of its cluster cannot be read"
	case is:
		return "this computer is of its cluster no more"
	}
	return "registered as " + c.Identity.Name
}

// registered shows what this host is registered as.
func (m *menu) registered(context.Context) error {
	v, err := settings.Load(m.path)
	if err != nil {
		return err
	}
	dir := PKI(v)
	c, err := wire.Load(dir, wire.Satellite)
	if err != nil {
		return err
	}
	masters, err := address.New(v).Masters()
	if err != nil {
		masters = []string{err.Error()}
	}
	from, until := c.Valid()
	m.say("\n  Name         %s\n  Cluster      %s\n  Identity     %s\n  Master       %s\n  Certificate  %s to %s, in %s", c.Identity.Name, c.Identity.Cluster, c.Identity.ID,
		strings.Join(masters, ", "), from.Local().Format(time.DateOnly), until.Local().Format(time.DateOnly), dir)
	if s, is, err := IsSuperseded(settings.SatelliteDir(v), c.Identity); err != nil {
		return err
	} else if is {
		m.say("\n%s.", sentence(s.Barred()))
	}
	return c.Check()
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "this computer"
	}
	return name
}

package monitor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"verdecmd/settings"
)

// Exit codes, PROTOCOL 14.2.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitPermission  = 4
	exitNotFound    = 5
	exitNotNow      = 6
	exitLost        = 7
	exitInterrupted = 130
)

// ExitError is how the command ends where the exit code is not 0. Everything
// that is to be said was printed already.
type ExitError struct{ Status int }

func (e *ExitError) Error() string { return "exit code " + strconv.Itoa(e.Status) }

// ExitCode is what the process is to return.
func (e *ExitError) ExitCode() int { return e.Status }

// exitCode is the exit code for a reply.
func exitCode(code int) int {
	switch {
	case code/100 == 2:
		return 0
	case code/100 == 4:
		return exitNotNow
	case code >= 500 && code < 510:
		return exitUsage
	case code == 530:
		return exitPermission
	case code == 550:
		return exitNotFound
	}
	return exitFailed
}

// options are those of the command line.
type options struct {
	socket, settings, format          string
	lines                             []string
	quiet, readOnly, keepGoing, codes bool
	color, noColor, version           bool
	timeout, wait                     float64 // seconds
}

// Command returns "monitor". For the program name verdecmon, set its Use to
// that name and let it be the root.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "monitor [COMMAND [ARG]...]",
		Short: "Administer the cluster: interactively, one command, or a batch",
		Long: `Administers the cluster through the socket of its master on this computer.

Without COMMAND and with a terminal it is interactive: Tab completes, "help"
lists the commands. Without a terminal it reads one command a line from its
input. With COMMAND it executes that one; the shell's quoting is enough.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 master not reached,
4 permission, 5 not found, 6 not now or timed out, 7 connection lost (outcome
unknown), 130 ended by Ctrl-C.`,
		Example: `  verdecmon
  verdecmon servers
  verdecmon -f json users | jq -r .user
  verdecmon offlineserver 2 reason="memory exchange"
  verdecmon -e 'servers' -e 'users server=1'`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: o.completeArgs,
		SilenceUsage:      true,
		SilenceErrors:     true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.version {
				fmt.Fprintf(cmd.OutOrStdout(), "verdecmon %s (protocol %d)\n", cmp.Or(cmd.Version, cmd.Root().Version, "unknown"), protocolVersion)
				return nil
			}
			if status := o.run(cmd, args); status != 0 {
				return &ExitError{status}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows COMMAND belongs to it
	f.StringVarP(&o.socket, "socket", "s", "", "`path` of the master's socket (default $VERDECMON_SOCKET, else "+SocketPath+" or what the settings say)")
	f.StringVar(&o.settings, "settings", "", "settings `file` that names the socket")
	f.StringVarP(&o.format, "format", "f", "", "how rows are written: `text|tsv|json` (default text on a terminal, else tsv)")
	f.StringArrayVarP(&o.lines, "execute", "e", nil, "execute this `line`, as typed; may be repeated")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no rows, no messages, only the exit code")
	f.BoolVarP(&o.readOnly, "read-only", "r", false, "give up the right to change anything")
	f.BoolVarP(&o.keepGoing, "keep-going", "k", false, "in a batch, go on after a failed command")
	f.Float64VarP(&o.timeout, "timeout", "t", 0, "give up waiting for a reply after these `seconds`")
	f.Float64VarP(&o.wait, "wait", "w", 0, "wait so many `seconds` for the master to appear")
	f.BoolVar(&o.codes, "codes", false, "show lines as they come, with codes")
	f.BoolVar(&o.color, "color", false, "colour also where the output is no terminal")
	f.BoolVar(&o.noColor, "no-color", false, "no colour")
	f.BoolVarP(&o.version, "version", "V", false, "show the version")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "tsv", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.SetVersionTemplate(fmt.Sprintf("verdecmon {{.Version}} (protocol %d)\n", protocolVersion))
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		fmt.Fprintf(cmd.ErrOrStderr(), "verdecmon: %v\nSee: verdecmon --help\n", err)
		return &ExitError{exitUsage}
	})
	return cmd
}

// run does what the options say and returns the exit code.
func (o *options) run(cmd *cobra.Command, args []string) int {
	stderr := cmd.ErrOrStderr()
	if err := o.check(args); err != nil {
		fmt.Fprintf(stderr, "verdecmon: %v\nSee: verdecmon --help\n", err)
		return exitUsage
	}
	if err := o.findSocket(); err != nil {
		fmt.Fprintf(stderr, "verdecmon: %v\n", err)
		return exitUsage
	}
	stdin, stdout := cmd.InOrStdin(), cmd.OutOrStdout()
	if o.format == "" {
		o.format = "tsv"
		if isTerminal(stdout) {
			o.format = "text"
		}
	}
	var source io.Reader
	switch {
	case len(o.lines) > 0:
		source = strings.NewReader(strings.Join(o.lines, "\n"))
	case len(args) > 0:
		words := make([]string, len(args))
		for i, a := range args {
			words[i] = quoteArg(a)
		}
		source = strings.NewReader(strings.Join(words, " "))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cl, err := o.dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return exitInterrupted
		}
		if !o.quiet {
			fmt.Fprintln(stderr, dialMessage(o.socket, err))
		}
		if errors.Is(err, fs.ErrPermission) {
			return exitPermission
		}
		return exitUnreachable
	}
	if source == nil && isTerminal(stdin) {
		stop() // the console has its own way with Ctrl-C
		return newConsole(o, stdin.(*os.File), stdout, cl).run()
	}
	if source == nil {
		source = stdin
	}
	b := batch{o: o, cl: cl, in: source, out: stdout, err: stderr, stdin: stdin}
	return b.run(ctx)
}

func (o *options) check(args []string) error {
	switch {
	case o.format != "" && o.format != "text" && o.format != "tsv" && o.format != "json":
		return fmt.Errorf("--format %s: it is text, tsv or json", o.format)
	case len(o.lines) > 0 && len(args) > 0:
		return errors.New("give either -e or a command, not both")
	case o.timeout < 0 || o.wait < 0:
		return errors.New("seconds must not be negative")
	}
	for _, a := range args {
		if err := checkChars([]byte(Quote(a))); err != nil {
			return fmt.Errorf("the argument %q has characters that no command may have", a)
		}
	}
	return nil
}

// findSocket settles where the socket is. The settings are asked only where
// nobody has said it; without a readable file it is the usual place.
func (o *options) findSocket() error {
	if o.socket == "" && o.settings == "" {
		o.socket = os.Getenv("VERDECMON_SOCKET")
	}
	if o.socket != "" {
		return nil
	}
	v, err := settings.Load(o.settings)
	if err == nil {
		o.socket = v.String(settings.Socket)
		return nil
	}
	o.socket = SocketPath
	if o.settings != "" {
		return err
	}
	return nil
}

// dial connects, and with --wait tries again for that long.
func (o *options) dial(ctx context.Context) (*Client, error) {
	end := time.Now().Add(time.Duration(o.wait * float64(time.Second)))
	for {
		cl, err := Dial(o.socket)
		if err == nil || errors.Is(err, fs.ErrPermission) || !time.Now().Before(end) {
			return cl, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// dialMessage says why the socket cannot be used, and what to do.
func dialMessage(path string, err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("verdecmon: you may not use %s (owner %s). Try as root, or see VERDECMD_CONN_GID.", path, ownerOf(path))
	}
	var reason error = err
	var errno syscall.Errno
	if errors.As(err, &errno) {
		reason = errno
	}
	text := reason.Error()
	if errno == syscall.ENOENT {
		text = "no such file"
	}
	return fmt.Sprintf("verdecmon: cannot reach the cluster master at %s: %s.\nIs the master running on this computer? See: systemctl status verdecmd", path, text)
}

func ownerOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return "not known"
	}
	owner, group := strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return owner + ":" + group
}

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// colored tells whether the output is to have colours.
func (o *options) colored(out io.Writer) bool {
	return !o.noColor && (o.color || isTerminal(out) && os.Getenv("NO_COLOR") == "")
}

// setup are the lines that a connection begins with.
func (o *options) setup() []string {
	lines := []string{"hello"}
	switch o.format {
	case "text":
		lines = append(lines, "verbose on")
	case "json":
		lines = append(lines, "format json")
	}
	if o.readOnly {
		lines = append(lines, "level viewer")
	}
	return lines
}

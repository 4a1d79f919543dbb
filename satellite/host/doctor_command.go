package host

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// ExitError ends the program with an exit code of its own. Everything that is
// to be said was printed already.
type ExitError struct{ Status int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Status) }

// ExitCode is what the process is to return.
func (e *ExitError) ExitCode() int { return e.Status }

// maxDocument is the largest file that --against reads, in bytes.
const maxDocument = 4 << 20

// doctorCommands returns doctor, and the role in which it starts its own program
// again.
func doctorCommands(version string, probe prober) []*cobra.Command {
	var path, against string
	var asJSON, noMaster bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this computer and compare it with the cluster's hosts",
		Long: `Check whether this computer is fit for the cluster: version, architecture,
virtualisation, clock, names, address, users, homes and their locks, space,
network, bridges, settings, keys. What must be the same on all hosts is compared
with the others by way of the master; the master keeps the result, and lets no
desktops on to a host where a check marked "keeps desktops away" fails.

A management workstation, which does not join the cluster, has no certificate and
does not ask the master: give it the result of another host by --against, made
there by "verdecmd doctor --json". Its users, homes, locks and settings must be
those of the cluster.

The running satellite makes the same checks when it starts and every hour.
Exit code 0: all pass, warnings included; 1: one fails.`,
		Example: "  verdecmd doctor\n  verdecmd doctor --json > sat1.json\n  verdecmd doctor --against sat1.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			v, err := settings.Load(path)
			if err != nil {
				return err
			}
			cfg := DoctorConfig{Settings: v, Version: version, Probe: probe(v), NoMaster: noMaster, HandIn: true, Holder: Self(), Progress: progress(cmd.ErrOrStderr())}
			cfg.Credentials, cfg.Unusable = credentials(v)
			if against != "" {
				s, err := readSurvey(against)
				if err != nil {
					return err
				}
				cfg.Against = []Survey{s}
			}
			r, err := Doctor(ctx, cfg)
			if len(r.Findings) == 0 {
				return err
			}
			if err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "verdecmd doctor: %v\n", err)
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), r)
			} else {
				err = writeText(cmd.OutOrStdout(), r, colored(cmd.OutOrStdout()), true)
			}
			if err == nil && r.Worst() == Fail {
				err = &ExitError{1}
			}
			return err
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	c.Flags().BoolVar(&asJSON, "json", false, "write one JSON document: findings, and the survey that --against reads")
	c.Flags().StringVar(&against, "against", "", "compare with another host: a `file` that --json has written there")
	c.Flags().BoolVar(&noMaster, "no-master", false, "do not ask the master, though this host could")
	hold := &cobra.Command{
		Use: lockRole + " FILE", Hidden: true, Short: "Hold the lock on a file (started by the checks themselves)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return Hold(args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	return []*cobra.Command{c, hold}
}

// Hold is the hidden role: it holds the lock on a file until its input ends.
func Hold(path string, in io.Reader, out io.Writer) error {
	err := holdLock(path, in, out)
	if errors.Is(err, errNoLocks) {
		fmt.Fprintln(os.Stderr, err)
		return &ExitError{exitNoLocks}
	}
	return err
}

// credentials are those of a satellite; nil where this computer has none. The
// error is that those which are there cannot be used.
func credentials(v *settings.Values) (*wire.Credentials, error) {
	dir := PKI(v)
	c, err := wire.Load(dir, wire.Satellite)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return nil, fmt.Errorf("%w; only root may read the keys of this host: run it as root", err)
	}
	return nil, err
}

// readSurvey reads what "doctor --json" has written on another host.
func readSurvey(path string) (Survey, error) {
	const fix = "make it on another host by: verdecmd doctor --json > FILE"
	f, err := os.Open(path)
	if err != nil {
		return Survey{}, fmt.Errorf("--against: %w; %s", err, fix)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return Survey{}, fmt.Errorf("--against: %w; %s", err, fix)
	}
	s, err := parseDocument(data)
	if err != nil {
		return s, fmt.Errorf("--against: %s: %w; %s", path, err, fix)
	}
	return s, nil
}

// parseDocument takes the survey out of a document.
func parseDocument(data []byte) (Survey, error) {
	if len(data) > maxDocument {
		return Survey{}, fmt.Errorf("more than %d bytes", maxDocument)
	}
	var r Result
	if err := json.Unmarshal(data, &r); err != nil {
		return Survey{}, fmt.Errorf("not a result of the checks: %w", err)
	}
	if r.Survey.Hostname == "" || r.Survey.Version == "" {
		return Survey{}, errors.New("not a result of the checks: there is no survey in it")
	}
	return r.Survey.clean(), nil
}

func writeJSON(w io.Writer, r Result) error {
	// A list that is empty is one nevertheless.
	s := &r.Survey
	s.PublicIPs, s.Home.Options, s.Accounts, s.Bridges = full(s.PublicIPs), full(s.Home.Options), full(s.Accounts), full(s.Bridges)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

func full[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// writeText writes a line for each finding, and below it what is wanted and what
// to do where it does not pass. Without all, what passes is only counted.
func writeText(w io.Writer, r Result, color, all bool) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	counts := map[Level]int{}
	for _, f := range r.Findings {
		counts[f.Level]++
		if f.Level == Pass && !all {
			continue
		}
		text := func(s string) string { return wire.Clean(s, maxText) }
		if f.Level == Pass {
			fmt.Fprintf(t, "%s\t%s\t%s (wanted: %s)\n", f.Level, f.Check, text(f.Measured), text(f.Wanted))
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Level, f.Check, text(f.Measured))
		if f.Hard {
			fmt.Fprintf(t, "\t\tkeeps desktops away from this host\n")
		}
		fmt.Fprintf(t, "\t\twanted: %s\n\t\tfix: %s\n", text(f.Wanted), text(cmp.Or(f.Fix, "none known")))
	}
	t.Flush()
	for line := range strings.Lines(b.String()) {
		for level, code := range map[Level]string{Pass: "32", Warn: "33", Fail: "31"} {
			if rest, ok := strings.CutPrefix(line, string(level)+" "); ok && color {
				line = "\x1b[" + code + "m" + string(level) + "\x1b[0m " + rest
			}
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d pass, %d warn, %d fail.\n", counts[Pass], counts[Warn], counts[Fail])
	return err
}

func colored(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}

// progress writes what takes long.
func progress(w io.Writer) func(string) {
	var mu sync.Mutex
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(w, filepath.Base(os.Args[0])+" doctor: "+text)
	}
}

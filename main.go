// Command verdecmd is a virtual-desktop cluster in one program: the master that
// decides, the satellites that run users' desktops, and the monitor by which an
// administrator rules it. The first argument, or the name by which the program
// is called, picks the role.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"verdecmd/master"
	"verdecmd/monitor"
	"verdecmd/packaging/demo"
	"verdecmd/proto/wire"
	"verdecmd/satellite"
	"verdecmd/satellite/sim"
	"verdecmd/settings"
	"verdecmd/settings/service"
)

// version is set at build time.
var version = "0.1.0-dev"

func main() { os.Exit(run(os.Args)) }

// run is the whole program; it returns the exit code.
func run(args []string) int {
	name := filepath.Base(args[0])
	root := rootCommand()
	// Called by the name of a role, that role is the whole program.
	for _, c := range root.Commands() {
		if c.Name() == name || c.Name() == "monitor" && name == "verdecmon" {
			root.RemoveCommand(c)
			c.Use = name + strings.TrimPrefix(c.Use, c.Name())
			c.Version, c.SilenceUsage, c.SilenceErrors = version, true, true
			root = c
			break
		}
	}
	root.SetArgs(args[1:])
	err := root.ExecuteContext(context.Background())
	// These have said everything already.
	if e, ok := errors.AsType[*monitor.ExitError](err); ok {
		return e.ExitCode()
	}
	if e, ok := errors.AsType[*satellite.ReferredError](err); ok {
		return e.ExitCode()
	}
	if e, ok := errors.AsType[*satellite.ExitError](err); ok {
		return e.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v%s%s\n", name, err, asRoot(err), service.Protected(err))
		return 1
	}
	return 0
}

// asRoot says to who is not root that root may do what was refused, unless the
// error says so itself.
func asRoot(err error) string {
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 || strings.Contains(err.Error(), "root") {
		return ""
	}
	return "; you are not root: try it as root"
}

// parseError is how the flags say that a value is not a number.
var parseError = regexp.MustCompile(`strconv\.Parse(Int|Uint): parsing "[^"]*": .*`)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "verdecmd",
		Short: "A virtual-desktop cluster: master, satellites, monitor",
		Long: `verdecmd turns a few Linux servers into one virtual-desktop cluster. A master
decides, satellites run users' desktops on KVM/QEMU as those users, and an
administrator rules it through one Unix socket with "verdecmd monitor".

Try it on this computer alone: "verdecmd demo" starts a whole cluster.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		text := parseError.ReplaceAllString(err.Error(), "it must be a whole number, from 0 on")
		return fmt.Errorf("%s; see %s --help", text, c.CommandPath())
	})
	root.AddCommand(master.Commands(version, logger, sim.New)...)
	root.AddCommand(satellite.Commands(version, logger)...)
	root.AddCommand(monitor.Command(), settings.Command(), demo.Command(guestDir()))
	return root
}

// guestDir is where the demo's guest is: built beside this program, or installed.
func guestDir() string {
	dirs := []string{"/usr/lib/win4linpro/guest"}
	if exe, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Join(filepath.Dir(exe), "..", "build", "guest")}, dirs...)
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "desktop.conf")); err == nil {
			return d
		}
	}
	return ""
}

// logger writes JSON lines to standard error, or lines for people where that is
// a terminal.
func logger(level string) zerolog.Logger {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		l = zerolog.InfoLevel
	}
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	log := zerolog.New(os.Stderr)
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		log = log.Output(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: "15:04:05.000"})
	}
	log = log.Level(l).With().Timestamp().Logger()
	grpclog.SetLoggerV2(wire.GRPCLogger(log))
	return log
}

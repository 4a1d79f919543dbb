// Package demo is "verdecmd demo": a whole cluster on this machine below one
// directory, with separate processes, real desktops and nothing installed or
// changed outside of it.
//
// It executes our own binary, as a person would, and imports no role. A small
// supervisor process keeps master and satellites running; it holds the lock on
// demo.pid. Desktops belong to the satellites and outlive all of them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// options are the flags.
type options struct {
	dir        string
	satellites int
	users      []string
	guest      string
	detach     bool
	stop       bool
	desktops   string // with stop: end or keep
	status     bool
	supervise  bool
}

// Command returns the demo command. guest is the directory of the guest that
// desktops start where --guest does not say another; it may be empty.
func Command(guest string) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "demo",
		Short: "Try it: a whole cluster with real desktops on this computer",
		Long: `Start a whole cluster below one directory: a master, satellites on loopback
addresses of their own, and users whose desktops are real virtual machines. Then
open the monitor. Nothing is installed and no account is added; as root each
desktop runs as its own user.

The cluster runs on when the terminal is closed. Several demos, each with its
own --dir, run beside each other. A demo that was stopped goes on where it was.`,
		Example: `  verdecmd demo
  verdecmd demo --detach --dir /var/tmp/big --satellites 3 --users ann,ben,cleo,dan
  verdecmd demo --status
  verdecmd demo --stop --desktops=keep`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := newDemo(o, c.Flags().Changed)
			if err != nil {
				return err
			}
			d.in, d.out, d.err = os.Stdin, c.OutOrStdout(), c.ErrOrStderr()
			d.terminal = term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
			return d.do(c.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "the demo's `directory` (default ./"+defaultDir+")")
	f.IntVar(&o.satellites, "satellites", 2, "how `many` satellites, 1 to 16")
	f.StringSliceVar(&o.users, "users", []string{"alice", "bob", "carol"}, "the `names` of those who get a desktop")
	f.StringVar(&o.guest, "guest", guest, "`directory` of the guest that the desktops start, as make guest makes it")
	f.BoolVar(&o.detach, "detach", false, "leave it running and print the path of the admin socket when the desktops run")
	f.BoolVar(&o.stop, "stop", false, "end the desktops, the satellites and the master; disks and state stay")
	f.StringVar(&o.desktops, "desktops", "end", "with --stop: `end|keep` them")
	f.BoolVar(&o.status, "status", false, "say what runs")
	f.BoolVar(&o.supervise, "supervise", false, "be the supervisor")
	f.MarkHidden("supervise")
	c.MarkFlagsMutuallyExclusive("detach", "stop", "status", "supervise")
	return c
}

// demo is one invocation.
type demo struct {
	layout
	opt      options
	changed  func(flag string) bool // whether the flag was given
	exe      string
	root     bool
	uid      int
	note     string // why the directory is not the default one
	began    time.Time
	terminal bool
	in       *os.File
	out      io.Writer // results
	err      io.Writer // progress
}

func newDemo(o options, changed func(string) bool) (*demo, error) {
	uid := os.Getuid()
	switch {
	case o.satellites < 1 || o.satellites > 16:
		return nil, fmt.Errorf("--satellites is %d and must be 1 to 16", o.satellites)
	case o.desktops != "end" && o.desktops != "keep":
		return nil, fmt.Errorf("--desktops is %q and must be end or keep", o.desktops)
	case changed("desktops") && !o.stop:
		return nil, errors.New("--desktops belongs to --stop")
	}
	if err := checkUsers(o.users); err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if o.guest != "" {
		if o.guest, err = filepath.Abs(o.guest); err != nil {
			return nil, err
		}
	}
	d := &demo{opt: o, changed: changed, exe: exe, root: uid == 0, uid: uid, began: time.Now()}
	d.layout, d.note, err = newLayout(o.dir, d.root, uid)
	return d, err
}

func (d *demo) do(ctx context.Context) error {
	switch {
	case d.opt.supervise:
		return supervise(d.layout, d.exe, d.err)
	case d.opt.stop:
		return d.stop(ctx, d.opt.desktops == "keep")
	case d.opt.status:
		return d.status(ctx)
	}
	return d.start(ctx)
}

// say prints a line of progress.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.err, "demo: "+format+"\n", args...)
}

// lock keeps other demo commands off the same directory until unlock.
func (d *demo) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(d.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = d.wait(ctx, "another demo command that works in "+d.dir, 5*time.Minute, func() (bool, string, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, "", nil
		}
		return err == nil, "", err
	})
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

const (
	lookEvery  = 100 * time.Millisecond
	speakEvery = 5 * time.Second
)

// wait asks look until it says done, for at most limit, and is never silent: it
// prints what look has to say when that changes, and that it still waits.
func (d *demo) wait(ctx context.Context, what string, limit time.Duration, look func() (done bool, news string, err error)) error {
	began := time.Now()
	spoke, last := began, ""
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		done, news, err := look()
		if err != nil {
			return err
		}
		if news != "" && news != last {
			d.say("%s", news)
			last, spoke = news, time.Now()
		}
		if done {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("waited %v for %s", limit, what)
		}
		if time.Since(spoke) >= speakEvery {
			d.say("still waiting for %s, %.0f s", what, time.Since(began).Seconds())
			spoke = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func ownerOf(info os.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}

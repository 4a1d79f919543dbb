package host

import (
	"context"
	"errors"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"verdecmd/settings"
)

// prober asks the hypervisor of a host with these settings what it can do.
type prober = func(*settings.Values) func(context.Context) Probe

// Commands returns register, config, doctor and what that starts. version is that
// of the program.
func Commands(version string, probe prober) []*cobra.Command {
	e := examiner{version, probe, Doctor}
	return append([]*cobra.Command{registerCommand(e), configCommand(e)}, doctorCommands(version, probe)...)
}

// examiner makes the checks of a host, as doctor does.
type examiner struct {
	version string
	probe   prober
	doctor  func(context.Context, DoctorConfig) (Result, error)
}

// check makes the checks of a host and says what is missing, or that it is ready.
// The error is that they could not be made.
func (e examiner) check(ctx context.Context, t *talk, v *settings.Values) error {
	c := DoctorConfig{Settings: v, Version: e.version, Probe: e.probe(v), HandIn: true, Holder: Self(), Progress: progress(t.out)}
	c.Credentials, c.Unusable = credentials(v)
	r, err := e.doctor(ctx, c)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if len(r.Findings) == 0 {
		return err
	}
	if err != nil {
		t.say("Note: %v.", err)
	}
	if err := writeText(t.out, r, false, false); err != nil {
		return err
	}
	switch {
	case len(r.Hard()) > 0:
		t.say("Not ready: the master lets no desktops on to this host before that is put right. \"verdecmd doctor\" checks it again.")
	case r.Worst() == Fail:
		t.say("Ready but for what failed above: \"verdecmd doctor\" checks it again.")
	default:
		t.say("This host is ready.")
	}
	return nil
}

// Flags that people try who have not read the manual.
const (
	spokenToken    = "token"
	spokenPassword = "password"
)

func registerCommand(e examiner) *cobra.Command {
	var q request
	c := &cobra.Command{
		Use:   "register",
		Short: "Make this computer a server of the cluster",
		Long: `Make this computer a server of the cluster: register it at the master.

At a terminal it asks for the manager's address, which is that of the master;
shows who answers there, with the fingerprint of the cluster's authority, to be
compared with what "verdecmd fingerprint" shows on the master; and then asks for
the manager's password, which is not shown. Nothing secret is sent before the
fingerprint is certain, and the key of this computer never leaves it.

With a token nobody is asked: the administrator makes one on the master with
"createtoken", hands it over in a file of mode 0600, and the fingerprint is
inside. Neither token nor password is ever given on the command line, where
everybody on this computer could read it.

It writes the certificate into WIN4_VERDE_PKI_DIR and the master's address into
WIN4_VERDE_CMADDR, then makes the checks of "verdecmd doctor" and says what is
missing, or that the host is ready. Interrupted at any point, or when the answer
of the master is lost, it is run again in the same way and goes on: one token
makes one host. A computer that takes the place of one that has failed is
registered in the same way, with the same name and address, after
"replaceserver" on the master.`,
		Example: `  verdecmd register
  verdecmd register --manager 192.0.2.10 --token-file /root/token
  ssh master verdecmon createtoken server=sat3 | verdecmd register --manager master --token-file -
  verdecmd register --manager 192.0.2.10 --password-file /root/password --ca-sha256 "3f1c 82d0 ..."`,
		Args: func(cmd *cobra.Command, args []string) error {
			words := args
			cmd.Flags().Visit(func(f *pflag.Flag) { words = append(words, f.Value.String()) })
			if err := noSecrets(words); err != nil {
				return err
			}
			if cmd.Flags().Changed(spokenToken) { // a part of one, or a file's name
				return errors.New("there is no --token, since every user of this computer could read it: hand the token over in a file: --token-file FILE, or - for standard input")
			}
			if cmd.Flags().Changed(spokenPassword) {
				return errors.New("a password on the command line can be read by every user of this computer, and stays in the history of the shell: change it on the master (managerpassword), and hand it over in a file: --password-file FILE, or leave it out to be asked")
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			syscall.Umask(0o022) // others must get through to settings and desktops; keys have modes of their own
			r := &registrar{request: q, examiner: e, talk: newTalk(cmd.InOrStdin(), cmd.OutOrStdout())}
			r.alone = r.alone || r.terminal == nil
			err := r.register(ctx)
			if errors.Is(err, context.Canceled) {
				return errInterrupted
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&q.settings, "settings", settings.DefaultPath, "the settings `file`")
	f.StringVar(&q.manager, "manager", "", "`address` of the master, with its port if that is not 8442 (default: "+settings.CMAddr+")")
	f.StringVar(&q.name, "name", "", "`name` of this host in the cluster (default: its host name)")
	f.StringVar(&q.address, "address", "", "`address` by which clients reach this host (default: "+settings.PubAddr+", or the host name)")
	f.StringVar(&q.tokenFile, "token-file", "", "`file` of mode 0600 that holds a token, - for standard input")
	f.StringVar(&q.passwordFile, "password-file", "", "`file` of mode 0600 that holds the manager's password, - for standard input")
	f.StringVar(&q.fingerprint, "ca-sha256", "", "`fingerprint` of the cluster's authority")
	for _, name := range []string{spokenToken, spokenPassword} { // refused with the reason, rather than not known
		f.String(name, "", "")
		f.Lookup(name).Hidden = true
	}
	f.BoolVar(&q.again, "again", false, "also where this computer is registered already")
	f.BoolVar(&q.alone, "yes", false, "ask nothing: the fingerprint is in the token or --ca-sha256, the secret in a file")
	return c
}

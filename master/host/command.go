package host

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// Commands returns "init", "enrol" and "fingerprint". They work on files alone
// and need no running master.
func Commands() []*cobra.Command {
	return []*cobra.Command{initCommand(), enrolCommand(), fingerprintCommand()}
}

func initCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster: its authority and the master's certificate",
		Long: `Make a new cluster on the computer that is to be its master.

Writes the cluster's own certificate authority and the master's certificate into
WIN4_VERDE_PKI_DIR. Its file ca.key is the secret of the cluster: whoever has it
can become any machine of it. Keep a copy in a safe place; it never leaves this
computer otherwise. A cluster that is there already is never touched.`,
		Example: "  verdecmd init\n  verdecmd init --settings ./settings.global",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := settings.Load(path)
			if err != nil {
				return err
			}
			dir := settings.PKI(v)
			cluster, err := Init(dir, time.Now())
			if err != nil {
				return err
			}
			print, err := fingerprint(dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Cluster %s is made; its keys are in %s.\nIts fingerprint is %s.\nNext: \"verdecmd master\". Then \"managerpassword\" or \"createtoken\" in the monitor here, and \"verdecmd register\" on each server; or \"verdecmd enrol NAME\" here, whose files are copied by hand.\n", cluster, dir, print)
			return nil
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	return c
}

func enrolCommand() *cobra.Command {
	var path, out string
	c := &cobra.Command{
		Use:   "enrol NAME",
		Short: "Make the credentials of a satellite, on the master's computer",
		Long: `Make the certificate and key of the satellite NAME, its host name.

Run it on the master's computer. It writes two files, ` + wire.CAFile + ` and ` + wire.IdentityFile + `;
copy both into WIN4_VERDE_PKI_DIR of the satellite, in a way that nobody else can
read them on, and restart the satellite. They are valid for one year; a satellite
that runs renews its certificate itself. Enrolled again, the same NAME stays the
same server; after "forgetserver" it becomes a new one, and after "replaceserver"
the machine that takes its place. "verdecmd register" on the satellite does the
same over the network, and nothing has to be copied.`,
		Example: "  verdecmd enrol sat1.example.com\n  verdecmd enrol sat1 --out /root/sat1-credentials",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := settings.Load(path)
			if err != nil {
				return err
			}
			e, err := Enrol(settings.PKI(v), args[0], out, time.Now())
			if err != nil {
				return err
			}
			what := "is enrolled"
			if e.Again {
				what = "is enrolled again, as the same server"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Satellite %s %s, until %s.\nCopy %s and %s from %s into its WIN4_VERDE_PKI_DIR.\n",
				args[0], what, e.Until.Format(time.DateOnly), wire.CAFile, wire.IdentityFile, e.Dir)
			return nil
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	c.Flags().StringVar(&out, "out", "", "write into this `directory` (default: satellites/NAME in WIN4_VERDE_PKI_DIR)")
	return c
}

package host

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"verdecmd/master/pki"
	"verdecmd/proto/wire"
	"verdecmd/settings"
)

// ownDue tells whether the master's own certificate is to be made anew at now.
// One that has not begun yet was made while the clock was wrong.
func ownDue(now, from, until time.Time) bool {
	return now.Before(from) || closing(now, from, until)
}

// RenewOwn makes the master's own certificate anew where it has ended or will
// soon: it has the authority, and needs nobody. It is to be called before the
// certificate is loaded, by the only master that runs here. The identity stays.
func RenewOwn(dir string, now time.Time) (renewed bool, err error) {
	c, err := wire.Load(dir, wire.Master)
	if err != nil {
		return false, err
	}
	from, until := c.Valid()
	if !ownDue(now, from, until) {
		return false, nil // and nobody misses the key of the authority
	}
	a, err := pki.Issuer(dir)
	if err != nil {
		return false, err
	}
	if !now.Before(from) && a.NotAfter.Sub(until) <= 24*time.Hour {
		return false, nil // a new one would last no longer
	}
	if !now.Before(a.NotAfter) {
		return false, fmt.Errorf("the cluster's authority ended at %s: look at the clock", a.NotAfter.UTC().Format(time.RFC3339))
	}
	own, err := pki.Own(a, c.Identity, now)
	if err != nil {
		return false, err
	}
	return true, pki.ReplaceFile(filepath.Join(dir, wire.IdentityFile), own, 0o600)
}

// fingerprintCommand shows what a host that registers shows too.
func fingerprintCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "fingerprint",
		Short: "Show the fingerprint of the cluster, on the master's computer",
		Long: `Show the fingerprint of the cluster's authority, on the master's computer.

A new host shows the fingerprint of whoever answers it when it is registered with
the manager's password: both must be the same before the password is typed. With
a token nobody needs to compare, it holds the fingerprint.`,
		Example: "  verdecmd fingerprint\n  verdecmd register --manager 192.0.2.10 --ca-sha256 \"$(ssh master verdecmd fingerprint)\"",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := settings.Load(path)
			if err != nil {
				return err
			}
			text, err := fingerprint(settings.PKI(v))
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), text)
			}
			return err
		},
	}
	c.Flags().StringVar(&path, "settings", settings.DefaultPath, "the settings `file`")
	return c
}

// fingerprint is that of the authority that issues, for people.
func fingerprint(dir string) (string, error) {
	c, err := wire.Load(dir, wire.Master)
	if err != nil {
		return "", err
	}
	return wire.FormatFingerprint(sha256.Sum256(c.Roots()[0])), nil
}

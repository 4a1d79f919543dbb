package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// Command returns "settings" with its sub-commands. It works on the file alone
// and needs no running program.
func Command() *cobra.Command {
	var path string
	root := &cobra.Command{
		Use:   "settings",
		Short: "Show and change the settings of this computer",
		Long: `Show and change the settings of this computer, which are in a text file.

The file has lines such as
    WIN4_VERDE_CLUSTER_MASTER="yes"
and may be edited by hand as well. "set" and "unset" change only the line in
question; comments and everything else stay as they are. A value is checked
before it is written. Programs read the file when they start: restart the
master or the satellite after a change.`,
		Example: `  verdecmd settings list --changed
  verdecmd settings get WIN4_VERDE_CMADDR
  verdecmd settings set WIN4_VERDE_CMADDR master.example.com
  verdecmd settings unset WIN4_SNAP_DIR`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&path, "settings", DefaultPath, "the settings `file`")
	root.AddCommand(getCommand(&path), setCommand(&path), unsetCommand(&path), listCommand(&path), sampleCommand())
	return root
}

// readFile reads the file and its values. Wrong values are in the error, with
// both results usable; without a file there are only defaults.
func readFile(path string) (*File, *Values, error) {
	data, _, err := readSettings(path)
	if err != nil && (path != DefaultPath || !errors.Is(err, fs.ErrNotExist)) {
		if errors.Is(err, fs.ErrNotExist) {
			err = missing(path)
		}
		return nil, nil, err
	}
	f, err := ParseFile(path, data)
	if err != nil {
		return nil, nil, err
	}
	v, err := parse(path, data, global)
	return f, v, err
}

func names(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var list []string
	if len(args) == 0 {
		for _, s := range global {
			list = append(list, s.Name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// want checks the number of words, and says how the command is used.
func want(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("usage: %s (%d words after %s, got %d; a value with blanks needs quotation marks)", cmd.UseLine(), n, cmd.Name(), len(args))
		}
		return nil
	}
}

func unknown(name string) error {
	return fmt.Errorf("unknown setting %q%s: see verdecmd settings list", name, global.didYouMean(name))
}

func getCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:               "get NAME",
		Short:             "print the value of a setting, or its default",
		Args:              want(1),
		ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, v, err := readFile(*path)
			if f == nil {
				return err
			}
			name := args[0]
			a, inFile := f.Get(name)
			s, known := global.Find(name)
			switch {
			case known && inFile:
				if err := s.CheckValue(a.Value); err != nil {
					return fmt.Errorf("%s:%d: %w", *path, a.Line, err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), a.Value)
			case known:
				fmt.Fprintln(cmd.OutOrStdout(), v.Raw(name))
			case inFile:
				fmt.Fprintln(cmd.OutOrStdout(), a.Value)
			default:
				return unknown(name)
			}
			return nil
		},
	}
}

func setCommand(path *string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "set NAME VALUE",
		Short: "write a setting to the file",
		Long: `Write a setting to the file: the value of its last line is replaced, or a line
is appended. The value is checked first; nothing is written if it is wrong.`,
		Example: `  verdecmd settings set WIN4_VERDE_STATS_INTERVAL 5
  verdecmd settings set VERDECMD_CONN_ADMINS "alice @admins"`,
		Args:              want(2),
		ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, value := args[0], args[1]
			s, known := global.Find(name)
			if !known && !force {
				return fmt.Errorf("%w; --force writes it nevertheless", unknown(name))
			}
			if known {
				if err := s.CheckValue(value); err != nil {
					return err
				}
			}
			if err := Edit(*path, func(f *File) error { return f.Set(name, value) }); err != nil {
				return err
			}
			remark(cmd.ErrOrStderr(), *path)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "write a name that is not a known setting")
	return cmd
}

func unsetCommand(path *string) *cobra.Command {
	return &cobra.Command{
		Use:               "unset NAME",
		Short:             "remove a setting from the file, so that the default counts",
		Args:              want(1),
		ValidArgsFunction: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if _, _, err := readSettings(*path); errors.Is(err, fs.ErrNotExist) {
				return missing(*path) // Edit would make an empty one
			}
			err := Edit(*path, func(f *File) error {
				removed, err := f.Unset(name)
				if _, known := global.Find(name); err == nil && !removed && !known {
					return unknown(name)
				}
				return err
			})
			if err == nil {
				remark(cmd.ErrOrStderr(), *path)
			}
			return err
		},
	}
}

// remark tells what is wrong in the file as it is now. The change was made: it
// may be the first of two that belong together.
func remark(w io.Writer, path string) {
	_, v, err := readFile(path)
	if err != nil {
		fmt.Fprintf(w, "warning: written, but no program will start with this file: %v\n", err)
	}
	if v != nil {
		for _, text := range v.Warnings() {
			fmt.Fprintln(w, "warning:", text)
		}
	}
}

func listCommand(path *string) *cobra.Command {
	var changed bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list all settings with value, source and default",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, v, err := readFile(*path)
			if f == nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tVALUE\tSOURCE\tDEFAULT")
			for _, s := range global {
				a, inFile := f.Get(s.Name)
				source := "default"
				if inFile {
					source = fmt.Sprintf("line %d", a.Line)
				}
				if inFile && !v.IsSet(s.Name) {
					source += ", wrong"
				}
				value := s.Default
				if inFile {
					value = a.Value
				}
				if inFile || !changed {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, dash(value), source, dash(s.Default))
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for _, text := range v.Warnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", text)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&changed, "changed", false, "only what the file sets")
	return cmd
}

// dash stands for an empty value in a table.
func dash(value string) string {
	if value == "" {
		return "-"
	}
	return value
}

func sampleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sample",
		Short: "print a settings file that explains every setting and sets none",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(Sample())
			return err
		},
	}
}

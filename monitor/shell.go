package monitor

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// shellWait is how long the master may take to answer the Tab of a shell.
const shellWait = time.Second

// completeArgs completes COMMAND and its arguments in a shell: by asking the
// master where there is one, else by the names of the commands.
func (o *options) completeArgs(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var line strings.Builder
	for _, a := range args {
		line.WriteString(quoteArg(a) + " ")
	}
	found := o.askChoices(line.String() + typed)
	if found == nil && len(args) == 0 {
		found = begin(NewTable(nil).topics(""), asciiLower(typed))
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	var out []string
	for _, f := range found {
		if strings.HasSuffix(f.Word, "=") {
			directive |= cobra.ShellCompDirectiveNoSpace // the value follows
		}
		word := f.Word
		if f.Summary != "" {
			word += "\t" + f.Summary
		}
		out = append(out, word)
	}
	return out, directive
}

// askChoices is the master's answer to complete; nil where it gives none in
// time.
func (o *options) askChoices(line string) []Choice {
	if checkChars([]byte(line)) != nil || o.findSocket() != nil {
		return nil
	}
	cl, err := Dial(o.socket)
	if err != nil {
		return nil
	}
	defer cl.Close()
	cl.nc.SetDeadline(time.Now().Add(shellWait))
	if cl.Send("complete "+line) != nil {
		return nil
	}
	var reply []ReplyLine
	for {
		l, err := cl.Read()
		if err != nil {
			return nil
		}
		reply = append(reply, l)
		if l.End() {
			return choicesOf(reply)
		}
	}
}

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"verdecmd/monitor"
	"verdecmd/packaging/man"
	"verdecmd/settings"
)

// generated are the files below packaging that are made from the tables of
// commands and settings.
func generated(t *testing.T) map[string][]byte {
	root := rootCommand()
	find := func(name string) *cobra.Command {
		c, _, err := root.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	find("demo").Flags().Lookup("guest").DefValue = "" // depends on what is built here
	mon, win4 := find("monitor"), find("win4")
	files := map[string][]byte{}
	page := func(name string, parts map[string]string) {
		in, err := os.ReadFile("packaging/man/" + name + ".in")
		if err != nil {
			t.Fatal(err)
		}
		out, err := man.Page(in, parts)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files["packaging/man/"+name] = out
	}
	page("verdecmd.8", map[string]string{
		"DESCRIPTION": man.Description(root),
		"COMMANDS":    man.Commands(root, "monitor", "win4"),
	})
	page("verdecmon.8", map[string]string{
		"OPTIONS": man.Options(mon), "EXAMPLES": man.Example(mon),
		"OWN": ownCommands(), "COMMANDS": monitorCommands(), "EXIT": exits(),
	})
	page("win4.1", map[string]string{
		"DESCRIPTION": man.Description(win4), "OPTIONS": man.Options(win4), "EXAMPLES": man.Example(win4),
	})
	page("settings.global.5", map[string]string{"SETTINGS": settingsEntries()})

	completion := func(name string, c *cobra.Command) {
		var b bytes.Buffer
		if err := c.GenBashCompletionV2(&b, true); err != nil {
			t.Fatal(err)
		}
		files["packaging/completion/"+name] = b.Bytes()
	}
	completion("verdecmd", root)
	for name, c := range map[string]*cobra.Command{"verdecmon": mon, "win4": win4} {
		root.RemoveCommand(c)
		c.Use = name
		completion(name, c)
	}
	return files
}

func ownCommands() string {
	var list []man.Entry
	for _, c := range monitor.OwnCommands() {
		list = append(list, man.Entry{Head: c[0], Text: []string{sentence(c[1])}})
	}
	return man.List(list)
}

func monitorCommands() string {
	var b strings.Builder
	var list []man.Entry
	group := ""
	flush := func() {
		if len(list) > 0 {
			b.WriteString(".Ss " + sentence(group)[:len(group)] + "\n" + man.List(list))
		}
		list = nil
	}
	for _, c := range monitor.NewTable(nil).Manual() {
		if c.Group != group {
			flush()
			group = c.Group
		}
		e := man.Entry{Head: c.Usage, Text: c.About, Terms: c.Args}
		if c.Example != c.Name {
			e.Example = []string{c.Example}
		}
		level := "Level: " + c.Level.String() + "."
		if c.Job {
			level += " It runs as a job."
		}
		if len(c.See) > 0 {
			level += " See also: " + strings.Join(c.See, ", ") + "."
		}
		e.Notes = []string{level}
		list = append(list, e)
	}
	flush()
	return b.String()
}

func exits() string {
	var list []man.Entry
	for _, e := range monitor.Exits() {
		list = append(list, man.Entry{Head: strconv.Itoa(e.Status), Text: []string{sentence(e.When)}})
	}
	return man.List(list)
}

func settingsEntries() string {
	var list []man.Entry
	for _, s := range settings.Global().Manual() {
		e := man.Entry{Head: s.Name, Text: s.Text, Example: []string{s.Example}}
		var facts []string
		for _, f := range s.Facts {
			facts = append(facts, f[0]+": "+f[1])
		}
		e.Text = append(e.Text, strings.Join(facts, "; ")+".")
		list = append(list, e)
	}
	return man.List(list)
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// The manual pages and the completion of bash are what the tables say; with
// -update they are written anew.
func TestGenerated(t *testing.T) {
	files := generated(t)
	for name, want := range files {
		if *update {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the tables say (%v): run make man", name, err)
		}
	}
	for _, dir := range []string{"packaging/man/*.[0-9]", "packaging/completion/*"} {
		found, err := filepath.Glob(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			if files[name] == nil {
				t.Errorf("%s is made from nothing: remove it", name)
			}
		}
	}
}

// The pages are right for both programs that show manuals.
func TestManualPages(t *testing.T) {
	pages, err := filepath.Glob("packaging/man/*.[0-9]")
	if err != nil || len(pages) < 4 {
		t.Fatalf("pages: %v, %v", pages, err)
	}
	for _, page := range pages {
		// The cross-references are to pages that are not installed here.
		out, err := exec.Command("mandoc", "-T", "lint", "-W", "style", page).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "referenced manual not found") {
				t.Errorf("mandoc (%v): %s", err, line)
			}
		}
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", page)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANROFFSEQ=", "MANWIDTH=100", "MAN_KEEP_FORMATTING=", "PAGER=cat")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil || stderr.Len() > 0 {
			t.Errorf("man %s: %v\n%s", page, err, stderr.String())
		}
		for _, want := range []string{"NAME", "DESCRIPTION", "SEE ALSO"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("man %s shows no %q", page, want)
			}
		}
	}
}

package monitor

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the tests find into docs/protocol.md")

const protocolPage = "../docs/protocol.md"

func readPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(protocolPage)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// compare tells where the page is not what it should be; with -update it is
// written anew.
func compare(t *testing.T, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(protocolPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			t.Errorf("%s:%d: got %q, want %q; run make man and look at the difference", protocolPage, i+1, a[i], b[min(i, len(b)-1)])
			return
		}
	}
	t.Errorf("%s ends too early", protocolPage)
}

// cell is text for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// made are the parts of the page that come from tables.
func made() map[string]string {
	var commands, events, missing strings.Builder
	group := ""
	table := NewTable(nil)
	for _, m := range table.Manual() {
		if m.Group != group {
			if group != "" {
				commands.WriteString("\n")
			}
			group = m.Group
			fmt.Fprintf(&commands, "| %s | Level | |\n|---|---|---|\n", upperFirst(group))
		}
		summary := m.Summary
		if m.Job {
			summary += " (a job)"
		}
		fmt.Fprintf(&commands, "| `%s` | %s | %s |\n", cell(m.Usage), m.Level, cell(summary))
	}
	events.WriteString("| Pattern | Types |\n|---|---|\n")
	sep := ""
	for _, c := range eventTypes("") {
		if strings.HasSuffix(c.Word, "*") {
			fmt.Fprintf(&events, "%s| `%s` | ", sep, c.Word)
			sep = " |\n"
			continue
		}
		fmt.Fprintf(&events, "`%s` ", c.Word)
	}
	names := slices.Clone(notBuilt)
	names = slices.DeleteFunc(names, func(n string) bool { return !table.missing[n] })
	for i, n := range names {
		names[i] = "`" + n + "`"
	}
	missing.WriteString(strings.Join(names, " "))
	return map[string]string{
		"commands": commands.String(), "events": strings.ReplaceAll(events.String(), "  ", " ") + "|\n", "missing": missing.String() + "\n",
	}
}

var madePart = regexp.MustCompile(`(?s)(<!-- made: (\w+) -->\n).*?(<!-- end -->)`)

// The tables of the page are those of the program: every command with its
// level and usage, every event.
func TestProtocolTables(t *testing.T) {
	page := readPage(t)
	parts := made()
	used := 0
	want := madePart.ReplaceAllStringFunc(page, func(s string) string {
		m := madePart.FindStringSubmatch(s)
		part, ok := parts[m[2]]
		if !ok {
			t.Errorf("nothing makes the part %q", m[2])
		}
		used++
		return m[1] + part + m[3]
	})
	if used != len(parts) {
		t.Errorf("%d parts of the page are made, want %d", used, len(parts))
	}
	compare(t, page, want)
}

// The page has all codes with their keywords, and the code of the program
// emits no others.
func TestProtocolCodes(t *testing.T) {
	page := readPage(t)
	known := map[string]bool{}
	for _, c := range Codes() {
		known[fmt.Sprint(c.Code)] = true
		if row := fmt.Sprintf("\n| %d | %s | ", c.Code, c.Keyword); !strings.Contains(page, row) && !strings.Contains(page, strings.TrimSuffix(row, " ")) {
			t.Errorf("%s has no row %q", protocolPage, row)
		}
	}
	emitted := regexp.MustCompile(`(?:\bCode: *|Errorf\(|Code = |Code == |mark\()([1-6]\d\d)\b`)
	var files []string
	for _, pattern := range []string{"*.go", "../master/*.go", "../master/*/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	count := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range emitted.FindAllSubmatch(text, -1) {
			count++
			if !known[string(m[1])] {
				t.Errorf("%s: the code %s is not in the protocol", name, m[1])
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d codes found in the sources: the search is out of date", count)
	}
}

func TestProtocolLimits(t *testing.T) {
	page := readPage(t)
	for what, n := range map[string]int{"a command line": maxLine, "a line of a reply": maxReply, "free texts": maxChars,
		"candidates of `complete`": maxChoice, "events that wait": maxWaiting} {
		found := false
		for line := range strings.Lines(page) {
			found = found || strings.HasPrefix(line, "| "+what) && strings.Contains(line, fmt.Sprint(n))
		}
		if !found {
			t.Errorf("%s does not say that the limit of %s is %d", protocolPage, what, n)
		}
	}
}

var transcript = regexp.MustCompile("(?s)```(transcript|console)\n(.*?)```\n")

// Every transcript of the page is what a master answers; … stands for what is
// different each time.
func TestProtocolTranscripts(t *testing.T) {
	page := readPage(t)
	count := 0
	want := transcript.ReplaceAllStringFunc(page, func(block string) string {
		m := transcript.FindStringSubmatch(block)
		count++
		ts := serve(t, newFake(), nil)
		defer ts.stop()
		answer := asked
		if m[1] == "console" {
			answer = typed
		}
		return "```" + m[1] + "\n" + answer(t, ts, m[2]) + "```\n"
	})
	if count < 12 {
		t.Errorf("only %d transcripts found", count)
	}
	compare(t, page, want)
}

// asked sends the lines that begin with "> " and returns the transcript as it
// is.
func asked(t *testing.T, ts *testServer, text string) string {
	s := ts.dial(t)
	defer s.nc.Close() // else the master waits a second for us
	var b strings.Builder
	var old, got []string // of the command before
	read := func() string {
		code, mark, data := s.line()
		got = append(got, strings.ReplaceAll(code+mark+data, "\t", "→"))
		if mark == "-" {
			return ""
		}
		return code
	}
	command := ""
	flush := func() {
		if command == "" {
			return
		}
		for {
			if code := read(); code != "" && code[0] != '1' && code[0] != '6' {
				break
			}
		}
		// Events that the transcript shows after the reply are waited for; they
		// may as well have come before it.
		rest := slices.DeleteFunc(slices.Clone(got), func(l string) bool { return l[0] == '6' })
		early := slices.DeleteFunc(slices.Clone(got), func(l string) bool { return l[0] != '6' })
		late := 0
		for i := len(old) - 1; i >= 0 && old[i][0] == '6'; i-- {
			late++
		}
		if len(early) <= late {
			got = append(rest, early...)
		}
		for range late - len(early) {
			read()
		}
		fmt.Fprintf(&b, "> %s\n%s", command, matched(old, got))
		old, got = nil, nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if c, ok := strings.CutPrefix(line, "> "); ok {
			flush()
			command = c
			s.send(c + "\n")
			continue
		}
		old = append(old, line)
	}
	flush()
	return b.String()
}

// typed has a shell run the lines that begin with "$ ".
func typed(t *testing.T, ts *testServer, text string) string {
	var b strings.Builder
	var old, got []string
	command := ""
	flush := func() {
		if command == "" {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), mostWait)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", command)
		cmd.Env = append(os.Environ(), "S="+ts.path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
		for line := range bytes.Lines(out) {
			got = append(got, strings.TrimSuffix(string(line), "\n"))
		}
		fmt.Fprintf(&b, "$ %s\n%s", command, matched(old, got))
		old, got = nil, nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			flush()
			command = c
			continue
		}
		old = append(old, line)
	}
	flush()
	return b.String()
}

// matched is what the page shows where it agrees with what came, else what
// came. A line … of the page is any number of lines.
func matched(page, came []string) string {
	var b strings.Builder
	for len(came) > 0 {
		switch {
		case len(page) > 0 && page[0] == "…":
			page = page[1:]
			b.WriteString("…\n")
			for len(came) > 0 && (len(page) == 0 || !alike(page[0], came[0])) {
				came = came[1:]
			}
			continue
		case len(page) > 0 && alike(page[0], came[0]):
			b.WriteString(page[0] + "\n")
		default:
			b.WriteString(came[0] + "\n")
		}
		page, came = page[min(1, len(page)):], came[1:]
	}
	return b.String()
}

// alike tells whether a line is the one of the page, where … is anything. How
// long something took is no part of it.
func alike(page, line string) bool {
	page, line = untimed(page), untimed(line)
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(page), "…", ".*") + "$").MatchString(line)
}

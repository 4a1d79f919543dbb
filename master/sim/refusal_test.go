package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// sourcesOfRefusals are the files whose texts refuse somebody, and texts in
// them that do not: they are parts of others, progress, or checks for tests.
var sourcesOfRefusals = map[string][]string{
	"../cluster/refusal.go":     {"%d %s", "server %d (%s)", "%s wanted (%s for the guest, %s beside it)", "%d MiB"},
	"../cluster/reservation.go": {"server %d was silent for %d s, its lease is over"},
	"../cluster/server.go":      nil,
	"../cluster/session.go":     nil,
	"../cluster/link.go":        nil,
	"../cluster/asked.go":       nil,

	"../../satellite/session/plan.go": {
		"it describes session %q", "its times are negative", // of damaged files
	},
	"../../satellite/session/plan_login.go": {
		"waiting for the cluster master (%s)", "s0%016d", "the desktop has failed: %s", "; the guest's last line: %q",
		"52:%02x:%02x:%02x:%02x:%02x", "%x-%x-%x-%x-%x",
	},
	"../../satellite/session/plan_life.go": {"; the guest's last line: %q", "%s/%d"},
	"../../satellite/link/plan.go": {
		"the clock of this host is %s the master's: set it, and let it be kept right by NTP", // a warning in the log
	},
}

// The table of refusals is complete and up to date: it is compared with the
// source.
func TestRefusalsAreThoseOfTheSource(t *testing.T) {
	var table, found []string
	for _, r := range refusals {
		table = append(table, r.text)
	}
	for file, others := range sourcesOfRefusals {
		texts := textsOf(t, file)
		for _, text := range texts {
			if !slices.Contains(table, text) && !slices.Contains(others, text) {
				t.Errorf("%s refuses with %q, and the table does not have it", file, text)
			}
		}
		for _, o := range others {
			if !slices.Contains(texts, o) {
				t.Errorf("%s has no text %q any more", file, o)
			}
		}
		found = append(found, texts...)
	}
	found = append(found, textsOf(t, "../placement/placement.go")...)
	found = append(found, "there is no link to the master") // link.ErrDown, between the daemon's own texts
	for _, text := range table {
		if !slices.Contains(found, text) {
			t.Errorf("the table has %q, and the source does not", text)
		}
	}
}

// textsOf are the first string arguments of Errorf, New and Sprintf in a file,
// and the texts of placement's reasons.
func textsOf(t *testing.T, file string) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Errorf", "New", "Sprintf"}, sel.Sel.Name) {
				break
			}
			for _, a := range n.Args {
				if text, ok := constant(a); ok {
					out = append(out, text)
					break
				}
			}
		case *ast.ValueSpec:
			if n.Names[0].Name == "reasonText" {
				for _, e := range n.Values[0].(*ast.CompositeLit).Elts[1:] { // the first is no refusal
					text, _ := constant(e)
					out = append(out, text)
				}
			}
		}
		return true
	})
	return out
}

// constant is the value of a string literal, or of several with + between them.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	case *ast.BinaryExpr:
		a, ok := constant(e.X)
		b, ok2 := constant(e.Y)
		return a + b, ok && ok2
	}
	return "", false
}

// Texts are recognised with whatever stands in their places.
func TestTemplates(t *testing.T) {
	for text, want := range map[string]string{
		"bob has no session": "%s has no session",
		"for bob on server 3 (sat3): no live reservation; log in again": "for %s on server %d (%s): %w; log in again",
		"something else": "",
	} {
		got := templates(generic(text))
		if want == "" && len(got) > 0 || want != "" && !slices.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

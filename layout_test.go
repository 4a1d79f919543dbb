package main_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// planted may be imported by all: there is nothing in it unless bugs are wanted.
const planted = "proto/planted"

// module is how our packages begin.
const module = "verdecmd"

// mostLines is the largest file of ours that is still read. Generated files are
// not counted.
const mostLines = 800

// layout says which packages of ours a package may import. The first row that
// matches a package counts. * stands for one part of a path, ** at the end for
// any number of parts, none included.
var layout = []struct {
	packages string
	may      string // packages, blank-separated
	why      string
}{
	{".", "master monitor satellite satellite/sim settings settings/** proto/wire packaging/demo", "only main.go sees both roles"},
	{"settings/**", "settings/**", "settings imports nothing of ours"},
	{"proto", "", "the generated code imports nothing of ours"},
	{"proto/wire", "proto", "wire is what both ends agree on"},
	{"proto/simulated", "proto", "simulator and satellite agree on it and on nothing else"},
	{"proto/planted", "", "a bug stands alone"},
	{"monitor/**", "monitor/** settings", "the monitor knows the master only through its own interfaces"},

	{"master", "master/** monitor proto proto/simulated proto/wire settings/**", "the master does not know satellites"},
	{"master/placement", "", "placement is pure and stands alone"},
	{"master/cluster", "master/placement", "cluster is pure"},
	{"master/store", "", "the store knows nothing of what it keeps"},
	{"master/pki", "proto/wire", "the files of the authorities, whoever uses them"},
	{"master/event", "master/store monitor", "events are kept and shown"},
	{"master/job", "master/store monitor", "jobs are kept and shown"},
	{"master/link", "master/cluster master/placement proto proto/wire settings/**", "the link translates, it does not decide"},
	{"master/hub", "master/cluster master/host master/link master/session master/store monitor proto proto/wire", "the hub joins links and capabilities; its tests need a store"},
	{"master/sim", "master/** monitor proto proto/simulated proto/wire settings/**", "the simulator runs the master's rules; satellites are handed in"},
	{"master/fleet", "master/** monitor proto proto/wire settings/**", "a fleet of simulated satellites drives a real master"},
	{"master/*", "master/cluster master/placement master/store master/event master/job master/pki monitor proto proto/wire settings/**",
		"a capability declares the interface that it needs of another one"},

	{"satellite", "satellite/** proto proto/wire settings/**", "the satellite knows neither master nor monitor"},
	{"satellite/desktop/qemu", "satellite/desktop/** settings/** packaging/guest/guesttest", "a desktop knows nothing of the cluster; its tests boot a real guest"},
	{"satellite/desktop/**", "satellite/desktop/** settings/**", "a desktop knows nothing of the cluster"},
	{"satellite/link", "proto proto/wire settings/**", "the link carries, it does not act"},
	{"satellite/load", "proto settings/**", "the load is measured, whoever wants it"},
	{"satellite/session", "satellite/desktop satellite/desktop/fake satellite/link proto proto/wire settings/**", "its tests run desktops that behave"},
	{"satellite/sim", "satellite/** proto proto/simulated proto/wire settings/**", "a satellite as the simulator wants it; only main.go hands it in"},
	{"satellite/guard", "satellite/desktop", "the guardian is told where the journal is and how to kill"},
	{"satellite/*", "satellite/desktop satellite/link satellite/load proto proto/wire settings/**",
		"a capability declares the interface that it needs of another one"},

	{"packaging/**", "packaging/** settings/**", "packaging executes the binary and imports no role"},
	{"docs/**", "", "an example stands alone, as it would elsewhere"},
}

// pure are the files that hold rules: functions of their arguments alone. The
// first four must exist.
var pure = []string{"master/cluster/*.go", "master/placement/*.go", "satellite/desktop/machine.go", "satellite/desktop/qemu/args.go", "master/*/plan*.go", "satellite/*/plan*.go", "satellite/*/*/plan.go"}

// impure are the imports that pure files do without, with all below them.
var impure = []string{"os", "net", "sync", "context", "log", "io", "bufio", "syscall", "runtime", "math/rand", "crypto/rand", "golang.org/x/sys",
	"github.com/rs/zerolog", "google.golang.org/grpc"}

// clock are the functions of package time that ask the clock or wait for it.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTicker", "NewTimer"}

// source is a parsed file of ours; name is its path below the module.
type source struct {
	name string
	file *ast.File
	set  *token.FileSet
}

func (s source) dir() string { return path.Dir(s.name) }

func (s source) test() bool { return strings.HasSuffix(s.name, "_test.go") }

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.name, s.set.Position(n.Pos()).Line)
}

// sources parses the whole tree.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// build and run are what make leaves behind.
			if name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || name == "build" || name == "run") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(name), f, set})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d files found: the test does not run in the module's directory", len(all))
	}
	return all
}

// matches tells whether a path is one of the patterns of layout.
func matches(patterns, name string) bool {
	for _, p := range strings.Fields(patterns) {
		if tree, ok := strings.CutSuffix(p, "/**"); ok && (name == tree || strings.HasPrefix(name, tree+"/")) {
			return true
		}
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// imported returns the path of an import below the module; ok is false for one
// that is not ours.
func imported(i *ast.ImportSpec) (name string, ours bool) {
	name, err := strconv.Unquote(i.Path.Value)
	if err != nil {
		return "", false
	}
	if name == module {
		return ".", true
	}
	below, ours := strings.CutPrefix(name, module+"/")
	if !ours {
		return name, false
	}
	return below, true
}

// DESIGN 2: who may import whom. Tests at the top join everything, as
// simulations do; all others keep the rules of their packages.
func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() && s.dir() == "." {
			continue
		}
		i := slices.IndexFunc(layout, func(row struct{ packages, may, why string }) bool { return matches(row.packages, s.dir()) })
		if i < 0 {
			t.Errorf("%s: the package has no place in the layout; add a row to layout_test.go, and to DESIGN 2 if it is a new idea", s.name)
			continue
		}
		row := layout[i]
		for _, spec := range s.file.Imports {
			name, ours := imported(spec)
			if ours && name != s.dir() && name != planted && !matches(row.may, name) {
				t.Errorf("%s imports %s, and %s may import only %q: %s", s.at(spec), name, s.dir(), row.may, row.why)
			}
		}
	}
}

// STYLE 1: pure files have no clock, randomness, goroutine, lock, context, log
// or I/O. Their tests may have what they need.
func TestPure(t *testing.T) {
	found := map[string]bool{}
	for _, s := range sources(t) {
		i := slices.IndexFunc(pure, func(p string) bool { return matches(p, s.name) })
		if i < 0 || s.test() {
			continue
		}
		found[pure[i]] = true
		for _, spec := range s.file.Imports {
			name, ours := imported(spec)
			for _, bad := range impure {
				if !ours && (name == bad || strings.HasPrefix(name, bad+"/")) {
					t.Errorf("%s imports %s: rules are functions of their arguments; let the caller do it and pass the result in", s.at(spec), name)
				}
			}
			if name == "time" && spec.Name != nil {
				t.Errorf("%s gives package time another name, which hides the clock from this test", s.at(spec))
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s uses time.%s: the time comes in as an argument", s.at(n), n.Sel.Name)
				}
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine in a pure file", s.at(n))
			case *ast.SelectStmt:
				t.Errorf("%s waits in a pure file", s.at(n))
			}
			return true
		})
	}
	for _, p := range pure[:4] {
		if !found[p] {
			t.Errorf("no file is %s: the list of pure files is out of date", p)
		}
	}
}

// DESIGN 2: no file over 800 lines.
func TestFileSizes(t *testing.T) {
	for _, s := range sources(t) {
		if lines := s.set.File(s.file.Pos()).LineCount(); lines > mostLines && !ast.IsGenerated(s.file) {
			t.Errorf("%s has %d lines, at most %d: it holds two subjects, split it", s.name, lines, mostLines)
		}
	}
}

// STYLE 3: each package says what it is for, in one place.
func TestPackageComments(t *testing.T) {
	where := map[string][]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		where[s.dir()] = where[s.dir()] // known, also without a comment
		if s.file.Doc == nil || ast.IsGenerated(s.file) {
			continue
		}
		text := s.file.Doc.Text()
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = ""
		}
		if !strings.HasPrefix(text, want) {
			t.Errorf("%s: the package comment begins with %.40q, want %q", s.at(s.file.Doc), text, want)
		}
		where[s.dir()] = append(where[s.dir()], s.name)
	}
	for dir, files := range where {
		switch {
		case dir == "proto": // generated; its .proto files have the comments
		case len(files) == 0:
			t.Errorf("package %s has no comment: say what it is for, and what a reader must know before changing it", dir)
		case len(files) > 1:
			t.Errorf("package %s has comments in %v: keep one", dir, files)
		}
	}
}

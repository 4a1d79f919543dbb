package settings

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func mustParse(t *testing.T, text string) *File {
	t.Helper()
	f, err := ParseFile("file", []byte(text))
	if err != nil {
		t.Fatalf("parse %q: %v", text, err)
	}
	return f
}

// Golden files of V-26: comments, blank lines, quotes and unknown names stay.
// The steps are above the files: "set NAME VALUE", "unset NAME".
func TestEditGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/edit/*.txtar")
	if err != nil || len(paths) < 5 {
		t.Fatalf("golden files: got %d, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			steps, in, want := golden(t, path)
			f := mustParse(t, in)
			for line := range strings.Lines(steps) {
				verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
				name, value, _ := strings.Cut(rest, " ")
				if unquoted, err := strconv.Unquote(value); err == nil {
					value = unquoted
				}
				if verb == "set" {
					err = f.Set(name, value)
				} else {
					_, err = f.Unset(name)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := f.Bytes(); string(got) != want {
				t.Errorf("got\n%q\nwant\n%q", got, want)
			}
		})
	}
}

func golden(t testing.TB, path string) (steps, in, out string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	steps, rest, ok := strings.Cut(string(data), "-- in --\n")
	in, out, ok2 := strings.Cut(rest, "-- out --\n")
	if !ok || !ok2 {
		t.Fatalf("%s: wants steps, -- in --, -- out --", path)
	}
	return steps, in, out
}

// What is accepted has the value that a shell gives it.
func TestParseFileAcceptsAsTheShell(t *testing.T) {
	const text = `
# comment

A=plain
B="double $ quoted"   # comment
C='single $x "quoted"'
D=mixed'one '"two"\ three
export E=exported
F=
G=a#b
H="a\"b\\c\$d\e"
  I=indented;
J=glob*?[x]
K={a,b}
A=again
L="line \
continued"
M=über
N=a~b=c:d
` + "O=\"tab\there\"\r\n"
	f := mustParse(t, text)
	got := map[string]string{}
	script := string(f.Bytes()) + "\nprintf '%s\\n'"
	for _, name := range f.Names() {
		a, _ := f.Get(name)
		got[name] = a.Value
		script += ` "` + name + `=$` + name + `"`
	}
	// The shell takes the carriage return of a Windows line end as a part of
	// the value, the only difference that is wanted.
	out, err := exec.Command("sh", "-c", strings.ReplaceAll(script, "\r\n", "\n")).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		want[name] = value
	}
	if len(want) != 15 || !maps.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestParseFileRefuses(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"command substitution":  {"\nA=$(rm -rf /)\n", "file:2:3: the value of A contains a command: nothing is evaluated"},
		"backquotes":            {"A=`x`", "file:1:3: the value of A contains a command"},
		"in double quotes":      {"A=\"x $(y)\"", "file:1:6: the value of A contains a command"},
		"variable":              {"A=$HOME/x", "file:1:3: the value of A contains a variable"},
		"variable in quotes":    {`A="${B}"`, "file:1:4: the value of A contains a variable"},
		"calculation":           {"A=$((1+1))", "file:1:3: the value of A contains a calculation"},
		"extended glob":         {"A=@(x)", "file:1:3: the value of A contains something"},
		"tilde":                 {"A=~/x", "write the path in full"},
		"tilde after colon":     {"A=/b:~/x", "write the path in full"},
		"ansi quotes":           {`A=$'x\n'`, "use plain quotes"},
		"locale quotes":         {`A=$"x"`, "use plain quotes"},
		"blanks around =":       {"A = 1", "file:1:1: blanks around the = are not allowed: write A=\"value\""},
		"blanks in value":       {"A=one two", "file:1:7: a value with blanks needs quotes: write A=\"...\""},
		"command":               {"\n\nrm -rf /", `file:3:1: "rm" is a command, not a setting: nothing is run`},
		"command of expansion":  {"$x y", "file:1:1: a command, not a setting"},
		"two in one line":       {"A=1 B=2", "file:1:1: 2 assignments in one line"},
		"two with semicolon":    {"A=1; B=2", "file:1:6: a second assignment on the same line"},
		"append":                {"A+=1", "file:1:1: A+= is not understood"},
		"array":                 {"A=(1 2)", "A is a list"},
		"index":                 {"A[1]=2", "A is a list"},
		"export without value":  {"export A", "an assignment without a value"},
		"readonly":              {"readonly A=1", `"readonly" is not understood`},
		"background":            {"A=1 &", "a command, not a setting"},
		"redirection":           {"A=1 >x", "a command, not a setting"},
		"if":                    {"if true; then A=1; fi", "file:1:1: a command, not a setting"},
		"function":              {"f() { :; }", "file:1:1: a command, not a setting"},
		"open quote":            {"A=1\nB='x\n", "file:2:3: reached EOF without closing quote"},
		"open double quote":     {"A=\"x\nB=1\n", "file:1:3: reached EOF without closing quote"},
		"newline in value":      {"A='x\ny'", "file:1:3: the value of A goes over the end of the line"},
		"NUL":                   {"A=1\nB=\x00", "file:2:3: control character U+0000"},
		"escape":                {"A='\x1b[2J'", "file:1:4: control character U+001B"},
		"lone carriage return":  {"A=1\rB=2", "file:1:4: control character U+000D"},
		"not UTF-8":             {"A=1\n# \xff", "file:2:3: the byte 0xff is not UTF-8"},
		"byte order mark":       {"\xef\xbb\xbfA=1", "file:1:1: begins with a byte order mark"},
		"too big":               {strings.Repeat("#\n", maxFile/2+1), "more than a settings file can have"},
		"name is no name":       {"WIN4-X=1", `"WIN4-X=1" is a command`},
		"pipe":                  {"A=1 | B=2", "a command, not a setting"},
		"not of the shell":      {")", "file:1:1: "},
		"dos end without quote": {"A=\"x\r\n", "file:1:3: "},
		"two mistakes, one text": {"A=$B\nC=1\nD = 2\n",
			"file has 2 mistakes:\n  file:1:3: the value of A contains a variable: nothing is evaluated in this file; write the value itself, or put '...' around it to take it as it is\n  file:3:1: blanks around"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile("file", []byte(tt.text))
			var fe *FileError
			if !errors.As(err, &fe) {
				t.Fatalf("got %v, want a FileError", err)
			}
			if got := err.Error(); !strings.Contains(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A file of maximum size whose parts nest must not exhaust the stack.
func TestParseFileSurvivesDeepNesting(t *testing.T) {
	for _, unit := range []string{"$(", "(", "`", "((", "$((", "${a:-", "$(( (", "if ", "a[", "<(", "f()", "A=\"${B:-"} {
		text := strings.Repeat(unit, maxFile/len(unit))
		if _, err := ParseFile("file", []byte(text)); err == nil {
			t.Errorf("%q repeated: got no error", unit)
		}
		if _, err := ParseFile("file", []byte("A="+text[:len(text)-2])); err == nil {
			t.Errorf("A=%q repeated: got no error", unit)
		}
	}
}

func TestSetRefuses(t *testing.T) {
	tests := map[string]struct{ text, name, value, want string }{
		"newline in value":       {"", "A", "x\ny", "goes over the end of the line"},
		"NUL in value":           {"", "A", "x\x00", "control character U+0000"},
		"not UTF-8":              {"", "A", "\xff", "is not UTF-8"},
		"bad name":               {"", "A B", "x", "cannot be the name of a setting"},
		"empty name":             {"", "", "x", "cannot be the name of a setting"},
		"too long":               {"", "A", strings.Repeat("x", 20000), "is too long"},
		"file would be too long": {strings.Repeat("#\n", maxFile/2), "A", "x", "after the change, the file would be wrong"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := mustParse(t, tt.text)
			err := f.Set(tt.name, tt.value)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if string(f.Bytes()) != tt.text {
				t.Errorf("got the file changed to %q", f.Bytes())
			}
		})
	}
}

// FuzzParseFile: no bytes bring the parser down; what it accepts can be edited,
// with every other value kept (V-26).
func FuzzParseFile(f *testing.F) {
	for _, path := range []string{"sample_of_the_original", "last_one_wins", "unset_removes_every_line", "mixed_quotes"} {
		_, in, _ := golden(f, "testdata/edit/"+path+".txtar")
		f.Add([]byte(in), "WIN4_SNAP_DIR", "/new $value")
	}
	f.Add([]byte("A=1\\"), "B", "x")
	f.Add([]byte("A=1\\\n"), "B", "x")
	f.Add([]byte("# x\\"), "B", "x")
	f.Add([]byte("A=$(x)"), "B", "'\"`$\\")
	f.Fuzz(func(t *testing.T, data []byte, name, value string) {
		file, err := ParseFile("file", data)
		if err != nil {
			if err.Error() == "" {
				t.Error("got an empty error")
			}
			return
		}
		before := valuesOf(file)
		if err := file.Set(name, value); err == nil {
			want := maps.Clone(before)
			want[name] = value
			again, err := ParseFile("file", file.Bytes())
			if err != nil {
				t.Fatalf("after set: %v", err)
			}
			if got := valuesOf(again); !maps.Equal(got, want) {
				t.Errorf("after set: got %q, want %q", got, want)
			}
		}
		if _, err := file.Unset(name); err == nil {
			delete(before, name)
			if got := valuesOf(file); !maps.Equal(got, before) {
				t.Errorf("after unset: got %q, want %q", got, before)
			}
		}
	})
}

func valuesOf(f *File) map[string]string {
	m := map[string]string{}
	for _, name := range f.Names() {
		a, _ := f.Get(name)
		m[name] = a.Value
	}
	return m
}

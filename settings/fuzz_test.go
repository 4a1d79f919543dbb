package settings

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// FuzzLiteral: a value that the file's reader takes is the one that a shell
// takes, and what quote writes is read as the same by both (V-26).
func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"", "plain", `"a b"`, `'$HOME'`, `a\ b`, `"\$x \a"`, `a"b"'c'`, `~`, `a:~b`, `"$x"`, "`id`", `$((1+1))`, `$'a'`, `a\`, "\"a\\\nb\"", `{a,b}`, `*`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if CheckText(text) == nil {
			file, err := ParseFile("file", []byte("A="+quote(text)+"\n"))
			if err != nil {
				t.Fatalf("quote(%q): %v", text, err)
			}
			if got, _ := file.Get("A"); got.Value != text {
				t.Errorf("quote(%q) reads as %q", text, got.Value)
			}
		}
		data := []byte("A=" + text + "\n")
		file, err := ParseFile("file", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "file") || !strings.Contains(err.Error(), ":") {
				t.Errorf("the error %q does not name the place", err)
			}
			return
		}
		tree, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(bytes.NewReader(data), "")
		if err != nil || len(tree.Stmts) != 1 || len(file.words) != 1 {
			return // more than one line
		}
		call, ok := tree.Stmts[0].Cmd.(*syntax.CallExpr)
		if !ok || len(call.Assigns) != 1 {
			return
		}
		want := ""
		if w := call.Assigns[0].Value; w != nil {
			if strings.Contains(text, "{") {
				return // braces make several words of arguments, none of values
			}
			words, err := expand.Fields(nil, w)
			if err != nil || len(words) > 1 {
				t.Fatalf("a shell takes %q for %q, %v", text, words, err)
			}
			want = strings.Join(words, "")
		}
		if got, _ := file.Get("A"); got.Value != want {
			t.Errorf("%q: got %q, a shell takes %q", text, got.Value, want)
		}
	})
}

// FuzzValue: each kind of value is taken or refused by CheckValue alone: what it
// takes is read from a file and can be used, what it refuses is refused there
// too, with file and line (S21).
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "yes", "No", "0", "12", "-1", "99999999999999999999", "30s", "1h", "1.5h", "4G", "512", "512M", "NaN", "/x", "bridge:br0", "user", "a b", "127.0.0.1:1", "debug", "hold", "lease", "%1"} {
		for i := range Global() {
			f.Add(s, uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, value string, which uint8) {
		if CheckText(value) != nil {
			return
		}
		s := Global()[int(which)%len(Global())]
		err := s.CheckValue(value)
		v, perr := ParseTable("file", []byte("\n"+s.Name+"="+quote(value)+"\n"), Table{s})
		if (err == nil) != (perr == nil) {
			t.Errorf("%s=%q: CheckValue says %v, the file %v", s.Name, value, err, perr)
		}
		if perr != nil {
			if !strings.Contains(perr.Error(), "file:2:") || !strings.Contains(perr.Error(), s.Name) {
				t.Errorf("%s=%q: %q does not name file, line and setting", s.Name, value, perr)
			}
			return
		}
		switch s.Kind {
		case Bool:
			v.Bool(s.Name)
		case Integer:
			if n := v.Int(s.Name); s.Max > 0 && (int64(n) < s.Min || int64(n) > s.Max) {
				t.Errorf("%s=%q: got %d, out of its range", s.Name, value, n)
			}
		case Duration:
			if d := v.Duration(s.Name); d < 0 {
				t.Errorf("%s=%q: got %v", s.Name, value, d)
			}
		case MiB:
			if n := v.MiB(s.Name); n < 0 {
				t.Errorf("%s=%q: got %d MiB", s.Name, value, n)
			}
		default:
			if got := v.Raw(s.Name); value != "" && got != value {
				t.Errorf("%s=%q: got %q", s.Name, value, got)
			}
		}
	})
}

// FuzzEdit: setting one name changes the bytes of its value and no others, twice
// is the same as once, and a file that is not a settings file stays as it is
// (V-26).
func FuzzEdit(f *testing.F) {
	files, err := filepath.Glob("testdata/edit/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		_, in, _ := golden(f, file)
		f.Add([]byte(in), "/new value")
	}
	f.Add(Sample(), "1")
	path := filepath.Join(f.TempDir(), "settings")
	f.Fuzz(func(t *testing.T, data []byte, value string) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		set := func(file *File) error { return file.Set("WIN4_SNAP_DIR", value) }
		was, perr := ParseFile(path, data)
		err := Edit(path, set)
		got, rerr := os.ReadFile(path)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if err != nil {
			if !bytes.Equal(got, data) {
				t.Errorf("refused with %v and changed all the same", err)
			}
			return
		}
		if perr != nil {
			t.Fatalf("edited though it is wrong: %v", perr)
		}
		from, to := len(data), len(data)
		if a, ok := was.Get("WIN4_SNAP_DIR"); ok {
			from, to = a.valueFrom, a.valueTo
		}
		if !bytes.HasPrefix(got, data[:from]) || !bytes.HasSuffix(got, data[to:]) {
			t.Errorf("bytes beside the value have changed: %q became %q", data, got)
		}
		if err := Edit(path, set); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if again, _ := os.ReadFile(path); !bytes.Equal(again, got) {
			t.Errorf("a second time: %q became %q", got, again)
		}
	})
}

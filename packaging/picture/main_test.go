package main

import (
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestRuns(t *testing.T) {
	tests := map[string]struct {
		line string
		want []run
	}{
		"plain":             {"a b", []run{{"a b", style{}}}},
		"a colour, and end": {"a \x1b[31mred\x1b[39m b", []run{{"a ", style{}}, {"red", style{color: 2}}, {" b", style{}}}},
		"bold with colour":  {"\x1b[1;33mX\x1b[0mY", []run{{"X", style{4, true}}, {"Y", style{}}}},
		"empty is the end":  {"\x1b[1mX\x1b[mY", []run{{"X", style{0, true}}, {"Y", style{}}}},
		"bright":            {"\x1b[97mX", []run{{"X", style{8, false}}}},
	}
	for name, tt := range tests {
		if got, _ := runs(tt.line, style{}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	if _, s := runs("\x1b[1mX", style{}); !s.bold {
		t.Error("the style does not go on to the next line")
	}
}

// The picture is XML, whatever the terminal shows, and has every word.
func TestPicture(t *testing.T) {
	out := picture(shown("a <b> & \"c\"\n  \x1b[31mlost\x1b[39m\n\n\x1b[1m \x1b[m\n\n"), `a "title"`)
	d := xml.NewDecoder(strings.NewReader(out))
	var text strings.Builder
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if c, ok := tok.(xml.CharData); ok {
			text.Write(c)
		}
	}
	if got := strings.Join(strings.Fields(text.String()), " "); got != `a <b> & "c" lost` {
		t.Errorf("got the text %q", got)
	}
	if !strings.Contains(out, `x="32.8"`) || !strings.Contains(out, `fill="#f87171">lost`) {
		t.Errorf("the second line is not at its column in red: %s", out)
	}
	if strings.Count(out, "<text") != 2 {
		t.Errorf("got %s, want two runs", out)
	}
}

package man

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	tests := map[string]struct {
		in    string
		parts map[string]string
		want  string
		fails string
	}{
		"a part":            {in: "a\n@X@\nb\n", parts: map[string]string{"X": "x\n"}, want: "a\nx\nb\n"},
		"no part":           {in: "alice@example.com\n", want: "alice@example.com\n"},
		"long lines":        {in: strings.Repeat("word ", 16) + "end\n.Bd -literal\n" + strings.Repeat("word ", 20) + "\n.Ed\n", want: strings.TrimRight(strings.Repeat("word ", 15)+"word", " ") + "\nend\n.Bd -literal\n" + strings.Repeat("word ", 20) + "\n.Ed\n"},
		"a missing part":    {in: "@X@\n", fails: "@X@"},
		"a part not wanted": {in: "a\n", parts: map[string]string{"X": "x\n"}, fails: "@X@"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Page([]byte(tt.in), tt.parts)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("got %v, want an error about %s", err, tt.fails)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// What a table says is never a request of roff.
func TestEscapes(t *testing.T) {
	got := List([]Entry{{
		Head: `server "a" -l`, Text: []string{".Sh no heading\n'nor this. \\fBbold\\fR One. Two."}, Terms: [][2]string{{"No", ".Pp"}},
		Example: []string{`.a \n -x`},
	}})
	want := `.Bl -tag -width Ds
.It Ic "\&server ""a"" \-l"
\&.Sh no heading 'nor this. \efBbold\efR One.
Two.
.Pp
.Bl -tag -width Ds -compact
.It Cm "\&No"
\&.Pp
.El
.Pp
Example:
.Bd -literal -offset indent
\&.a \en \-x
.Ed
.El
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

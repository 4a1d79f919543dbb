// Picture turns what a terminal shows into an SVG picture: lines with colours,
// as "tmux capture-pane -e -p" prints them, from standard input to standard
// output. The script record beside it makes the picture of the README.
//
// Every run of text has its length in the picture, so that columns are straight
// whatever font the reader has.
package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	cellWidth  = 8.4 // of a character at fontSize
	lineHeight = 18
	fontSize   = 14
	margin     = 16
	titleBar   = 30
)

// colors are the eight of a terminal.
var colors = [8]string{"#6b7280", "#f87171", "#86efac", "#fcd34d", "#93c5fd", "#d8b4fe", "#67e8f9", "#e5e7eb"}

// style is how a run of text looks.
type style struct {
	color int // 1 to 8, an index into colors and one more; 0: the usual
	bold  bool
}

// run is text that looks the same.
type run struct {
	text string
	style
}

var sgr = regexp.MustCompile("\x1b\\[([0-9;]*)m")

// runs parts a line into runs. The style goes on from line to line.
func runs(line string, s style) ([]run, style) {
	var out []run
	add := func(text string) {
		if text != "" {
			out = append(out, run{text, s})
		}
	}
	at := 0
	for _, m := range sgr.FindAllStringSubmatchIndex(line, -1) {
		add(line[at:m[0]])
		at = m[1]
		s = s.after(line[m[2]:m[3]])
	}
	add(line[at:])
	return out, s
}

// after is the style after a request such as "1;31".
func (s style) after(codes string) style {
	for code := range strings.SplitSeq(codes, ";") {
		n, _ := strconv.Atoi(code) // nothing is 0
		switch {
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 22:
			s.bold = false
		case n >= 30 && n <= 37:
			s.color = n - 29
		case n >= 90 && n <= 97:
			s.color = n - 89
		case n == 39:
			s.color = 0
		}
	}
	return s
}

// picture is the SVG of lines.
func picture(lines []string, title string) string {
	columns := 0
	var rows [][]run
	var s style
	for _, line := range lines {
		var r []run
		r, s = runs(line, s)
		n := 0
		for _, x := range r {
			n += utf8.RuneCountInString(x.text)
		}
		columns = max(columns, n)
		rows = append(rows, r)
	}
	width, height := float64(columns)*cellWidth+2*margin, len(rows)*lineHeight+titleBar+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d" role="img" aria-label="%s">`+"\n",
		width, height, width, height, escape(title))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#111827"/>`+"\n")
	for i, c := range []string{"#f87171", "#fcd34d", "#86efac"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="6" fill="%s"/>`+"\n", margin+6+20*i, titleBar/2+4, c)
	}
	fmt.Fprintf(&b, `<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="%d" fill="#d1d5db">`+"\n", fontSize)
	for i, row := range rows {
		y, column := titleBar+margin+lineHeight*i+fontSize, 0
		for _, r := range row {
			look := r.look()
			// Blanks between columns are not drawn, so that nobody can join them.
			for _, at := range word.FindAllStringIndex(r.text, -1) {
				text := r.text[at[0]:at[1]]
				x := column + utf8.RuneCountInString(r.text[:at[0]])
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" textLength="%.1f" lengthAdjust="spacingAndGlyphs"%s>%s</text>`+"\n",
					margin+float64(x)*cellWidth, y, float64(utf8.RuneCountInString(text))*cellWidth, look, escape(text))
			}
			column += utf8.RuneCountInString(r.text)
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// word is text with single blanks in it.
var word = regexp.MustCompile(`[^ ]+( [^ ]+)*`)

// look are the attributes of the style.
func (s style) look() string {
	color := ""
	switch {
	case s.color > 0:
		color = colors[s.color-1]
	case s.bold:
		color = "#f9fafb"
	default:
		return ""
	}
	look := fmt.Sprintf(` fill="%s"`, color)
	if s.bold {
		look += ` font-weight="bold"`
	}
	return look
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder never fails
	return b.String()
}

// shown are the lines without the empty ones at the end.
func shown(text string) []string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for len(lines) > 0 && strings.TrimSpace(sgr.ReplaceAllString(lines[len(lines)-1], "")) == "" {
		lines = slices.Delete(lines, len(lines)-1, len(lines))
	}
	return lines
}

func main() {
	in, err := io.ReadAll(os.Stdin)
	title := "a terminal"
	if len(os.Args) > 1 {
		title = os.Args[1]
	}
	if err == nil {
		_, err = io.WriteString(os.Stdout, picture(shown(string(in)), title))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}

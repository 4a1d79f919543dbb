package monitor

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// tabWait is how long the master may take to answer a Tab.
const tabWait = 300 * time.Millisecond

// tabState is the line of the last Tab that did not bring it further: the
// same Tab again lists the candidates.
type tabState struct {
	line string
	list bool
}

// Do completes the line for readline. It returns at most one candidate, the
// common part: readline's own selection menu is never opened, for it has
// crashed when output came at the wrong moment.
func (c *console) Do(line []rune, pos int) ([][]rune, int) {
	before := string(line[:pos])
	typed := before[strings.LastIndexAny(before, " \t")+1:]
	found := c.candidates(before)
	if len(found) == 0 {
		c.tab = tabState{}
		return nil, 0
	}
	common := found[0].Word
	for _, f := range found[1:] {
		n := 0
		for n < len(common) && n < len(f.Word) && common[n] == f.Word[n] {
			n++
		}
		common = common[:n]
	}
	common = strings.ToValidUTF8(common, "") // two words may part inside a character
	if len(found) == 1 && !strings.HasSuffix(common, "=") && !strings.HasSuffix(common, ".") {
		common += " "
	}
	if more := len(common) - len(typed); more > 0 && strings.EqualFold(common[:len(typed)], typed) {
		c.tab = tabState{}
		return [][]rune{[]rune(common[len(typed):])}, len([]rune(typed))
	}
	if c.tab.list && c.tab.line == before {
		c.list(found)
	}
	c.tab = tabState{line: before, list: true}
	return nil, 0
}

// candidates asks the master; without an answer in time it knows the names of
// commands alone.
func (c *console) candidates(before string) []Choice {
	c.mu.Lock()
	w := c.wire
	c.mu.Unlock()
	var own []Choice
	first := !strings.ContainsAny(strings.TrimLeft(before, " \t"), " \t")
	if first {
		for _, m := range localCommands {
			name, _, _ := strings.Cut(m[0], " ")
			own = append(own, Choice{name, m[1]})
		}
		own = begin(own, asciiLower(strings.TrimLeft(before, " \t")))
	}
	if name, rest := cutName(before); name == "watch" && !first {
		before = strings.TrimLeft(rest, " \t")
		if period, line, ok := strings.Cut(before, " "); ok {
			if _, ok := parseTime(period); ok {
				before = line
			}
		}
	}
	if w != nil {
		answer := make(chan []Choice, 1)
		go func() { answer <- ask(w, "complete "+before) }()
		select {
		case found := <-answer:
			if found != nil {
				return append(found, own...)
			}
		case <-time.After(tabWait):
		}
	}
	if !first {
		return nil
	}
	return append(begin(c.table.topics(""), asciiLower(strings.TrimLeft(before, " \t"))), own...)
}

// ask sends complete and reads its reply, in whatever format the person has:
// to change that for a moment would change the events in between. It returns
// nil where there is no answer.
func ask(w *wire, line string) []Choice {
	reqs, err := w.send(line)
	if err != nil {
		return nil
	}
	reply, ok := reqs[0].last()
	if !ok {
		return nil
	}
	return choicesOf(reply)
}

// choicesOf reads the reply of complete; nil where it is none.
func choicesOf(reply []ReplyLine) []Choice {
	if len(reply) == 0 || reply[len(reply)-1].Code != 213 {
		return nil
	}
	out := []Choice{}
	for i, l := range reply[:len(reply)-1] {
		if f, ok := choiceOf(l.Data); ok && (i > 0 || strings.HasPrefix(l.Data, "{")) { // the first row is the heads
			out = append(out, f)
		}
	}
	return out
}

// choiceOf reads a row of complete in any format. Words have no blanks.
func choiceOf(row string) (f Choice, ok bool) {
	if strings.HasPrefix(row, "{") {
		var v struct{ Word, Summary string }
		if json.Unmarshal([]byte(row), &v) != nil {
			return f, false
		}
		return Choice{v.Word, v.Summary}, true
	}
	word, summary, ok := strings.Cut(row, "\t")
	if !ok {
		word, summary, ok = strings.Cut(row, " ")
	}
	if summary = strings.TrimSpace(summary); summary == "-" {
		summary = ""
	}
	return Choice{word, summary}, ok
}

// list prints the candidates above the prompt.
func (c *console) list(found []Choice) {
	width := 0
	for _, f := range found {
		width = max(width, cellWidth(f.Word))
	}
	var b strings.Builder
	for _, f := range found {
		line := "  " + f.Word
		if f.Summary != "" {
			line += strings.Repeat(" ", width-cellWidth(f.Word)+2) + f.Summary
		}
		b.WriteString(line + "\n")
	}
	fmt.Fprint(c.out, b.String())
}

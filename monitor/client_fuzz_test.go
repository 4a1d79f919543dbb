package monitor

import (
	"bufio"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzEscape: text from anybody is written without control characters, as UTF-8,
// at bounded length, and what is escaped reads as the same again (S21).
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "-", "alice", `CORP\alice`, "a\tb\r\n", "\x1b]0;owned\x07", "\u009b31m", "\xff\xfe", "‮right to left", "日本語", strings.Repeat("ä", 300)} {
		f.Add(s, uint16(200))
	}
	f.Fuzz(func(t *testing.T, s string, limit uint16) {
		most := int(limit)
		forms := map[string]string{
			"tsv": string(appendTSV(nil, s, most)), "quoted": string(appendQuoted(nil, s)),
			"clean": string(appendClean(nil, s, most)), "json": string(appendJSON(nil, s, most)),
		}
		for form, out := range forms {
			if !utf8.ValidString(out) {
				t.Errorf("%s: %q is not UTF-8", form, out)
			}
			for _, r := range out {
				if r < 0x20 || r >= 0x7f && r <= 0x9f {
					t.Errorf("%s: %q holds the control character %U", form, out, r)
				}
			}
			if form != "quoted" && len(out) > 6*most+16 {
				t.Errorf("%s: %d bytes of at most %d", form, len(out), most)
			}
		}
		if w, err := splitWords(forms["quoted"]); strings.Contains(s, "\x00") {
			if err == nil && w[0].text != s {
				t.Errorf("quoted %q reads as %q", forms["quoted"], w[0].text)
			}
		} else if utf8.ValidString(s) && (err != nil || len(w) != 1 || w[0].text != s) {
			t.Errorf("quoted %q reads as %v, %v, want %q", forms["quoted"], w, err, s)
		}
		var back string
		if err := json.Unmarshal([]byte(forms["json"]), &back); err != nil {
			t.Errorf("json %s: %v", forms["json"], err)
		} else if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && len(s) <= most && back != want {
			t.Errorf("json %s reads as %q, want %q", forms["json"], back, want)
		}
		if len(s) <= most {
			if got := untabbed(forms["tsv"]); got != s {
				t.Errorf("tsv %q reads as %q, want %q", forms["tsv"], got, s)
			}
		}
	})
}

// untabbed reads a value of a tsv row as the protocol says.
func untabbed(s string) string {
	var b []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b = append(b, s[i])
			i++
			continue
		}
		c, n, ok := unescape(s[i:])
		if !ok {
			return "bad escape in " + s
		}
		b = append(b, c)
		i += n
	}
	return string(b)
}

// FuzzArguments: a value of any type is taken or refused with a usage or a
// reason; a time that is taken is one, and the same in seconds.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{"", "1", "0", "90", "1.5m", "2h", "366d", "367d", "1e9", "-1", "00000000000000000000001", "9999999999999999999999999d", ".5", "5.", "٣"} {
		f.Add(s)
	}
	table := NewTable(newFake())
	f.Fuzz(func(t *testing.T, v string) {
		for _, cmd := range table.Commands() {
			for i := range cmd.Args {
				err := cmd.Args[i].check(cmd, v)
				if err != nil && (err.Code != 501 && err.Code != 553 || err.Text == "" || len(err.Text) > 4*len(v)+1000) {
					t.Errorf("%s %s=%q: got %d, %q", cmd.Name, cmd.Args[i].Name, v, err.Code, err.Text)
				}
				if err == nil && cmd.Args[i].Type == TypeServer && cmd.Args[i].Kind != Flag && len(cmd.Args[i].Values) == 0 && strings.Trim(v, "0123456789") != "" {
					t.Errorf("%s: %q passes for a server", cmd.Name, v)
				}
			}
		}
		if d, ok := parseTime(v); ok && (d < 0 || d > 1<<62) {
			t.Errorf("%q is the time %v", v, d)
		} else if ok && isDigits(v) && len(v) < 9 {
			if same, _ := parseTime(v + "s"); same != d {
				t.Errorf("%q: got %v, with a unit %v", v, d, same)
			}
		}
	})
}

// FuzzComplete: whatever is before the cursor, what is offered continues it,
// can be typed as it is, and is not too much.
func FuzzComplete(f *testing.F) {
	for _, s := range append([]string{"", "us", "user ", "user a", "help logoff", "complete complete user a", "servers link=", "events on types=", "offlineserver 1 no"}, fuzzLines...) {
		f.Add(s, byte(2))
	}
	table := NewTable(newFake())
	f.Fuzz(func(t *testing.T, line string, level byte) {
		l := Level(level % 3)
		last := line[strings.LastIndexAny(line, " \t")+1:]
		list := table.candidates(line, l)
		if len(list) > maxChoice+1 {
			t.Errorf("%d candidates", len(list))
		}
		for _, c := range list {
			if len(c.Word) < len(last) || !strings.EqualFold(c.Word[:len(last)], last) {
				t.Errorf("%q does not continue %q", c.Word, last)
			}
			_, value, ok := strings.Cut(c.Word, "=")
			if !ok {
				value = c.Word
			}
			if value != "" && Quote(value) != value {
				t.Errorf("%q cannot be typed as it is", c.Word)
			}
		}
		if words := strings.Fields(line); len(words) > 0 && len(list) > 0 && len(words[0]) < len(strings.TrimLeft(line, " \t")) {
			if cmd, ok := table.Lookup(words[0]); ok && cmd.Level > l {
				t.Errorf("%q is completed for %s", line, l)
			}
		}
	})
}

// FuzzMaster: a terminal whose master sends anything gets its answers or learns
// that the connection is lost, at once; no command waits for ever.
func FuzzMaster(f *testing.F) {
	f.Add([]byte("220 ok proto=1 uptime=12\n212 ok verbose=on\n650 12 20:40:02 alice logged in\n210-#id\tname\n210-1\tsat1\n210 ok count=1 seq=9\n"))
	f.Add([]byte("110 10 percent\n110 20 percent\n200 ok\n331 more\n200 ok\n200 ok\n200 twice\n"))
	f.Add([]byte("421 the master is going down\n"))
	f.Add([]byte("210-never ends\n210-never\n"))
	f.Add([]byte(strings.Repeat("x", maxReply+10) + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		lost := make(chan struct{})
		events := 0
		w := &wire{cl: &Client{nc: ours, r: bufio.NewReaderSize(ours, maxReply+2)},
			event: func(l ReplyLine) { events++; eventNumber(l) }, lost: func(*wire) { close(lost) }}
		go func() {
			in := bufio.NewReader(theirs)
			for range 3 {
				if _, err := in.ReadString('\n'); err != nil {
					break
				}
			}
			theirs.Write(data)
			theirs.Close()
		}()
		w.start()
		reqs, err := w.send("hello", "verbose on", "servers")
		if err != nil {
			t.Fatal(err)
		}
		end := time.AfterFunc(mostWait, func() { panic("a command still waits for a master that is gone") })
		answers := 0
		for _, r := range reqs {
			lines, ok := r.last()
			for _, l := range lines {
				if l.Event() {
					t.Errorf("the event %q answers a command", l)
				}
			}
			if ok {
				answers++
				choicesOf(lines)
			} else if answers == len(reqs) {
				t.Error("an answer after the end")
			}
		}
		<-lost
		end.Stop()
		if lines := strings.Count(string(data), "\n"); events+answers > lines {
			t.Errorf("%d events and %d answers of %d lines", events, answers, lines)
		}
		if _, err := w.send("servers"); err == nil {
			t.Error("a command is sent over a lost connection")
		}
	})
}

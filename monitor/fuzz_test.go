package monitor

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

var fuzzLines = []string{
	"", "servers", `createroamcluster east desc="East wing"`, `a"b'c'd`, `CORP\alice`, `"\x41\n"`, `"\x00"`, "user -- nowait", "# comment",
	"ping \x1b", "complete user \"", "events on types=* since=0", "\xff", strings.Repeat("a ", 300), `x='`, "logoffuser alice timeout=1d nowait",
}

// FuzzLine: whatever a line holds, the parser gives words that are valid, and
// words that Quote writes come back.
func FuzzLine(f *testing.F) {
	for _, l := range fuzzLines {
		f.Add(l)
	}
	table := NewTable(newFake())
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") || checkChars([]byte(line)) != nil {
			return
		}
		words, err := splitWords(line)
		if err != nil {
			if keywords[err.Code] == "" || err.Text == "" {
				t.Errorf("error %v", err)
			}
			return
		}
		again := ""
		for _, w := range words {
			if !utf8.ValidString(w.text) || strings.Contains(w.text, "\x00") {
				t.Errorf("word %q of %q", w.text, line)
			}
			again += " " + Quote(w.text)
		}
		back, err := splitWords(again)
		if err != nil || len(back) != len(words) {
			t.Fatalf("%q quoted as %q: %v", line, again, err)
		}
		for i := range words {
			if back[i].text != words[i].text {
				t.Errorf("got %q, want %q", back[i].text, words[i].text)
			}
		}
		for _, cmd := range table.Commands() {
			cmd.bind(words)
		}
		table.candidates(line, Admin)
	})
}

// FuzzDispatch: any bytes give well-formed replies and a living connection.
func FuzzDispatch(f *testing.F) {
	for _, l := range append(fuzzLines, everyCommand...) {
		f.Add([]byte(l+"\n"), byte(0))
		f.Add([]byte(l), byte(1))
	}
	f.Add([]byte("verbose on\nservers\nformat json\nusers\nquit\nservers\n"), byte(0))
	f.Fuzz(func(t *testing.T, input []byte, how byte) {
		if len(input) > 1<<16 || bytes.Contains(bytes.ToLower(input), []byte("user")) && bytes.Contains(input, []byte("time")) {
			return // nothing that takes its time
		}
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		fake := newFake()
		fake.boot = 0
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, l, Config{Table: NewTable(fake), Log: zerolog.Nop(), Peer: func(net.Conn) (Caller, error) { return Caller{}, nil }})
		}()
		a, b := net.Pipe()
		l.conns <- b
		go func() {
			a.Write(input)
			io.WriteString(a, "\nevents off\nping alive-after-all\nquit\n")
		}()
		a.SetReadDeadline(time.Now().Add(mostWait))
		s := newStrict(t, a)
		alive, ended := false, false
		for {
			raw, err := s.r.ReadString('\n')
			if err != nil {
				if raw != "" {
					t.Errorf("broken off: %q", raw)
				}
				break
			}
			_, _, data, err := strictLine(raw)
			if err != nil {
				t.Fatal(err)
			}
			alive = alive || strings.Contains(data, "alive-after-all")
			ended = ended || strings.HasPrefix(raw, "221 ")
		}
		if !alive && !ended {
			t.Error("the connection is dead")
		}
		a.Close()
		cancel()
		<-done
	})
}

// FuzzReply: a client gets through whatever a master sends.
func FuzzReply(f *testing.F) {
	for _, l := range []string{"200 ok", "210-#id\tname", "650 event seq=1", "", "210", "999 x", "110-x", "20a x", "220 \xff", "650 12 20:40:02 alice", `650 {"seq":9}`, "651 lost from=1 to=2", "651 99999999999999999999 x"} {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		l, err := ParseReplyLine(line)
		if err != nil {
			return
		}
		if l.String() != line {
			t.Errorf("got %q, want %q", l.String(), line)
		}
		if l.End() && (l.Event() || l.Preliminary() || !l.Last) {
			t.Errorf("%q ends a reply", line)
		}
		exitCode(l.Code)
		field(l.Data, "seq")
		if _, text := eventNumber(l); !strings.HasSuffix(l.Data, text) {
			t.Errorf("%q is shown as %q", l.Data, text)
		}
		choicesOf([]ReplyLine{l, {Code: 213, Last: true}})
	})
}

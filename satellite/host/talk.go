package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxAnswer is the longest line that somebody may type, in bytes.
const maxAnswer = 4 << 10

// errNoAnswer: whoever was asked has gone: Ctrl-D, or the end of the input.
var errNoAnswer = errors.New("there was no answer")

// errTooLong: a line that nobody types.
var errTooLong = fmt.Errorf("the line is longer than %d bytes", maxAnswer)

// talk is somebody at a terminal, or a script at the other end of a pipe. It is
// for one goroutine.
type talk struct {
	out      io.Writer
	in       io.Reader
	terminal *os.File // nil: nobody sees what is typed

	reader  sync.Once
	want    chan struct{} // a line is wanted
	answers chan answer
	pending bool // a line was wanted that nobody waits for any more
}

type answer struct {
	text string
	err  error
}

// newTalk asks on out and reads answers from in.
func newTalk(in io.Reader, out io.Writer) *talk {
	t := &talk{in: in, out: out, want: make(chan struct{}), answers: make(chan answer)}
	if f, ok := in.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			t.terminal = f
		}
	}
	return t
}

func (t *talk) say(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// line is the next line of the input. Where ctx ends first the line that is then
// being typed is the answer to the next question.
func (t *talk) line(ctx context.Context) (string, error) {
	t.reader.Do(func() { go t.read() })
	if !t.pending {
		t.want <- struct{}{}
	}
	t.pending = true
	select {
	case a := <-t.answers:
		t.pending = false
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// read reads a line whenever one is wanted. It ends with the program: a terminal
// cannot be told to stop reading.
func (t *talk) read() {
	r := bufio.NewReaderSize(t.in, maxAnswer)
	for range t.want {
		text, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			t.answers <- answer{err: errTooLong}
			continue
		case len(text) > 0: // also a last one without an end
			err = nil
		case errors.Is(err, io.EOF):
			err = errNoAnswer
		}
		t.answers <- answer{strings.TrimRight(string(text), "\r\n"), err}
	}
}

// ask asks a question with an answer that Enter alone stands for, again where the
// answer is no text.
func (t *talk) ask(ctx context.Context, question, otherwise string) (string, error) {
	if otherwise != "" {
		question += " [" + otherwise + "]"
	}
	for {
		fmt.Fprint(t.out, question+": ")
		text, err := t.line(ctx)
		t.echoless(err)
		switch text = strings.TrimSpace(text); {
		case errors.Is(err, errTooLong), err == nil && !utf8.ValidString(text):
			t.say("That is no text, or more than %d bytes of it.", maxAnswer)
			continue
		case text == "":
			text = otherwise
		}
		return text, err
	}
}

// confirm asks until the answer is yes or no; Enter alone is no.
func (t *talk) confirm(ctx context.Context, question string) (bool, error) {
	for {
		fmt.Fprint(t.out, question+" [y/N] ")
		text, err := t.line(ctx)
		t.echoless(err)
		if err != nil {
			return false, err
		}
		if yes, ok := Yes(text); ok {
			return yes, nil
		}
		t.say("Type y or n.")
	}
}

// secret asks for what must not be seen on the screen.
func (t *talk) secret(ctx context.Context, question string) (string, error) {
	show, err := t.hide()
	if err != nil {
		return "", err
	}
	defer show()
	fmt.Fprint(t.out, question+": ")
	text, err := t.line(ctx)
	fmt.Fprintln(t.out) // the one that was typed is not seen
	return text, err
}

// hide keeps what is typed from the screen until show is called.
func (t *talk) hide() (show func(), err error) {
	if t.terminal == nil {
		return func() {}, nil
	}
	fd := int(t.terminal.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	hidden := *before
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// echoless ends the line of a question whose answer no terminal has shown.
func (t *talk) echoless(err error) {
	if t.terminal == nil || err != nil {
		fmt.Fprintln(t.out)
	}
}

// How long something may take without a word, and how often there is one then.
const (
	patience  = 2 * time.Second
	stillWait = 5 * time.Second
)

// during runs f and says what is being waited for when it takes long.
func during[V any](t *talk, what string, f func() (V, error)) (V, error) {
	type result struct {
		v   V
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	began := time.Now()
	for wait := patience; ; wait = stillWait {
		select {
		case r := <-done:
			return r.v, r.err
		case <-time.After(wait):
			t.say("%s (%d s) ...", what, int(time.Since(began).Round(time.Second).Seconds()))
		}
	}
}

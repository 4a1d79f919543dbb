package monitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// batch executes lines one after the other: the monitor without a person.
type batch struct {
	o        *options
	cl       *Client
	in       io.Reader // the lines
	stdin    io.Reader // where a secret is asked for
	out, err io.Writer

	lines  *bufio.Scanner
	w      *bufio.Writer
	events bool // a line has switched them on
}

// errLate tells that -t has passed.
var errLate = errors.New("no reply in time")

// run executes all lines and returns the exit code.
func (b *batch) run(ctx context.Context) int {
	defer b.cl.Close()
	defer context.AfterFunc(ctx, func() { b.cl.Close() })()
	b.w = bufio.NewWriterSize(b.out, 1<<16)
	defer b.w.Flush()
	if status := b.begin(ctx); status != 0 {
		return status
	}
	b.lines = bufio.NewScanner(b.in)
	b.lines.Buffer(nil, 1<<20)
	first := 0
	for b.lines.Scan() {
		line := b.lines.Text()
		name, _ := cutName(line)
		if name == "" {
			continue
		}
		if name == "exit" {
			line = "quit"
		}
		code, err := b.one(line)
		if err != nil {
			return b.broken(ctx, err, exitLost)
		}
		b.note(line, code)
		if status := exitCode(code); status != 0 {
			if first == 0 {
				first = status
			}
			if !b.o.keepGoing || code == 421 {
				return first
			}
		}
		if code == 221 {
			return first
		}
	}
	if err := b.lines.Err(); err != nil {
		fmt.Fprintf(b.err, "verdecmon: reading the commands: %v\n", err)
		return exitUsage
	}
	if b.events {
		return b.watch(ctx, first)
	}
	return first
}

// begin sends the lines of setup; their replies are not shown.
func (b *batch) begin(ctx context.Context) int {
	setup := b.o.setup()
	if err := b.cl.Send(setup...); err != nil {
		return b.broken(ctx, err, exitUnreachable)
	}
	for range setup {
		b.deadline()
		for {
			l, err := b.cl.Read()
			if err != nil {
				return b.broken(ctx, err, exitUnreachable)
			}
			if !l.End() {
				continue
			}
			if status := exitCode(l.Code); status != 0 {
				b.fail(l)
				return status
			}
			break
		}
	}
	return 0
}

func (b *batch) deadline() {
	if b.o.timeout > 0 {
		b.cl.nc.SetReadDeadline(time.Now().Add(time.Duration(b.o.timeout * float64(time.Second))))
	}
}

// one sends a line, prints its reply and returns its code.
func (b *batch) one(line string) (int, error) {
	if err := b.cl.Send(line); err != nil {
		return 0, err
	}
	b.deadline()
	for {
		l, err := b.cl.Read()
		if err != nil {
			return 0, err
		}
		b.print(l)
		if l.Code == 331 && l.Last {
			secret, err := b.secret()
			if err != nil {
				return 0, err
			}
			if err := b.cl.Send(secret); err != nil {
				return 0, err
			}
			b.deadline()
			continue
		}
		if l.End() {
			b.w.Flush()
			return l.Code, nil
		}
	}
}

// print shows a line where it belongs.
func (b *batch) print(l ReplyLine) {
	switch {
	case b.o.quiet:
	case b.o.codes:
		b.w.WriteString(l.String() + "\n")
	case l.Event():
		b.w.WriteString(l.Data + "\n")
	case l.Preliminary() || l.End() && l.Code >= 400:
		b.w.Flush()
		b.fail(l)
	case l.End() && l.Code == 201: // what was made is told there and nowhere else: a token, a number
		b.w.WriteString(l.Data + "\n")
	case l.End() && (b.o.format != "text" || l.Data == "" || l.Code == 331):
	default:
		b.w.WriteString(l.Data + "\n")
	}
	if l.Event() {
		b.w.Flush()
	}
}

func (b *batch) fail(l ReplyLine) {
	if !b.o.quiet {
		fmt.Fprintf(b.err, "verdecmon: %s\n", l)
	}
}

// note remembers whether events are on.
func (b *batch) note(line string, code int) {
	words, err := splitWords(line)
	if err != nil || code/100 != 2 || asciiLower(words[0].text) != "events" {
		return
	}
	for _, w := range words[1:] {
		switch w.text {
		case "on":
			b.events = true
		case "off":
			b.events = false
		}
	}
}

// watch prints events until Ctrl-C or -t.
func (b *batch) watch(ctx context.Context, status int) int {
	b.w.Flush()
	b.cl.nc.SetReadDeadline(time.Time{})
	b.deadline()
	for {
		l, err := b.cl.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return status
		}
		if err != nil {
			return b.broken(ctx, err, exitLost)
		}
		b.print(l)
		if l.End() { // 421
			b.w.Flush()
			return exitCode(l.Code)
		}
	}
}

// broken says why there will be no reply and returns the exit code; status
// where the connection was lost.
func (b *batch) broken(ctx context.Context, err error, status int) int {
	b.w.Flush()
	text := "the connection was lost before the reply: look whether it was done"
	switch {
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, os.ErrDeadlineExceeded):
		text, status = fmt.Sprintf("%v (%g s); what was started goes on", errLate, b.o.timeout), exitNotNow
	case errors.Is(err, errNoReply):
		text, status = fmt.Sprintf("%s: %v", b.o.socket, err), exitUnreachable
	case errors.Is(err, errSecret):
		text, status = err.Error(), exitUsage
	case status == exitUnreachable:
		text = "cannot reach the cluster master at " + b.o.socket + ": it closed the connection"
	}
	if !b.o.quiet {
		fmt.Fprintf(b.err, "verdecmon: %s\n", text)
	}
	return status
}

var errSecret = errors.New("there is no secret: the input has ended")

// secret takes the next line of the batch or, for a single command on a
// terminal, asks twice without echo.
func (b *batch) secret() (string, error) {
	if f, ok := b.stdin.(*os.File); ok && b.in != b.stdin && isTerminal(f) {
		var typed [2]string
		for i, prompt := range []string{"Secret: ", "Again: "} {
			fmt.Fprint(b.err, prompt)
			raw, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(b.err)
			if err != nil {
				return "", errSecret
			}
			typed[i] = string(raw)
		}
		if typed[0] != typed[1] {
			return "", errors.New("the two are not the same")
		}
		return typed[0], nil
	}
	if !b.lines.Scan() {
		return "", errSecret
	}
	return b.lines.Text(), nil
}
